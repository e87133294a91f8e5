"""What probabilities tell beyond the class they choose: ranking, calibration, and what to leave to a person.

Everything here is of one fit: labels of shape (n,) and probabilities of shape (n, n_classes). The confidence of a
prediction is the probability of the class that it chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Of a reliability diagram, of equal width."""

CONFIDENCE_THRESHOLD = 0.9
"""Confidence from which on a prediction is shown to users, as in the deployed classifier (Wagstaff et al. 2021)."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Probabilities = NDArray[np.floating]


def log_loss(labels: Ints, probabilities: Probabilities) -> float:
    """Mean of -log p(true class), in nats; a probability that underflowed counts as the smallest normal float32."""
    chosen = probabilities[np.arange(len(labels)), labels].astype(float)
    return float(-np.log(np.maximum(chosen, np.finfo(np.float32).tiny)).mean())


def apply_temperature(probabilities: Probabilities, temperature: float) -> Floats:
    """The softmax of log p / temperature, which changes no decision (Guo et al. 2017)."""
    p = np.asarray(probabilities, np.float64)
    powers = (p / p.max(axis=1, keepdims=True)) ** (1 / temperature)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class ReliabilityDiagram:
    """A reliability diagram of the chosen class: sums in each bin of confidence, shape (15,) each.

    The first bins are empty: no confidence is below 1 / n_classes.
    """

    count: Ints
    confidence: Floats
    """Sum of confidences."""
    hits: Floats
    """Right predictions."""

    @classmethod
    def of(cls, labels: Ints, probabilities: Probabilities, bins: int = BINS) -> ReliabilityDiagram:
        """Sort predictions into bins."""
        confidence = probabilities.max(axis=1).astype(float)
        right = (probabilities.argmax(axis=1) == labels).astype(float)
        which = np.minimum((confidence * bins).astype(int), bins - 1)
        return cls(
            np.bincount(which, minlength=bins),
            np.bincount(which, confidence, minlength=bins).astype(float),
            np.bincount(which, right, minlength=bins).astype(float),
        )

    @property
    def error(self) -> float:
        """Expected calibration error: bin weights times |accuracy - confidence| (Guo et al. 2017)."""
        return float(np.abs(self.hits - self.confidence).sum() / self.count.sum())


def expected_calibration_error(labels: Ints, probabilities: Probabilities, bins: int = BINS) -> float:
    """Expected calibration error of the chosen class (Guo et al. 2017)."""
    return ReliabilityDiagram.of(labels, probabilities, bins).error


def precision_at_hits(labels: Ints, probabilities: Probabilities, label: int) -> Floats:
    """The precision-recall curve of a class, one value for each of its landmarks, shape (n_of_class,).

    Landmarks are ranked by the probability of the class. Value i is the precision at the threshold that finds i + 1
    landmarks of the class, at recall (i + 1) / n_of_class; equal probabilities have one threshold.
    """
    positive = labels == label
    last = _ends(probabilities[:, label])
    found = np.cumsum(positive[last.order])
    precision = (found / np.arange(1, len(labels) + 1))[last.ends]
    return np.asarray(precision[positive[last.order]], np.float64)


def average_precision(labels: Ints, probabilities: Probabilities) -> Floats:
    """Area under the precision-recall curve of each class (NaN of an absent one), shape (n_classes,).

    It looks at no threshold: what a class could reach if only its threshold were chosen well. Guessing gives the share
    of the class.
    """
    curves = [precision_at_hits(labels, probabilities, label) for label in range(probabilities.shape[1])]
    return np.array([curve.mean() if len(curve) else np.nan for curve in curves])


def risk_at_coverage(labels: Ints, probabilities: Probabilities) -> Floats:
    """Share of mistakes among the most confident 1, 2 .. n predictions, shape (n,) (Geifman & El-Yaniv 2017).

    Equally confident predictions are taken together. The mean is the area under the risk-coverage curve.
    """
    wrong = probabilities.argmax(axis=1) != labels
    last = _ends(probabilities.max(axis=1))
    risk = np.cumsum(wrong[last.order]) / np.arange(1, len(labels) + 1)
    return np.asarray(risk[last.ends], np.float64)


@dataclass(frozen=True)
class OperatingPoint:
    """Counts of classes, shape (n_classes,), when only predictions of at least `CONFIDENCE_THRESHOLD` are shown."""

    support: Ints | Floats
    decided: Ints | Floats
    """Landmarks of each class that get any class."""
    shown: Ints | Floats
    """Landmarks that get this class."""
    right: Ints | Floats
    """Those of them that are of it."""

    @classmethod
    def of(cls, labels: Ints, probabilities: Probabilities) -> OperatingPoint:
        """Count."""
        chosen, sure = probabilities.argmax(axis=1), probabilities.max(axis=1) >= CONFIDENCE_THRESHOLD
        groups = labels, labels[sure], chosen[sure], chosen[sure & (chosen == labels)]
        return cls(*(np.bincount(group, minlength=probabilities.shape[1]) for group in groups))

    @classmethod
    def mean(cls, points: Sequence[OperatingPoint]) -> OperatingPoint:
        """Mean counts of several fits."""
        sums = zip(*((point.support, point.decided, point.shown, point.right) for point in points), strict=True)
        return cls(*(np.mean(counts, axis=0) for counts in sums))


@dataclass(frozen=True)
class _Ends:
    """A ranking in groups of equal scores."""

    order: Ints
    ends: Ints
    """Place of the last one of its group, for each place."""


def _ends(scores: Probabilities) -> _Ends:
    order = np.argsort(-scores, kind="stable")
    changes = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    return _Ends(order, changes[np.searchsorted(changes, np.arange(len(scores)))])
