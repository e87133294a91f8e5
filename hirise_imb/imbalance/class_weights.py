"""Class weights of the training loss.

The counts in their formulas are numbers of LANDMARKS among the training rows, or of SOURCES where a recipe says so:
variants of a landmark and repeated rows are not independent evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Unit = Literal["landmarks", "sources"]


@dataclass(frozen=True)
class ClassCounts:
    """Counts of each class in the training data, arrays of shape (n_classes,)."""

    landmarks: Ints
    sources: Ints
    """Number of sources with a landmark of the class."""
    shares: Floats
    """Share of the class among the rows of an epoch, as sampled: the prior that logits are learnt under."""

    def of(self, unit: Unit) -> Ints:
        """Returns the number of landmarks or sources of each class, shape (n_classes,)."""
        return self.landmarks if unit == "landmarks" else self.sources

    def log_prior(self) -> Floats:
        """Returns the log of the shares; 0 for a class without rows, for which no logit is learnt."""
        return np.log(np.where(self.shares > 0, self.shares, 1))


def inverse_power(counts: Ints, power: float, landmarks: Ints | None = None) -> Floats:
    """Returns weights w_k proportional to n_k^-power, scaled to a mean of 1 over landmarks.

    Power 0 gives equal weights, 1 inverse frequency (scikit-learn's "balanced"; King & Zeng 2001), more than 1 goes
    beyond it. The scale keeps the size of a gradient step comparable between powers.

    Args:
        counts: n_k, shape (n_classes,); a class with count 0 has weight 0.
        power: exponent of the counts.
        landmarks: number of landmarks of each class, where `counts` counts something else.
    """
    present = counts > 0
    weights = np.zeros(len(counts))
    weights[present] = counts[present] ** -float(power)
    return _scale_to_mean_one(counts if landmarks is None else landmarks, weights)


def effective_number(counts: Ints, beta: float, landmarks: Ints | None = None) -> Floats:
    """Returns weights 1 / E_k with E_k = (1 - beta^n_k) / (1 - beta), scaled to a mean of 1 over landmarks.

    Source: Cui et al. 2019, "Class-balanced loss based on effective number of samples" (scaled there to sum to the
    number of classes). Beta 0 gives equal weights; beta towards 1, inverse frequency.

    Args:
        counts: n_k, shape (n_classes,); a class with count 0 has weight 0.
        beta: beta of the effective numbers, in [0, 1).
        landmarks: number of landmarks of each class, where `counts` counts something else.
    """
    present = counts > 0
    weights = np.zeros(len(counts))
    weights[present] = (1 - beta) / (1 - beta ** counts[present])
    return _scale_to_mean_one(counts if landmarks is None else landmarks, weights)


def _scale_to_mean_one(landmarks: Ints, weights: Floats) -> Floats:
    return np.asarray(weights * landmarks.sum() / (landmarks * weights).sum())


class ClassWeights(Protocol):
    """Gives the rows of each class a weight in the training loss."""

    def weights(self, counts: ClassCounts) -> Floats:
        """Returns weights with a mean of 1 over landmarks, shape (n_classes,)."""
        ...


@dataclass(frozen=True)
class InversePower:
    """Weights by `inverse_power`; the default power 0 gives all classes the same weight."""

    power: float = 0.0
    unit: Unit = "landmarks"

    def weights(self, counts: ClassCounts) -> Floats:
        """Returns the weights, shape (n_classes,)."""
        return inverse_power(counts.of(self.unit), self.power, counts.landmarks)


@dataclass(frozen=True)
class EffectiveNumber:
    """Weights by `effective_number`; a beta has a meaning only together with the unit that is counted."""

    beta: float
    """Beta of the effective numbers, in [0, 1)."""
    unit: Unit = "landmarks"

    def __post_init__(self) -> None:
        """Checks the range of beta."""
        if not 0 <= self.beta < 1:
            raise ValueError(f"beta must be in [0, 1), got {self.beta}")

    def weights(self, counts: ClassCounts) -> Floats:
        """Returns the weights, shape (n_classes,)."""
        return effective_number(counts.of(self.unit), self.beta, counts.landmarks)
