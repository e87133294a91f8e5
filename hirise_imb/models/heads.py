"""The trainable linear head: batch normalisation, dropout, and a dense layer with one logit per class.

With x the normalised features, d the dropout mask, and gamma, beta (of batch normalisation), kernel W and bias c, the
logits are ((x gamma + beta) d) W + c. A cosine head has neither gamma, beta nor bias: its logits are s cos(x d, W).

The functions on tensors serve the head above a trained tail of the backbone; `training.head_kernel` computes the same
for a head on features of the frozen backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hirise_imb.models.linear import MIN_SQUARED_LENGTH, LinearClassifier
from hirise_imb.utils.errors import NotFinite

Tensor = Any
"""A TensorFlow tensor; TensorFlow ships no types."""

EPSILON = 1e-3
MOMENTUM = 0.99
"""Keras' defaults of batch normalisation, which the reference run uses."""


@dataclass(frozen=True)
class HeadState:
    """The weights of a head."""

    stacked: NDArray[np.float32]
    """gamma, beta and the kernel's rows, shape (2 + n_classes, width). The width comes last, so that products and sums
    read adjacent numbers."""
    bias: NDArray[np.float32]
    """Bias of each class, shape (n_classes,)."""
    average: NDArray[np.float32]
    """Moving mean and variance of the features, shape (2, width)."""
    scale: float
    """Scale of a cosine head, 0 for a linear one."""

    def copy(self) -> HeadState:
        """Returns a copy that further training does not change."""
        return HeadState(self.stacked.copy(), self.bias.copy(), self.average.copy(), self.scale)

    def classifier(self) -> LinearClassifier:
        """Returns the head as a classifier in inference mode, with batch normalisation folded into the kernel."""
        stacked = self.stacked.astype(np.float64)
        gamma, beta, kernel = stacked[0], stacked[1], stacked[2:]
        mean, variance = self.average.astype(np.float64)
        gain = 1 / np.sqrt(variance + EPSILON)
        if self.scale:
            kernel = self.scale * kernel / np.linalg.norm(kernel, axis=1, keepdims=True)
            return LinearClassifier(kernel, np.zeros(len(kernel)), mean, gain, unit=True)
        return LinearClassifier(gamma * kernel, kernel @ beta + self.bias.astype(np.float64), mean, gain)


def initial_state(width: int, n_classes: int, seed: int, scale: float = 0.0) -> HeadState:
    """Draws a head as Keras initialises it: gamma 1, beta 0, a Glorot-uniform kernel, bias 0.

    Args:
        width: width of the features.
        n_classes: number of classes of the data set.
        seed: seed of the kernel.
        scale: scale of a cosine head, 0 for a linear one.
    """
    import keras

    kernel = np.asarray(keras.initializers.GlorotUniform(seed)((width, n_classes))).T
    stacked = np.concatenate([np.ones((1, width)), np.zeros((1, width)), kernel]).astype(np.float32)
    average = np.stack([np.zeros(width), np.ones(width)]).astype(np.float32)
    # In C order: a transposed kernel would leave adjacent numbers apart.
    return HeadState(np.ascontiguousarray(stacked), np.zeros(n_classes, np.float32), average, scale)


def class_mean_state(
    features: NDArray[np.float32], labels: NDArray[np.int64], n_classes: int, seed: int, scale: float
) -> HeadState:
    """Computes a cosine head whose weights are class means of normalised features (Shi et al. 2024).

    Features are normalised by their mean and variance over all rows, which are also the initial moving averages.

    Args:
        features: pooled features of the training images, shape (n, width).
        labels: class id of each, shape (n,).
        n_classes: number of classes of the data set.
        seed: seed of the weights of classes without training images, which are random.
        scale: scale of the head.

    Raises:
        NotFinite: a mean or variance exceeds the range of float32.
    """
    rows = features.astype(np.float64)
    mean, variance = rows.mean(axis=0), rows.var(axis=0)
    if not max(np.abs(mean).max(), variance.max()) < np.finfo(np.float32).max:
        raise NotFinite("the mean and the variance of each feature must be in the range of float32")
    normalised = (rows - mean) / np.sqrt(variance + EPSILON)
    head = initial_state(features.shape[1], n_classes, seed, scale)
    for k in np.unique(labels):
        class_mean = normalised[labels == k].mean(axis=0)
        # The mean of a class that has all the images is 0, which has no direction.
        if (length := np.linalg.norm(class_mean)) > np.sqrt(MIN_SQUARED_LENGTH):
            head.stacked[2 + k] = class_mean / length
    head.average[:] = mean, variance
    return head


