"""The page that lists all reports of a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from hirise_imb.reporting.formatting import p_digits, plural, score, signed
from hirise_imb.reporting.html.parts import Cell, Heading, Row, Table, breakable, columns, number, signed_interval
from hirise_imb.reporting.html.render import render
from hirise_imb.reporting.read import read_summary
from hirise_imb.reporting.summary.records import ArmRecord, Summary
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import write_atomically, write_text

INDEX = "index.html"
_MARK = "<title>Reports · hirise_imb</title>".encode()
"""Text that identifies a list of reports, so that no other page is overwritten."""

_KINDS = {"study": "study", "comparison": "comparison", "baseline": "reference run"}


@dataclass(frozen=True)
class Entry:
    """A report that can be read."""

    place: str
    """Path of the folder of the report, relative to the list."""
    summary: Summary

    @property
    def kind(self) -> str:
        """Description of the kind of report."""
        kind = _KINDS[self.summary["kind"]]
        return kind if self.summary["outer_folds"] is None else f"{kind}, nested cross-validation"

    @property
    def link(self) -> str:
        """Address of the page, relative to the list."""
        return f"{quote(self.place)}/report.html"


@dataclass(frozen=True)
class Broken:
    """A report that can't be read, and why."""

    place: str
    fault: str


@dataclass(frozen=True)
class IndexView:
    """The content of the list."""

    counts: str
    table: Table | None
    entries: tuple[Entry, ...]
    broken: tuple[Broken, ...]


def write_index(reports: Path) -> Path:
    """Writes a page that lists the reports in a folder with their main scores; returns its path.

    A report that can't be read is listed with the reason.
    """
    # The reports of a reference run and of the given split may be inside that of a study.
    folders = sorted({path.parent for pattern in ("*", "*/*") for path in reports.glob(f"{pattern}/summary.json")})
    entries: list[Entry] = []
    broken: list[Broken] = []
    for folder in folders:
        place = folder.relative_to(reports).as_posix()
        try:
            entries.append(Entry(place, read_summary(folder)))
        except UserError as error:
            broken.append(Broken(place, str(error).replace(str(folder), place)))
    counts = plural(len(entries), "report") + (f", and {len(broken)} that can't be read" if broken else "")
    view = IndexView(counts, _table(entries) if entries else None, tuple(entries), tuple(broken))
    page = reports / INDEX
    write_atomically(page, lambda path: write_text(path, render("index.html.jinja", view)))
    return page


def is_index(path: Path) -> bool:
    """Checks whether a file is a list of reports written by this module."""
    try:
        return _MARK in path.read_bytes()
    except OSError:
        return False


def _table(entries: list[Entry]) -> Table:
    head = columns(
        Heading("report", "text"),
        Heading("kind", "text"),
        *(Heading(title) for title in ("landmarks", "sources", "arms", "baseline, macro F1")),
        Heading("choice", "text", notes=("of the report",)),
        Heading("its score"),
        Heading("from its control", notes=("95 % interval",)),
        Heading("adjusted p", ascending=True),
        Heading("from the baseline", notes=("95 % interval",)),
        Heading("adjusted p", ascending=True),
    )
    return Table("Reports", "sort sticky loose", (head,), tuple(_row(entry) for entry in entries))


def _row(entry: Entry) -> Row:
    summary = entry.summary
    arms = {arm["name"]: arm for arm in summary["arms"]}
    base, landmarks = arms[summary["reference"]]["scores"][summary["metric"]["key"]]["mean"], sum(summary["support"])
    cells = (
        Cell(entry.kind, css="name wrap"),
        Cell(f"{landmarks:,}", landmarks),
        number(summary["inference"]["sources"]),
        number(len(arms)),
        Cell(score(base), base),
        *_choice_cells(
            arms.get((summary["verdict"]["choice"] if "verdict" in summary else None) or ""), summary["metric"]["key"]
        ),
    )
    return Row(breakable(entry.place), cells, link=entry.link)


def _choice_cells(choice: ArmRecord | None, key: str) -> list[Cell]:
    """Returns the cells of the arm that a report advises and its differences; dashes without one."""
    if choice is None:
        return [Cell(css="name"), Cell(), Cell(), Cell(), Cell(), Cell()]
    mean = choice["scores"][key]["mean"]
    cells = [Cell(breakable(choice["name"]), css="name"), Cell(score(mean), mean)]
    for against in (choice["vs_control"], choice["vs_baseline"]):
        if against is None or against["arm"] == choice["name"]:
            cells += [Cell(), Cell()]
            continue
        gain, interval, test = against["scores"][key], against["interval"], against["test"]
        notes = (signed_interval(interval),) if interval else ()
        cells.append(Cell(signed(gain), gain, notes=notes))
        cells.append(Cell(p_digits(test["p_holm"]), test["p_holm"]) if test else Cell())
    return cells
