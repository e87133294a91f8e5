"""Writes `reports/<study>/`: each file whole or not at all, and nothing that is not the report's own is touched."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from hirise_imb.errors import UserError
from hirise_imb.files import make_folder, write_text, write_whole
from hirise_imb.progress import say
from hirise_imb.reporting import figures
from hirise_imb.reporting.results import BASELINE, Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = {
    "macro_f1": "macro F1",
    "macro_f1_rare": "macro F1, rare classes",
    "weighted_f1": "weighted F1",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "kappa": "kappa",
    "log_loss": "log loss (nats)",
    "calibration_error": "calibration error",
}


def write_report(results: Results, folder: Path) -> Path:
    """Write all files of the report into `folder`; return the page's path.

    Files of an earlier report that this one does not have (a strategy left out) are removed; `summary.json`, written
    last, lists the report's files.
    """
    make_folder(folder)
    earlier = _listed(folder)
    files = _Files(folder)
    _write_tables(results, files)
    pictures = _write_figures(results, files)
    summary = results.to_dict()
    _write_pages(results, summary, files, pictures)
    files.text("study.toml", results.study_toml)
    files.text("environment.json", _json(results.environment))
    names = sorted({*files.names, "summary.json"})
    files.text("summary.json", _json(summary | {"files": names}))
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
    files.csv("per_class.csv", results.per_class_table())
    for arm in results.arms:
        files.csv(f"confusion/{arm.name}.csv", results.confusion_table(arm.name))
        files.csv(f"figures/curves-{arm.name}.csv", results.curves_table(arm))
        files.write(f"predictions/{arm.name}.parquet", results.predictions_table(arm).to_parquet)


def _write_figures(results: Results, files: _Files) -> dict[str, str]:
    """Write every figure; return each as a data address for the page, by file name."""
    drawn: dict[str, Figure] = {
        "figures/class_distribution.png": figures.class_distribution(results),
        "figures/f1_per_class.png": figures.f1_per_class(results),
    }
    for arm in results.arms:
        drawn[f"confusion/{arm.name}.png"] = figures.confusion(results, arm.name)
        drawn[f"figures/curves-{arm.name}.png"] = figures.curves(arm)
    addresses = {}
    for name, figure in drawn.items():
        # Without matplotlib's version in it.
        path = files.write(name, partial(figure.savefig, metadata={"Software": None}))
        addresses[name] = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    return addresses


def _write_pages(results: Results, summary: dict[str, Any], files: _Files, pictures: dict[str, str]) -> None:
    environment = Environment(
        loader=PackageLoader("hirise_imb.reporting"),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    view = summary | {
        "baseline": BASELINE,
        "metrics": METRICS,
        "pictures": pictures,
        "study_toml": results.study_toml,
        "environment": results.environment,
    }
    for name in ("report.html", "report.md"):
        files.text(name, environment.get_template(f"{name}.jinja").render(view) + "\n")
