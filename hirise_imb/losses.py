"""Losses against class imbalance for Keras, and the class weights that go with them.

The losses work wherever Keras takes one (`model.compile(loss=...)`), with TensorFlow as Keras' backend. Labels are
class ids, shape (batch,) or (batch, 1), or one-hot rows, shape (batch, n_classes).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray

from hirise_imb.imbalance.class_weights import ClassCounts, effective_number, inverse_power
from hirise_imb.imbalance.losses import Focal, LabelDistributionAwareMargin, LogitAdjustedCrossEntropy, row_losses

__all__ = ["FocalLoss", "LDAMLoss", "LogitAdjustedLoss", "effective_number_weights", "inverse_power_weights"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Tensor = Any
"""A TensorFlow tensor; TensorFlow ships no types."""
KerasArgument = Any


def effective_number_weights(class_counts: ArrayLike, beta: float = 0.999) -> Floats:
    """Returns class-balanced weights: the inverse of the effective number of rows of each class.

    With n_k rows, the effective number of class k is (1 - beta^n_k) / (1 - beta), since a new row of a large class
    repeats what others show already. Beta 0 gives equal weights; beta towards 1, inverse frequency.

    Source: Cui et al. 2019, "Class-balanced loss based on effective number of samples".

    Args:
        class_counts: number of rows of each class, shape (n_classes,).
        beta: beta of the effective numbers, in [0, 1).

    Returns:
        Weights with a mean of 1 over rows, shape (n_classes,); 0 for a class without rows.

    Raises:
        ValueError: the counts are not integers of which one is positive, or beta is out of range.

    Example:
        >>> from hirise_imb.losses import effective_number_weights
        >>> effective_number_weights([1000, 100, 10], beta=0.99).round(2)
        array([0.88, 1.39, 9.2 ])
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta must be in [0, 1), got {beta}")
    return effective_number(_read_counts(class_counts), beta)


def inverse_power_weights(class_counts: ArrayLike, power: float = 1.0) -> Floats:
    """Returns class weights n_k^-power for classes with n_k rows.

    Power 1 gives every class the same total weight (scikit-learn's "balanced"), power 0 every row; one half is between.

    Source: King and Zeng 2001, "Logistic regression in rare events data".

    Args:
        class_counts: number of rows of each class, shape (n_classes,).
        power: exponent of the counts, finite.

    Returns:
        Weights with a mean of 1 over rows, shape (n_classes,); 0 for a class without rows.

    Raises:
        ValueError: the counts are not integers of which one is positive, or the power is not finite.

    Example:
        >>> from hirise_imb.losses import inverse_power_weights
        >>> inverse_power_weights([90, 10], power=1.0).round(3)
        array([0.556, 5.   ])
    """
    if not np.isfinite(power):
        raise ValueError(f"power must be finite, got {power}")
    return inverse_power(_read_counts(class_counts), power)


class _ClassLoss(keras.losses.Loss):
    """A loss whose numbers are known before training; see `imbalance.losses.LossTerms` for the common formula."""

    def __init__(self, from_logits: bool, **keras_arguments: KerasArgument) -> None:
        super().__init__(**keras_arguments)
        self.from_logits = from_logits
        self._weights, self._focus, self._offsets, self._margins = np.ones(1), 0.0, np.zeros(1), np.zeros(1)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Returns the loss of each row, shape (batch,)."""
        if len(y_pred.shape) != 2:
            raise ValueError(f"{self.name} needs predictions of shape (batch, n_classes), got {tuple(y_pred.shape)}.")
        n_classes = y_pred.shape[-1]
        for numbers in (self._weights, self._offsets, self._margins):
            if len(numbers) not in (1, n_classes):
                raise ValueError(f"{self.name} was created for {len(numbers)} classes; the model has {n_classes}.")
        # The logarithm of probabilities differs from the logits by a constant of the row, which changes no loss.
        logits = y_pred if self.from_logits else keras.ops.log(keras.ops.maximum(y_pred, keras.config.epsilon()))
        if len(y_true.shape) == 1 or y_true.shape[-1] == 1 < n_classes:
            class_ids = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "int32")
            y_true = keras.ops.one_hot(class_ids, n_classes, dtype=logits.dtype)
        weights, focus, offsets, margins = (
            keras.ops.convert_to_tensor(numbers, dtype=logits.dtype)
            for numbers in (self._weights, self._focus, self._offsets, self._margins)
        )
        return row_losses(y_true, logits, weights, focus, offsets, margins)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, as Keras saves them."""
        return {**super().get_config(), "from_logits": self.from_logits}


