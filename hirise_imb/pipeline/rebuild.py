"""Rebuilds and compares reports from their folders, without fitting anything or importing TensorFlow."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

from hirise_imb.config import check_known, check_name
from hirise_imb.data import DATASETS
from hirise_imb.data.load import load_data
from hirise_imb.data.manifest import Manifest
from hirise_imb.pipeline.compare import merge_reports, name_folder
from hirise_imb.pipeline.landmark_pictures import PictureMaker, check_pictures, choose_pictures
from hirise_imb.reporting.baseline import Baseline
from hirise_imb.reporting.html.index import INDEX, is_index, write_index
from hirise_imb.reporting.read import list_inputs, read_report, read_summary
from hirise_imb.reporting.report_files import lock_report
from hirise_imb.reporting.results import Results
from hirise_imb.reporting.write import write_baseline, write_report
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import ensure_folder
from hirise_imb.utils.progress import show_stage

WRITING = "Writing the report"
"""What the progress shows while a report is written."""


def compare_reports(folders: Sequence[Path], name: str | None, out: Path) -> tuple[Results, Path]:
    """Compares reports; returns the merged results and the path of the page.

    Args:
        folders: folders of the reports; all arms are compared with the baseline of the first.
        name: name of the comparison; None joins the names of the folders.
        out: folder that contains `reports/`.

    Raises:
        UserError: the reports can't be compared, or the name is invalid or taken by another kind of report.
    """
    name = "-vs-".join(map(name_folder, folders)) if name is None else name
    check_name(name)
    results = merge_reports(folders, name)
    with show_stage(WRITING):
        page = write_report(results, ensure_folder(out / "reports") / name)
        write_index(out / "reports")
    return results, page


def rebuild_report(folder: Path, *, pictures: str = "auto", data: str | None = None) -> Path:
    """Rebuilds a report from the files in its folder; returns the path of the page.

    The files that the report is read from are left untouched, so that an interruption can't destroy it. A list of
    reports in a folder above is updated.

    Args:
        folder: folder of the report.
        pictures: whether the page shows landmarks: `auto` (in the report of a study, if its data is there and the
            licence of the images is known), `yes` or `no`.
        data: where the landmarks are; None means the data of the study.

    Raises:
        UserError: the folder does not contain a complete report, or the landmarks are missing.
    """
    check_pictures(pictures)
    is_baseline = read_summary(folder)["kind"] == "baseline"
    if is_baseline and pictures == "yes":
        raise UserError(f"{folder} is the report of a reference run, which shows no landmarks: leave out --pictures.")
    # A run that writes the same report at once would leave a summary of the one with the predictions of the other.
    with lock_report(ensure_folder(folder)):
        results, leave = read_report(folder), list_inputs(folder)
        landmarks = None if is_baseline else _choose_pictures(results, pictures, data)
        with show_stage(WRITING):
            if is_baseline:
                page = write_baseline(Baseline(results), folder, leave)
            else:
                page = write_report(results, folder, landmarks, leave)
    # The reports of a reference run and of the given split may be inside that of a study, so the list may be two
    # folders up.
    for parent in folder.resolve().parents[:2]:
        if is_index(parent / INDEX):
            write_index(parent)
    return page


def _choose_pictures(results: Results, pictures: str, data: str | None) -> PictureMaker | None:
    definition = tomllib.loads(results.study_toml)
    if results.origins:
        if pictures == "auto":
            return None  # the pages of the reports that are compared show their landmarks
        # A comparison lists the definitions of its reports; the landmarks are those of the first.
        definition = next(iter(definition["reports"].values()))
    place, dataset = data or str(definition.get("data", "")), str(definition.get("dataset", ""))
    if pictures == "auto" and (not place or dataset not in DATASETS):
        return None

    def load() -> Manifest:
        card = DATASETS[check_known("data set", dataset, DATASETS)]
        # The folder of images belongs to the table of the study; definitions in old reports name none.
        return load_data(place, card, str(definition.get("images", "")) if data is None else "")

    return choose_pictures(pictures, place, dataset, load)
