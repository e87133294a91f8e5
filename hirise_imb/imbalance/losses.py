"""Losses and class weights a recipe can name.

What enters their formulas are counts of LANDMARKS in the rows a classifier learns from, or of SOURCES where a recipe
says so: the variants of a landmark and repeated rows are no new evidence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Tensor = Any
"""A TensorFlow tensor; TensorFlow ships no types."""

Unit = Literal["landmarks", "sources"]


@dataclass(frozen=True)
class ClassCounts:
    """What is known of each class in the rows a classifier learns from, shape (n_classes,) each."""

    landmarks: Ints
    sources: Ints
    """Observations that hold a landmark of the class."""
    shares: Floats
    """Of the class among the rows of an epoch, as sampled: the prior that logits are learnt under."""

    def of(self, unit: Unit) -> Ints:
        """Landmarks or sources."""
        return self.landmarks if unit == "landmarks" else self.sources

    def log_prior(self) -> Floats:
        """log of the shares; 0 for a class without rows, of which no logit is learnt."""
        return np.log(self.shares, out=np.zeros(len(self.shares)), where=self.shares > 0)


def inverse_power(counts: Ints, power: float, landmarks: Ints | None = None) -> Floats:
    """Weights w_k proportional to n_k^-power, scaled so that the mean over landmarks is 1.

    power 0 gives equal weights, 1 inverse frequency (scikit-learn's "balanced"; King & Zeng 2001), more than 1 goes
    beyond it. The scale keeps the size of a gradient step comparable between powers.

    Args:
        counts: of each class, shape (n_classes,); a class without any has weight 0.
        power: the exponent.
        landmarks: of each class, where `counts` counts something else.
    """
    there = counts > 0
    weights = np.zeros(len(counts))
    weights[there] = counts[there].astype(float) ** -power
    return _mean_one(counts if landmarks is None else landmarks, weights)


def effective_number(counts: Ints, beta: float, landmarks: Ints | None = None) -> Floats:
    """Weights 1 / E_k with E_k = (1 - beta^n_k) / (1 - beta), scaled so that the mean over landmarks is 1.

    Source: Cui et al. 2019, "Class-balanced loss based on effective number of samples" (there scaled to sum to the
    number of classes). beta 0 gives equal weights; beta towards 1, inverse frequency.

    Args:
        counts: of each class, shape (n_classes,); a class without any has weight 0.
        beta: in [0, 1).
        landmarks: of each class, where `counts` counts something else.
    """
    there = counts > 0
    weights = np.zeros(len(counts))
    weights[there] = (1 - beta) / (1 - beta ** counts[there].astype(float))
    return _mean_one(counts if landmarks is None else landmarks, weights)


def _mean_one(landmarks: Ints, weights: Floats) -> Floats:
    return np.asarray(weights * landmarks.sum() / (landmarks * weights).sum(), dtype=np.float64)


class ClassWeights(Protocol):
    """Gives each class the weight of its rows in the training loss."""

    def weights(self, counts: ClassCounts) -> Floats:
        """Weights, shape (n_classes,), with mean 1 over landmarks."""
        ...


@dataclass(frozen=True)
class InversePower:
    """`inverse_power`; the default power 0 weighs all classes alike."""

    power: float = 0.0
    unit: Unit = "landmarks"

    def weights(self, counts: ClassCounts) -> Floats:
        """Weights, shape (n_classes,)."""
        return inverse_power(counts.of(self.unit), self.power, counts.landmarks)


@dataclass(frozen=True)
class EffectiveNumber:
    """`effective_number`, with beta in [0, 1); beta belongs to the unit that is counted."""

    beta: float
    unit: Unit = "landmarks"

    def __post_init__(self) -> None:
        """Refuse a beta outside [0, 1)."""
        if not 0 <= self.beta < 1:
            raise ValueError(f"beta must be in [0, 1), got {self.beta}")

    def weights(self, counts: ClassCounts) -> Floats:
        """Weights, shape (n_classes,)."""
        return effective_number(counts.of(self.unit), self.beta, counts.landmarks)


@dataclass(frozen=True)
class LossTerms:
    """A loss in numbers, so that a new value compiles nothing and heads with different losses train in one step.

    With the logits z' = z + offsets, from which margins[y] is taken off the own class y, the loss of a row is
    weights[y] * (1 - p'_y)^focus * -log p'_y, p' being the softmax of z'.
    """

    weights: Floats
    """Shape (n_classes,)."""
    focus: float = 0.0
    offsets: Floats = field(default_factory=lambda: np.zeros(1))
    """Shape (n_classes,), or (1,) where all classes have the same."""
    margins: Floats = field(default_factory=lambda: np.zeros(1))
    """Likewise; of a head that measures cosines, in units of cosine."""


class Loss(Protocol):
    """A loss a recipe can name."""

    def terms(self, counts: ClassCounts) -> LossTerms:
        """Its numbers."""
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """Categorical cross-entropy."""

    def terms(self, counts: ClassCounts) -> LossTerms:
        """All classes alike."""
        return LossTerms(np.ones(len(counts.landmarks)))


@dataclass(frozen=True)
class Focal:
    """-alpha_y (1 - p_y)^gamma log p_y (Lin et al. 2017, "Focal loss for dense object detection").

    alpha_k = `inverse_power` of landmarks, because one alpha for all classes would only scale the loss. gamma 0 and
    alpha_power 0 give cross-entropy. The probability is that of the softmax; for effective numbers (Cui et al. 2019,
    there with sigmoids) give the recipe class weights instead of an alpha.
    """

    gamma: float = 2.0
    alpha_power: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a negative gamma."""
        if not self.gamma >= 0:  # so that it refuses NaN too
            raise ValueError(f"gamma must not be negative, got {self.gamma}")

    def terms(self, counts: ClassCounts) -> LossTerms:
        """Alpha and gamma."""
        return LossTerms(inverse_power(counts.landmarks, self.alpha_power), self.gamma)


@dataclass(frozen=True)
class LogitAdjustedCrossEntropy:
    """Cross-entropy of z + tau log prior, predicted by z itself (Menon et al. 2021).

    tau 1 is balanced softmax (Ren et al. 2020), tau 0 cross-entropy. The prior is that of the rows as sampled.
    """

    tau: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a negative tau."""
        if not 0 <= self.tau < np.inf:
            raise ValueError(f"tau must not be negative, got {self.tau}")

    def terms(self, counts: ClassCounts) -> LossTerms:
        """The prior as offsets."""
        return LossTerms(np.ones(len(counts.landmarks)), offsets=self.tau * counts.log_prior())


@dataclass(frozen=True)
class LabelDistributionAwareMargin:
    """Cross-entropy in which the own class must win by a margin, wider the rarer it is (LDAM; Cao et al. 2019).

    The margin of a class of n_k landmarks is C n_k^(-1/4), C such that the widest is `max_margin`. It is taken off the
    cosine between features and class weights, so it needs a head that measures cosines.
    """

    max_margin: float = 0.5

    def __post_init__(self) -> None:
        """Refuse a margin that no cosine can have."""
        if not 0 <= self.max_margin <= 2:
            raise ValueError(f"max_margin must be in [0, 2], got {self.max_margin}")

    def terms(self, counts: ClassCounts) -> LossTerms:
        """The margins; a class without landmarks has none."""
        there = counts.landmarks > 0
        margins = np.zeros(len(there))
        margins[there] = counts.landmarks[there] ** -0.25
        return LossTerms(np.ones(len(there)), margins=margins * self.max_margin / margins.max())


def row_losses(
    one_hot: Tensor, logits: Tensor, weights: Tensor, focus: Tensor, offsets: Tensor, margins: Tensor
) -> Tensor:
    """The loss of each row in each head, shape (batch, n_heads); see `LossTerms`.

    Args:
        one_hot: labels, shape (batch, n_classes): a single 1 in a row, or none in padding.
        logits: shape (batch, n_heads, n_classes).
        weights: shape (n_heads, n_classes).
        focus: shape (n_heads,).
        offsets: shape (n_heads, n_classes).
        margins: in units of logits, shape (n_heads, n_classes).
    """
    import tensorflow as tf

    hot = one_hot[:, None, :]
    logits = logits + offsets - hot * margins
    own = tf.reduce_sum(hot * logits, axis=2)
    whole = tf.reduce_logsumexp(logits, axis=2)
    # log(1 - p_y) from the other logits: 1 - p_y itself is 0 in floating point where p_y is near 1.
    others = tf.reduce_logsumexp(tf.where(hot > 0, -np.inf, logits), axis=2)
    return tf.matmul(one_hot, weights, transpose_b=True) * tf.exp(focus * (others - whole)) * (whole - own)
