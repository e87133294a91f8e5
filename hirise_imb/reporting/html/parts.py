"""The parts of pages: tables of cells and confusion matrices, with all text and colour classes.

Templates lay out these parts and compute nothing.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

from hirise_imb.reporting.formatting import MISSING, count, p_digits, percent, points, score, signed
from hirise_imb.reporting.summary.records import ArmRecord
from hirise_imb.reporting.summary.values import FreeSpreadRecord, IntervalRecord, SpreadRecord

_SHARES = (0.02, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.92)
"""Limits between the colours s1 to s9 of the stylesheet for shares of a class; a share of 0 has no colour.

The steps are narrower near 0 and 1, so that few errors stay visible.
"""

_CHANGES = (0.05, 0.1, 0.2, 0.35)
"""Limits between the colours p1 to p5 (better) or m1 to m5 (worse) for differences of shares."""

AnySpread = SpreadRecord | FreeSpreadRecord


def breakable(name: str) -> Markup:
    """Returns a name with optional line breaks after underscores and slashes, for narrow columns."""
    return Markup(str(escape(name)).replace("_", "_<wbr>").replace("/", "/<wbr>"))


@dataclass(frozen=True)
class Difference:
    """A difference from another arm, bold and coloured if a test or an interval distinguishes it from chance."""

    text: str
    css: str

    @classmethod
    def of(cls, value: float, clear: bool = False) -> Difference:
        """Returns the text and colour class of a difference."""
        return cls(signed(value), "diff" if not clear else "diff up" if value > 0 else "diff down")

    @classmethod
    def with_interval(cls, value: float, interval: IntervalRecord | None) -> Difference:
        """Returns the text and colour class of a difference, which is emphasised if its interval excludes 0."""
        return cls.of(value, interval is not None and (interval["low"] > 0 or interval["high"] < 0))


@dataclass(frozen=True)
class Span:
    """The positions of zero, an interval and its mean on a bar whose scale runs from 0 to 100."""

    zero: str
    low: str
    high: str
    mean: str

    @classmethod
    def of(cls, interval: IntervalRecord | None, mean: float, scale: tuple[float, float]) -> Span | None:
        """Returns the positions on a scale; None without an interval or if the ends of the scale are equal."""
        low, high = scale
        if interval is None or high <= low:
            return None
        places = [f"{100 * (value - low) / (high - low):.1f}" for value in (0, interval["low"], interval["high"], mean)]
        return cls(*places)


def common_scale(intervals: Iterable[IntervalRecord | None]) -> tuple[float, float]:
    """Returns the scale that all bars of a column share, which includes 0, so that lengths can be compared."""
    there = [interval for interval in intervals if interval is not None]
    return min([0.0, *(one["low"] for one in there)]), max([0.0, *(one["high"] for one in there)])


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str | Markup = MISSING
    value: float | None = None
    """Value that the column is sorted by; None is sorted last."""
    css: str = ""
    bold: bool = False
    notes: tuple[str, ...] = ()
    """Lines in small print below the text."""
    difference: Difference | None = None
    span: Span | None = None

    def edge(self) -> Cell:
        """Returns the cell with a vertical line on its left."""
        return replace(self, css=f"edge {self.css}".strip())


@dataclass(frozen=True)
class Heading:
    """The heading of a column, or of a group of columns."""

    text: str | Markup
    sort: str = "number"
    """`number` or `text`; empty where the column can't be sorted."""
    css: str = ""
    notes: tuple[str, ...] = ()
    ascending: bool = False
    """Whether the first click sorts in ascending order, because less is better."""
    column: int = 0
    rows: int = 1
    columns: int = 1

    @property
    def scope(self) -> str:
        """Value of the HTML attribute `scope`."""
        return "colgroup" if self.columns > 1 else "col"


@dataclass(frozen=True)
class Row:
    """A row of a table, which starts with a heading."""

    name: str | Markup | None
    """Heading of the row; None if it shares the heading of an earlier row."""
    cells: tuple[Cell, ...]
    arm: str = ""
    """Name of the arm that the heading selects; empty if it selects none."""
    link: str = ""
    tags: tuple[str, ...] = ()
    css: str = ""
    rows: int = 1
    """Number of rows that share the heading."""

    @property
    def scope(self) -> str:
        """Value of the HTML attribute `scope`."""
        return "rowgroup" if self.rows > 1 else "row"


@dataclass(frozen=True)
class Group:
    """Rows of a table below a heading of their own."""

    title: str
    aside: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Fold:
    """A line at the end of a table that stands for the rows of several arms."""

    text: str
    arms: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table, in a region that scrolls by itself."""

    label: str
    css: str
    head: tuple[tuple[Heading, ...], ...]
    rows: tuple[Row, ...] = ()
    groups: tuple[Group, ...] = ()
    """The rows where they are grouped, instead of `rows`."""
    foot: tuple[Row, ...] = ()
    folds: tuple[Fold, ...] = ()
    caption: str = ""

    @property
    def width(self) -> int:
        """Number of columns."""
        return sum(heading.columns for heading in self.head[0])


def arm_row(arm: ArmRecord, cells: Iterable[Cell]) -> Row:
    """Returns the row of an arm, whose name selects it."""
    return Row(breakable(arm["name"]), tuple(cells), arm=arm["name"])


def columns(*headings: Heading, start: int = 0) -> tuple[Heading, ...]:
    """Numbers the headings of adjacent columns from `start`, and aligns headings of text columns to the left."""
    return tuple(
        replace(heading, column=place, css=f"name {heading.css}".strip() if heading.sort == "text" else heading.css)
        for place, heading in enumerate(headings, start)
    )


def text_table(label: str, titles: Sequence[str], rows: Iterable[Sequence[str | Markup]], long: Sequence[int]) -> Table:
    """Returns a table of text that can't be sorted; columns in `long` get more room."""
    head = tuple(Heading(title, sort="") for title in titles)
    body = [
        Row(name, tuple(Cell(text, css="long" if place in long else "") for place, text in enumerate(cells, 1)))
        for name, *cells in rows
    ]
    return Table(label, "text", (head,), tuple(body))


