"""Calibration of one fit's probabilities: log loss, temperature scaling and the expected calibration error.

Labels have shape (n,) and probabilities (n, n_classes). The confidence of a prediction is the probability of the
predicted class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Number of equal-width bins in a reliability diagram."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Probabilities = NDArray[np.floating]


def log_loss(labels: Ints, probabilities: Probabilities) -> float:
    """Returns the mean of -log p(true class) in nats.

    Probabilities that underflowed to 0 count as the smallest normal float32, so that the loss stays finite.
    """
    chosen = probabilities[np.arange(len(labels)), labels].astype(float)
    return float(-np.log(np.maximum(chosen, np.finfo(np.float32).tiny)).mean())


def apply_temperature(probabilities: Probabilities, temperature: float | Floats) -> Floats:
    """Returns the softmax of log p / temperature (Guo et al. 2017); the most probable class does not change.

    Args:
        probabilities: predicted probabilities, shape (n, n_classes).
        temperature: one temperature, or one for each row, shape (n,).
    """
    p = np.asarray(probabilities, np.float64)
    # Dividing by the largest probability keeps powers of small temperatures from underflowing everywhere.
    powers = (p / p.max(axis=1, keepdims=True)) ** (1 / np.reshape(temperature, (-1, 1)))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class ReliabilityDiagram:
    """A reliability diagram of the predicted class, as sums over the predictions in each confidence bin.

    Each field has the shape (bins,). The first bins are empty because no confidence is below 1 / n_classes.
    """

    count: Ints
    """Number of predictions in each bin."""
    confidence: Floats
    """Sum of the confidences in each bin."""
    hits: Floats
    """Number of correct predictions in each bin."""

    @classmethod
    def of(cls, labels: Ints, probabilities: Probabilities, bins: int = BINS) -> ReliabilityDiagram:
        """Sorts the predictions into bins by confidence."""
        confidence = probabilities.max(axis=1).astype(float)
        correct = (probabilities.argmax(axis=1) == labels).astype(float)
        # A confidence of exactly 1 belongs to the last bin.
        bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
        return cls(
            np.bincount(bin_of, minlength=bins),
            np.bincount(bin_of, confidence, minlength=bins).astype(float),
            np.bincount(bin_of, correct, minlength=bins).astype(float),
        )

    @property
    def error(self) -> float:
        """Expected calibration error: the mean of |accuracy - confidence|, weighted by bin counts (Guo et al. 2017)."""
        return float(np.abs(self.hits - self.confidence).sum() / self.count.sum())


def expected_calibration_error(labels: Ints, probabilities: Probabilities, bins: int = BINS) -> float:
    """Returns the expected calibration error of the predicted class (Guo et al. 2017)."""
    return ReliabilityDiagram.of(labels, probabilities, bins).error
