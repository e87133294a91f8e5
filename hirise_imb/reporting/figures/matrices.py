"""Confusion matrices of an arm, and their difference from the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.reporting import tables
from hirise_imb.reporting.figures.style import DIVERGING, SHARES, SOFT, figure, inks
from hirise_imb.reporting.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

Floats = NDArray[np.float64]

_MIN_SIZE = 6
"""Number of classes that a matrix always has room for: with fewer, cells grow, because titles need the room."""


def confusion(results: Results, arm: str) -> Figure:
    """Draws a confusion matrix; colour and upper text are the share of the true class, lower text is the count."""
    table = tables.confusion(results, arm)
    shares, counts = (_square(table[name], results) for name in ("share_of_true", "count"))
    size = max(_MIN_SIZE, len(results.classes))
    # Fixed margins and cell sizes, in inches: finding a layout would take longer than drawing, for each of many arms.
    canvas = figure(1.85 + 0.56875 * size, 1.7 + 0.5125 * size, (1.75, 0.1, 1.1, 0.6))
    axes = canvas.subplots()
    image = axes.imshow(shares, cmap=SHARES, vmin=0, vmax=1, aspect="auto")
    texts = [[_share_and_count(*cell) for cell in zip(*row, strict=True)] for row in zip(shares, counts, strict=True)]
    _write(axes, image, texts)
    _frame(axes, results)
    _name_rows(axes, results)
    title = f"{arm}\nabove: % of the true class; below: landmarks, mean over seeds"
    canvas.suptitle(title, x=0.02, ha="left", fontsize=10)
    return canvas


def confusion_difference(results: Results, arm: str) -> Figure:
    """Draws the confusion matrices of the reference and an arm in per cent, and their difference in points."""
    table = tables.confusion_difference(results, arm)
    base, shares_of_arm, change = (_square(table[name], results) for name in ("reference", "arm", "difference"))
    size = max(_MIN_SIZE, len(results.classes))
    canvas = figure(1.7 + 1.1625 * size, 1.55 + 0.36875 * size, (1.6, 0.1, 0.95, 0.6))
    panels = canvas.subplots(1, 3, sharey=True, gridspec_kw={"wspace": 0.05})
    for axes, name, shares in zip(panels, (results.reference, arm), (base, shares_of_arm), strict=False):
        _write(axes, axes.imshow(shares, cmap=SHARES, vmin=0, vmax=1, aspect="auto"), _hundredths(shares, ""))
        axes.set_title(f"{name}\n% of the true class", fontsize=10)
    # Without a lower limit of the scale, differences of a fraction of a point would get strong colours.
    limit = max(0.1, float(np.abs(change).max()))
    image = panels[2].imshow(change, cmap=DIVERGING, vmin=-limit, vmax=limit, aspect="auto")
    _write(panels[2], image, _hundredths(change, "+"))
    panels[2].set_title("difference in percentage points\non the diagonal, plus is better", fontsize=10)
    for axes in panels:
        _frame(axes, results)
    _name_rows(panels[0], results)
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


def _write(axes: Axes, image: AxesImage, texts: list[list[str]]) -> None:
    """Writes text into the cells, dark or white, whichever is more legible."""
    colours = inks(image)
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            if text:
                style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8}
                axes.text(column, row, text, color=str(colours[row, column]), **style)


def _frame(axes: Axes, results: Results) -> None:
    axes.grid(visible=False)
    classes = results.classes
    axes.set_xticks(range(len(classes)), classes.names, rotation=40, ha="right", rotation_mode="anchor", fontsize=9)
    axes.set_xlabel("predicted class")
    axes.tick_params(length=0)
    for row in np.flatnonzero(results.support == 0).tolist():
        axes.text(
            (len(classes) - 1) / 2,
            row,
            f"no {results.terms.landmark}",
            ha="center",
            va="center",
            fontsize=8,
            color=SOFT,
        )


def _name_rows(axes: Axes, results: Results) -> None:
    names = [f"{name} ({n})" for name, n in zip(results.classes, results.support, strict=True)]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylabel(f"true class ({results.terms.landmark}s)")
