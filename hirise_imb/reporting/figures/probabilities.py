"""Figures of predicted probabilities for a few arms: precision-recall, calibration and risk-coverage curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.metrics.calibration import ReliabilityDiagram, apply_temperature
from hirise_imb.metrics.operating_point import CONFIDENCE_THRESHOLD
from hirise_imb.metrics.ranking import precision_at_hits, risk_at_coverage
from hirise_imb.reporting.figures.style import PALE, add_hover_text, class_panels, figure, lines, name_width, write_head
from hirise_imb.reporting.formatting import join_words
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

_MIN_LANDMARKS = 10
"""Fewest landmarks of a class with a precision-recall curve: with fewer, each landmark is a step of the curve."""
_MIN_PREDICTIONS = 10
"""Fewest predictions of a confidence bin that a line joins."""
_FIRST_COVERAGE = 0.1
_MOST_VALUES = 6
"""Most arms whose average precision is written into each panel."""


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
    """Draws a panel for each class with enough landmarks: precision against recall of a few arms.

    A grey line is the precision of random guessing. Classes without a panel are named above.
    """
    labels = _classes_with_panels(results)
    n_columns = max(1, min(4, int(10 / (0.5 + name_width((arm.name for arm in results.shown), 9)))))
    legend = 0.2 * -(-len(results.shown) // n_columns)
    canvas, panels = class_panels(labels, 1.75, 0.6, 0.65, 1.05 + legend)
    for axes, label in zip(panels, labels, strict=True):
        name, n = results.classes[label], int(results.support[label])
        axes.set_title(f"{name} (n = {n})", fontsize=9.5)
        axes.axhline(n / len(results.test), color=PALE, linewidth=1)
        for place, (arm, line) in enumerate(zip(results.shown, lines(results.shown), strict=True)):
            part = table[(table["arm"] == arm.name) & (table["class"] == name)]
            average_precision = results.average_precision(arm.name)[label]
            assert average_precision is not None
            # With steps from recall 0, the area under the line is the average precision.
            recall, precision = np.append(0, part["recall"]), np.append(part["precision"].iloc[0], part["precision"])
            text = f"{average_precision.mean:.2f}"
            [curve] = axes.plot(recall, precision, **line, drawstyle="steps-pre", label=arm.name)
            add_hover_text(curve, f"{arm.name}, {name}: average precision {text}")
            # Beyond this number of arms, their values would cover the panel.
            if len(results.shown) <= _MOST_VALUES:
                # Lines of a class that is hard to find pass through the lower left corner, those of others do not.
                x, y = (0.03, 0.04) if average_precision.mean > 0.3 else (0.85, 0.6)
                axes.text(x, y + 0.1 * (len(results.shown) - place - 1), text, color=line["color"], fontsize=9)
    _name_lines(canvas, results, n_columns)
    panels[0].set_xlim(0, 1.01)
    panels[0].set_ylim(0, 1.04)
    panels[0].set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    panels[0].set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    panels[0].set_ylabel("precision")
    canvas.text(0.5, 0.12 / canvas.get_figheight(), "recall", fontsize=9.5, ha="center")
    notes = "Numbers: average precision, the area under the line. Grey: the precision of random guessing."
    write_head(canvas, "Precision against recall", notes, *_name_omitted(results, labels))
    return canvas


def _classes_with_panels(results: Results) -> list[int]:
    """Returns the classes with enough landmarks for a curve, or the most frequent class if none has enough."""
    enough = np.flatnonzero(results.support >= _MIN_LANDMARKS).tolist()
    return enough or [int(results.support.argmax())]


def _name_omitted(results: Results, labels: Sequence[int]) -> list[str]:
    """Returns a sentence that names the classes without a panel, as a list that is empty if there are none."""
    rest = [label for label in range(len(results.classes)) if label not in labels]
    names = [f"{results.classes[label]} ({results.support[label] or f'no {results.terms.landmark}'})" for label in rest]
    few = f"fewer than {_MIN_LANDMARKS} landmarks"
    return [f"Too few for a curve ({few}): {join_words(names)}."] if names else []


def _name_lines(canvas: Figure, results: Results, n_columns: int) -> None:
    """Names the lines of arms once above all panels, because those of a comparison are longer than a panel."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **line) for line in lines(results.shown)]
    place = (0.0, 1 - 0.6 / canvas.get_figheight())
    style: dict[str, Any] = {
        "ncols": n_columns,
        "fontsize": 9,
        "handlelength": 1.8,
        "borderpad": 0.2,
        "columnspacing": 1.4,
    }
    canvas.legend(handles, [arm.name for arm in results.shown], loc="upper left", bbox_to_anchor=place, **style)


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
    canvas = figure(11, 4.6, (0.6, 0.1, 0.5, 0.95))
    panels = canvas.subplots(1, 2, sharex=True, sharey=True, gridspec_kw={"wspace": 0.08})
    for axes, scaled in zip(panels, (False, True), strict=True):
        axes.plot((0, 1), (0, 1), color=PALE, linewidth=1)
        for arm, line in zip(results.shown, lines(results.shown), strict=True):
            part = table[(table["arm"] == arm.name) & (table["tempered"] == scaled)]
            name = "calibration_error_tempered" if scaled else "calibration_error"
            label = f"{arm.name}, error {results.headline_scores(arm.name)[name].mean:.3f}"
            firm = part[part["count"] >= _MIN_PREDICTIONS]
            axes.plot(firm["confidence"], firm["accuracy"], **line, label=label)
            # The constant keeps bins with few predictions visible.
            sizes = 8 + 160 * part["count"] / part["count"].sum()
            style: dict[str, Any] = {"color": line["color"], "alpha": 0.6, "linewidths": 0, "zorder": 3}
            marks = axes.scatter(part["confidence"], part["accuracy"], sizes, **style)
            cells = part[["confidence", "accuracy", "count"]].itertuples(index=False)
            words = (f"confidence {c:.2f}, accuracy {a:.2f}, {n} predictions" for c, a, n in cells)
            add_hover_text(marks, *(f"{arm.name}: {text}" for text in words))
        axes.set_title("after temperature scaling" if scaled else "as predicted")
        axes.set_xlabel("confidence of the predicted class")
        axes.legend(loc="upper left", handlelength=1.8)
    drawn = table[table["arm"].isin([arm.name for arm in results.shown])]
    panels[0].set_xlim(np.floor(10 * drawn["confidence"].min()) / 10, 1.02)
    panels[0].set_ylim(-0.03, 1.04)
    panels[0].set_ylabel("accuracy")
    write_head(
        canvas,
        "Is the confidence right?",
        f"Dots: confidence bins, larger with more predictions; lines join bins of {_MIN_PREDICTIONS} or more. On the "
        "diagonal, probabilities are calibrated.",
    )
    return canvas