def number(value: int) -> Cell:
    """Returns a cell with an integer."""
    return Cell(str(value), value)


def spread_cell(spread: AnySpread | None, seeds: int, difference: Difference | None = None) -> Cell:
    """Returns a cell with a mean score, its range where there are several seeds, and a difference."""
    if spread is None:
        return Cell()
    notes = (f"{score(spread['low'])} to {score(spread['high'])}",) if seeds > 1 else ()
    return Cell(score(spread["mean"]), spread["mean"], notes=notes, difference=difference)


def interval_cell(interval: IntervalRecord | None) -> Cell:
    """Returns a cell with an interval of scores, sorted by its lower end."""
    return Cell(interval_text(interval), interval["low"]) if interval else Cell()


def interval_text(interval: IntervalRecord | None) -> str:
    """Returns an interval of scores."""
    return f"{score(interval['low'])} to {score(interval['high'])}" if interval else MISSING


def signed_interval(interval: IntervalRecord | None) -> str:
    """Returns an interval of differences."""
    return f"{signed(interval['low'])} to {signed(interval['high'])}" if interval else MISSING


SHOWN_P = 0.2
"""Largest adjusted p value that tables show; larger ones say no more than that chance explains the difference."""


def p_cell(p: float | None, css: str = "") -> Cell:
    """Returns a cell with an adjusted p value, or `n.s.` (not significant) if it is too large to say something."""
    return Cell(css=css) if p is None else Cell(p_digits(p) if p <= SHOWN_P else "n.s.", p, css)


def share_cell(part: float, total: float, notes: tuple[str, ...] | None = None) -> Cell:
    """Returns a cell with a share in per cent and the counts below it, or with `notes` if there is no total."""
    if not total:
        return Cell(notes=notes or ())
    return Cell(percent(part / total), part / total, notes=(f"{count(part)} of {count(total)}",))


@dataclass(frozen=True)
class MatrixCell:
    """A cell of a confusion matrix."""

    text: str
    css: str
    small: str = ""


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix, or the difference between two; rows are true classes."""

    label: str
    title: str
    aside: str
    classes: tuple[str, ...]
    rows: tuple[tuple[str, tuple[MatrixCell, ...]], ...]


def matrix(
    label: str, title: str, classes: Sequence[str], support: Sequence[int], counts: Sequence[Sequence[float]]
) -> Matrix:
    """Returns a confusion matrix that shows shares of the true class, with mean counts below them."""
    rows = []
    for i, (name, n) in enumerate(zip(classes, support, strict=True)):
        cells = [
            MatrixCell(percent(c / n), _mark_diagonal(_shade(c / n), i == j), count(c) if c else "")
            for j, c in enumerate(counts[i] if n else ())
        ]
        rows.append((name, tuple(cells) or _no_landmarks(classes)))
    return Matrix(label, title, "per cent of the true class, landmarks below", tuple(classes), tuple(rows))


def matrix_difference(
    label: str,
    title: str,
    classes: Sequence[str],
    support: Sequence[int],
    counts: tuple[Sequence[Sequence[float]], Sequence[Sequence[float]]],
) -> Matrix:
    """Returns the first of two confusion matrices minus the second, in percentage points with counts below them."""
    rows = []
    for i, (name, n) in enumerate(zip(classes, support, strict=True)):
        cells = []
        for j, (first, second) in enumerate(zip(counts[0][i], counts[1][i], strict=True) if n else ()):
            gain = first - second
            text = points(gain / n)
            css = _mark_diagonal(_shift(gain / n, good=(gain > 0) == (i == j)), i == j)
            cells.append(MatrixCell(text, css, "" if text == "0" else f"{gain:+.1f}"))
        rows.append((name, tuple(cells) or _no_landmarks(classes)))
    aside = "percentage points, landmarks below; blue better (more hits, fewer errors), orange worse"
    return Matrix(label, title, aside, tuple(classes), tuple(rows))


def _no_landmarks(classes: Sequence[str]) -> tuple[MatrixCell, ...]:
    return tuple(MatrixCell(MISSING, "s0") for _ in classes)


def _mark_diagonal(css: str, diagonal: bool) -> str:
    """Adds the class of the outline that marks correct predictions."""
    return f"{css} own" if diagonal else css


def _shade(share: float) -> str:
    """Returns the colour class of a cell that shows a share."""
    return f"s{1 + bisect(_SHARES, share)}" if share > 0 else "s0"


def _shift(difference: float, *, good: bool) -> str:
    """Returns the colour class of a cell that shows a difference of shares."""
    if abs(difference) < 0.0005:  # is written as 0
        return "s0"
    return f"{'p' if good else 'm'}{1 + bisect(_CHANGES, abs(difference))}"


def settings_text(arm: ArmRecord) -> str:
    """Formats chosen hyperparameters for a sentence: `gamma = 2.5, layers = 3`.

    Where outer folds chose differently, all choices are listed in their order: `gamma = 2.5 / 1 / 2.5`.
    """
    choices: dict[str, list[str]] = {}
    for selection in arm["selections"]:
        for key, value in selection["settings"].items():
            choices.setdefault(key, []).append(value if isinstance(value, str) else f"{value:.4g}")
    return ", ".join(
        f"{key} = {values[0] if len(set(values)) == 1 else ' / '.join(values)}" for key, values in choices.items()
    )
