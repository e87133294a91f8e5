"""Writes the folder of a report: each file whole or not at all, and nothing that is not the report's own is touched."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from hirise_imb.errors import UserError
from hirise_imb.files import make_folder, write_text, write_whole
from hirise_imb.progress import say
from hirise_imb.reporting import figures, overview, searches, summary, tables
from hirise_imb.reporting.arms import SELECTIONS
from hirise_imb.reporting.baseline import Baseline
from hirise_imb.reporting.results import BASELINE, Results
from hirise_imb.reporting.style import METRIC_NAMES, score, signed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(results: Results, folder: Path) -> Path:
    """Write all files of a study's report into `folder`; return the page's path.

    Files of an earlier report that this one does not have (a strategy left out) are removed; `summary.json`, written
    last, lists the report's files.
    """
    kept = {"per_class.csv": tables.per_class(results)}
    drawn = {"figures/f1_per_class.png": overview.f1_per_class(results)}
    searched = overview.best_so_far(results)
    if searched is not None:
        kept["figures/best_so_far.csv"] = searches.table(results)
        drawn["figures/best_so_far.png"] = searched
    return _write("report", results, summary.of_study(results), kept, drawn, folder)


def write_baseline(baseline: Baseline, folder: Path) -> Path:
    """Write all files of the reference run's report, as `write_report` does."""
    results = baseline.results
    kept = {"published.csv": baseline.table()}
    drawn = {
        "figures/published.png": figures.published(baseline),
        "figures/per_class.png": figures.scores_per_class(results, BASELINE),
    }
    return _write("baseline", results, baseline.to_dict(), kept, drawn, folder)


def _write(
    template: str,
    results: Results,
    shown: dict[str, Any],
    kept: dict[str, pd.DataFrame],
    drawn: dict[str, Figure],
    folder: Path,
) -> Path:
    """Write a report: its own tables and figures, and what all reports have; `shown` is what its pages show."""
    make_folder(folder)
    earlier = _listed(folder)
    files = _Files(folder)
    for name, table in kept.items():
        files.csv(name, table)
    _write_tables(results, files)
    pictures = _write_figures(drawn | _figures(results), files)
    _write_pages(template, results, shown, files, pictures)
    files.text("study.toml", results.study_toml)
    files.text("environment.json", _json(results.environment))
    names = sorted({*files.names, "summary.json"})
    files.text("summary.json", _json(shown | {"files": names}))
    if left := earlier - set(names):
        say(f"{len(left)} files of the earlier report, of strategies left out now, are removed from {folder}.")
    for name in left:
        (folder / name).unlink(missing_ok=True)
    return folder / "report.html"


class _Files:
    """Writes files below a folder and remembers their names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: list[str] = []

    def write(self, name: str, write: Callable[[Path], Any]) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, write)
        self.names.append(name)
        return path

    def csv(self, name: str, table: pd.DataFrame) -> None:
        self.write(name, partial(table.to_csv, index=False, lineterminator="\n"))

    def text(self, name: str, text: str) -> None:
        self.write(name, lambda path: write_text(path, text))


def _listed(folder: Path) -> set[str]:
    """The files an earlier report in this folder says it wrote; only names below the folder count.

    Raises:
        UserError: there is a summary that no report wrote.
    """
    summary = folder / "summary.json"
    if not summary.exists():
        return set()
    try:
        names = json.loads(summary.read_text(encoding="utf-8"))["files"]
        return {name for name in names if (folder / name).resolve().is_relative_to(folder.resolve())}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{summary} is no summary of a report: move the folder {folder} away and run again.") from error


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _write_tables(results: Results, files: _Files) -> None:
    for arm in results.arms:
        files.csv(f"confusion/{arm.name}.csv", tables.confusion(results, arm.name))
        if arm.has_epochs:
            files.csv(f"figures/curves-{arm.name}.csv", tables.curves(arm))
        files.write(f"predictions/{arm.name}.parquet", tables.predictions(results, arm).to_parquet)


def _figures(results: Results) -> dict[str, Figure]:
    """The figures that all reports have, by file name."""
    drawn = {"figures/class_distribution.png": figures.class_distribution(results)}
    for arm in results.arms:
        drawn[f"confusion/{arm.name}.png"] = figures.confusion(results, arm.name)
        if arm.has_epochs:
            drawn[f"figures/curves-{arm.name}.png"] = figures.curves(arm)
    return drawn


def _write_figures(drawn: dict[str, Figure], files: _Files) -> dict[str, str]:
    """Write figures; return each as a data address for the page, by file name."""
    addresses = {}
    for name, figure in drawn.items():
        # Without matplotlib's version in it.
        path = files.write(name, partial(figure.savefig, metadata={"Software": None}))
        addresses[name] = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    return addresses


def _write_pages(
    template: str, results: Results, shown: dict[str, Any], files: _Files, pictures: dict[str, str]
) -> None:
    environment = Environment(
        loader=PackageLoader("hirise_imb.reporting"),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"score": score, "signed": signed, "cell": _cell, "breakable": _breakable}
    arms = {arm["name"]: arm for arm in shown["arms"]}
    view = shown | {
        "baseline": BASELINE,
        "arms": [arms[name] for name in shown["order"]],
        "selections": SELECTIONS,
        "names": METRIC_NAMES,
        "pictures": pictures,
        "study_toml": results.study_toml,
        "environment": results.environment,
    }
    for kind in ("html", "md"):
        files.text(f"report.{kind}", environment.get_template(f"{template}.{kind}.jinja").render(view) + "\n")


def _breakable(name: str) -> Markup:
    """A name that may go on in the next line after an underscore, where there is little room."""
    return Markup("_<wbr>").join(escape(part) for part in name.split("_"))


def _cell(text: object) -> str:
    """Text that stays in its cell of a Markdown table, and is nothing but text there."""
    return " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