def risk_table(results: Results) -> pd.DataFrame:
    """Returns a row for each of a few arms and each number of shown predictions: arm, coverage, mean risk."""
    coverage = np.arange(1, len(results.test) + 1) / len(results.test)
    parts = [
        pd.DataFrame({"arm": arm.name, "coverage": coverage, "risk": _risk(results, arm)}) for arm in results.shown
    ]
    return pd.concat(parts, ignore_index=True)


def risk_coverage(results: Results, table: pd.DataFrame) -> Figure:
    """Draws the share of mistakes among the most confident predictions, with a dot at the operating point.

    The curves begin at 10 % coverage: before it, they are shares of a few predictions, whose noise would rule the axis.
    """
    canvas = figure(9, 3.9, (0.65, 0.1, 0.5, 0.8))
    axes = canvas.subplots()
    for arm, line in zip(results.shown, lines(results.shown), strict=True):
        part = table[(table["arm"] == arm.name) & (table["coverage"] >= _FIRST_COVERAGE)]
        area = results.headline_scores(arm.name)["risk_coverage_area"].mean
        [curve] = axes.plot(part["coverage"], part["risk"], **line, label=f"{arm.name}, area {area:.3f}")
        add_hover_text(curve, f"{arm.name}: area {area:.3f}, risk {part['risk'].iloc[-1]:.3f} if all are shown")
        point = results.operating_point(arm)
        n_shown = point.shown.sum()
        if n_shown >= _FIRST_COVERAGE * len(results.test):
            coverage, risk = n_shown / len(results.test), 1 - point.right.sum() / n_shown
            [mark] = axes.plot(coverage, risk, "o", color=line["color"], markersize=7, zorder=4, clip_on=False)
            words = f"confidence {CONFIDENCE_THRESHOLD:g} or more: coverage {coverage:.2f}, risk {risk:.3f}"
            add_hover_text(mark, f"{arm.name}, {words}")
    axes.set_xlim(_FIRST_COVERAGE, 1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("coverage: share of predictions that are shown, the most confident first")
    axes.set_ylabel("risk: share of errors among them")
    axes.legend(loc="upper left", handlelength=1.8)
    write_head(
        canvas,
        "Errors among the most confident predictions",
        f"Dot: predictions with a confidence of {CONFIDENCE_THRESHOLD:g} or more. The first "
        f"{100 * _FIRST_COVERAGE:.0f} % are not drawn: too few predictions.",
    )
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
