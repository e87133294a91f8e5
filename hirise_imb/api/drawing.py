"""Figures of the API, each drawn on axes that the caller may give.

Names of classes are drawn as they are: Matplotlib would read `$` as the begin of a formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.reporting.figures.style import ROLE_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PALE = "#d1d5db"
"""Colour of what is drawn behind marks."""
_DARK = 0.55
"""Share of the true class from which on a cell is so dark that its text is white."""
_ROW = 0.27
"""Height of a row of a forest plot in inches."""


class ForestRow(NamedTuple):
    """A row of a forest plot."""

    name: str
    value: float
    low: float
    """Lower end of the confidence interval; NaN without one."""
    high: float
    """Upper end; NaN without one."""
    colour: str
    bold: bool = False
    band: float = float("nan")
    """Minimum detectable difference, drawn as a band around 0; NaN without one."""


def new_axes(width: float, height: float) -> Axes:
    """Returns axes of a new figure of pyplot, which notebooks show; sizes in inches."""
    from matplotlib import pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def draw_forest(rows: Sequence[ForestRow], label: str, *, zero: bool, ax: Axes | None) -> Axes:
    """Draws values with their confidence intervals, one below the other.

    Args:
        rows: values from top to bottom.
        label: label of the horizontal axis.
        zero: whether a line marks 0, as for differences.
        ax: axes to draw on; None for those of a new figure.
    """
    ax = new_axes(6.5, 0.9 + _ROW * len(rows)) if ax is None else ax
    if zero:
        ax.axvline(0, color=ROLE_COLOURS["baseline"], linewidth=1, linestyle=":", zorder=2)
    for place, row in enumerate(rows):
        if np.isfinite(row.band):
            ax.barh(place, 2 * row.band, 0.7, -row.band, color=_PALE, alpha=0.5, zorder=1)
        ax.plot((row.low, row.high), (place, place), color=row.colour, linewidth=1.4, zorder=3)
        ax.plot(row.value, place, "o", color=row.colour, markersize=5.5, zorder=4)
    ax.set_yticks(range(len(rows)), [row.name for row in rows], parse_math=False)
    for name, row in zip(ax.get_yticklabels(), rows, strict=True):
        name.set_fontweight("bold" if row.bold else "normal")
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlabel(label)
    _tidy(ax)
    return ax


def draw_matrix(counts: NDArray[np.float64], names: Sequence[str], title: str, ax: Axes | None) -> Axes:
    """Draws a confusion matrix: colours are shares of the true class, the text is the count.

    Args:
        counts: mean counts, shape (n_classes, n_classes); rows are true classes.
        names: names of the classes.
        title: title of the axes.
        ax: axes to draw on; None for those of a new figure.
    """
    ax = new_axes(1.9 + 0.5 * len(names), 1.6 + 0.42 * len(names)) if ax is None else ax
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.argwhere(counts > 0).tolist():
        value = counts[row, column]
        text = f"{value:.0f}" if value == round(value) else f"{value:.1f}"
        colour = "white" if shares[row, column] > _DARK else "black"
        ax.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor", parse_math=False)
    ax.set_yticks(range(len(names)), names, parse_math=False)
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    ax.set_title(title, fontsize=10, parse_math=False)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    return ax


def draw_class_bars(rows: pd.DataFrame, metric: str, label: str, ax: Axes | None) -> Axes:
    """Draws the score of each class as one group of bars, with a bar for each arm and its range over seeds.

    Args:
        rows: a row for each arm and class, as `PerClass.frame` returns it.
        metric: name of the score.
        label: label of the vertical axis.
        ax: axes to draw on; None for those of a new figure.
    """
    arms, classes = rows["arm"].unique().tolist(), rows["class"].unique().tolist()
    ax = new_axes(max(6.0, 1.1 * len(classes)), 3.6) if ax is None else ax
    width = 0.8 / len(arms)
    for place, arm in enumerate(arms):
        part = rows[rows["arm"] == arm]
        centres = np.arange(len(classes)) + (place - (len(arms) - 1) / 2) * width
        ends = [part[metric] - part[f"{metric}_low"], part[f"{metric}_high"] - part[metric]]
        ax.bar(centres, part[metric], width, label=arm, yerr=np.maximum(ends, 0), error_kw={"linewidth": 1}, zorder=2)
    sizes = rows.drop_duplicates("class")["support"]
    names = [f"{_wrap(name)}\nn = {n}" for name, n in zip(classes, sizes, strict=True)]
    ax.set_xticks(range(len(classes)), names, fontsize=8, parse_math=False)
    ax.set_ylim(0, 1)
    ax.set_ylabel(label)
    ax.legend(fontsize=8, frameon=False)
    _tidy(ax, axis="y")
    return ax


def draw_steps(rows: pd.DataFrame, label: str, ax: Axes | None) -> Axes:
    """Draws the best value so far against the number of finished trials, one line for each arm and division.

    Args:
        rows: a row for each trial with the columns arm, division, trial and best_so_far.
        label: label of the vertical axis.
        ax: axes to draw on; None for those of a new figure.
    """
    from matplotlib.ticker import MaxNLocator

    ax = new_axes(6.5, 3.8) if ax is None else ax
    arms = rows["arm"].unique().tolist()
    several_arms = len(arms) > 1
    for place, arm in enumerate(arms):
        part = rows[rows["arm"] == arm]
        for number, (division, line) in enumerate(part.groupby("division", sort=False)):
            # One legend entry per arm; the divisions of one arm share its colour unless it is the only one.
            name = arm if several_arms else str(division)
            shown = name if number == 0 or not several_arms else "_nolegend_"
            colour = f"C{place if several_arms else number}"
            ax.step(line["trial"], line["best_so_far"], where="post", color=colour, linewidth=1.4, label=shown)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("finished trials")
    ax.set_ylabel(label)
    if len(rows):
        ax.legend(fontsize=8, frameon=False)
    _tidy(ax, axis="both")
    return ax


def draw_inner_outer(rows: pd.DataFrame, labels: tuple[str, str], ax: Axes | None) -> Axes:
    """Draws outer against inner scores, one mark for each arm, over the line of equal scores.

    Args:
        rows: a row for each arm with the columns arm, role, inner and outer.
        labels: labels of the horizontal and the vertical axis.
        ax: axes to draw on; None for those of a new figure.
    """
    ax = new_axes(6.0, 4.6) if ax is None else ax
    scores = rows[["inner", "outer"]].to_numpy(float)
    ends = float(scores.min()) - 0.01, float(scores.max()) + 0.01
    ax.plot(ends, ends, color=_PALE, linewidth=1.2, zorder=1)
    for role, part in rows.groupby("role", sort=False):
        name = str(role).replace("_", " ")
        ax.scatter(part["inner"], part["outer"], 32, color=ROLE_COLOURS[str(role)], alpha=0.8, label=name, zorder=3)
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    ax.legend(fontsize=8, frameon=False)
    _tidy(ax, axis="both")
    return ax


def draw_sources(rows: pd.DataFrame, classes: Sequence[str], title: str, ax: Axes | None) -> Axes:
    """Draws the recall of each source as a circle in the row of its class, and F1 with its interval as a diamond.

    Args:
        rows: rows of one arm, as `Sources.frame` returns them.
        classes: names of the classes from top to bottom.
        title: title of the axes.
        ax: axes to draw on; None for those of a new figure.
    """
    names = [name for name in classes if (rows["class"] == name).any()]
    ax = new_axes(6.5, 1.1 + 0.45 * len(names)) if ax is None else ax
    colour, largest = ROLE_COLOURS["strategy"], rows["landmarks"].max()
    for place, name in enumerate(names):
        part = rows[rows["class"] == name]
        heights = place + (np.linspace(-0.3, 0.1, len(part)) if len(part) > 1 else np.array([-0.1]))
        ax.scatter(part["recall"], heights, 10 + 130 * part["landmarks"] / largest, color=colour, alpha=0.4, zorder=3)
        first = part.iloc[0]
        ax.plot((first["f1_low"], first["f1_high"]), (place + 0.27,) * 2, color=ROLE_COLOURS["baseline"], zorder=4)
        ax.plot(first["f1"], place + 0.27, "D", color=ROLE_COLOURS["baseline"], markersize=5, zorder=5)
    ax.set_yticks(range(len(names)), names, parse_math=False)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(-0.03, 1.03)
    ax.set_xlabel("circles: recall in each source, area by landmarks; diamond: F1 with 95 % interval over sources")
    ax.set_title(title, fontsize=10, parse_math=False)
    _tidy(ax)
    return ax


def draw_data(rows: pd.DataFrame, ax: Axes | None) -> Axes:
    """Draws the number of landmarks of each class and split as marks on a logarithmic axis."""
    classes = rows["class"].unique().tolist()
    ax = new_axes(max(6.0, 1.1 * len(classes)), 3.6) if ax is None else ax
    splits = rows["split"].unique().tolist()
    for place, split in enumerate(splits):
        counts = rows.loc[rows["split"] == split, "landmarks"]
        places = np.arange(len(classes)) + (place - (len(splits) - 1) / 2) * 0.2
        ax.plot(places, counts.where(counts > 0), "o", label=split, zorder=2)  # a bar has no length on this scale
    ax.set_xticks(range(len(classes)), [_wrap(name) for name in classes], fontsize=8, parse_math=False)
    ax.set_yscale("log")
    ax.set_ylim(bottom=0.8)  # keeps the mark of a single landmark visible
    ax.set_ylabel("landmarks")
    ax.legend(fontsize=8, frameon=False)
    _tidy(ax, axis="y")
    return ax


def _wrap(name: str) -> str:
    """Returns the name of a class with a line for each word, since names stand next to each other."""
    return str(name).replace(" ", "\n")


def _tidy(ax: Axes, axis: str = "x") -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)
    ax.grid(visible=False)
    ax.grid(visible=True, axis=axis, color="#e5e7eb")  # type: ignore[arg-type]
