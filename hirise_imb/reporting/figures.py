"""Figures. They draw numbers that `results` computed; the one thing they decide is how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hirise_imb.landmarks import CLASSES, SPLITS
from hirise_imb.reporting.results import Arm, Results
from hirise_imb.reporting.style import SPLIT_COLOURS, colours, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}


def class_distribution(results: Results) -> Figure:
    """Landmarks of each class by split, on a logarithmic axis, since they differ by a factor of hundreds."""
    canvas = figure(10, 3.8)
    axes = canvas.subplots()
    summary = results.catalogue.summary()
    for n, split in enumerate(SPLITS):
        counts = summary.loc[summary["split"] == split, "landmarks"].to_numpy()
        _bars(axes, n, len(SPLITS), counts, _SPLIT_NAMES[split], SPLIT_COLOURS[split], "{:d}")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.8)
    axes.margins(y=0.15)
    axes.set_ylabel("landmarks (log scale)")
    _class_axis(axes)
    axes.legend(ncols=3)
    return canvas


def f1_per_class(results: Results) -> Figure:
    """F1 of each class for every arm, with the range over seeds."""
    canvas = figure(10, 4.2)
    axes = canvas.subplots()
    names = [arm.name for arm in results.arms]
    for n, (name, colour) in enumerate(colours(names).items()):
        spreads = results.per_class(name, "f1")
        means = np.array([spread.mean for spread in spreads])
        ranges = np.array([[s.mean - s.low for s in spreads], [s.high - s.mean for s in spreads]])
        _bars(axes, n, len(names), means, name, colour, "", errors=np.maximum(ranges, 0))
    axes.set_ylim(0, 1)
    axes.set_ylabel("F1 on the test split")
    _class_axis(axes, results.support)
    axes.legend(ncols=len(names), loc="lower center", bbox_to_anchor=(0.5, 1))
    return canvas


def confusion(results: Results, arm: str) -> Figure:
    """Confusion matrix: colour is the share of the true class, text gives the share in per cent and the count."""
    table = results.confusion_table(arm)
    size = len(CLASSES)
    shares = table["share_of_true"].to_numpy().reshape(size, size)
    counts = table["count"].to_numpy().reshape(size, size)
    canvas = figure(6.4, 5.5)
    axes = canvas.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(visible=False)
    for row in range(size):
        for column in range(size):
            _cell(axes, row, column, shares[row, column], counts[row, column])
    axes.set_xticks(range(size), CLASSES, rotation=40, ha="right")
    axes.set_yticks(range(size), [f"{name} ({n})" for name, n in zip(CLASSES, results.support, strict=True)])
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class (test landmarks)")
    axes.set_title(f"{arm}: share of the true class in %, count below")
    canvas.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    return canvas


def curves(arm: Arm) -> Figure:
    """Loss and accuracy over epochs for train, validation and test; thin lines are the further seeds."""
    canvas = figure(9, 3.6)
    for axes, what, unit in zip(canvas.subplots(1, 2), ("loss", "accuracy"), ("nats", "share"), strict=True):
        for split in SPLITS:
            _curve(axes, arm.histories, f"{split}_{what}", _SPLIT_NAMES[split], SPLIT_COLOURS[split])
        for best in arm.best_epochs[:1]:
            axes.axvline(best, color="#9ca3af", linestyle=":", label="kept epoch")
        axes.set_title("cross-entropy" if what == "loss" else what)
        axes.set_xlabel("epoch")
        axes.set_ylabel(unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylim(0, 1)
    axes.legend()
    return canvas


def _curve(axes: Axes, histories: Sequence[pd.DataFrame], column: str, label: str, colour: str) -> None:
    for n, history in enumerate(histories):
        first = n == 0
        axes.plot(
            history["epoch"],
            history[column],
            color=colour,
            label=label if first else None,
            linewidth=1.8 if first else 0.7,
            alpha=1 if first else 0.5,
            marker="o" if len(history) == 1 else None,
        )


def _cell(axes: Axes, row: int, column: int, share: float, count: float) -> None:
    if count == 0 and row != column:
        return
    text = f"{100 * share:.0f}\n{count:.4g}" if count == round(count) else f"{100 * share:.0f}\n{count:.1f}"
    axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if share > 0.55 else "#111827")


def _bars(
    axes: Axes,
    n: int,
    of: int,
    values: np.ndarray[Any, Any],
    label: str,
    colour: str,
    text: str,
    errors: np.ndarray[Any, Any] | None = None,
) -> None:
    width = 0.84 / of
    places = np.arange(len(CLASSES)) + (n - (of - 1) / 2) * width
    bars = axes.bar(places, values, width * 0.94, color=colour, label=label, yerr=errors, ecolor="#111827")
    if text:
        axes.bar_label(bars, [text.format(value) for value in values], fontsize=7, padding=1)


def _class_axis(axes: Axes, support: np.ndarray[Any, Any] | None = None) -> None:
    names = list(CLASSES) if support is None else [f"{c}\nn = {n}" for c, n in zip(CLASSES, support, strict=True)]
    axes.set_xticks(range(len(CLASSES)), names)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
