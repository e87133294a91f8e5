"""The reference head in plain Keras, as anybody would write it, to hold the package's own against."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from worlds import WIDTH

from hirise_imb.models.heads import dropout_bits, dropout_mask
from hirise_imb.training.train_step import StepBlock, TrainingState


class GivenDropout(keras.layers.Layer):  # type: ignore[misc]
    """Keras' dropout, but that it is told what to keep."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def call(self, values: Any, kept: Any, training: bool = False) -> Any:  # noqa: ANN401
        return values * kept / (1 - self.rate) if training else values


class CosineDense(keras.layers.Layer):  # type: ignore[misc]
    """Scaled cosines between rows and the columns of a kernel."""

    def __init__(self, scale: float, seed: int) -> None:
        super().__init__()
        self.scale, self.seed = scale, seed

    def build(self, shape: tuple[int, ...]) -> None:
        self.kernel = self.add_weight((shape[-1], 8), keras.initializers.GlorotUniform(self.seed), name="kernel")

    def call(self, values: Any) -> Any:  # noqa: ANN401
        return self.scale * keras.ops.normalize(values, axis=-1) @ keras.ops.normalize(self.kernel, axis=0)


class PlainHead:
    """Batch normalisation, dropout and a dense layer with softmax, trained by Keras.

    With a `scale` the layer measures cosines instead, and batch normalisation has neither gamma nor beta.
    """

    def __init__(
        self,
        seed: int,
        loss: str | keras.losses.Loss = "categorical_crossentropy",
        rate: float = 1e-3,
        dropout: float = 0.0,
        decay: float = 0.0,
        scale: float = 0.0,
    ) -> None:
        features, kept = keras.Input((WIDTH,)), keras.Input((WIDTH,))
        x = keras.layers.BatchNormalization(center=not scale, scale=not scale)(features)
        x = GivenDropout(dropout)(x, kept)
        dense = keras.layers.Dense(8, kernel_initializer=keras.initializers.GlorotUniform(seed))
        x = CosineDense(scale, seed)(x) if scale else dense(x)
        self.model = keras.Model([features, kept], keras.layers.Softmax()(x))
        figures = [keras.metrics.CategoricalCrossentropy(), "accuracy"]
        optimizer = keras.optimizers.AdamW(rate, weight_decay=decay) if decay else keras.optimizers.Adam(rate)
        if decay:
            optimizer.exclude_from_weight_decay([v for v in self.model.trainable_variables if v.name != "kernel"])
        self.model.compile(optimizer, loss=loss, metrics=figures)

    def step(
        self, x: np.ndarray, labels: np.ndarray, kept: np.ndarray, weights: np.ndarray | None = None
    ) -> np.ndarray:
        """One step; return the sums of cross-entropy and of hits."""
        self.model.reset_metrics()
        of_classes = None if weights is None else dict(enumerate(weights.tolist()))
        _, entropy, accuracy = self.model.train_on_batch([x, kept], np.eye(8)[labels], class_weight=of_classes)
        return len(x) * np.array([float(entropy), float(accuracy)])

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.model([x, np.ones_like(x)], training=False))


SEED = 11
"""Of all dropout masks here."""


def weights_of(state: TrainingState, head: int, *, cosine: bool = False) -> list[np.ndarray]:
    """In Keras' order: gamma, beta, moving mean, moving variance, kernel, bias; a cosine head has the middle three."""
    scales, bias = (np.asarray(values) for values in state.heads)
    if cosine:
        return [*np.asarray(state.moving.average), scales[head, 2:].T]
    return [*scales[head, :2], *np.asarray(state.moving.average), scales[head, 2:].T, bias[head]]


def kept_in(shape: tuple[int, ...], rate: float, done: int, seed: int = SEED) -> np.ndarray:
    """What a block keeps that starts after `done` steps, as 0 and 1; the scale is not taken over."""
    return np.asarray(dropout_mask(dropout_bits(shape, (seed, done)), np.float32(rate))) > 0


def block_of(batches: list[tuple[np.ndarray, np.ndarray]], size: int, done: int) -> StepBlock:
    """Features and labels of some batches, each filled up to `size`; what fills up is nonsense that must not count."""
    steps = len(batches)
    features = np.full((steps, size, *batches[0][0].shape[1:]), 7.0, np.float32)
    one_hot, valid = np.zeros((steps, size, 8), np.float32), np.zeros((steps, size, 1), np.float32)
    one_hot[:, :, 2] = 1
    for step, (x, labels) in enumerate(batches):
        features[step, : len(x)], one_hot[step, : len(x)], valid[step, : len(x)] = x, np.eye(8)[labels], 1
    bits = dropout_bits((steps, size, WIDTH), (SEED, done))
    return StepBlock.of(features, one_hot, valid, bits, steps)
