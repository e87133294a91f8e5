"""Trainable linear heads, several at once: batch normalisation, dropout, and a dense layer of logits.

Heads that see the same rows in the same order share most of the work. With x the normalised features, d the dropout
mask, and gamma, beta (of batch normalisation), kernel W and bias c of a head, its logits are

    ((x gamma + beta) d) W + c  =  (x d) (gamma W) + d (beta W) + c.

The factors that depend on the rows, x d and d, are the same for all heads, so that one matrix product serves them all.

A cosine head has neither gamma, beta nor bias: its logits are s cos(x d, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hirise_imb.models.linear import MIN_SQUARED_LENGTH, LinearClassifier

Tensor = Any
"""A TensorFlow tensor; TensorFlow ships no types."""

_EPSILON = 1e-3
_MOMENTUM = 0.99
"""Keras' defaults of batch normalisation, which the reference run uses."""


class HeadParameters(NamedTuple):
    """Parameters of several heads, as tensors or arrays."""

    stacked: Tensor
    """gamma, beta and the kernel rows of each head, shape (n_heads, 2 + n_classes, width). The width comes last, so
    that matrix products and sums read adjacent numbers."""
    bias: Tensor
    """Bias of each class, shape (n_heads, n_classes)."""


def initial_parameters(width: int, n_classes: int, seeds: Sequence[int]) -> HeadParameters:
    """Draws heads as Keras initialises them: gamma 1, beta 0, a Glorot-uniform kernel, bias 0.

    Args:
        width: width of the features.
        n_classes: number of classes of the data set.
        seeds: seed of each head's kernel.
    """
    import keras

    n_heads = len(seeds)
    kernels = [np.asarray(keras.initializers.GlorotUniform(seed)((width, n_classes))).T for seed in seeds]
    parts = np.ones((n_heads, 1, width)), np.zeros((n_heads, 1, width)), np.stack(kernels)
    stacked = np.concatenate(parts, axis=1).astype(np.float32)
    return HeadParameters(stacked, np.zeros((n_heads, n_classes), np.float32))


def dropout_bits(shape: Sequence[int], seed: Sequence[int]) -> NDArray[np.uint16]:
    """Draws uniform 16-bit random numbers for `dropout_mask`.

    With half the bits of a float, a mask takes half the time; the rate is accurate to 1 / 131,072.
    """
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
    """Normalises features by the moments of their mini-batch, and returns these too: mean, variance (..., 2, width).

    Args:
        features: shape (..., batch, width).
        valid: 1 for a row and 0 for padding, shape (..., batch, 1); padding is left out of the moments and becomes 0.
    """
    import tensorflow as tf

    rows = tf.maximum(tf.reduce_sum(valid, axis=-2, keepdims=True), 1)  # a mini-batch may be all padding
    mean = tf.reduce_sum(features * valid, axis=-2, keepdims=True) / rows
    centred = (features - mean) * valid
    variance = tf.reduce_sum(tf.square(centred), axis=-2, keepdims=True) / rows
    return centred * tf.math.rsqrt(variance + _EPSILON), tf.concat([mean, variance], axis=-2)


def update_average(average: Tensor, moments: Tensor) -> Tensor:
    """Returns the moving mean and variance after a mini-batch with these moments, shape (2, width)."""
    return _MOMENTUM * average + (1 - _MOMENTUM) * moments


def normalise_inference(features: Tensor, average: Tensor) -> Tensor:
    """Normalises features by the moving mean and variance, as in inference, shape (batch, width)."""
    import tensorflow as tf

    return (features - average[0]) * tf.math.rsqrt(average[1] + _EPSILON)


def decay_kernels(stacked: Tensor, shares: Tensor) -> Tensor:
    """Shrinks the kernels, but not gamma and beta, of stacked parameters by `shares`, shape (n_heads, 1, 1)."""
    import tensorflow as tf

    return tf.concat([stacked[:, :2], stacked[:, 2:] * (1 - shares)], axis=1)


def compute_logits(parameters: HeadParameters, masked: Tensor, mask: Tensor, scales: Tensor) -> Tensor:
    """Computes the logits of every row and head, shape (batch, n_heads, n_classes).

    Args:
        parameters: parameters of the heads.
        masked: normalised features times the mask, shape (batch, width).
        mask: dropout mask, 0 or 1 / (1 - rate), shape (batch, width).
        scales: scale of each cosine head, 0 for linear heads, shape (n_heads,).
    """
    import tensorflow as tf

    stacked, bias = parameters
    n_heads, rows, width = stacked.shape
    n_classes = rows - 2
    gamma, beta, kernel = stacked[:, :1], stacked[:, 1:2], stacked[:, 2:]
    is_cosine = (scales > 0)[:, None, None]
    flat = (n_heads * n_classes, width)
    # Both kinds of head go through the same two products, so that the compiled step has no branch.
    by_features = tf.where(is_cosine, tf.math.l2_normalize(kernel, axis=2), gamma * kernel)
    by_mask = tf.where(is_cosine, 0.0, beta * kernel)
    sums = tf.matmul(masked, tf.reshape(by_features, flat), transpose_b=True)
    sums += tf.matmul(mask, tf.reshape(by_mask, flat), transpose_b=True)
    sums = tf.reshape(sums, (-1, n_heads, n_classes))
    # A row of which dropout left nothing has length 0, hence the lower bound.
    squared_length = tf.maximum(tf.reduce_sum(tf.square(masked), axis=1), MIN_SQUARED_LENGTH)
    length = tf.sqrt(squared_length)[:, None, None]
    return tf.where(is_cosine[:, 0][None], scales[None, :, None] * sums / length, sums + bias)


def extract_classifier(parameters: HeadParameters, average: Tensor, head: int, scale: float) -> LinearClassifier:
    """Returns one head as a classifier in inference mode, with batch normalisation folded into the kernel.

    Args:
        parameters: parameters of all heads.
        average: moving mean and variance, shape (2, width).
        head: index of the head.
        scale: scale of a cosine head, 0 for a linear one.
    """
    stacked = np.asarray(parameters.stacked[head], np.float64)
    gamma, beta, kernel = stacked[0], stacked[1], stacked[2:]
    mean, variance = np.asarray(average, np.float64)
    gain = 1 / np.sqrt(variance + _EPSILON)
    if scale:
        kernel = scale * kernel / np.linalg.norm(kernel, axis=1, keepdims=True)
        return LinearClassifier(kernel, np.zeros(len(kernel)), mean, gain, unit=True)
    bias = kernel @ beta + np.asarray(parameters.bias[head], np.float64)
    return LinearClassifier(gamma * kernel, bias, mean, gain)