@keras.saving.register_keras_serializable("hirise_imb")
class FocalLoss(_ClassLoss):
    """Focal loss of a softmax, with a weight for each class: -w_y (1 - p_y)^gamma log p_y.

    The factor (1 - p_y)^gamma reduces the loss of rows that are classified well already, so that the many easy rows of
    a large class do not drown the few hard ones. Gamma 0 is weighted cross-entropy. The factor is computed from logits,
    which keeps its gradient where p_y is near 1; `from_logits=True` is the more accurate choice.

    Source: Lin et al. 2017, "Focal loss for dense object detection"; class weights as in Cui et al. 2019.

    Args:
        gamma: focusing exponent, not negative.
        class_weights: weight of each class, shape (n_classes,), such as `effective_number_weights(counts)`; None for
            equal weights.
        from_logits: whether predictions are logits; else they are probabilities.
        **keras_arguments: `name`, `reduction` and `dtype`, as in every Keras loss.

    Raises:
        ValueError: gamma is negative, or the weights are not finite numbers of at least 0.

    Example:
        >>> import numpy as np
        >>> from hirise_imb.losses import FocalLoss
        >>> loss = FocalLoss(gamma=2.0, from_logits=True)
        >>> round(float(loss(np.array([0, 1]), np.array([[2.0, 0.0], [2.0, 0.0]]))), 4)
        0.8259
    """

    def __init__(
        self,
        gamma: float = 2.0,
        class_weights: ArrayLike | None = None,
        from_logits: bool = False,
        **keras_arguments: KerasArgument,
    ) -> None:
        """Checks the arguments."""
        super().__init__(from_logits, **keras_arguments)
        self._focus = Focal(gamma).gamma
        if class_weights is not None:
            self._weights = _read_shares("class_weights", class_weights)
        self.gamma, self.class_weights = gamma, class_weights

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, as Keras saves them."""
        weights = None if self.class_weights is None else self._weights.tolist()
        return {**super().get_config(), "gamma": self.gamma, "class_weights": weights}


@keras.saving.register_keras_serializable("hirise_imb")
class LogitAdjustedLoss(_ClassLoss):
    """Cross-entropy of logits to which tau log prior is added, while predictions use the logits themselves.

    During training a frequent class is given a head start by its prior, so the logits learn what is left: evidence
    that does not depend on the frequencies. Tau 1 is balanced softmax (Ren et al. 2020), tau 0 plain cross-entropy.

    Source: Menon et al. 2021, "Long-tail learning via logit adjustment".

    Args:
        class_counts: number of training rows of each class as they are sampled, or their shares, shape (n_classes,). A
            class with count 0 gets no offset.
        tau: factor of the log prior, not negative.
        from_logits: whether predictions are logits; else they are probabilities.
        **keras_arguments: `name`, `reduction` and `dtype`, as in every Keras loss.

    Raises:
        ValueError: a count is negative or none is positive, or tau is negative or not finite.

    Example:
        >>> import numpy as np
        >>> from hirise_imb.losses import LogitAdjustedLoss
        >>> loss = LogitAdjustedLoss([900, 100], tau=1.0, from_logits=True)
        >>> round(float(loss(np.array([1]), np.array([[0.0, 0.0]]))), 4)  # -log 0.1
        2.3026
    """

    def __init__(
        self, class_counts: ArrayLike, tau: float = 1.0, from_logits: bool = False, **keras_arguments: KerasArgument
    ) -> None:
        """Checks the arguments."""
        super().__init__(from_logits, **keras_arguments)
        counts = _read_shares("class_counts", class_counts)
        present = (counts > 0).astype(np.int64)
        self._offsets = (
            LogitAdjustedCrossEntropy(tau).terms(ClassCounts(present, present, counts / counts.sum())).offsets
        )
        self.class_counts, self.tau = counts.tolist(), tau

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, as Keras saves them."""
        return {**super().get_config(), "class_counts": self.class_counts, "tau": self.tau}


@keras.saving.register_keras_serializable("hirise_imb")
class LDAMLoss(_ClassLoss):
    """Cross-entropy in which the true class must win by a margin, wider the rarer it is.

    The margin of a class with n_k rows is C n_k^(-1/4), with C such that the widest is `max_margin`. It is meant for
    logits scale x cos(features, class weights), the output of a layer whose inputs and weights have length 1; `scale`
    converts the margin from cosines to logits.

    Source: Cao et al. 2019, "Learning imbalanced datasets with label-distribution-aware margin loss".

    Args:
        class_counts: number of training rows of each class, shape (n_classes,). A class with count 0 has no margin.
        max_margin: margin of the rarest class in units of cosine, in [0, 2].
        scale: factor between cosines and logits, positive: that of the model's last layer.
        from_logits: whether predictions are logits; else they are probabilities.
        **keras_arguments: `name`, `reduction` and `dtype`, as in every Keras loss.

    Raises:
        ValueError: the counts are not integers of which one is positive, or another argument is out of range.

    Example:
        >>> import numpy as np
        >>> from hirise_imb.losses import LDAMLoss
        >>> loss = LDAMLoss([1000, 10], max_margin=0.5, scale=10.0, from_logits=True)
        >>> round(float(loss(np.array([1]), np.array([[0.0, 5.0]]))), 4)  # as if both logits were 0: the margin takes 5
        0.6931
    """

    def __init__(
        self,
        class_counts: ArrayLike,
        max_margin: float = 0.5,
        scale: float = 30.0,
        from_logits: bool = False,
        **keras_arguments: KerasArgument,
    ) -> None:
        """Checks the arguments."""
        super().__init__(from_logits, **keras_arguments)
        if not 0 < scale < np.inf:
            raise ValueError(f"scale must be positive and finite, got {scale}")
        counts = _read_counts(class_counts)
        margins = (
            LabelDistributionAwareMargin(max_margin).terms(ClassCounts(counts, counts, counts / counts.sum())).margins
        )
        self._margins = scale * margins
        self.class_counts, self.max_margin, self.scale = counts.tolist(), max_margin, scale

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, as Keras saves them."""
        own = {"class_counts": self.class_counts, "max_margin": self.max_margin, "scale": self.scale}
        return {**super().get_config(), **own}


def _read_counts(class_counts: ArrayLike) -> Ints:
    counts = _read_shares("class_counts", class_counts)
    if (counts != np.round(counts)).any():
        raise ValueError(f"class_counts must be integers, got {counts[counts != np.round(counts)][0]}")
    return counts.astype(np.int64)


def _read_shares(name: str, values: ArrayLike) -> Floats:
    shares = np.asarray(values, dtype=np.float64)
    if shares.ndim != 1 or not np.isfinite(shares).all() or (shares < 0).any() or not shares.any():
        raise ValueError(f"{name} must be one number for each class, none negative and one positive, got {values!r}")
    return shares
