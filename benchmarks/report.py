"""What a topic found, as plain data, and how it is shown on a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.runner import Figures


@dataclass(frozen=True)
class Table:
    """Rows of texts."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Target:
    """A bound and what was measured against it; `met` is computed from the two."""

    what: str
    value: float
    limit: float
    unit: str = ""
    least: bool = False
    """Whether the bound is a lower one."""
    digits: int = 2

    @property
    def met(self) -> bool:
        """Whether the value keeps to the bound; NaN does not."""
        return self.value >= self.limit if self.least else self.value <= self.limit

    def line(self) -> str:
        """Such as `MISSED: 8 heads take: 2.71 x one head, wanted at most 2.5 x one head`."""
        bound = f"{'at least' if self.least else 'at most'} {self.limit:g}{self.unit}"
        return (
            f"{'met' if self.met else 'MISSED'}: {self.what}: {self.value:.{self.digits}f}{self.unit}, wanted {bound}"
        )


@dataclass(frozen=True)
class Report:
    """One topic."""

    title: str
    text: str
    """What was measured, in a few sentences."""
    tables: Sequence[Table]
    targets: Sequence[Target]
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Every measurement, by case."""

    def plain(self) -> dict[str, Any]:
        """The same for JSON."""
        return {
            "title": self.title,
            "text": self.text,
            "tables": [vars(table) for table in self.tables],
            "targets": [vars(target) | {"met": target.met, "line": target.line()} for target in self.targets],
            "figures": dict(self.figures),
        }


def values(figures: Sequence[Figures], key: str) -> list[float]:
    """One number of each repeat."""
    return [float(one[key]) for one in figures]


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Of measurements made side by side, repeat by repeat."""
    return [a / b for a, b in zip(over, under, strict=True)]


def middle(numbers: Sequence[float]) -> float:
    """The median."""
    return median(numbers)


def spread(numbers: Sequence[float], digits: int = 2) -> str:
    """Median, and least and greatest where there are several: `1.52 (1.49-1.60)`."""
    low, mid, high = (f"{number:,.{digits}f}" for number in (min(numbers), median(numbers), max(numbers)))
    return mid if len(numbers) == 1 else f"{mid} ({low}-{high})"


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print a topic; `report` is as from `Report.plain`."""
    console.print(f"\n[bold]{report['title']}[/bold]\n{report['text']}", highlight=False)
    for table in report["tables"]:
        shown = RichTable(title=table["title"] or None, title_justify="left", box=box.SIMPLE_HEAD)
        for number, column in enumerate(table["columns"]):
            shown.add_column(column, justify="right" if number else "left", no_wrap=number == 0)
        for row in table["rows"]:
            shown.add_row(*row)
        console.print(shown)
    for target in report["targets"]:
        style = "green" if target["met"] else "red"
        console.print(target["line"], style=style, highlight=False)


def markdown(machine: Mapping[str, Any], reports: Mapping[str, Mapping[str, Any]]) -> str:
    """All topics as one page."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m benchmarks`. Every measurement ran in a process of its own, contenders by turns; given "
        "are the median and, in brackets, least and greatest of the repeats. Times are of this machine: what carries "
        "over are the ratios.",
        "",
        *(f"- {key}: {_words(value)}" for key, value in machine.items()),
    ]
    for report in reports.values():
        lines += ["", f"## {report['title']}", "", report["text"]]
        for table in report["tables"]:
            lines += ["", f"**{table['title']}**"] if table["title"] else []
            lines += ["", _row(table["columns"]), _row(["---", *["---:"] * (len(table["columns"]) - 1)])]
            lines += [_row(row) for row in table["rows"]]
        lines += ["", *(f"- {target['line']}" for target in report["targets"])]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)
