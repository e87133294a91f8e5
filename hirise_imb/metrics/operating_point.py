"""The operating point of a deployed classifier: only confident predictions are shown to users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE_THRESHOLD = 0.9
"""Lowest confidence at which a prediction is shown, as in the deployed classifier (Wagstaff et al. 2021)."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Probabilities = NDArray[np.floating]


@dataclass(frozen=True)
class OperatingPoint:
    """Counts of each class, shape (n_classes,), if only confident predictions are shown."""

    support: Ints | Floats
    """Number of landmarks of the class."""
    decided: Ints | Floats
    """Number of landmarks of the class for which any prediction is shown."""
    shown: Ints | Floats
    """Number of landmarks that are shown as the class."""
    right: Ints | Floats
    """Number of landmarks that are shown as the class and belong to it."""

    @classmethod
    def of(cls, labels: Ints, probabilities: Probabilities) -> OperatingPoint:
        """Counts the predictions of one fit; those with `CONFIDENCE_THRESHOLD` or more are shown."""
        confident = probabilities.max(axis=1) >= CONFIDENCE_THRESHOLD
        return cls.count(labels, probabilities.argmax(axis=1), confident, probabilities.shape[1])

    @classmethod
    def count(cls, labels: Ints, predicted: Ints, confident: NDArray[np.bool_], n_classes: int) -> OperatingPoint:
        """Counts predicted classes, of which some are confident.

        Args:
            labels: true classes, shape (n,).
            predicted: predicted classes, shape (n,).
            confident: which predictions are shown, shape (n,).
            n_classes: number of classes of the data set.
        """
        groups = labels, labels[confident], predicted[confident], predicted[confident & (predicted == labels)]
        return cls(*(np.bincount(group, minlength=n_classes) for group in groups))

    @classmethod
    def mean(cls, points: Sequence[OperatingPoint]) -> OperatingPoint:
        """Returns the mean counts over several fits."""
        return cls(*np.mean([(point.support, point.decided, point.shown, point.right) for point in points], axis=0))
