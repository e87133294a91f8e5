"""The figure of the differences in F1 of each class between the arms and their control, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hirise_imb.metrics.bootstrap import MIN_SOURCES
from hirise_imb.reporting.figures.style import (
    BAD,
    GOOD,
    PAPER,
    SLATE,
    SOFT,
    add_hover_text,
    emphasise,
    figure,
    format_difference,
    name_width,
    write_head,
)
from hirise_imb.reporting.formatting import plural, signed
from hirise_imb.reporting.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 5
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
    n_rows = -(-len(labels) // _COLUMNS)
    n_columns = -(-len(labels) // n_rows)
    names = name_width(arms, 9)
    panel = (11 - names) / _COLUMNS
    margins = (names, 0.1, 0.45, 1.05)
    height = 0.16 * len(arms)
    total = margins[2] + margins[3] + n_rows * height + 0.7 * (n_rows - 1)
    canvas = figure(names + 0.1 + panel * n_columns, total, margins)
    spaces = {"wspace": 0.1, "hspace": 0.7 / height}
    grid = canvas.subplots(n_rows, n_columns, sharey=True, squeeze=False, gridspec_kw=spaces)
    for axes in list(grid.flat)[len(labels) :]:
        axes.remove()
    for axes, label in zip(grid.flat, labels, strict=False):
        majority = label == results.classes.majority_id
        # The majority class varies so little that its intervals would be points on the scale of the others.
        part = rows[(rows["class"] == results.classes.majority) == majority]
        _draw_panel(axes, part, results.classes[label], arms)
        cost = " (the cost)" if majority else ""
        sources = plural(int(results.sources[label]), "source")
        axes.set_title(f"{results.classes[label]}{cost}", fontsize=9.5, fontweight="bold", pad=16)
        counts = f"{results.support[label]} from {sources}"
        style: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 8.5}
        axes.annotate(counts, (0, 1), (0, 5), **style, color=SOFT)
    grid.flat[0].set_yticks(range(len(arms)), arms)
    grid.flat[0].set_ylim(len(arms) - 0.5, -0.5)
    for row in grid:
        emphasise(row[0].get_yticklabels(), [arm in results.preferred for arm in arms])
    against = "the control" if results.control else results.reference
    own_scale = "" if results.classes.majority is None else f" Own scale: {results.classes.majority}."
    write_head(
        canvas,
        f"Difference in F1 of each class from {against}",
        "Circle: mean over seeds; line: 95 % confidence interval over the sources of the class." + own_scale,
        "Blue is better, orange is worse, where the interval excludes 0; not corrected for the number of classes and "
        "arms.",
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
    axes.locator_params(axis="x", nbins=3)
    axes.xaxis.set_major_formatter(format_difference)
    axes.axvline(0, color=SLATE, linewidth=1, zorder=2)
    for row in shown[shown["class"] == name].to_dict("records"):
        place = arms.index(row["arm"])
        excludes_zero = row["low"] > 0 or row["high"] < 0  # False without an interval
        colour = SLATE if not excludes_zero else GOOD if row["difference"] > 0 else BAD
        text = f"{row['arm']}, {name}: {signed(row['difference'])} against {row['other']}"
        if row["low"] <= row["high"]:
            text += f", 95 % confidence interval {signed(row['low'])} to {signed(row['high'])}"
            width = 2.2 if excludes_zero else 1.0
            [line] = axes.plot((row["low"], row["high"]), (place, place), color=colour, linewidth=width, zorder=3)
            add_hover_text(line, text)
        face = colour if excludes_zero else PAPER
        style: dict[str, Any] = {"color": face, "markeredgecolor": colour, "markersize": 4.5, "zorder": 4}
        [mark] = axes.plot(row["difference"], place, "o", **style)
        add_hover_text(mark, text)
    axes.grid(visible=False, axis="y")
