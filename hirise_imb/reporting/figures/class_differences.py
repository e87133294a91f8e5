"""The figure of the differences in F1 of each class between the arms and their control, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hirise_imb.metrics.bootstrap import MIN_SOURCES
from hirise_imb.reporting.figures.style import COLOURS, ROLE_COLOURS, SOFT, figure
from hirise_imb.reporting.formatting import plural
from hirise_imb.reporting.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 4
"""Most panels in a row."""


def classes_with_intervals(results: Results) -> list[int]:
    """Returns the classes with enough sources for an interval, the majority class first; none without differences."""
    if len(_compared(results)) == 0:
        return []
    enough = [int(label) for label in np.flatnonzero(results.sources >= MIN_SOURCES)]
    return sorted(enough, key=lambda label: label != results.classes.majority_id)


def table(results: Results) -> pd.DataFrame:
    """Returns a row for each arm and class: the difference in F1 from another arm, and its interval over sources.

    Columns: arm, other (the control that averages as many, or the reference in a comparison), class, sources,
    difference (means over seeds), low and high; the last two are empty for a class with too few sources, and where all
    resamples are equal.
    """
    rows: list[dict[str, Any]] = []
    for name, other in _compared(results).items():
        intervals = results.inference.class_differences(name, other)
        gains = results.difference(name, "f1", other)
        for label, (gain, interval) in enumerate(zip(gains, intervals, strict=True)):
            row = {"arm": name, "other": other, "class": results.classes[label], "sources": results.sources[label]}
            ends = (np.nan, np.nan) if interval is None else (interval.low, interval.high)
            rows.append(row | {"difference": float(gain), "low": ends[0], "high": ends[1]})
    return pd.DataFrame(rows)


def class_differences(results: Results, rows: pd.DataFrame) -> Figure:
    """Draws a panel for each class with enough sources: the differences of all arms with their intervals."""
    labels, arms = classes_with_intervals(results), list(_compared(results))
    n_columns = min(len(labels), _COLUMNS)
    n_rows = -(-len(labels) // n_columns)
    # Inches: constant heights for the axis and titles, and one for each arm.
    canvas = figure(max(7, 2.6 + 2.3 * n_columns), 0.7 + n_rows * (0.75 + 0.21 * len(arms)))
    grid = canvas.subplots(n_rows, n_columns, sharey=True, squeeze=False)
    for axes in list(grid.flat)[len(labels) :]:
        axes.remove()
    for axes, label in zip(grid.flat, labels, strict=False):
        majority = label == results.classes.majority_id
        # The majority class varies so little that its intervals would be points on the scale of the others.
        part = rows[(rows["class"] == results.classes.majority) == majority]
        _draw_panel(axes, part, results.classes[label], arms)
        sources = plural(int(results.sources[label]), "source")
        cost = " (the cost; own scale)" if majority else ""
        axes.set_title(f"{results.classes[label]}{cost}\n{results.support[label]} from {sources}", fontsize=9)
    grid.flat[0].set_yticks(range(len(arms)), arms)
    grid.flat[0].set_ylim(len(arms) - 0.4, -0.6)
    for row in grid:
        for name, arm in zip(row[0].get_yticklabels(), arms, strict=True):
            name.set_fontweight("bold" if arm in results.preferred else "normal")
    against = "the control" if results.control else results.reference
    canvas.supxlabel(f"difference in F1 from {against}", fontsize=10)
    canvas.suptitle(
        "Circle: mean over seeds; line: 95 % confidence interval over the sources of the class.\nBlue and orange: "
        "intervals without 0. Descriptive: not corrected for the number of classes and arms.",
        x=0.01,
        ha="left",
        fontsize=9,
    )
    return canvas


def _compared(results: Results) -> dict[str, str]:
    """Returns the name of the arm that each arm is compared with in the primary contrast, in the order of tables."""
    pairs = {arm.name: results.other_of(arm, results.contrasts[0]) for arm in results.ordered}
    return {name: other for name, other in pairs.items() if other is not None and other != name}


def _draw_panel(axes: Axes, rows: pd.DataFrame, name: str, arms: Sequence[str]) -> None:
    """Draws the differences of one class, on a scale that fits those of all classes in `rows` with an interval."""
    shown = rows[rows["sources"] >= MIN_SOURCES]
    ends = shown[["difference", "low", "high"]].to_numpy(float)
    low, high = min(0.0, float(np.nanmin(ends))), max(0.0, float(np.nanmax(ends)))
    margin = 0.05 * max(high - low, 0.01)
    axes.set_xlim(low - margin, high + margin)
    axes.locator_params(axis="x", nbins=4)
    axes.axvline(0, color=ROLE_COLOURS["baseline"], linewidth=1, linestyle=":", zorder=2)
    for row in shown[shown["class"] == name].to_dict("records"):
        place = arms.index(row["arm"])
        excludes_zero = row["low"] > 0 or row["high"] < 0  # False without an interval
        colour = SOFT if not excludes_zero else COLOURS[0] if row["difference"] > 0 else COLOURS[1]
        width = 2.2 if excludes_zero else 1.0
        axes.plot((row["low"], row["high"]), (place, place), color=colour, linewidth=width, zorder=3)
        face = colour if excludes_zero else "white"
        axes.plot(row["difference"], place, "o", color=face, markeredgecolor=colour, markersize=4.5, zorder=4)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
