"""Figures of predicted probabilities for a few arms: precision-recall, calibration and risk-coverage curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.metrics.calibration import ReliabilityDiagram, apply_temperature
from hirise_imb.metrics.operating_point import CONFIDENCE_THRESHOLD
from hirise_imb.metrics.ranking import precision_at_hits, risk_at_coverage
from hirise_imb.reporting.figures.style import BACKGROUND, class_panels, figure, lines
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


def precision_table(results: Results) -> pd.DataFrame:
    """Returns a row for each of a few arms, each class and each possible recall: arm, class, recall, precision.

    Precision is the mean over seeds at the threshold that reaches this recall.
    """
    parts = []
    for arm in results.shown:
        for label in np.flatnonzero(results.support):
            fits = [precision_at_hits(results.labels, fit.probabilities, int(label)) for fit in arm.predictions]
            n = int(results.support[label])
            part = {"recall": np.arange(1, n + 1) / n, "precision": np.mean(fits, axis=0)}
            parts.append(pd.DataFrame({"arm": arm.name, "class": results.classes[int(label)]} | part))
    return pd.concat(parts, ignore_index=True)


def precision_recall(results: Results, table: pd.DataFrame) -> Figure:
    """Draws a panel for each class: precision against recall of a few arms, and the precision of random guessing."""
    from matplotlib.lines import Line2D

    canvas, panels = class_panels(results.classes, 2.9)
    for label, (axes, name) in enumerate(zip(panels, results.classes, strict=True)):
        n = int(results.support[label])
        axes.set_title(f"{name} (n = {n})", fontsize=10)
        if n == 0:
            axes.text(0.5, 0.5, f"no {results.terms.landmark}", ha="center", va="center", fontsize=9)
            continue
        axes.axhline(n / len(results.test), color=BACKGROUND, linewidth=1)
        for arm, line in zip(results.shown, lines(results.shown), strict=True):
            part = table[(table["arm"] == arm.name) & (table["class"] == name)]
            average_precision = results.average_precision(arm.name)[label]
            assert average_precision is not None
            # With steps from recall 0, the area under the line is the average precision.
            recall, precision = np.append(0, part["recall"]), np.append(part["precision"].iloc[0], part["precision"])
            axes.plot(recall, precision, **line, drawstyle="steps-pre", label=f"{average_precision.mean:.2f}")
        axes.legend(fontsize=8, title="average precision", title_fontsize=7, loc="best", handlelength=1.6)
    # The names of arms are listed once above the panels, because those of a comparison are longer than a panel.
    handles = [Line2D([], [], **line) for line in lines(results.shown)]
    canvas.legend(handles, [arm.name for arm in results.shown], loc="outside upper left", ncols=3, fontsize=9)
    panels[0].set_xlim(-0.02, 1.02)
    panels[0].set_ylim(-0.02, 1.05)
    canvas.supxlabel("recall; grey: the share of the class, the precision of random guessing", fontsize=9)
    canvas.supylabel("precision", fontsize=10)
    return canvas


def reliability_table(results: Results) -> pd.DataFrame:
    """Returns a row for each arm, with and without temperature scaling, and each bin.

    Columns: arm, tempered, bin, count, confidence and accuracy. The predictions of all seeds are pooled; empty bins
    have no row.
    """
    parts = []
    for arm in results.ordered:
        for scaled in (False, True):
            diagram = _reliability(results, arm, scaled)
            bins = np.flatnonzero(diagram.count)
            count = diagram.count[bins]
            means = {"confidence": diagram.confidence[bins] / count, "accuracy": diagram.hits[bins] / count}
            parts.append(pd.DataFrame({"arm": arm.name, "tempered": scaled, "bin": bins + 1, "count": count} | means))
    return pd.concat(parts, ignore_index=True)


def calibration(results: Results, table: pd.DataFrame) -> Figure:
    """Draws accuracy against confidence in bins, as predicted and after temperature scaling."""
    canvas = figure(11, 4.4)
    panels = canvas.subplots(1, 2, sharex=True, sharey=True)
    for axes, scaled in zip(panels, (False, True), strict=True):
        axes.plot((0, 1), (0, 1), color=BACKGROUND, linewidth=1)
        for arm, line in zip(results.shown, lines(results.shown), strict=True):
            part = table[(table["arm"] == arm.name) & (table["tempered"] == scaled)]
            name = "calibration_error_tempered" if scaled else "calibration_error"
            label = f"{arm.name}, error {results.headline_scores(arm.name)[name].mean:.3f}"
            axes.plot(part["confidence"], part["accuracy"], **line, label=label)
            # The constant keeps bins with few predictions visible.
            sizes = 6 + 200 * part["count"] / part["count"].sum()
            axes.scatter(part["confidence"], part["accuracy"], sizes, color=line["color"], alpha=0.7, zorder=3)
        axes.set_title("after temperature scaling" if scaled else "as predicted")
        axes.set_xlabel("confidence of the predicted class")
        axes.legend(loc="upper left", fontsize=9)
    panels[0].set_ylabel("accuracy")
    words = "Dots: confidence bins, larger with more predictions. On the diagonal, probabilities are calibrated."
    canvas.suptitle(words, x=0.01, ha="left", fontsize=9)
    return canvas


def risk_table(results: Results) -> pd.DataFrame:
    """Returns a row for each of a few arms and each number of shown predictions: arm, coverage, mean risk."""
    coverage = np.arange(1, len(results.test) + 1) / len(results.test)
    parts = [
        pd.DataFrame({"arm": arm.name, "coverage": coverage, "risk": _risk(results, arm)}) for arm in results.shown
    ]
    return pd.concat(parts, ignore_index=True)


def risk_coverage(results: Results, table: pd.DataFrame) -> Figure:
    """Draws the share of mistakes among the most confident predictions, with a dot at the operating point."""
    canvas = figure(11, 3.8)
    axes = canvas.subplots()
    for arm, line in zip(results.shown, lines(results.shown), strict=True):
        part = table[table["arm"] == arm.name]
        area = results.headline_scores(arm.name)["risk_coverage_area"].mean
        axes.plot(part["coverage"], part["risk"], **line, label=f"{arm.name}, area {area:.3f}")
        point = results.operating_point(arm)
        n_shown = point.shown.sum()
        if n_shown > 0:
            coverage, risk = n_shown / len(results.test), 1 - point.right.sum() / n_shown
            axes.plot(coverage, risk, "o", color=line["color"], markersize=8, zorder=4, clip_on=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("coverage: share of predictions that are shown, the most confident first")
    axes.set_ylabel("risk: share of mistakes among them")
    axes.set_title(f"Dot: predictions with a confidence of {CONFIDENCE_THRESHOLD:g} or more", fontsize=9)
    axes.legend()
    return canvas


def _risk(results: Results, arm: Arm) -> Floats:
    fits = [risk_at_coverage(results.labels, fit.probabilities) for fit in arm.predictions]
    return np.asarray(np.mean(fits, axis=0), np.float64)


def _reliability(results: Results, arm: Arm, scaled: bool) -> ReliabilityDiagram:
    fits = [
        apply_temperature(fit.probabilities, temperature) if scaled else fit.probabilities
        for fit, temperature in zip(arm.predictions, results.landmark_temperatures(arm), strict=True)
    ]
    return ReliabilityDiagram.of(np.tile(results.labels, len(fits)), np.concatenate(fits))
