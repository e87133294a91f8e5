"""What users see of a classifier that shows its confident predictions only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE_THRESHOLD = 0.9
"""Lowest confidence of predictions that are shown, as in the deployed classifier (Wagstaff et al. 2021)."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Probabilities = NDArray[np.floating]


@dataclass(frozen=True)
class OperatingPoint:
    """Counts for each class, shape (n_classes,), if only predictions of at least `CONFIDENCE_THRESHOLD` are shown."""

    support: Ints | Floats
    """Number of landmarks of the class."""
    decided: Ints | Floats
    """Number of landmarks of the class whose prediction is shown, whichever it is."""
    shown: Ints | Floats
    """Number of landmarks that are shown as the class."""
    right: Ints | Floats
    """Number of landmarks that are rightly shown as the class."""

    @classmethod
    def of(cls, labels: Ints, probabilities: Probabilities) -> OperatingPoint:
        """Counts the predictions of one fit."""
        chosen, sure = probabilities.argmax(axis=1), probabilities.max(axis=1) >= CONFIDENCE_THRESHOLD
        groups = labels, labels[sure], chosen[sure], chosen[sure & (chosen == labels)]
        return cls(*(np.bincount(group, minlength=probabilities.shape[1]) for group in groups))

    @classmethod
    def mean(cls, points: Sequence[OperatingPoint]) -> OperatingPoint:
        """Returns the mean counts of several fits."""
        sums = zip(*((point.support, point.decided, point.shown, point.right) for point in points), strict=True)
        return cls(*(np.mean(counts, axis=0) for counts in sums))
