"""The figure of recall in each tested source of each class.

A score of a class is only as certain as its sources are similar, which a single mean can't show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hirise_imb.metrics.bootstrap import MIN_SOURCES
from hirise_imb.reporting.figures.style import SOFT, add_hover_text, class_panels, lines, name_width, write_head
from hirise_imb.reporting.formatting import plural
from hirise_imb.reporting.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def table(results: Results) -> pd.DataFrame:
    """Returns a row for each arm, source and class in it: landmarks, hits (mean over seeds) and recall.

    Columns `f1`, `f1_low` and `f1_high` are equal for all sources of a class: the mean over seeds, and the interval
    over sources, empty if there is none.
    """
    parts = []
    for arm in results.ordered:
        part = results.inference.per_source(arm.name)
        part.insert(0, "arm", arm.name)
        intervals = dict(zip(results.classes, results.inference.class_intervals(arm.name), strict=True))
        means = dict(zip(results.classes, results.per_class(arm.name, "f1"), strict=True))
        part["f1"] = [means[name].mean for name in part["class"]]
        for end in ("low", "high"):
            part[f"f1_{end}"] = [float(getattr(intervals[name], end, np.nan)) for name in part["class"]]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def sources(results: Results, rows: pd.DataFrame) -> Figure:
    """Draws a panel for each class: recall in each source, and F1 with its interval if there are enough sources."""
    largest = int(rows["landmarks"].max())
    names = [arm.name for arm in results.shown]
    canvas, panels = class_panels(results.classes, 0.3 + 0.5 * len(names), 0.3, name_width(names, 9))
    for label, (axes, name) in enumerate(zip(panels, results.classes, strict=True)):
        n_sources = int(results.sources[label])
        axes.set_title(f"{name}: {results.support[label]} from {plural(n_sources, 'source')}", fontsize=9)
        for place, (arm, line) in enumerate(zip(names, lines(names), strict=True)):
            part = rows[(rows["arm"] == arm) & (rows["class"] == name)]
            _dots(axes, place, part, largest, str(line["color"]))
            _f1(axes, place, part, str(line["color"]))
        if n_sources == 0:
            axes.text(
                0.5, 0.5, f"no {results.terms.landmark}", transform=axes.transAxes, ha="center", va="center", fontsize=9
            )
        elif n_sources < MIN_SOURCES:
            _note(axes, "no interval can be estimated")
        elif rows.loc[(rows["class"] == name) & rows["arm"].isin(names), "f1_low"].hasnans:
            _note(axes, "no line: no variation")
        axes.grid(visible=False, axis="y")
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.25, -0.6)
    panels[0].set_xlim(-0.05, 1.05)
    panels[0].set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    circles = f"Circles: recall in each source, area by landmarks (largest: {largest})"
    write_head(
        canvas,
        "Recall in each source",
        f"{circles}. Diamond: F1 of the class; line: its 95 % confidence interval over sources.",
    )
    return canvas


def _note(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.02, text, transform=axes.transAxes, ha="center", va="bottom", fontsize=8, color=SOFT)


def _dots(axes: Axes, place: int, part: pd.DataFrame, largest: int, colour: str) -> None:
    """Draws the sources at different heights, ordered by name, so that a source has the same height for all arms."""
    if part.empty:
        return
    heights = place + np.linspace(-0.26, 0.1, len(part)) if len(part) > 1 else np.array([float(place) - 0.08])
    # All panels have one scale of areas. The constant keeps a single landmark visible.
    sizes = 9 + 110 * part["landmarks"] / largest
    style: dict[str, Any] = {"alpha": 0.45, "linewidths": 0, "clip_on": False, "zorder": 3}
    marks = axes.scatter(part["recall"], heights, sizes, color=colour, **style)
    rows = part[["source", "recall", "landmarks", "arm"]].itertuples(index=False)
    add_hover_text(marks, *(f"{source}: recall {recall:.2f} of {n} ({arm})" for source, recall, n, arm in rows))


def _f1(axes: Axes, place: int, part: pd.DataFrame, colour: str) -> None:
    if part.empty:
        return
    # The mean is drawn below the sources of its arm; all rows of a class have the same mean.
    height, row = place + 0.27, part.iloc[0]
    if np.isfinite(row["f1_low"]):
        axes.plot((row["f1_low"], row["f1_high"]), (height, height), color=colour, linewidth=1.5, zorder=4)
    [mark] = axes.plot(row["f1"], height, "D", color=colour, markersize=5, zorder=5, clip_on=False)
    text = f"{row['arm']}, {row['class']}: F1 {row['f1']:.3f}"
    if np.isfinite(row["f1_low"]):
        text += f", 95 % confidence interval {row['f1_low']:.3f} to {row['f1_high']:.3f}"
    add_hover_text(mark, text)
