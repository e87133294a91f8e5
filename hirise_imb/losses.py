"""Losses and class weights a recipe can name.

Class weights are computed from counts of LANDMARKS in the training split: the variants of a landmark and repeated rows
are no new evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Tensor = Any
"""A TensorFlow tensor; TensorFlow ships no types."""


def inverse_power(counts: NDArray[np.int64], power: float) -> Floats:
    """Weights w_k proportional to n_k^-power, scaled so that the mean over landmarks is 1.

    power 0 gives equal weights, 1 inverse frequency (scikit-learn's "balanced"; King & Zeng 2001), more than 1 goes
    beyond it. The scale keeps the size of a gradient step comparable between powers.

    Args:
        counts: landmarks of each class, shape (n_classes,), all positive.
        power: the exponent.
    """
    return _mean_one(counts, counts.astype(float) ** -power)


def effective_number(counts: NDArray[np.int64], beta: float) -> Floats:
    """Weights 1 / E_k with E_k = (1 - beta^n_k) / (1 - beta), scaled so that the mean over landmarks is 1.

    Source: Cui et al. 2019, "Class-balanced loss based on effective number of samples" (there scaled to sum to the
    number of classes). beta 0 gives equal weights; beta towards 1, inverse frequency.

    Args:
        counts: landmarks of each class, shape (n_classes,), all positive.
        beta: in [0, 1).
    """
    return _mean_one(counts, (1 - beta) / (1 - beta ** counts.astype(float)))


def _mean_one(counts: NDArray[np.int64], weights: Floats) -> Floats:
    return np.asarray(weights * counts.sum() / (counts * weights).sum(), dtype=np.float64)


class ClassWeights(Protocol):
    """Gives each class the weight of its rows in the training loss."""

    def weights(self, counts: NDArray[np.int64]) -> Floats:
        """Weights, shape (n_classes,), from landmark counts of the same shape."""
        ...


@dataclass(frozen=True)
class InversePower:
    """`inverse_power`; the default power 0 weighs all classes alike."""

    power: float = 0.0

    def weights(self, counts: NDArray[np.int64]) -> Floats:
        """Weights, shape (n_classes,)."""
        return inverse_power(counts, self.power)


@dataclass(frozen=True)
class EffectiveNumber:
    """`effective_number`, with beta in [0, 1)."""

    beta: float

    def __post_init__(self) -> None:
        """Refuse a beta outside [0, 1)."""
        if not 0 <= self.beta < 1:
            raise ValueError(f"beta must be in [0, 1), got {self.beta}")

    def weights(self, counts: NDArray[np.int64]) -> Floats:
        """Weights, shape (n_classes,)."""
        return effective_number(counts, self.beta)


@dataclass(frozen=True)
class Terms:
    """A loss in numbers, so that a new value compiles nothing and heads with different losses train in one step.

    The loss of a row of class y is weights[y] * (1 - p_y)^focus * -log p_y.
    """

    weights: Floats
    """Shape (n_classes,)."""
    focus: float = 0.0


class Loss(Protocol):
    """A loss a recipe can name."""

    def terms(self, counts: NDArray[np.int64]) -> Terms:
        """Its numbers, from landmark counts, shape (n_classes,)."""
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """Categorical cross-entropy."""

    def terms(self, counts: NDArray[np.int64]) -> Terms:
        """All classes alike."""
        return Terms(np.ones(len(counts)))


@dataclass(frozen=True)
class Focal:
    """-alpha_y (1 - p_y)^gamma log p_y (Lin et al. 2017, "Focal loss for dense object detection").

    alpha_k = `inverse_power(counts, alpha_power)`, because one alpha for all classes would only scale the loss.
    gamma 0 and alpha_power 0 give cross-entropy.
    """

    gamma: float = 2.0
    alpha_power: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a negative gamma."""
        if not self.gamma >= 0:  # so that it refuses NaN too
            raise ValueError(f"gamma must not be negative, got {self.gamma}")

    def terms(self, counts: NDArray[np.int64]) -> Terms:
        """Alpha and gamma."""
        return Terms(inverse_power(counts, self.alpha_power), self.gamma)


def rowwise(one_hot: Tensor, logits: Tensor, weights: Tensor, focus: Tensor) -> Tensor:
    """The loss of each row in each head, shape (batch, n_heads); see `Terms`.

    Args:
        one_hot: labels, shape (batch, n_classes): a single 1 in a row, or none in padding.
        logits: shape (batch, n_heads, n_classes).
        weights: shape (n_heads, n_classes).
        focus: shape (n_heads,).
    """
    import tensorflow as tf

    hot = one_hot[:, None, :]
    own = tf.reduce_sum(hot * logits, axis=2)
    whole = tf.reduce_logsumexp(logits, axis=2)
    # log(1 - p_y) from the other logits: 1 - p_y itself is 0 in floating point where p_y is near 1.
    others = tf.reduce_logsumexp(tf.where(hot > 0, -np.inf, logits), axis=2)
    return tf.matmul(one_hot, weights, transpose_b=True) * tf.exp(focus * (others - whole)) * (whole - own)
