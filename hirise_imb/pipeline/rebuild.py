"""Reports from reports: written again, or compared. Nothing is fitted, and nothing heavy is imported."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hirise_imb.config import check_name
from hirise_imb.data import manifest, resolve
from hirise_imb.pipeline.compare import compare_reports
from hirise_imb.reporting.baseline import Baseline
from hirise_imb.reporting.html.index import INDEX, is_index, write_index
from hirise_imb.reporting.html.thumbnails import thumbnails as pictures_of
from hirise_imb.reporting.read import made_from, read_report, read_summary
from hirise_imb.reporting.results import Results
from hirise_imb.reporting.write import write_baseline, write_report
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import ensure_folder


def compare(folders: Sequence[Path], name: str | None, out: Path) -> tuple[Results, Path]:
    """Compare reports; return what is compared and the path of the page.

    Args:
        folders: of the reports, that of the baseline first.
        name: of the comparison; None joins the names of the folders.
        out: folder that holds `reports/`.

    Raises:
        UserError: the reports can't be compared, or not under this name.
    """
    chosen = "-vs-".join(folder.resolve().name for folder in folders) if name is None else name
    check_name(chosen)
    results = compare_reports(folders, chosen)
    page = write_report(results, ensure_folder(out / "reports") / chosen)
    write_index(out / "reports")
    return results, page


def rewrite(folder: Path, *, thumbnails: bool = False, data: str | None = None) -> Path:
    """Write a report again from what its folder keeps, which stays as it is; return the path of the page.

    The list of reports that it is in is written again too, where there is one.

    Args:
        folder: of the report.
        thumbnails: whether the page shows landmarks.
        data: where they are; None is where the study found them.

    Raises:
        UserError: the folder holds no whole report, or the landmarks are not there.
    """
    summary = read_summary(folder)
    results, leave = read_report(folder), made_from(summary)
    if summary["kind"] == "baseline":
        if thumbnails:
            raise UserError(
                f"{folder} is the report of a reference run, which shows no landmarks: leave --thumbnails out."
            )
        page = write_baseline(Baseline(results), folder, leave)
    else:
        page = write_report(results, folder, _thumbnails(results, data) if thumbnails else None, leave)
    whole = folder.resolve()
    for above in (whole.parent, whole.parent.parent):  # a reference run's report may lie in that of its study
        if is_index(above / INDEX):
            write_index(above)
    return page


def _thumbnails(results: Results, data: str | None) -> Mapping[str, Any]:
    definition = tomllib.loads(results.study_toml)
    first = definition if not results.origins else next(iter(definition["reports"].values()))
    images = manifest.read_manifest(resolve.resolve_data(str(first["data"]) if data is None else data))
    missing = sorted(set(results.test["image"]) - set(images.table["image"]))
    if missing:
        raise UserError(
            f"{images.folder} lacks {len(missing)} of the {len(results.test)} test landmarks (first: {missing[0]}): "
            "name the data of this report with --data."
        )
    return pictures_of(results, images.path)
