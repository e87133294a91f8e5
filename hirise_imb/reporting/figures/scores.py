"""Figures of the data, of the classes of one arm, and of the comparison with the published table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hirise_imb.data.dataset import SPLITS
from hirise_imb.metrics.registry import CLASS_METRICS
from hirise_imb.reporting.baseline import Baseline, ComparisonEntry
from hirise_imb.reporting.figures.style import (
    BLUE,
    GREEN,
    GRID,
    INK,
    ORANGE,
    PALE,
    SPLIT_COLOURS,
    add_hover_text,
    figure,
    name_width,
    write_head,
)
from hirise_imb.reporting.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKS = {"published": INK, "aligned": BLUE, "shuffled": ORANGE}
"""Colours of a published score, the score of a model, and the same with shuffled labels."""
_SCORE_MARKERS = ("s", "^", "o")
_SPLIT_MARKERS = {"train": "o", "val": "s", "test": "D"}
_SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}


def class_distribution(results: Results) -> Figure:
    """Draws the landmarks of each class by split as dots, on a logarithmic axis since they differ by hundreds."""
    from matplotlib.ticker import LogFormatter

    classes = list(results.classes)
    margins = (name_width(classes, 9), 0.4, 0.5, 0.7)
    canvas = figure(7.5, margins[2] + margins[3] + 0.27 * len(classes), margins)
    axes = canvas.subplots()
    counts = results.data.set_index(["split", "class"])["landmarks"]
    for split, height in zip(SPLITS, (-0.2, 0, 0.2), strict=True):
        values = [int(counts.get((split, name), 0)) for name in classes]
        drawn = [(place, n) for place, n in enumerate(values) if n > 0]
        style: dict[str, Any] = {"color": SPLIT_COLOURS[split], "marker": _SPLIT_MARKERS[split], "markersize": 5.5}
        places = [place + height for place, _ in drawn]
        [marks] = axes.plot([n for _, n in drawn], places, linestyle="none", **style, label=_SPLIT_NAMES[split])
        add_hover_text(marks, *(f"{classes[place]}, {_SPLIT_NAMES[split]}: {n:,} landmarks" for place, n in drawn))
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.8), high * 1.1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_minor_formatter(LogFormatter())
    axes.set_xlabel("landmarks (each line is ten times the one before)")
    axes.set_yticks(range(len(classes)), classes)
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    for edge in range(1, len(classes)):
        axes.axhline(edge - 0.5, color=GRID, linewidth=0.6, zorder=0)
    place = (0, 1 + 0.02)
    axes.legend(ncols=3, loc="lower left", bbox_to_anchor=place, borderpad=0, handletextpad=0.1, columnspacing=1.2)
    write_head(canvas, "Landmarks of each class")
    return canvas


def scores_per_class(results: Results, arm: str) -> Figure:
    """Draws the precision, recall and F1 of each class for one arm, with ranges over seeds."""
    classes = list(results.classes)
    names = [f"{name} (n = {n})" for name, n in zip(classes, results.support, strict=True)]
    margins = (name_width(names, 9), 0.3, 0.3, 0.95)
    canvas = figure(9, margins[2] + margins[3] + 0.42 * len(classes), margins)
    axes = canvas.subplots()
    for n, (metric, colour) in enumerate(zip(CLASS_METRICS, (GREEN, ORANGE, BLUE), strict=True)):
        height = 0.25 * (n - 1)
        for place, spread in enumerate(results.per_class(arm, metric)):
            if not results.support[place]:
                continue
            axes.plot((spread.low, spread.high), (place + height,) * 2, color=colour, linewidth=3, alpha=0.4)
            style: dict[str, Any] = {"color": colour, "markersize": 6, "clip_on": False}
            [mark] = axes.plot(spread.mean, place + height, _SCORE_MARKERS[n], **style)
            text = f"{classes[place]}: {CLASS_METRICS[metric]} {spread.mean:.3f}"
            add_hover_text(mark, f"{text}, seeds {spread.low:.3f} to {spread.high:.3f}")
        axes.plot([], [], _SCORE_MARKERS[n], color=colour, markersize=6, label=CLASS_METRICS[metric])
    axes.set_yticks(range(len(classes)), names)
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.grid(visible=False, axis="y")
    for edge in range(1, len(classes)):
        axes.axhline(edge - 0.5, color=GRID, linewidth=0.6, zorder=0)
    axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1.01), borderpad=0, handletextpad=0.1, columnspacing=1.2)
    note = "Mark: mean over seeds; line: range over seeds."
    write_head(canvas, f"Scores of each class: {arm} on the test split", note)
    return canvas


def published(baseline: Baseline) -> Figure:
    """Draws the published score of each class, the range of shuffled pairings and the score of the aligned model."""
    classes = list(baseline.results.classes)
    names = [f"{name} ({n})" for name, n in zip(classes, baseline.results.support, strict=True)]
    margins = (name_width(names, 9), 0.1, 0.3, 0.65)
    canvas = figure(11, margins[2] + margins[3] + 0.46 * len(classes), margins)
    spaces = {"wspace": 0.08}
    panels = canvas.subplots(1, len(CLASS_METRICS), sharex=True, sharey=True, squeeze=False, gridspec_kw=spaces)[0]
    for axes, metric in zip(panels, CLASS_METRICS, strict=True):
        entries = baseline.of(metric)
        for entry in entries:
            _draw_entry(axes, classes.index(entry.name), entry)
        _name_marks(axes, classes, entries)
        axes.set_title(CLASS_METRICS[metric])
        axes.set_xlim(-0.03, 1.03)
        axes.grid(visible=False, axis="y")
    panels[0].set_yticks(range(len(classes)), names)
    panels[0].set_ylim(len(classes) - 0.4, -0.6)
    write_head(canvas, "Published scores, this model, and the same predictions paired with shuffled labels")
    return canvas


def _draw_entry(axes: Axes, place: int, entry: ComparisonEntry) -> None:
    """Draws one class: the shuffled range as a bar, the published and the aligned score as marks on one line."""
    assert entry.shuffled is not None
    assert entry.aligned is not None
    assert entry.published is not None
    null = entry.shuffled
    axes.plot([null.mean, entry.aligned], [place, place], color=PALE, linewidth=1, zorder=1)
    # The edge keeps a range without width visible, such as that of a class that is never predicted.
    colour = _MARKS["shuffled"]
    style: dict[str, Any] = {"color": colour, "alpha": 0.35, "edgecolor": colour, "linewidth": 2}
    [bar] = axes.barh(place, null.high - null.low, 0.5, null.low, **style)
    add_hover_text(bar, f"{entry.name}: labels shuffled {null.low:.3f} to {null.high:.3f} (95 %)")
    [mark] = axes.plot(entry.aligned, place, "o", color=_MARKS["aligned"], markersize=8)
    add_hover_text(mark, f"{entry.name}: this model {entry.aligned:.3f}")
    [mark] = axes.plot(entry.published, place, "D", color=_MARKS["published"], markersize=5)
    add_hover_text(mark, f"{entry.name}: published {entry.published:.3f}")


def _name_marks(axes: Axes, classes: Sequence[str], entries: Sequence[ComparisonEntry]) -> None:
    """Names the marks of the class in which they are farthest apart, because the names have most room there."""
    widest = max(entries, key=lambda entry: (entry.aligned or 0) - (entry.published or 0))
    assert widest.aligned is not None
    assert widest.published is not None
    assert widest.shuffled is not None
    place = classes.index(widest.name)
    # If even these are close together, the name of the model moves away from the other name.
    model = min(max(widest.aligned, widest.published + 0.42), 0.85)
    for kind, text, score, offset, side in (
        ("aligned", "this model", model, 11, "center"),
        ("published", "published", widest.published, 11, "left"),
        ("shuffled", "labels shuffled (95 %)", widest.shuffled.low, -18, "left"),
    ):
        style: dict[str, Any] = {"fontsize": 9, "fontweight": "bold", "color": _MARKS[kind], "ha": side}
        axes.annotate(text, (score, place), (0, offset), textcoords="offset points", **style)