def dropout_threshold(rate: float) -> int:
    """Returns the number of 16-bit values for which a feature is dropped; the rate is accurate to 1 / 131,072."""
    return round(float(np.float32(rate)) * 2**16)


def dropout_bits(shape: Sequence[int], seed: Sequence[int]) -> NDArray[np.uint16]:
    """Draws uniform 16-bit random numbers for `dropout_mask`; with half the bits of a float, it takes half the time."""
    count = int(np.prod(shape))
    # Each draw has 64 bits, which are four numbers.
    raw = np.random.SFC64(np.random.SeedSequence(tuple(seed))).random_raw(-(-count // 4))
    return np.asarray(raw, np.uint64).view(np.uint16)[:count].reshape(shape)


def dropout_mask(bits: Tensor, rate: Tensor) -> Tensor:
    """Returns 0 for a share `rate` of the bits and, for the others, the constant that keeps the mean at 1."""
    import tensorflow as tf

    threshold = tf.round(rate * 2**16)
    return tf.cast(tf.cast(bits, tf.float32) >= threshold, tf.float32) / (1 - threshold / 2**16)


def normalise_batch(features: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Normalises features by the moments of their mini-batch, and returns these too: mean and variance, (2, width).

    Args:
        features: shape (batch, width).
        valid: 1 for a row and 0 for padding, shape (batch, 1); padding is left out of the moments and becomes 0.
    """
    import tensorflow as tf

    rows = tf.maximum(tf.reduce_sum(valid, axis=0, keepdims=True), 1)  # a mini-batch may be all padding
    mean = tf.reduce_sum(features * valid, axis=0, keepdims=True) / rows
    centred = (features - mean) * valid
    variance = tf.reduce_sum(tf.square(centred), axis=0, keepdims=True) / rows
    return centred * tf.math.rsqrt(variance + EPSILON), tf.concat([mean, variance], axis=0)


def update_average(average: Tensor, moments: Tensor) -> Tensor:
    """Returns the moving mean and variance after a mini-batch with these moments, shape (2, width)."""
    return MOMENTUM * average + (1 - MOMENTUM) * moments


def normalise_inference(features: Tensor, average: Tensor) -> Tensor:
    """Normalises features by the moving mean and variance, as in inference, shape (batch, width)."""
    import tensorflow as tf

    return (features - average[0]) * tf.math.rsqrt(average[1] + EPSILON)


def decay_kernel(stacked: Tensor, share: Tensor) -> Tensor:
    """Shrinks the kernel, but not gamma and beta, of stacked parameters by a share."""
    import tensorflow as tf

    return tf.concat([stacked[:2], stacked[2:] * (1 - share)], axis=0)


def compute_logits(stacked: Tensor, bias: Tensor, features: Tensor, mask: Tensor, scale: Tensor) -> Tensor:
    """Computes the logits of every row, shape (batch, n_classes).

    Args:
        stacked: gamma, beta and the kernel's rows, shape (2 + n_classes, width).
        bias: bias of each class, shape (n_classes,).
        features: normalised features, shape (batch, width).
        mask: dropout mask, 0 or 1 / (1 - rate), shape (batch, width).
        scale: scale of a cosine head, 0 for a linear one.
    """
    import tensorflow as tf

    kernel = stacked[2:]

    def linear() -> Tensor:
        return tf.matmul((features * stacked[0] + stacked[1]) * mask, kernel, transpose_b=True) + bias

    def cosine() -> Tensor:
        masked = features * mask
        # A row of which dropout left nothing has length 0, hence the lower bound.
        squared_length = tf.maximum(tf.reduce_sum(tf.square(masked), axis=1, keepdims=True), MIN_SQUARED_LENGTH)
        products = tf.matmul(masked, tf.math.l2_normalize(kernel, axis=1), transpose_b=True)
        return scale * products / tf.sqrt(squared_length)

    return tf.cond(scale > 0, cosine, linear)
