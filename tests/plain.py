"""The reference head in plain Keras, as anybody would write it, and the ways in which heads are trained here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from worlds import SIZES, WIDTH

from hirise_imb.models.heads import HeadState, dropout_bits, dropout_mask
from hirise_imb.training.tail_network import StepBlock


class GivenDropout(keras.layers.Layer):  # type: ignore[misc]
    """Keras' dropout with a mask that is given."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def call(self, values: Any, kept: Any, training: bool = False) -> Any:  # noqa: ANN401
        return values * kept / (1 - self.rate) if training else values


class CosineDense(keras.layers.Layer):  # type: ignore[misc]
    """Scaled cosines between rows and the columns of a kernel."""

    def __init__(self, scale: float, seed: int, n_classes: int) -> None:
        super().__init__()
        self.scale, self.seed, self.n_classes = scale, seed, n_classes

    def build(self, shape: tuple[int, ...]) -> None:
        initializer = keras.initializers.GlorotUniform(self.seed)
        self.kernel = self.add_weight((shape[-1], self.n_classes), initializer, name="kernel")

    def call(self, values: Any) -> Any:  # noqa: ANN401
        return self.scale * keras.ops.normalize(values, axis=-1) @ keras.ops.normalize(self.kernel, axis=0)


class Shifted(keras.losses.Loss):  # type: ignore[misc]
    """Cross-entropy of the softmax of log p + offsets, with a margin subtracted from the true class."""

    def __init__(self, offsets: np.ndarray, margins: np.ndarray) -> None:
        super().__init__()
        self.offsets, self.margins = (tf.constant(part, tf.float32) for part in (offsets, margins))

    def call(self, one_hot: Any, probabilities: Any) -> Any:  # noqa: ANN401
        shifted = tf.math.log(probabilities) + self.offsets - tf.cast(one_hot, tf.float32) * self.margins
        return tf.nn.softmax_cross_entropy_with_logits(one_hot, shifted)


@dataclass(frozen=True)
class Kind:
    """The options with which a head is trained."""

    rate: float = 1e-3
    weights: np.ndarray | None = None
    alpha: np.ndarray | None = None
    gamma: float = 0.0
    seed: int = 0
    decay: float = 0.0
    scale: float = 0.0
    """Scale of a cosine head, 0 for a linear one."""
    offsets: np.ndarray | None = None
    margins: np.ndarray | None = None

    def loss(self) -> str | keras.losses.Loss:
        """Returns the loss as Keras has it."""
        if self.offsets is not None or self.margins is not None:
            return Shifted(*(np.zeros(1) if part is None else part for part in (self.offsets, self.margins)))
        if self.gamma == 0 and self.alpha is None:
            return "categorical_crossentropy"
        alpha = 1.0 if self.alpha is None else self.alpha.tolist()
        return keras.losses.CategoricalFocalCrossentropy(alpha=alpha, gamma=self.gamma)

    def for_classes(self, n_classes: int) -> Kind:
        """Returns the kind for the first so many classes."""
        arrays: dict[str, Any] = {
            name: value[:n_classes] for name, value in vars(self).items() if isinstance(value, np.ndarray)
        }
        return replace(self, **arrays)

    def plain_head(self, dropout: float, width: int = WIDTH, n_classes: int = 8) -> PlainHead:
        """Returns the head in Keras."""
        return PlainHead(self.seed, self.loss(), self.rate, dropout, self.decay, self.scale, width, n_classes)


RARE = SIZES.sum() / (8 * SIZES)
"""Weights of inverse frequency."""

