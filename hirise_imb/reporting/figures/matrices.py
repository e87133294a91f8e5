"""Confusion matrices of an arm, and their difference from the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.reporting import tables
from hirise_imb.reporting.figures.style import (
    SOFT,
    difference_colour,
    draw_cells,
    figure,
    name_width,
    share_colour,
    text_colour,
    write_head,
)
from hirise_imb.reporting.results import Results

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

_MIN_SIZE = 6
"""Number of classes that a matrix always has room for: with fewer, cells grow, because titles need the room."""


def confusion(results: Results, arm: str) -> Figure:
    """Draws a confusion matrix; colour and upper text are the share of the true class, lower text is the count."""
    table = tables.confusion(results, arm)
    shares, counts = (_square(table[name], results) for name in ("share_of_true", "count"))
    size = max(_MIN_SIZE, len(results.classes))
    # Fixed margins and cell sizes, in inches: finding a layout would take longer than drawing, for each of many arms.
    left = _left_margin(results)
    canvas = figure(left + 0.1 + 0.57 * size, 1.75 + 0.45 * size, (left, 0.1, 1.1, 0.65))
    axes = canvas.subplots()
    texts = [[_share_and_count(*cell) for cell in zip(*row, strict=True)] for row in zip(shares, counts, strict=True)]
    _draw(axes, results, [[share_colour(share) for share in row] for row in shares.tolist()], texts)
    _name_rows(axes, results)
    write_head(canvas, arm, "above: % of the true class; below: landmarks, mean over seeds")
    return canvas


def confusion_difference(results: Results, arm: str) -> Figure:
    """Draws the confusion matrices of the reference and an arm in per cent, and their difference in points."""
    table = tables.confusion_difference(results, arm)
    base, shares_of_arm, change = (_square(table[name], results) for name in ("reference", "arm", "difference"))
    size, classes = max(_MIN_SIZE, len(results.classes)), results.classes
    left = _left_margin(results)
    canvas = figure(left + 0.1 + 1.1625 * size, 2 + 0.33 * size, (left, 0.1, 1.0, 1.0))
    panels = canvas.subplots(1, 3, sharey=True, gridspec_kw={"wspace": 0.05})

    def describe(row: int, column: int) -> str:
        before, after = (100 * float(shares[row, column]) for shares in (base, shares_of_arm))
        is_error = "" if row == column else " (an error)"
        text = f"{classes[row]} predicted as {classes[column]}{is_error}: {before:.1f} % by {results.reference}"
        return f"{text}, {after:.1f} % by {arm} ({_hundredth((after - before) / 100, '+')} points)"

    for axes, name, shares in zip(panels, (results.reference, arm), (base, shares_of_arm), strict=False):
        colours = [[share_colour(share) for share in row] for row in shares.tolist()]
        _draw(axes, results, colours, _hundredths(shares, ""), describe)
        axes.set_title(f"{name}, % of the true class", fontsize=9.5)
    colours = [
        [difference_colour(value, (value > 0) == (row == column)) for column, value in enumerate(line)]
        for row, line in enumerate(change.tolist())
    ]
    _draw(panels[2], results, colours, _hundredths(change, "+"), describe)
    panels[2].set_title("difference in percentage points", fontsize=9.5)
    _name_rows(panels[0], results)
    write_head(
        canvas,
        f"What {arm} gets right that {results.reference} does not, and the reverse",
        "Difference: blue is better (more correct predictions, on the diagonal, or fewer errors), orange is worse.",
    )
    return canvas


def _square(column: pd.Series[float], results: Results) -> Floats:
    """Reshapes a column with one row for each pair of classes to (n_classes, n_classes)."""
    return np.asarray(column, np.float64).reshape(len(results.classes), len(results.classes))


def _share_and_count(share: float, count: float) -> str:
    if count == 0:
        return ""
    return f"{100 * share:.0f}\n{count:.4g}" if count == round(count) else f"{100 * share:.0f}\n{count:.1f}"


def _hundredths(values: Floats, sign: str) -> list[list[str]]:
    """Formats values in integer hundredths; a value that rounds to nothing is 0, and an exact zero is empty."""
    return [[_hundredth(value, sign) if value else "" for value in row] for row in values.tolist()]


def _hundredth(value: float, sign: str) -> str:
    rounded = round(100 * value)
    return f"{rounded:{sign}d}".replace("-", "−") if rounded else "0"


def _draw(
    axes: Axes,
    results: Results,
    colours: list[list[str]],
    texts: list[list[str]],
    describe: Callable[[int, int], str] | None = None,
) -> None:
    """Draws the cells of a matrix with their text, dark or white, whichever is more legible."""
    draw_cells(axes, colours, describe)
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8}
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            # Lines are separate, because in an SVG only a single line keeps its centre in another font.
            parts = text.split("\n")
            for part, offset in zip(parts, (0,) if len(parts) == 1 else (-0.2, 0.22), strict=True):
                if part:
                    axes.text(column, row + offset, part, color=text_colour(colours[row][column]), **style)
    classes = results.classes
    axes.set_xticks(range(len(classes)), classes.names, rotation=40, ha="right", rotation_mode="anchor", fontsize=8.5)
    axes.set_xlabel("predicted class")
    for row in np.flatnonzero(results.support == 0).tolist():
        axes.text((len(classes) - 1) / 2, row, f"no {results.terms.landmark}", **style | {"color": SOFT})


def _left_margin(results: Results) -> float:
    """Returns the width of the names of the rows and of what they are, in inches."""
    return 0.3 + name_width(_row_names(results), 9)


def _row_names(results: Results) -> list[str]:
    return [f"{name} ({n})" for name, n in zip(results.classes, results.support, strict=True)]


def _name_rows(axes: Axes, results: Results) -> None:
    names = _row_names(results)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylabel(f"true class ({results.terms.landmark}s)")
