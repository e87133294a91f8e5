"""Rebuilds and compares reports from their folders; nothing is fitted, and nothing heavy is imported."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hirise_imb.config import check_known, check_name
from hirise_imb.data import DATASETS, HIRISE
from hirise_imb.data.manifest import read_manifest
from hirise_imb.data.resolve import resolve_data
from hirise_imb.pipeline.compare import merge_reports
from hirise_imb.reporting.baseline import Baseline
from hirise_imb.reporting.html.index import INDEX, is_index, write_index
from hirise_imb.reporting.html.thumbnails import make_thumbnails
from hirise_imb.reporting.read import made_from, read_report, read_summary
from hirise_imb.reporting.results import Results
from hirise_imb.reporting.write import write_baseline, write_report
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import ensure_folder


def compare_reports(folders: Sequence[Path], name: str | None, out: Path) -> tuple[Results, Path]:
    """Compares reports; returns the merged results and the path of the page.

    Args:
        folders: folders of the reports; the first one has the baseline that all arms are compared with.
        name: name of the comparison; None joins the names of the folders.
        out: folder that contains `reports/`.

    Raises:
        UserError: the reports can't be compared, or not under this name.
    """
    name = "-vs-".join(folder.resolve().name for folder in folders) if name is None else name
    check_name(name)
    results = merge_reports(folders, name)
    page = write_report(results, ensure_folder(out / "reports") / name)
    write_index(out / "reports")
    return results, page


def rebuild_report(folder: Path, *, thumbnails: bool = False, data: str | None = None) -> Path:
    """Rebuilds a report from the files in its folder that it was made from; returns the path of the page.

    Those files are left untouched, so that an interruption can't destroy the report. If there is a list of reports
    above the folder, it is updated.

    Args:
        folder: folder of the report.
        thumbnails: whether the page shows landmarks.
        data: where the landmarks are; None stands for the data of the study.

    Raises:
        UserError: the folder does not contain a complete report, or the landmarks are missing.
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
        page = write_report(results, folder, _read_thumbnails(results, data) if thumbnails else None, leave)
    whole = folder.resolve()
    for above in (whole.parent, whole.parent.parent):  # a reference run's report may lie in that of its study
        if is_index(above / INDEX):
            write_index(above)
    return page


def _read_thumbnails(results: Results, data: str | None) -> Mapping[str, Any]:
    definition = tomllib.loads(results.study_toml)
    first = definition if not results.origins else next(iter(definition["reports"].values()))
    # Reports of earlier versions name no data set: theirs was the only one.
    spec = DATASETS[check_known("data set", str(first.get("dataset", HIRISE.name)), DATASETS)]
    manifest = read_manifest(resolve_data(str(first["data"]) if data is None else data, spec), spec)
    missing = sorted(set(results.test["image"]) - set(manifest.table["image"]))
    if missing:
        raise UserError(
            f"{manifest.folder} lacks {len(missing)} of the {len(results.test)} test landmarks (first: {missing[0]}): "
            "name the data of this report with --data."
        )
    return make_thumbnails(results, manifest)
