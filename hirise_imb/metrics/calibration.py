"""Calibration of one fit's probabilities: log loss, temperature scaling and the expected calibration error.

Labels have shape (n,) and probabilities (n, n_classes). The confidence of a prediction is the probability of the
predicted class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Number of bins of equal width in a reliability diagram."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Probabilities = NDArray[np.floating]


def log_loss(labels: Ints, probabilities: Probabilities) -> float:
    """Returns the mean of -log p(true class), in nats; underflow counts as the smallest float32."""
    chosen = probabilities[np.arange(len(labels)), labels].astype(float)
    return float(-np.log(np.maximum(chosen, np.finfo(np.float32).tiny)).mean())


def apply_temperature(probabilities: Probabilities, temperature: float) -> Floats:
    """Returns the softmax of log p / temperature, which changes no decision (Guo et al. 2017)."""
    p = np.asarray(probabilities, np.float64)
    powers = (p / p.max(axis=1, keepdims=True)) ** (1 / temperature)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class ReliabilityDiagram:
    """A reliability diagram of the predicted class: sums in each bin of confidence, shape (bins,) each.

    The first bins are empty: no confidence is below 1 / n_classes.
    """

    count: Ints
    """Number of predictions."""
    confidence: Floats
    """Sum of confidences."""
    hits: Floats
    """Number of right predictions."""

    @classmethod
    def of(cls, labels: Ints, probabilities: Probabilities, bins: int = BINS) -> ReliabilityDiagram:
        """Sorts predictions into bins."""
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
    """Returns the expected calibration error of the predicted class (Guo et al. 2017)."""
    return ReliabilityDiagram.of(labels, probabilities, bins).error
