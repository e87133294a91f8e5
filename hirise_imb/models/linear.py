"""A fitted linear classifier on pooled features, however it was fitted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data.dataset import ClassSet
from hirise_imb.models.preparation import Preparation
from hirise_imb.utils.errors import NotApplicable, NotFinite

Floats = NDArray[np.float64]

MIN_SQUARED_LENGTH = 1e-12
"""Least squared length of a row that is scaled to unit length; a row of zeros stays zero."""

_CHUNK = 1024
"""Rows whose logits are computed at once: 20 MB at a width of 2,560."""


@dataclass(frozen=True, eq=False)
class LinearClassifier:
    """logits = kernel x + bias, with x = (p - centre) * gain for prepared features p, to unit length if `unit`.

    Raises:
        ValueError: shapes do not fit each other.
        NotFinite: a number is not finite.
    """

    kernel: Floats
    """Weights of each class, shape (n_classes, width)."""
    bias: Floats
    """Bias of each class, shape (n_classes,)."""
    centre: Floats
    """Subtracted from the features, shape (width,)."""
    gain: Floats
    """Factor of the centred features, shape (width,)."""
    unit: bool = False
    """Whether x is scaled to unit length."""
    preparation: Preparation = field(default_factory=Preparation)
    """What is done to the features first."""

    def __post_init__(self) -> None:
        """Checks shapes and values."""
        n_classes, width = len(self.bias), self.kernel.shape[-1]
        shapes = {"kernel": (n_classes, width), "bias": (n_classes,), "centre": (width,), "gain": (width,)}
        if self.preparation.width not in (None, width):
            raise ValueError(f"preparation must be of {width} features, got one of {self.preparation.width}")
        for name, shape in shapes.items():
            values = getattr(self, name)
            if values.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {values.shape}")
            if not np.isfinite(values).all():
                raise NotFinite(f"{name} must be finite, got {values[~np.isfinite(values)][0]}")

    def logits(self, features: NDArray[np.floating]) -> Floats:
        """Computes logits in float64, shape (n, n_classes).

        Args:
            features: pooled features, shape (n, width).
        """
        logits = np.empty((len(features), len(self.bias)))
        for start in range(0, len(features), _CHUNK):
            rows = self.preparation.apply(features[start : start + _CHUNK].astype(np.float64))
            x = transform(rows, self.centre, self.gain, self.unit)
            logits[start : start + _CHUNK] = x @ self.kernel.T + self.bias
        return logits

    def normalise_weights(self, tau: float, classes: ClassSet, *, keep_bias: bool = False) -> LinearClassifier:
        """Returns the tau-normalised classifier: w_k / |w_k|^tau, with bias 0 or b_k / |w_k|^tau (Kang et al. 2020).

        w_k is the kernel times the gain, since a scale before the kernel is part of the weights, and |w_k| its length
        without directions that the preparation projects out. The centre stays: it moves the features and is not a
        bias of a class. With tau 0, decisions are those of the same classifier without bias.

        Args:
            tau: exponent, not negative.
            classes: classes of the data set, for messages.
            keep_bias: whether biases are divided by the same power instead of set to 0.

        Raises:
            NotApplicable: a class has weights of length 0, such as one without training images in a closed form.
            ValueError: tau is negative or not finite, or features are scaled to unit length: the cosines of a
                classifier do not depend on the lengths of its weights.
        """
        if self.unit:
            raise ValueError("unit must be False: the weights of a cosine classifier have no length to normalise")
        if not 0 <= tau < np.inf:
            raise ValueError(f"tau must not be negative, got {tau}")
        weights = self.kernel * self.gain
        lengths = np.linalg.norm(self.preparation.project(weights), axis=1)
        if not lengths.all():
            raise NotApplicable(f"The weights of {classes[int(lengths.argmin())]} have no length to normalise.")
        kernel = weights / lengths[:, None] ** tau
        bias = self.bias / lengths**tau if keep_bias else np.zeros(len(self.bias))
        return replace(self, kernel=kernel, bias=bias, gain=np.ones_like(self.gain))

    def scale_logits(self, factors: Floats) -> LinearClassifier:
        """Returns the classifier whose logits are f_k z_k.

        Args:
            factors: f, shape (n_classes,).
        """
        return replace(self, kernel=self.kernel * factors[:, None], bias=self.bias * factors)


def transform(rows: NDArray[np.floating], centre: Floats, gain: Floats, unit: bool) -> Floats:
    """Returns (rows - centre) * gain, scaled to unit length if `unit` is true."""
    x = (rows - centre) * gain
    if unit:
        x /= np.sqrt(np.maximum((x**2).sum(axis=1, keepdims=True), MIN_SQUARED_LENGTH))
    return x
