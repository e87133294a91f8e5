"""Writes the folder of a report: each file whole or not at all, and nothing that is not the report's own is touched."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from hirise_imb.reporting import tables
from hirise_imb.reporting.baseline import Baseline
from hirise_imb.reporting.figures import gallery, style
from hirise_imb.reporting.figures.gallery import Draw
from hirise_imb.reporting.html.render import render
from hirise_imb.reporting.html.view import BaselineView, Extras, StudyView, baseline_view, study_view
from hirise_imb.reporting.results import Results
from hirise_imb.reporting.summary.content import of_study
from hirise_imb.reporting.summary.records import Content
from hirise_imb.reporting.summary.schema import find_fault
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import ensure_folder, write_atomically, write_text
from hirise_imb.utils.progress import say


def write_report(
    results: Results, folder: Path, thumbnails: Mapping[str, Any] | None = None, leave: Collection[str] = ()
) -> Path:
    """Write all files of the report of a study or a comparison into `folder`; return the page's path.

    Files of an earlier report that this one does not have (a strategy left out) are removed; `summary.json`, written
    last, lists the report's files.

    Args:
        results: what is shown.
        folder: where to.
        thumbnails: of `reporting.thumbnails`, for the page.
        leave: files of the folder that the results were read from. They stay as they are: a report that is written
            again, and interrupted, can still be read.

    Raises:
        UserError: the folder holds another kind of report.
    """
    kept = {"per_class.csv": tables.per_class(results)}
    files = _Files(folder, leave)
    return _write(results, of_study(results), kept, gallery.of_study(results), thumbnails, files)


def write_baseline(baseline: Baseline, folder: Path, leave: Collection[str] = ()) -> Path:
    """Write all files of the reference run's report, as `write_report` does."""
    kept = {"published.csv": baseline.table()}
    drawn = gallery.of_baseline(baseline)
    return _write(baseline.results, baseline.to_dict(), kept, drawn, None, _Files(folder, leave))


def _write(
    results: Results,
    shown: Content,
    kept: dict[str, pd.DataFrame],
    drawn: Mapping[str, Draw],
    thumbnails: Mapping[str, Any] | None,
    files: _Files,
) -> Path:
    """Write a report: its own tables and figures, and what all reports have; `shown` is what its pages show."""
    if (fault := find_fault({**shown, "files": {}})) is not None:
        raise ValueError(f"the summary breaks its schema: {fault}")
    folder = ensure_folder(files.folder)
    earlier = _earlier(folder, shown["kind"])
    for name, table in kept.items():
        files.csv(name, table)
    for arm in results.arms:
        files.write(f"predictions/{arm.name}.parquet", tables.predictions(results, arm).to_parquet)
    pictures = {name: _write_drawing(name, draw, files) for name, draw in drawn.items()}
    _write_pages(results, shown, files, pictures, thumbnails)
    files.text("study.toml", results.study_toml)
    files.text("environment.json", _json(results.environment))
    files.text("summary.json", _json({**shown, "files": dict(sorted(files.digests.items()))}))
    if left := earlier - set(files.digests):
        say(f"{len(left)} files of the earlier report, of strategies left out now, are removed from {folder}.")
    for name in left:
        (folder / name).unlink(missing_ok=True)
    return folder / "report.html"


class _Files:
    """Writes files below a folder and remembers their names and digests (SHA-256)."""

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
        self.write(name, partial(table.to_csv, index=False, lineterminator="\n"))

    def text(self, name: str, text: str) -> None:
        self.write(name, lambda path: write_text(path, text))


def _earlier(folder: Path, kind: str) -> set[str]:
    """The files an earlier report in this folder says it wrote; only names below the folder count.

    Raises:
        UserError: there is a summary that no report wrote, or one of another kind of report.
    """
    path = folder / "summary.json"
    if not path.exists():
        return set()
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        names = {str(name) for name in [*there["files"], path.name]}
        found = there.get("kind", kind)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no summary of a report: move the folder {folder} away and run again.") from error
    if found != kind:
        raise UserError(f"{folder} holds the report of a {found}: give this {kind} another name.")
    return {name for name in names if (folder / name).resolve().is_relative_to(folder.resolve())}


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _write_drawing(name: str, draw: Draw, files: _Files) -> str:
    """Write a figure as PNG and SVG, with its data next to it; return it as a data address for the page."""
    drawing = draw()
    files.csv(f"{name}.csv", drawing.data)
    style.fix_layout(drawing.figure)
    files.write(f"{name}.png", partial(style.write_png, drawing.figure))
    svg = files.write(f"{name}.svg", partial(style.write_svg, drawing.figure))
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _write_pages(
    results: Results,
    shown: Content,
    files: _Files,
    pictures: dict[str, str],
    thumbnails: Mapping[str, Any] | None,
) -> None:
    extras = Extras(
        pictures=pictures,
        thumbnails=thumbnails,
        seconds={arm.name: arm.seconds for arm in results.arms},
        study_toml=results.study_toml,
        environment=_json(results.environment),
    )
    if shown["kind"] == "baseline":
        template: str = "baseline"
        view: BaselineView | StudyView = baseline_view(shown, extras)
    else:
        template, view = "report", study_view(shown, extras)
    for suffix in ("html", "md"):
        files.text(f"report.{suffix}", render(f"{template}.{suffix}.jinja", view))
