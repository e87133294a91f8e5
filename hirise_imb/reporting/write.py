"""Writes the folder of a report.

Each file is written completely or not at all, and no file is touched that does not belong to the report.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from hirise_imb.reporting import selection, tables
from hirise_imb.reporting.baseline import Baseline
from hirise_imb.reporting.figures import gallery, style, svg
from hirise_imb.reporting.figures.gallery import Draw
from hirise_imb.reporting.html.pictures import LandmarkPictures
from hirise_imb.reporting.html.render import render
from hirise_imb.reporting.html.view import BaselineView, Extras, StudyView, baseline_view, study_view
from hirise_imb.reporting.report_files import lock_report
from hirise_imb.reporting.results import GIVEN_SPLIT_FOLDER, Results
from hirise_imb.reporting.summary.content import of_study
from hirise_imb.reporting.summary.records import Content
from hirise_imb.reporting.summary.schema import find_fault
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import ensure_folder, remove_leftovers, write_atomically, write_text
from hirise_imb.utils.progress import say
from hirise_imb.utils.strict_json import parse_json

_FORMULA = tuple("=+-@\t\r")
"""First characters of what spreadsheets take for a formula."""


def write_report(
    results: Results,
    folder: Path,
    make_pictures: Callable[[Results], LandmarkPictures | None] | None = None,
    leave: Collection[str] = (),
) -> Path:
    """Writes all files of the report of a study or a comparison; returns the path of the page.

    Files of an earlier report that this one does not have, such as those of a strategy that was left out, are removed.
    `summary.json` is written last, so that it never lists a file that is not there. Meanwhile the folder is locked, so
    that two processes do not mix their reports, and readers wait.

    The results of the given split that a nested cross-validation also has get a complete report of their own in a
    folder inside this one. It is written first, so that the report that links to it never lacks it.

    Args:
        results: results that the report shows.
        folder: folder of the report.
        make_pictures: returns the pictures of landmarks for a page; None for pages without any.
        leave: names of the files that the results were read from. They are not written, so that a report can still be
            read if rebuilding it is interrupted.

    Raises:
        UserError: the folder contains another kind of report.
    """
    content = of_study(results)
    # Before anything is written: an image may be missing.
    landmarks = make_pictures(results) if make_pictures else None
    data = {"per_class.csv": tables.per_class(results), "selection.csv": selection.table(results)}
    if results.outer_folds is not None:
        data["outer_folds.csv"] = results.outer_folds
    with lock_report(ensure_folder(folder)):
        if results.given_split is not None:
            # An earlier report of another kind is refused before anything is written.
            _list_earlier_files(folder, content["kind"])
            prefix = f"{GIVEN_SPLIT_FOLDER}/"
            inner_leave = {name.removeprefix(prefix) for name in leave if name.startswith(prefix)}
            write_report(results.given_split, folder / GIVEN_SPLIT_FOLDER, make_pictures, inner_leave)
        files = _Files(folder, leave)
        page = _write(results, content, data, gallery.of_study(results), landmarks, files)
        if results.given_split is None:
            _remove_report(folder / GIVEN_SPLIT_FOLDER)
    return page


def write_baseline(baseline: Baseline, folder: Path, leave: Collection[str] = ()) -> Path:
    """Writes all files of the report of a reference run, as `write_report` does for a study."""
    data = {"published.csv": baseline.table()}
    figures = gallery.of_baseline(baseline)
    content = baseline.to_dict()
    with lock_report(ensure_folder(folder)):
        return _write(baseline.results, content, data, figures, None, _Files(folder, leave))


def _write(
    results: Results,
    content: Content,
    data: dict[str, pd.DataFrame],
    figures: Mapping[str, Draw],
    landmarks: LandmarkPictures | None,
    files: _Files,
) -> Path:
    """Writes a report: the tables and figures of its kind, and the files that all reports have."""
    if (fault := find_fault({**content, "files": {}})) is not None:
        raise ValueError(f"the summary violates its schema: {fault}")
    folder = files.folder
    earlier = _list_earlier_files(folder, content["kind"])
    for place in (folder, *(folder / name for name in ("predictions", "confusion", "figures"))):
        remove_leftovers(place)
    for name, table in data.items():
        files.csv(name, table)
    for arm in results.arms:
        files.write(f"predictions/{arm.name}.parquet", partial(tables.write_predictions, results, arm))
    with style.figure_settings():
        pictures = {name: _write_drawing(name, draw, files) for name, draw in figures.items()}
    _write_pages(results, content, files, pictures, landmarks)
    files.text("study.toml", results.study_toml)
    files.text("environment.json", _json(results.environment))
    files.text("summary.json", _json({**content, "files": dict(sorted(files.digests.items()))}))
    if obsolete := earlier - set(files.digests):
        say(f"Removing {len(obsolete)} files of the earlier report that this report does not have from {folder}.")
    for name in obsolete:
        (folder / name).unlink(missing_ok=True)
    return folder / "report.html"


class _Files:
    """Writes files in a folder and records their names and digests (SHA-256).

    The digests become part of the summary; reading a report checks them, so that edited or mixed files are noticed.
    """

    def __init__(self, folder: Path, leave: Collection[str]) -> None:
        self.folder = folder
        self.digests: dict[str, str] = {}
        self._leave = leave

    def write(self, name: str, write: Callable[[Path], Any]) -> bytes:
        path = self.folder / name
        if name not in self._leave:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, write)
        content = path.read_bytes()
        self.digests[name] = hashlib.sha256(content).hexdigest()
        return content

    def csv(self, name: str, table: pd.DataFrame) -> None:
        self.write(name, partial(_defuse(table).to_csv, index=False, lineterminator="\n"))

    def text(self, name: str, text: str) -> None:
        self.write(name, lambda path: write_text(path, text))


def _defuse(table: pd.DataFrame) -> pd.DataFrame:
    """Returns a table in which no name would be computed by a spreadsheet: those like formulas begin with a quote."""
    table = table.rename(columns=_quote_formula)
    names = table.select_dtypes(["str", "object"]).columns
    return table.assign(**{name: table[name].map(_quote_formula) for name in names})


def _quote_formula(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in _FORMULA else cell


def _list_earlier_files(folder: Path, kind: str) -> set[str]:
    """Lists the files of an earlier report in this folder.

    Names that point outside the folder are ignored, because the files will be removed.

    Raises:
        UserError: the folder has a summary that is not of a report, or a report of another kind.
    """
    path = folder / "summary.json"
    if not path.exists():
        return set()
    try:
        summary = parse_json(path.read_bytes())
        names = {str(name) for name in [*summary["files"], path.name]}
        earlier_kind = summary.get("kind", kind)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not the summary of a report: move the folder {folder} away and run again."
        ) from error
    if earlier_kind != kind:
        raise UserError(f"{folder} contains the report of a {earlier_kind}: give this {kind} another name.")
    return {name for name in names if (folder / name).resolve().is_relative_to(folder.resolve())}


def _remove_report(folder: Path) -> None:
    """Removes the report of an earlier run from a folder, if there is one, and folders that are empty then."""
    if not (folder / "summary.json").is_file():
        return
    say(f"Removing the report in {folder}, which this run does not have.")
    for name in sorted(_list_earlier_files(folder, "study"), key=lambda name: name == "summary.json"):
        (folder / name).unlink(missing_ok=True)
    for lock in folder.glob(".*.lock"):
        lock.unlink()
    for place in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        if not any(place.iterdir()):
            place.rmdir()
    if not any(folder.iterdir()):
        folder.rmdir()


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _write_drawing(name: str, draw: Draw, files: _Files) -> Markup:
    """Writes a figure as PNG and SVG and its data as CSV; returns the SVG as a part of the page."""
    drawing = draw()
    files.csv(f"{name}.csv", drawing.data)
    if drawing.has_png:
        files.write(f"{name}.png", partial(style.write_png, drawing.figure))
    wide = svg.embed(files.write(f"{name}.svg", partial(svg.write_svg, drawing.figure)).decode(), name)
    if drawing.narrow is None:
        return wide
    narrow = svg.embed(svg.draw_svg(drawing.narrow), f"{name}-narrow")
    return Markup('<div class="wide-only">{}</div><div class="narrow-only">{}</div>').format(wide, narrow)


def _write_pages(
    results: Results,
    content: Content,
    files: _Files,
    pictures: dict[str, Markup],
    landmarks: LandmarkPictures | None,
) -> None:
    curves = {arm: f"figures/curves-{owner}" for arm, owner in tables.share_curves(results.arms).items()}
    searches = {arm.name: f"figures/hyperparameters-{arm.name}" for arm in results.arms}
    extras = Extras(
        pictures=pictures,
        arm_pictures={
            "curves": curves,
            "hyperparameters": {arm: name for arm, name in searches.items() if name in pictures},
        },
        landmarks=landmarks,
        seconds={arm.name: arm.seconds for arm in results.arms},
        study_toml=results.study_toml,
        environment=_json(results.environment),
    )
    if content["kind"] == "baseline":
        template: str = "baseline"
        view: BaselineView | StudyView = baseline_view(content, extras)
    else:
        template, view = "report", study_view(content, extras)
    for suffix in ("html", "md"):
        files.text(f"report.{suffix}", render(f"{template}.{suffix}.jinja", view))
