"""Linear heads on pooled features, several trained at once: batch normalisation, dropout, a dense layer of 8 logits.

Heads that see the same rows in the same order share most of the work. With x the normalised features, d the dropout
mask, gamma and beta of batch normalisation and the kernel W of a head, its logits are

    ((x gamma + beta) d) W + c  =  (x d) (gamma W) + d (beta W) + c.

What depends on the rows, x d and d, is the same for all heads, so one product of matrices serves them all.

A head may measure cosines instead: its logits are s cos(x d, W), with neither gamma, beta nor bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data.hirise import CLASSES
from hirise_imb.models.closed_form import Classifier

Tensor = Any
"""A TensorFlow tensor; TensorFlow ships no types."""

_EPSILON = 1e-3
_MOMENTUM = 0.99
"""Keras' defaults of batch normalisation, which the reference run has."""

TINY = 1e-12
"""Least squared length of features in a cosine: that of a row which dropout left nothing of."""


def first_parameters(width: int, seeds: Sequence[int]) -> list[NDArray[np.float32]]:
    """Heads as Keras starts them: gamma 1, beta 0, a Glorot-uniform kernel, bias 0.

    Args:
        width: of the features.
        seeds: of the kernel, one a head.

    Returns:
        gamma, beta and the kernel of all heads, shape (n_heads, 1 + 1 + 8, width), and the bias, shape (n_heads, 8).
        The width comes last, so that products of matrices and sums read numbers that lie side by side.
    """
    import keras

    heads = len(seeds)
    kernels = [np.asarray(keras.initializers.GlorotUniform(seed)((width, len(CLASSES)))).T for seed in seeds]
    scales = np.ones((heads, 1, width)), np.zeros((heads, 1, width)), np.stack(kernels)
    return [np.concatenate(scales, axis=1).astype(np.float32), np.zeros((heads, len(CLASSES)), np.float32)]


def dropout_bits(shape: Sequence[int], seed: Sequence[int]) -> NDArray[np.uint16]:
    """Random numbers for `dropout_mask`, all values of 16 bits alike.

    Half the bits make a mask in half the time; a rate is met within 1 / 131,072.
    """
    count = int(np.prod(shape))
    raw = np.random.SFC64(np.random.SeedSequence(tuple(seed))).random_raw(-(-count // 4))
    return np.asarray(raw, np.uint64).view(np.uint16)[:count].reshape(shape)


def dropout_mask(bits: Tensor, rate: Tensor) -> Tensor:
    """0 for a share `rate` of the bits, else what keeps the mean at 1."""
    import tensorflow as tf

    dropped = tf.round(rate * 2**16)
    return tf.cast(tf.cast(bits, tf.float32) >= dropped, tf.float32) / (1 - dropped / 2**16)


def normalise(features: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Features by the mean and the variance of their batch, and these two, shape (..., 2, width).

    Args:
        features: shape (..., batch, width).
        valid: 1 for a row and 0 for padding, shape (..., batch, 1); padding counts for nothing and becomes 0.
    """
    import tensorflow as tf

    rows = tf.maximum(tf.reduce_sum(valid, axis=-2, keepdims=True), 1)  # a batch may be all padding
    mean = tf.reduce_sum(features * valid, axis=-2, keepdims=True) / rows
    centred = (features - mean) * valid
    variance = tf.reduce_sum(tf.square(centred), axis=-2, keepdims=True) / rows
    return centred * tf.math.rsqrt(variance + _EPSILON), tf.concat([mean, variance], axis=-2)


def moved(average: Tensor, moments: Tensor) -> Tensor:
    """The moving mean and variance, shape (2, width), after a batch with these."""
    return _MOMENTUM * average + (1 - _MOMENTUM) * moments


def settled(features: Tensor, average: Tensor) -> Tensor:
    """Features by the moving mean and variance, as in inference, shape (batch, width)."""
    import tensorflow as tf

    return (features - average[0]) * tf.math.rsqrt(average[1] + _EPSILON)


def decayed(stacked: Tensor, shares: Tensor) -> Tensor:
    """Heads, shape (n_heads, 10, width), whose kernels have shrunk by `shares`, shape (n_heads, 1, 1)."""
    import tensorflow as tf

    return tf.concat([stacked[:, :2], stacked[:, 2:] * (1 - shares)], axis=1)


def logits(parameters: Sequence[Tensor], kept: Tensor, mask: Tensor, scales: Tensor) -> Tensor:
    """Logits of every row and head, shape (batch, n_heads, 8).

    Args:
        parameters: as from `first_parameters`.
        kept: normalised features times the mask, shape (batch, width).
        mask: of dropout, 0 or 1 / (1 - rate), shape (batch, width).
        scales: of heads that measure cosines, 0 of those that don't, shape (n_heads,).
    """
    import tensorflow as tf

    stacked, bias = parameters
    heads, _, width = stacked.shape
    gamma, beta, kernel = stacked[:, :1], stacked[:, 1:2], stacked[:, 2:]
    cosine = (scales > 0)[:, None, None]
    flat = (heads * len(CLASSES), width)
    turned = tf.where(cosine, tf.math.l2_normalize(kernel, axis=2), gamma * kernel)
    shifted = tf.where(cosine, 0.0, beta * kernel)
    sums = tf.matmul(kept, tf.reshape(turned, flat), transpose_b=True)
    sums += tf.matmul(mask, tf.reshape(shifted, flat), transpose_b=True)
    sums = tf.reshape(sums, (-1, heads, len(CLASSES)))
    length = tf.sqrt(tf.maximum(tf.reduce_sum(tf.square(kept), axis=1), TINY))[:, None, None]
    return tf.where(cosine[:, 0][None], scales[None, :, None] * sums / length, sums + bias)


def classifier(parameters: Sequence[Tensor], average: Tensor, head: int, scale: float) -> Classifier:
    """One head by itself, as in inference.

    Args:
        parameters: as from `first_parameters`.
        average: moving mean and variance, shape (2, width).
        head: its number.
        scale: of its cosines, 0 where it measures none.
    """
    stacked = np.asarray(parameters[0][head], np.float64)
    gamma, beta, kernel = stacked[0], stacked[1], stacked[2:]
    mean, variance = np.asarray(average, np.float64)
    gain = 1 / np.sqrt(variance + _EPSILON)
    if scale:
        kernel = scale * kernel / np.linalg.norm(kernel, axis=1, keepdims=True)
        return Classifier(kernel, np.zeros(len(kernel)), mean, gain, unit=True)
    return Classifier(gamma * kernel, kernel @ beta + np.asarray(parameters[1][head], np.float64), mean, gain)
