"""The compiled training step of a head and the backbone's tail below it, one graph for all runs at a cut.

Steps run in blocks inside one compiled function, so that the overhead around them is paid once per block. Everything
that recipes vary enters as tensors, so that a further recipe needs no recompilation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hirise_imb.backbones import Backbone, Trainable
from hirise_imb.features.arrays import Features
from hirise_imb.imbalance.losses import row_losses
from hirise_imb.models import heads
from hirise_imb.models.heads import HeadState, Tensor
from hirise_imb.utils.errors import NotApplicable

EVALUATION_BATCH = 256
"""Number of rows that are predicted at once."""

_BETA_1, _BETA_2, _ADAM_EPSILON = 0.9, 0.999, 1e-7
"""Keras' defaults of Adam (Kingma and Ba 2015)."""


class Moving(NamedTuple):
    """The tensors that a training step changes."""

    parameters: list[Tensor]
    """`stacked` and `bias` of the head (see `heads.HeadState`), followed by the variables of the backbone's tail."""
    first_moments: list[Tensor]
    """Adam's moving mean of the gradient of each parameter."""
    second_moments: list[Tensor]
    """Adam's moving mean of the squared gradient of each parameter."""
    average: Tensor
    """Moving mean and variance of the pooled features, shape (2, width)."""


@dataclass
class TrainingState:
    """The state of training: the tensors that steps change, and the number of steps so far."""

    moving: Moving
    scale: float
    """Scale of a cosine head, 0 for a linear one."""
    steps: int = 0

    def head(self) -> HeadState:
        """Returns the weights of the head."""
        stacked, bias = (np.asarray(value) for value in self.moving.parameters[:2])
        return HeadState(stacked, bias, np.asarray(self.moving.average), self.scale)

    @property
    def tail(self) -> list[Tensor]:
        """The trained weights of the backbone's tail, in the order of its trainable variables."""
        return self.moving.parameters[2:]

    def detach(self) -> TrainingState:
        """Returns a state for prediction only, without Adam's moments; further training does not change it."""
        return TrainingState(Moving(self.moving.parameters, [], [], self.moving.average), self.scale)


class HeadOptions(NamedTuple):
    """The options of a training step."""

    class_weights: NDArray[np.float32]
    """Class weights in the loss, shape (n_classes,)."""
    focus: np.float32
    """Focusing exponent of the loss."""
    offsets: NDArray[np.float32]
    """Offsets added to the logits in the loss, shape (n_classes,)."""
    margins: NDArray[np.float32]
    """Margins subtracted from the true class's logit in the loss, shape (n_classes,)."""
    learning_rate: np.float32
    """Learning rate of the head."""
    weight_decay: np.float32
    """Weight decay of the head's kernel, decoupled from the loss (Loshchilov and Hutter 2019)."""
    backbone_learning_rate: np.float32
    """Learning rate of the backbone's tail."""
    dropout: np.float32
    """Dropout rate of the head."""


class Rows(NamedTuple):
    """Training rows with their labels and dropout bits; leading axes (steps, batch) in a block, (batch,) in a step."""

    features: Tensor
    """Features at the cut, shape (..., *shape of the features)."""
    one_hot: Tensor
    """Labels, shape (..., n_classes)."""
    valid: Tensor
    """1 for a row and 0 for padding, shape (..., 1)."""
    bits: Tensor
    """Random numbers from `heads.dropout_bits`, shape (..., width of the pooled features)."""


@dataclass(frozen=True)
class StepBlock:
    """The rows of some steps. All blocks of a run have one shape; the last one is padded."""

    rows: Rows
    """Rows with leading axes (max_steps, batch)."""
    steps: int
    """Number of mini-batches that contain a row."""

    @classmethod
    def of(
        cls,
        features: NDArray[np.float32],
        one_hot: NDArray[np.float32],
        valid: NDArray[np.float32],
        bits: NDArray[np.uint16],
        steps: int,
    ) -> StepBlock:
        """Builds a block from arrays; this can be done in another thread, ahead of its use."""
        import tensorflow as tf

        return cls(Rows(*(tf.constant(values) for values in (features, one_hot, valid, bits))), steps)