KINDS = {
    "baseline": Kind(rate=1e-4),
    "faster": Kind(seed=1),
    "class weights": Kind(weights=RARE, rate=3e-3),
    # With gradients of 1e-7 and less, Adam's epsilon decides how large a step is.
    "tiny class weights": Kind(weights=1e-6 * np.arange(1, 9), seed=2),
    "focal": Kind(gamma=2.0, seed=3),
    "focal with alpha": Kind(gamma=1.0, alpha=RARE, rate=2e-3),
    "gentle focal": Kind(gamma=0.5, rate=5e-4, seed=4),
    "all": Kind(gamma=3.5, alpha=RARE**0.5, weights=RARE**0.5, rate=3e-4, seed=5),
}
FURTHER = {
    "weight decay": Kind(decay=0.5, rate=2e-3),
    "weak decay": Kind(decay=1e-2, weights=RARE, seed=1),
    "offsets": Kind(offsets=np.log(SIZES / SIZES.sum()), rate=2e-3),
    "cosine": Kind(scale=8.0, seed=2),
    "cosine with margins": Kind(scale=5.0, margins=5 * 0.4 * (SIZES / 5) ** -0.25, rate=2e-3, seed=3),
    "cosine with decay": Kind(scale=20.0, decay=0.3, weights=RARE, seed=4),
    "cosine with all": Kind(scale=6.0, weights=RARE, offsets=np.log(RARE), margins=np.arange(8) / 4, seed=6),
    "focal cosine": Kind(scale=6.0, gamma=1.5, decay=0.1, seed=7),
}
ALL_KINDS = KINDS | FURTHER


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
        width: int = WIDTH,
        n_classes: int = 8,
    ) -> None:
        self.n_classes = n_classes
        features, kept = keras.Input((width,)), keras.Input((width,))
        x = keras.layers.BatchNormalization(center=not scale, scale=not scale)(features)
        x = GivenDropout(dropout)(x, kept)
        dense = keras.layers.Dense(n_classes, kernel_initializer=keras.initializers.GlorotUniform(seed))
        x = CosineDense(scale, seed, n_classes)(x) if scale else dense(x)
        self.model = keras.Model([features, kept], keras.layers.Softmax()(x))
        figures = [keras.metrics.CategoricalCrossentropy(), "accuracy"]
        optimizer = keras.optimizers.AdamW(rate, weight_decay=decay) if decay else keras.optimizers.Adam(rate)
        if decay:
            optimizer.exclude_from_weight_decay([v for v in self.model.trainable_variables if v.name != "kernel"])
        self.model.compile(optimizer, loss=loss, metrics=figures)

    def step(
        self, x: np.ndarray, labels: np.ndarray, kept: np.ndarray, weights: np.ndarray | None = None
    ) -> np.ndarray:
        """Takes one step; returns the sums of cross-entropy and of hits."""
        self.model.reset_metrics()
        by_class = None if weights is None else dict(enumerate(weights.tolist()))
        one_hot = np.eye(self.n_classes)[labels]
        _, entropy, accuracy = self.model.train_on_batch([x, kept], one_hot, class_weight=by_class)
        return len(x) * np.array([float(entropy), float(accuracy)])

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.model([x, np.ones_like(x)], training=False))


SEED = 11
"""Seed of all dropout masks here."""


def weights_of(state: HeadState) -> list[np.ndarray]:
    """In Keras' order: gamma, beta, moving mean, moving variance, kernel, bias; a cosine head has the middle three."""
    if state.scale:
        return [*state.average, state.stacked[2:].T]
    return [*state.stacked[:2], *state.average, state.stacked[2:].T, state.bias]


def kept_in(shape: tuple[int, ...], rate: float, done: int, seed: int = SEED) -> np.ndarray:
    """The mask, 0 or 1, of a block that starts after `done` steps; without the scale."""
    return np.asarray(dropout_mask(dropout_bits(shape, (seed, done)), np.float32(rate))) > 0


def block_of(batches: list[tuple[np.ndarray, np.ndarray]], size: int, done: int) -> StepBlock:
    """Features and labels of some batches, each padded to `size`; the padding is nonsense that must not count."""
    steps = len(batches)
    features = np.full((steps, size, *batches[0][0].shape[1:]), 7.0, np.float32)
    one_hot, valid = np.zeros((steps, size, 8), np.float32), np.zeros((steps, size, 1), np.float32)
    one_hot[:, :, 2] = 1
    for step, (x, labels) in enumerate(batches):
        features[step, : len(x)], one_hot[step, : len(x)], valid[step, : len(x)] = x, np.eye(8)[labels], 1
    bits = dropout_bits((steps, size, WIDTH), (SEED, done))
    return StepBlock.of(features, one_hot, valid, bits, steps)


def agree(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    """Within what float32 leaves after 200 steps of Adam, whose steps have the size of the rate, 1e-4 to 3e-3."""
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=2e-5, atol=2e-5)
