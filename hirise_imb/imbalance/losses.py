"""Training losses as numbers of one formula, so that one compiled step serves them all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hirise_imb.imbalance.class_weights import ClassCounts, inverse_power

Floats = NDArray[np.float64]
Tensor = Any
"""A TensorFlow tensor; TensorFlow ships no types."""


@dataclass(frozen=True)
class LossTerms:
    """The numbers of a loss. They are arguments of the compiled training step, so new values need no recompilation.

    With the logits z' = z + offsets, from whose true class y margins[y] is subtracted, the loss of a row is
    weights[y] * (1 - p'_y)^focus * -log p'_y, where p' is the softmax of z'.
    """

    weights: Floats
    """Weight of each class, shape (n_classes,)."""
    focus: float = 0.0
    """Focusing exponent (gamma of focal loss)."""
    offsets: Floats = field(default_factory=lambda: np.zeros(1))
    """Offset of each class's logit, shape (n_classes,), or (1,) where all classes have the same."""
    margins: Floats = field(default_factory=lambda: np.zeros(1))
    """Margin of each class in units of cosine (for a cosine head), shape (n_classes,) or (1,)."""


class Loss(Protocol):
    """A loss that a recipe can name."""

    def terms(self, counts: ClassCounts) -> LossTerms:
        """Returns the numbers of the loss for training data with these counts."""
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """Categorical cross-entropy."""

    def terms(self, counts: ClassCounts) -> LossTerms:
        """Returns equal weights."""
        return LossTerms(np.ones(len(counts.landmarks)))


@dataclass(frozen=True)
class Focal:
    """Focal loss -alpha_y (1 - p_y)^gamma log p_y (Lin et al. 2017, "Focal loss for dense object detection").

    alpha_k is `inverse_power` of landmarks, because a single alpha for all classes would only scale the loss. Gamma 0
    and alpha_power 0 give cross-entropy. The probability is that of the softmax; for effective numbers (Cui et al.
    2019, who use sigmoids) give the recipe class weights instead of an alpha.
    """

    gamma: float = 2.0
    alpha_power: float = 0.0

    def __post_init__(self) -> None:
        """Checks the range of gamma."""
        if not self.gamma >= 0:  # written so that NaN is refused too
            raise ValueError(f"gamma must not be negative, got {self.gamma}")

    def terms(self, counts: ClassCounts) -> LossTerms:
        """Returns alpha as weights and gamma as focus."""
        return LossTerms(inverse_power(counts.landmarks, self.alpha_power), self.gamma)


@dataclass(frozen=True)
class LogitAdjustedCrossEntropy:
    """Cross-entropy of z + tau log prior, while predictions use z itself (Menon et al. 2021).

    Tau 1 is balanced softmax (Ren et al. 2020), tau 0 cross-entropy. The prior is that of the rows as sampled.
    """

    tau: float = 1.0

    def __post_init__(self) -> None:
        """Checks the range of tau."""
        if not 0 <= self.tau < np.inf:
            raise ValueError(f"tau must not be negative, got {self.tau}")

    def terms(self, counts: ClassCounts) -> LossTerms:
        """Returns the scaled log prior as offsets."""
        return LossTerms(np.ones(len(counts.landmarks)), offsets=self.tau * counts.log_prior())


@dataclass(frozen=True)
class LabelDistributionAwareMargin:
    """Cross-entropy in which the true class must win by a margin, wider the rarer it is (LDAM; Cao et al. 2019).

    The margin of a class with n_k landmarks is C n_k^(-1/4), with C such that the widest is `max_margin`. It is
    subtracted from the cosine between features and class weights, so it needs a cosine head.
    """

    max_margin: float = 0.5

    def __post_init__(self) -> None:
        """Checks that the margin is a possible difference of cosines."""
        if not 0 <= self.max_margin <= 2:
            raise ValueError(f"max_margin must be in [0, 2], got {self.max_margin}")

    def terms(self, counts: ClassCounts) -> LossTerms:
        """Returns the margins; 0 for a class without landmarks."""
        present = counts.landmarks > 0
        margins = np.zeros(len(present))
        margins[present] = counts.landmarks[present] ** -0.25
        return LossTerms(np.ones(len(present)), margins=margins * self.max_margin / margins.max())


def row_losses(
    one_hot: Tensor, logits: Tensor, weights: Tensor, focus: Tensor, offsets: Tensor, margins: Tensor
) -> Tensor:
    """Computes the loss of each row, shape (batch,); see `LossTerms` for the formula.

    Args:
        one_hot: labels, shape (batch, n_classes): a single 1 in a row, or none in padding. Shares of several classes
            that sum to 1 give the mean of their losses, provided that weights are equal, and focus and margins 0.
        logits: shape (batch, n_classes).
        weights: shape (n_classes,).
        focus: focusing exponent.
        offsets: shape (n_classes,).
        margins: in units of logits, shape (n_classes,).
    """
    import tensorflow as tf

    logits = logits + offsets - one_hot * margins
    true_logit = tf.reduce_sum(one_hot * logits, axis=1)
    log_sum = tf.reduce_logsumexp(logits, axis=1)
    # log(1 - p_y) from the logits of the other classes: 1 - p_y itself underflows to 0 where p_y is near 1, and the
    # gradient of the focal factor with it.
    log_sum_others = tf.reduce_logsumexp(tf.where(one_hot == 1, -np.inf, logits), axis=1)
    focal_factor = tf.exp(focus * (log_sum_others - log_sum))
    return tf.reduce_sum(one_hot * weights, axis=1) * focal_factor * (log_sum - true_logit)
