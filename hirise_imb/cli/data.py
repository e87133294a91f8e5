"""Commands on landmarks: data fetch, data import, data check."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hirise_imb.cli.parsing import Subparsers, add_command

if TYPE_CHECKING:
    from hirise_imb.data.dataset import DatasetSpec

_DATA = """\
Landmarks come from one of three places: drawn by this program (`synthetic`),
downloaded (`hirise`, 0.9 GB), or a zip or folder in the official layout.
"""

_IMPORT = """\
Unpack and check a zip, or check a folder, in the official layout. The official
archive becomes `hirise`, as if it had been downloaded; anything else is used by
its own path (--data PATH). Zips are unpacked into the cache folder.
"""


def add_commands(subparsers: Subparsers) -> None:
    """Adds the commands of this module."""
    data = subparsers.add_parser("data", help="fetch, import or check landmarks", description=_DATA)
    actions = data.add_subparsers(required=True, metavar="ACTION")
    add_command(actions, "fetch", _fetch, "download the official archive (0.9 GB, Zenodo record 4002935, CC BY 4.0)")
    summary = "unpack and check an archive, or check a folder"
    import_ = add_command(actions, "import", _import, summary, _IMPORT)
    import_.add_argument("path", type=Path, metavar="ZIP_OR_DIR")
    check = add_command(actions, "check", _check, "check landmarks, print classes by split and what tests can detect")
    check.add_argument("path", metavar="PATH", help="zip or folder in the official layout, `synthetic` or `hirise`")
    for parser in (import_, check):
        parser.add_argument("--dataset", help="data set that the landmarks belong to (default: hirise-v3_2)")


def _spec(options: argparse.Namespace) -> DatasetSpec:
    from hirise_imb.config import check_known
    from hirise_imb.data import DATASETS, HIRISE

    return HIRISE if options.dataset is None else DATASETS[check_known("data set", options.dataset, DATASETS)]


def _fetch(_: argparse.Namespace) -> int:
    from hirise_imb.data import HIRISE
    from hirise_imb.data.resolve import ARCHIVE, fetch_archive

    return _check_and_print(fetch_archive(), ARCHIVE, HIRISE)


def _import(options: argparse.Namespace) -> int:
    from hirise_imb.data.resolve import import_landmarks

    spec = _spec(options)
    return _check_and_print(*import_landmarks(options.path, spec), spec)


def _check(options: argparse.Namespace) -> int:
    from hirise_imb.data.resolve import resolve_data

    spec = _spec(options)
    return _check_and_print(resolve_data(options.path, spec), options.path, spec)


def _check_and_print(folder: Path, name: str, spec: DatasetSpec) -> int:
    """Decodes every image, and prints the classes by split and the differences that tests of them can detect.

    Args:
        folder: data folder.
        name: value of --data for these landmarks.
        spec: data set that they belong to.
    """
    from rich.console import Console
    from rich.table import Table

    from hirise_imb.cli.plan_tables import print_detectable, print_sources
    from hirise_imb.config import EVALUATIONS
    from hirise_imb.data.dataset import SPLITS
    from hirise_imb.data.images import check_images
    from hirise_imb.data.manifest import read_manifest
    from hirise_imb.metrics.detectable import N_FITS
    from hirise_imb.pipeline.plan import detectable_difference

    manifest = read_manifest(folder, spec)
    check_images([manifest.path(image) for image in manifest.table["image"]], spec.image_shape)
    summary = manifest.summary().set_index(["split", "class"])
    console = Console()
    for split in SPLITS:
        table = Table(title=split, title_justify="left")
        table.add_column("class", min_width=13)
        columns = ("sources", "landmarks", "images", "rows")
        for column in columns:
            table.add_column(column, justify="right")
        for label in spec.classes:
            table.add_row(label, *(str(summary.loc[(split, label), column]) for column in columns))
        console.print(table)
        if absent := [label for label in spec.classes if not summary.loc[(split, label), "landmarks"]]:
            console.print(f"No {split} landmark of: {', '.join(absent)}; macro F1 counts such a class as 0.")
    print_sources(manifest, console)
    print_detectable({design: detectable_difference(manifest, design) for design in EVALUATIONS}, N_FITS, console)
    console.print(f"No mistakes in {folder}. Run a study on it with --data {name}", highlight=False, soft_wrap=True)
    return 0