class Network:
    """The backbone's tail above a cut, and a head on top of it."""

    def __init__(self, backbone: Backbone, cut: str, trainable: Trainable = "all") -> None:
        """Builds the layers; `start` gives an initial state.

        Args:
            backbone: backbone, which training leaves unchanged.
            cut: name of the cut.
            trainable: weights of the tail that are trained.

        Raises:
            NotApplicable: no layer above the cut has weights of this kind.
        """
        self._tail: Any = backbone.tail(cut)
        if trainable == "norms":
            # The statistics of a trainable batch normalisation stay frozen too, since `_pool` calls the tail with
            # training=False.
            for layer in self._tail.layers:
                layer.trainable = _is_normalisation(layer)
            if not self._tail.trainable_variables:
                raise NotApplicable(
                    f"The layers of {backbone.card.name} above the cut {cut} have no scales and shifts of "
                    f"normalisation to train; train all weights, or choose an earlier cut."
                )
        self.width = backbone.card.feature_width
        self._compiled: dict[str, Any] = {}

    @property
    def weight_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the weights of the tail that are trained, in the order of its trainable variables."""
        return tuple(tuple(map(int, variable.shape)) for variable in self._tail.trainable_variables)

    def start(self, head: HeadState) -> TrainingState:
        """Returns the initial state: the backbone's own weights below a trained head (Kumar et al. 2022)."""
        import tensorflow as tf

        values = [head.stacked, head.bias, *(np.asarray(variable) for variable in self._tail.trainable_variables)]
        return TrainingState(
            Moving(
                parameters=[tf.constant(value) for value in values],
                first_moments=[tf.zeros_like(value) for value in values],
                second_moments=[tf.zeros_like(value) for value in values],
                average=tf.constant(head.average),
            ),
            head.scale,
        )

    def train(self, state: TrainingState, options: HeadOptions, block: StepBlock) -> NDArray[np.float32]:
        """Trains on a block and changes `state`; returns the sums of cross-entropy and of hits, shape (2,)."""
        import tensorflow as tf

        compiled = self._compile(f"block {block.rows.features.shape}", self._run_block)
        state.moving, sums = compiled(
            state.moving,
            np.float32(state.steps),
            tf.constant(block.steps),
            block.rows,
            HeadOptions(*(tf.constant(value) for value in options)),
            tf.constant(state.scale, tf.float32),
        )
        state.steps += block.steps
        return np.asarray(sums)

    def logits(self, state: TrainingState, features: Features) -> NDArray[np.float32]:
        """Returns logits in inference mode, shape (n, n_classes)."""
        import tensorflow as tf

        moving, scale = state.moving, tf.constant(state.scale, tf.float32)
        forward = self._compile("forward", self._forward)
        parts = [forward(moving.parameters, moving.average, tf.constant(x), scale) for x in _batches(features)]
        return np.concatenate([np.asarray(part) for part in parts])

    def pooled(self, tail: Sequence[Tensor], features: Features) -> NDArray[np.float32]:
        """Computes the pooled features below the head, shape (n, width).

        Args:
            tail: trained weights of the tail, as in `TrainingState.tail`.
            features: feature maps at the cut.
        """
        import tensorflow as tf

        forward = self._compile("pooled", self._pool)
        weights = [tf.constant(value) for value in tail]
        parts = [forward(weights, tf.constant(batch)) for batch in _batches(features)]
        return np.concatenate([np.empty((0, self.width), np.float32), *(np.asarray(part) for part in parts)])

    def _compile(self, name: str, body: Any) -> Any:  # noqa: ANN401  (TensorFlow has no types)
        import tensorflow as tf

        if name not in self._compiled:
            self._compiled[name] = tf.function(body, reduce_retracing=True)
        return self._compiled[name]

    def _run_block(
        self, moving: Moving, done: Tensor, steps: Tensor, rows: Rows, options: HeadOptions, scale: Tensor
    ) -> tuple[Moving, Tensor]:
        """Runs the steps of a block in order; `done` is the number of steps before it."""
        import tensorflow as tf

        step = self._compile(f"step {rows.features.shape}", self._step)

        def body(i: Tensor, moving: Moving, sums: Tensor) -> tuple[Tensor, Moving, Tensor]:
            batch = Rows(*(values[i] for values in rows))
            moving, batch_sums = step(moving, done + tf.cast(i + 1, tf.float32), batch, options, scale)
            return i + 1, moving, sums + batch_sums

        start = (tf.constant(0), moving, tf.zeros(2))
        # One iteration at a time: each step depends on the one before, and the loop must not buffer several.
        _, moving, sums = tf.while_loop(lambda i, *_: i < steps, body, start, parallel_iterations=1)
        return moving, sums

    def _step(
        self, moving: Moving, number: Tensor, batch: Rows, options: HeadOptions, scale: Tensor
    ) -> tuple[Moving, Tensor]:
        """Takes one step of Adam; returns the new state, and the sums of cross-entropy and of hits, shape (2,)."""
        import tensorflow as tf

        parameters = moving.parameters
        mask = heads.dropout_mask(batch.bits, options.dropout)
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            normalised, moments = heads.normalise_batch(self._pool(parameters[2:], batch.features), batch.valid)
            logits = heads.compute_logits(parameters[0], parameters[1], normalised, mask, scale)
            losses = row_losses(
                batch.one_hot, logits, options.class_weights, options.focus, options.offsets, options.margins
            )
            # The mean is over rows, not over the sum of weights, as with Keras' class_weight.
            valid = batch.valid[:, 0]
            loss = tf.reduce_sum(losses * valid) / tf.reduce_sum(valid)
        gradients = tape.gradient(loss, parameters)
        first = [m + (g - m) * (1 - _BETA_1) for m, g in zip(moving.first_moments, gradients, strict=True)]
        second = [v + (g * g - v) * (1 - _BETA_2) for v, g in zip(moving.second_moments, gradients, strict=True)]
        bias_correction = tf.sqrt(1 - tf.pow(_BETA_2, number)) / (1 - tf.pow(_BETA_1, number))
        rates = [options.learning_rate] * 2 + [options.backbone_learning_rate] * (len(parameters) - 2)
        # Decay comes before the Adam step, as in Keras' AdamW.
        decayed = heads.decay_kernel(parameters[0], options.learning_rate * options.weight_decay)
        updated = [
            p - rate * bias_correction * m / (tf.sqrt(v) + _ADAM_EPSILON)
            for p, m, v, rate in zip([decayed, *parameters[1:]], first, second, rates, strict=True)
        ]
        entropy = tf.reduce_logsumexp(logits, axis=1) - tf.reduce_sum(batch.one_hot * logits, axis=1)
        hits = tf.cast(tf.argmax(logits, axis=1) == tf.argmax(batch.one_hot, axis=1), tf.float32)
        sums = tf.stack([tf.reduce_sum(entropy * valid), tf.reduce_sum(hits * valid)])
        return Moving(updated, first, second, heads.update_average(moving.average, moments)), sums

    def _pool(self, tail: list[Tensor], features: Tensor) -> Tensor:
        """Computes the pooled output of the backbone's tail for features at the cut, shape (batch, width)."""
        fixed = [variable.value for variable in self._tail.non_trainable_variables]
        return self._tail.stateless_call(list(tail), fixed, features, training=False)[0]

    def _forward(self, parameters: list[Tensor], average: Tensor, features: Tensor, scale: Tensor) -> Tensor:
        import tensorflow as tf

        normalised = heads.normalise_inference(self._pool(parameters[2:], features), average)
        return heads.compute_logits(parameters[0], parameters[1], normalised, tf.ones_like(normalised), scale)


def _is_normalisation(layer: object) -> bool:
    import keras

    kinds = keras.layers.BatchNormalization, keras.layers.GroupNormalization, keras.layers.LayerNormalization
    return isinstance(layer, kinds)


def _batches(features: Features) -> Iterator[NDArray[np.float32]]:
    positions = np.arange(len(features))
    return (features.take(positions[s : s + EVALUATION_BATCH]) for s in range(0, len(features), EVALUATION_BATCH))
