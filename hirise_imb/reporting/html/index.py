"""The page that lists all reports of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hirise_imb.reporting.html.render import rendered
from hirise_imb.reporting.read import read_summary
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import write_atomically, write_text

INDEX = "index.html"
_MARK = "<title>Reports · hirise_imb</title>".encode()
"""What no page of somebody else holds."""


def write_index(reports: Path) -> Path:
    """List the reports below a folder with their headline figures; return the path of the list.

    A report that can't be read is listed with the reason.
    """
    folders = sorted({path.parent for pattern in ("*", "*/*") for path in reports.glob(f"{pattern}/summary.json")})
    entries = [_entry(reports, folder) for folder in folders]
    page = reports / INDEX
    write_atomically(page, lambda path: write_text(path, rendered("index.html.jinja", {"entries": entries})))
    return page


def is_index(path: Path) -> bool:
    """Whether there is a list of reports, and no page of somebody else."""
    try:
        return _MARK in path.read_bytes()
    except OSError:
        return False


def _entry(reports: Path, folder: Path) -> dict[str, Any]:
    place = folder.relative_to(reports).as_posix()
    try:
        summary = read_summary(folder)
    except UserError as error:
        return {"place": place, "fault": str(error).replace(str(folder), place)}
    arms = {arm["name"]: arm for arm in summary["arms"]}
    return {
        "place": place,
        "fault": None,
        "kind": summary["kind"],
        "headline": summary["headline"],
        "setting": summary["setting"],
        "landmarks": sum(summary["support"]),
        "sources": summary["inference"]["sources"],
        "arms": len(arms),
        "reference": arms[summary["reference"]],
        "chosen": arms.get(summary["chosen"]),
    }
