"""Every test source of every class by itself, since a class is known as well as its sources are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hirise_imb.landmarks import CLASSES
from hirise_imb.reporting.results import Results
from hirise_imb.reporting.style import LINES, figure
from hirise_imb.reporting.words import counted
from hirise_imb.uncertainty import LEAST_SOURCES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def table(results: Results) -> pd.DataFrame:
    """One row for each arm, source and class that it has: landmarks, hits (mean over seeds) and recall."""
    parts = []
    for arm in results.ordered:
        part = results.inference.per_source(arm.name)
        part.insert(0, "arm", arm.name)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def sources(results: Results) -> Figure:
    """A panel a class: recall in each of its sources, and F1 with its interval where there are sources enough."""
    rows = table(results)
    canvas = figure(11, 2.2 + 1.2 * len(results.shown))
    panels = canvas.subplots(2, 4, sharex=True, sharey=True)
    for label, (axes, name) in enumerate(zip(panels.flat, CLASSES, strict=True)):
        of = int(results.sources[label])
        axes.set_title(f"{name}: {results.support[label]} from {counted(of, 'source')}", fontsize=9)
        for place, (arm, line) in enumerate(zip(results.shown, LINES, strict=False)):
            part = rows[(rows["arm"] == arm.name) & (rows["class"] == name)]
            _dots(axes, place, part, str(line["color"]))
            _f1(axes, place, results, arm.name, label, str(line["color"]))
        if of == 0:
            axes.text(0.5, 0.5, "no test landmark", transform=axes.transAxes, ha="center", va="center", fontsize=9)
        elif of < LEAST_SOURCES:
            note = "no interval can be estimated"
            axes.text(0.5, 0.02, note, transform=axes.transAxes, ha="center", va="bottom", fontsize=8, color="#4b5563")
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    panels[0, 0].set_yticks(range(len(results.shown)), [arm.name for arm in results.shown])
    panels[0, 0].set_ylim(len(results.shown) - 0.25, -0.6)
    panels[0, 0].set_xlim(-0.05, 1.05)
    circles = "circles: recall in each source, larger with more landmarks"
    canvas.supxlabel(f"{circles}; diamond: F1 of the class; line: its 95 % interval over sources", fontsize=9)
    return canvas


def _dots(axes: Axes, place: int, part: pd.DataFrame, colour: str) -> None:
    """Sources side by side, by their names, so that one source stands at one height in all rows."""
    if part.empty:
        return
    heights = place + np.linspace(-0.26, 0.1, len(part)) if len(part) > 1 else np.array([float(place) - 0.08])
    sizes = 12 + 90 * np.sqrt(part["landmarks"] / max(part["landmarks"].max(), 30))
    axes.scatter(part["recall"], heights, sizes, color=colour, alpha=0.45, linewidths=0.5, edgecolors="white", zorder=3)


def _f1(axes: Axes, place: int, results: Results, arm: str, label: int, colour: str) -> None:
    if results.support[label] == 0:
        return
    height = place + 0.27
    interval = results.inference.class_intervals(arm)[label]
    if interval is not None:
        axes.plot((interval.low, interval.high), (height, height), color=colour, linewidth=1.5, zorder=4)
    axes.plot(
        results.per_class(arm, "f1")[label].mean, height, "D", color=colour, markersize=5, zorder=5, clip_on=False
    )
