"""Commands on landmarks: data fetch, data import, data draw, data check, data add."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hirise_imb.cli.parsing import Subparsers, add_command
from hirise_imb.cli.tables import make_console

if TYPE_CHECKING:
    from hirise_imb.data.dataset import DataCard

_DATA = """\
Landmarks come from one of three places: drawn by this program (`synthetic`),
downloaded (`hirise`, 0.9 GB), or a zip, folder or annotation table in one of the
layouts that docs/data.md describes.
"""

_IMPORT = """\
Unpack and check a zip, or check a folder or annotation table. The official
archive becomes `hirise`, as if it had been downloaded; anything else is used by
its own path (--data PATH). Zips are unpacked into the cache folder.
"""

_ADD = """\
Make a new data set of the landmarks of DATA and of those that were labelled on
the review page. A landmark of a known source goes to the split of its source,
one of a new source to the training split. Landmarks of sources in the test split
are left out: it stays closed.
"""


_DRAW = """\
Draw other synthetic landmarks than those of the demo, in the official layout:
new images to try `predict` and `review` on, with labels to check them. Sources
and landmarks follow from the seed; seed 0 is the sample of the demo.
"""


def add_commands(subparsers: Subparsers) -> None:
    """Adds the commands of this module."""
    data = subparsers.add_parser("data", help="fetch, import, draw, check or add landmarks", description=_DATA)
    actions = data.add_subparsers(required=True, metavar="ACTION")
    add_command(actions, "fetch", _fetch, "download the official archive (0.9 GB, Zenodo record 4002935, CC BY 4.0)")
    summary = "unpack and check an archive, or check a folder"
    import_ = add_command(actions, "import", _import, summary, _IMPORT)
    import_.add_argument("path", type=Path, metavar="PATH", help="zip, folder or annotation table")
    draw = add_command(actions, "draw", _draw, "draw synthetic landmarks, other than those of the demo", _DRAW)
    draw.add_argument("--seed", type=int, default=1, help="random seed, 1 or more (default: 1)")
    draw.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder")
    check = add_command(actions, "check", _check, "check landmarks, print classes by split and what tests can detect")
    check.add_argument("path", metavar="PATH", help="zip, folder or annotation table, `synthetic` or `hirise`")
    add = add_command(actions, "add", _add, "make a new data set with landmarks from the review page", _ADD)
    add.add_argument("labels", nargs="+", type=Path, metavar="LABELS.csv", help="file that the review page saved")
    add.add_argument("--data", required=True, help="data set that the landmarks are added to")
    add.add_argument("--images", nargs="+", required=True, metavar="PATH", help="images, folders, zips or tables")
    add.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder of the new data set")
    for parser in (import_, check, add):
        parser.add_argument("--dataset", help="data set of landmarks in the official layout (default: hirise-v3_2)")
    for parser in (import_, check):
        parser.add_argument("--images", default="", metavar="DIR", help="folder of the images of an annotation table")


def _card(options: argparse.Namespace) -> DataCard:
    from hirise_imb.config import check_known
    from hirise_imb.data import DATASETS, HIRISE

    return HIRISE if options.dataset is None else DATASETS[check_known("data set", options.dataset, DATASETS)]


def _fetch(_: argparse.Namespace) -> int:
    from hirise_imb.data import HIRISE
    from hirise_imb.data.resolve import ARCHIVE, fetch_archive

    fetch_archive()
    return _check_and_print(ARCHIVE, HIRISE)


def _import(options: argparse.Namespace) -> int:
    from hirise_imb.data.resolve import import_landmarks

    card = _card(options)
    return _check_and_print(import_landmarks(options.path), card, options.images)


def _draw(options: argparse.Namespace) -> int:
    from hirise_imb.data.resolve import draw_landmarks

    folder = draw_landmarks(options.out, options.seed)
    print(f"Landmarks: {folder}")
    return 0


def _check(options: argparse.Namespace) -> int:
    return _check_and_print(options.path, _card(options), options.images)


def _add(options: argparse.Namespace) -> int:
    from hirise_imb.data.additions import describe_additions, plan_additions, read_labels, write_additions
    from hirise_imb.data.load import load_data
    from hirise_imb.review.images import read_images

    base = load_data(options.data, _card(options))
    additions = plan_additions(base, read_labels(options.labels, base.spec.classes))
    contents = read_images([image.id for image in additions.images], options.images)
    write_additions(base, additions, contents, options.out)
    for sentence in describe_additions(additions, base.spec.classes):
        print(sentence)
    print(f"Data: {options.out}. Run a study on it with --data {options.out}")
    return 0


def _check_and_print(name: str, card: DataCard, images: str = "") -> int:
    """Decodes every image, and prints the classes by split and the differences that tests of them can detect.

    Args:
        name: value of --data for these landmarks.
        card: data card of landmarks in the official layout.
        images: folder of the images of an annotation table; empty for the default.
    """
    from rich.table import Table

    from hirise_imb.cli.plan_tables import print_detectable, print_sources
    from hirise_imb.config import EVALUATIONS
    from hirise_imb.data.dataset import SPLITS
    from hirise_imb.data.duplicates import find_duplicates
    from hirise_imb.data.images import check_images
    from hirise_imb.data.load import load_data
    from hirise_imb.metrics.detectable import N_FITS
    from hirise_imb.pipeline.plan import detectable_difference

    manifest = load_data(name, card, images)
    spec = manifest.spec
    pixel_digests = check_images([manifest.path(image) for image in manifest.table["image"]], spec.image_shape)
    duplicates = find_duplicates(manifest, pixel_digests)
    summary = manifest.summary().set_index(["split", "class"])
    console = make_console()
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
    option = f"--data {name}{f' --images {images}' if images else ''}"
    if duplicates:
        console.print(duplicates.describe(), soft_wrap=True)
    console.print(
        f"No {'other ' if duplicates else ''}mistakes in {name}. Run a study on it with {option}", soft_wrap=True
    )
    return 0
