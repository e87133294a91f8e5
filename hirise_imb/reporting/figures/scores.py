"""Figures of a single arm, of the data, and of the comparison with the published table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hirise_imb.data.dataset import SPLITS
from hirise_imb.metrics.registry import CLASS_METRICS
from hirise_imb.reporting.baseline import Baseline, ComparisonEntry
from hirise_imb.reporting.figures.style import (
    BACKGROUND,
    COLOURS,
    MARKS,
    SPLIT_COLOURS,
    SPLIT_LINES,
    figure,
)
from hirise_imb.reporting.records import Arm, Spread
from hirise_imb.reporting.results import Results
from hirise_imb.reporting.terms import Terms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}


def class_distribution(results: Results) -> Figure:
    """Draws the landmarks of each class by split, on a logarithmic axis since they differ by a factor of hundreds."""
    canvas = figure(_width(results), 3.8)
    axes = canvas.subplots()
    summary = results.data
    for n, split in enumerate(SPLITS):
        counts = summary.loc[summary["split"] == split, "landmarks"].to_numpy()
        _bars(axes, n, len(SPLITS), counts, _SPLIT_NAMES[split], SPLIT_COLOURS[split], "{:d}")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.8)  # keeps the bar of a single landmark visible
    axes.margins(y=0.15)
    axes.set_ylabel("landmarks (log scale)")
    _class_axis(axes, list(results.classes))
    axes.legend(ncols=3)
    return canvas


def scores_per_class(results: Results, arm: str) -> Figure:
    """Draws the precision, recall and F1 of each class for one arm, with ranges over seeds."""
    canvas = figure(_width(results), 4.2)
    axes = canvas.subplots()
    for n, (metric, colour) in enumerate(zip(CLASS_METRICS, COLOURS, strict=False)):
        _spread_bars(axes, n, len(CLASS_METRICS), results.per_class(arm, metric), CLASS_METRICS[metric], colour)
    _score_axis(axes, results, f"{arm} on the test split", len(CLASS_METRICS))
    return canvas


def published(baseline: Baseline) -> Figure:
    """Draws the published score of each class, the range of shuffled pairings and the score of the aligned model."""
    classes = list(baseline.results.classes)
    canvas = figure(10, 1 + 0.5 * len(classes))
    title = "Published scores, this model, and the same predictions paired with shuffled labels"
    canvas.suptitle(title, x=0.01, ha="left", fontsize=11)
    panels = canvas.subplots(1, len(CLASS_METRICS), sharex=True, sharey=True)
    for axes, metric in zip(panels, CLASS_METRICS, strict=True):
        entries = baseline.of(metric)
        for entry in entries:
            _draw_entry(axes, classes.index(entry.name), entry)
        _name_marks(axes, classes, entries)
        axes.set_title(CLASS_METRICS[metric])
        axes.set_xlim(-0.03, 1.03)
        axes.grid(visible=False, axis="y")
    names = [f"{name} ({n})" for name, n in zip(classes, baseline.results.support, strict=True)]
    panels[0].set_yticks(range(len(classes)), names)
    panels[0].set_ylim(len(classes) - 0.4, -0.6)
    panels[0].set_ylabel("class (test landmarks)")
    return canvas


def curves(arm: Arm, terms: Terms) -> Figure:
    """Draws loss and accuracy over epochs for train, validation and test; thin lines are seeds after the first."""
    names = {"train": "train", "val": terms.inner_curve, "test": terms.outer_curve}
    canvas = figure(9, 3.6, (0.75, 1.35, 0.55, 0.35))
    for axes, quantity, unit in zip(canvas.subplots(1, 2), ("loss", "accuracy"), ("nats", "share"), strict=True):
        for split in SPLITS:
            _curve(axes, arm.histories, f"{split}_{quantity}", split, names[split])
        if len(arm.selections) == 1:
            axes.axvline(arm.best_epochs[0][0], color=BACKGROUND, linewidth=4, zorder=0, label="best epoch")
        axes.set_title("cross-entropy" if quantity == "loss" else quantity)
        axes.set_xlabel("epoch")
        axes.set_ylabel(unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylim(0, 1)
    # Outside the axes, where the legend can't cover a curve.
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return canvas


def _curve(axes: Axes, histories: Sequence[pd.DataFrame], column: str, split: str, name: str) -> None:
    for n, history in enumerate(histories):
        first = n == 0
        axes.plot(
            history["epoch"],
            history[column],
            color=SPLIT_COLOURS[split],
            linestyle=SPLIT_LINES[split],
            label=name if first else None,
            linewidth=1.8 if first else 0.7,
            alpha=1 if first else 0.5,
            marker="o" if len(history) == 1 else None,
        )


def _draw_entry(axes: Axes, place: int, entry: ComparisonEntry) -> None:
    """Draws one class: the shuffled range as a bar, the published and the aligned score as marks on one line."""
    assert entry.shuffled is not None
    assert entry.aligned is not None
    assert entry.published is not None
    null = entry.shuffled
    axes.plot([null.mean, entry.aligned], [place, place], color="#d1d5db", linewidth=1, zorder=1)
    # The edge keeps a range without width visible, such as that of a class that is never predicted.
    colour = MARKS["shuffled"]
    axes.barh(place, null.high - null.low, 0.5, null.low, color=colour, alpha=0.35, edgecolor=colour, linewidth=2)
    axes.plot(entry.aligned, place, "o", color=MARKS["aligned"], markersize=8)
    axes.plot(entry.published, place, "D", color=MARKS["published"], markersize=5)


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
        style: dict[str, Any] = {"fontsize": 9, "fontweight": "bold", "color": MARKS[kind], "ha": side}
        axes.annotate(text, (score, place), (0, offset), textcoords="offset points", **style)


def _bars(
    axes: Axes,
    n: int,
    n_groups: int,
    values: np.ndarray[Any, Any],
    label: str,
    colour: str,
    text: str,
    errors: np.ndarray[Any, Any] | None = None,
) -> None:
    # The bars of a class fill 84 % of its place; the rest separates the classes.
    width = 0.84 / n_groups
    places = np.arange(len(values)) + (n - (n_groups - 1) / 2) * width
    bars = axes.bar(places, values, width * 0.94, color=colour, label=label, yerr=errors, ecolor="#111827")
    if text:
        axes.bar_label(bars, [text.format(value) for value in values], fontsize=7, padding=1)


def _spread_bars(axes: Axes, n: int, n_groups: int, spreads: Sequence[Spread], label: str, colour: str) -> None:
    means = np.array([spread.mean for spread in spreads])
    ranges = np.array([[s.mean - s.low for s in spreads], [s.high - s.mean for s in spreads]])
    # The mean of equal values can differ from them in the last bit, and matplotlib refuses negative errors.
    _bars(axes, n, n_groups, means, label, colour, "", errors=np.maximum(ranges, 0))


def _score_axis(axes: Axes, results: Results, label: str, columns: int) -> None:
    axes.set_ylim(0, 1)
    axes.set_ylabel(label)
    _class_axis(axes, [f"{name}\nn = {n}" for name, n in zip(results.classes, results.support, strict=True)])
    axes.legend(ncols=columns, loc="lower center", bbox_to_anchor=(0.5, 1))


def _width(results: Results) -> float:
    """Returns the width in inches of a figure with bars for each class."""
    return 2 + max(4, len(results.classes))


def _class_axis(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), names)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
