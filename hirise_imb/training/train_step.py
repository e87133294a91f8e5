"""The compiled training step above one cut of a backbone, compiled once and used by all runs that start there.

Steps run in blocks inside one compiled function, so that the overhead around them is paid once per block. At the cut
`top` the features are fixed, so that a whole block is normalised at once and a step is little more than the matrix
products of the heads; below it each step goes through the backbone's tail first. Everything that recipes vary enters as
tensors, so that a further recipe needs no recompilation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.features.arrays import Features
from hirise_imb.imbalance.losses import row_losses
from hirise_imb.models import heads
from hirise_imb.models.heads import HeadParameters, Tensor

EVALUATION_BATCH = 256
"""Number of rows that are predicted at once."""

_BETA_1, _BETA_2, _ADAM_EPSILON = 0.9, 0.999, 1e-7
"""Keras' defaults of Adam (Kingma and Ba 2015)."""


class Moving(NamedTuple):
    """The tensors that a training step changes."""

    parameters: list[Tensor]
    """`HeadParameters`, followed by the variables of the backbone's tail."""
    first_moments: list[Tensor]
    """Adam's moving mean of the gradient of each parameter."""
    second_moments: list[Tensor]
    """Adam's moving mean of the squared gradient of each parameter."""
    average: Tensor
    """Moving mean and variance of the pooled features, shape (2, width)."""

    @property
    def heads(self) -> HeadParameters:
        """Parameters of the heads."""
        return HeadParameters(*self.parameters[:2])


@dataclass
class TrainingState:
    """The state of training: the tensors that steps change, and the number of steps so far."""

    moving: Moving
    steps: int = 0

    @property
    def heads(self) -> HeadParameters:
        """Parameters of the heads."""
        return self.moving.heads

    def detach(self) -> TrainingState:
        """Returns a state for prediction only, without Adam's moments; further training does not change it."""
        return TrainingState(Moving(self.moving.parameters, [], [], self.moving.average))


class HeadOptions(NamedTuple):
    """The options of a training step: one entry for each head, or one number that the heads share."""

    class_weights: NDArray[np.float32]
    """Class weights in the loss, shape (n_heads, n_classes)."""
    focus: NDArray[np.float32]
    """Focusing exponents of the loss, shape (n_heads,)."""
    offsets: NDArray[np.float32]
    """Offsets added to the logits in the loss, shape (n_heads, n_classes)."""
    margins: NDArray[np.float32]
    """Margins subtracted from the true class's logit in the loss, shape (n_heads, n_classes)."""
    scales: NDArray[np.float32]
    """Scales of cosine heads, 0 for linear heads, shape (n_heads,)."""
    learning_rates: NDArray[np.float32]
    """Learning rates of the heads, shape (n_heads,)."""
    weight_decay: NDArray[np.float32]
    """Weight decay of the heads' kernels, decoupled from the loss (Loshchilov and Hutter 2019), shape (n_heads,)."""
    backbone_learning_rate: np.float32
    """Learning rate of the backbone's tail."""
    dropout: np.float32
    """Dropout rate of all heads."""

    @property
    def n_heads(self) -> int:
        """Number of heads."""
        return int(self.focus.shape[0])


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
    """The rows of some steps. All blocks of a pass have one shape; the last one is padded."""

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


class _PreparedRows(NamedTuple):
    """Rows after all computations that do not depend on trained parameters, with the same leading axes."""

    features: Tensor
    """Features, normalised and masked at the cut `top`, unchanged below it."""
    moments: Tensor
    """Mean and variance of each mini-batch, shape (..., 2, width); a placeholder below `top`."""
    mask: Tensor
    """Dropout mask, shape (..., batch, width)."""
    one_hot: Tensor
    valid: Tensor


class Network:
    """The backbone's tail above a cut, and heads on top of it."""

    def __init__(self, backbone: Backbone, cut: str, width: int, n_classes: int) -> None:
        """Builds the layers; `start` gives an initial state.

        Args:
            backbone: backbone; its tail is trained below the cut `top`.
            cut: name of the cut.
            width: width of the pooled features; at the cut `top` it may differ from the backbone's.
            n_classes: number of classes of the data set.
        """
        self._tail: Any = None if cut == TOP else backbone.tail(cut)
        self.width = width
        self.n_classes = n_classes
        self._compiled: dict[str, Any] = {}

    def start(self, seeds: Sequence[int], probe: TrainingState | None = None) -> TrainingState:
        """Returns the initial state of a head for each seed; below `top` there can be only one head.

        Args:
            seeds: seeds of the kernels.
            probe: state of a head trained at `top`, from which training continues (Kumar et al. 2022).
        """
        import tensorflow as tf

        if self._tail is not None and len(seeds) > 1:
            raise ValueError("heads that train the backbone's tail can't share it")
        if probe is None:
            parameters: list[Any] = [*heads.initial_parameters(self.width, self.n_classes, seeds)]
            average = np.stack([np.zeros(self.width), np.ones(self.width)]).astype(np.float32)
        else:
            parameters, average = [np.asarray(value) for value in probe.heads], np.asarray(probe.moving.average)
        if self._tail is not None:
            parameters += [np.asarray(variable) for variable in self._tail.trainable_variables]
        return TrainingState(
            Moving(
                parameters=[tf.constant(value) for value in parameters],
                first_moments=[tf.zeros_like(value) for value in parameters],
                second_moments=[tf.zeros_like(value) for value in parameters],
                average=tf.constant(average),
            )
        )

    def train(self, state: TrainingState, options: HeadOptions, block: StepBlock) -> NDArray[np.float32]:
        """Trains on a block and changes `state`; returns sums of cross-entropy and of hits, shape (2, n_heads)."""
        import tensorflow as tf

        compiled = self._compile(f"block {options.n_heads} {block.rows.features.shape}", self._run_block)
        state.moving, sums = compiled(
            state.moving,
            np.float32(state.steps),
            tf.constant(block.steps),
            block.rows,
            HeadOptions(*(tf.constant(value) for value in options)),
        )
        state.steps += block.steps
        return np.asarray(sums)

    def logits(self, state: TrainingState, features: Features, scales: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns each head's logits in inference mode, shape (n_heads, n, n_classes); `scales` as in `HeadOptions`."""
        import tensorflow as tf

        moving = state.moving
        forward = self._compile(f"forward {moving.heads.bias.shape[0]}", self._forward)
        scale_tensor = tf.constant(scales)
        parts = [
            np.asarray(forward(moving.parameters, moving.average, tf.constant(batch), scale_tensor))
            for batch in _batches(features)
        ]
        return np.concatenate(parts).transpose(1, 0, 2)

    def pooled(self, state: TrainingState, features: Features) -> NDArray[np.float32]:
        """Computes the pooled features below the heads, shape (n, width); at `top` they are the features themselves."""
        import tensorflow as tf

        if self._tail is None:
            return np.concatenate(list(_batches(features)))
        forward = self._compile("pooled", self._pool)
        parameters = state.moving.parameters
        return np.concatenate([np.asarray(forward(parameters, tf.constant(batch))) for batch in _batches(features)])

    def _compile(self, name: str, body: Any, **options: bool) -> Any:  # noqa: ANN401  (TensorFlow has no types)
        import tensorflow as tf

        if name not in self._compiled:
            self._compiled[name] = tf.function(body, reduce_retracing=True, **options)
        return self._compiled[name]

    def _run_block(
        self, moving: Moving, done: Tensor, steps: Tensor, rows: Rows, options: HeadOptions
    ) -> tuple[Moving, Tensor]:
        """Runs the steps of a block in order; `done` is the number of steps before it."""
        import tensorflow as tf

        # A head's step consists of many small operations, which XLA fuses into one. It does not speed up the
        # convolutions of a tail on a processor, so a step below `top` is left to TensorFlow.
        shape = f"{options.n_heads} {rows.features.shape}"
        prepare = self._compile(f"prepare {shape}", self._prepare, jit_compile=True)
        step = self._compile(f"step {shape}", self._step, jit_compile=self._tail is None)
        prepared: _PreparedRows = prepare(rows, options.dropout)

        def body(i: Tensor, moving: Moving, sums: Tensor) -> tuple[Tensor, Moving, Tensor]:
            batch = _PreparedRows(*(values[i] for values in prepared))
            moving, batch_sums = step(moving, done + tf.cast(i + 1, tf.float32), batch, options)
            return i + 1, moving, sums + batch_sums

        start = (tf.constant(0), moving, tf.zeros((2, options.n_heads)))
        # One iteration at a time: each step depends on the one before, and the loop must not buffer several.
        _, moving, sums = tf.while_loop(lambda i, *_: i < steps, body, start, parallel_iterations=1)
        return moving, sums

    def _prepare(self, rows: Rows, dropout: Tensor) -> _PreparedRows:
        """Computes for all steps of a block what no step changes: dropout masks and, at `top`, normalised features."""
        mask = heads.dropout_mask(rows.bits, dropout)
        if self._tail is not None:
            # The tail's output, which is normalised, changes with every step. The slice of the mask is only a
            # placeholder.
            return _PreparedRows(rows.features, mask[:, :2], mask, rows.one_hot, rows.valid)
        normalised, moments = heads.normalise_batch(rows.features, rows.valid)
        return _PreparedRows(normalised * mask, moments, mask, rows.one_hot, rows.valid)

    def _step(
        self, moving: Moving, number: Tensor, batch: _PreparedRows, options: HeadOptions
    ) -> tuple[Moving, Tensor]:
        """Takes one step of Adam; returns the new state, and sums of cross-entropy and of hits, shape (2, n_heads)."""
        import tensorflow as tf

        parameters = moving.parameters
        features, moments = batch.features, batch.moments
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            if self._tail is not None:
                features, moments = heads.normalise_batch(self._pool(parameters, features), batch.valid)
                features *= batch.mask
            logits = heads.compute_logits(moving.heads, features, batch.mask, options.scales)
            losses = row_losses(
                batch.one_hot, logits, options.class_weights, options.focus, options.offsets, options.margins
            )
            # The mean is over rows, not over the sum of weights, as with Keras' class_weight. Heads share no
            # parameter, so the gradient of the sum over heads is that of each head's own loss.
            losses = losses * batch.valid / tf.reduce_sum(batch.valid)
        gradients = tape.gradient(losses, parameters)
        first = [m + (g - m) * (1 - _BETA_1) for m, g in zip(moving.first_moments, gradients, strict=True)]
        second = [v + (g * g - v) * (1 - _BETA_2) for v, g in zip(moving.second_moments, gradients, strict=True)]
        bias_correction = tf.sqrt(1 - tf.pow(_BETA_2, number)) / (1 - tf.pow(_BETA_1, number))
        # Learning rates broadcast to the shapes of the parameters: stacked (n_heads, ..., width), bias (n_heads,
        # n_classes), then the variables of the tail.
        stacked_rate, bias_rate = options.learning_rates[:, None, None], options.learning_rates[:, None]
        rates = [stacked_rate, bias_rate] + [options.backbone_learning_rate] * (len(parameters) - 2)
        # Decay comes before the Adam step, as in Keras' AdamW.
        decayed = heads.decay_kernels(parameters[0], stacked_rate * options.weight_decay[:, None, None])
        updated = [
            p - rate * bias_correction * m / (tf.sqrt(v) + _ADAM_EPSILON)
            for p, m, v, rate in zip([decayed, *parameters[1:]], first, second, rates, strict=True)
        ]
        hot = batch.one_hot[:, None, :]
        entropy = tf.reduce_logsumexp(logits, axis=2) - tf.reduce_sum(hot * logits, axis=2)
        hits = tf.cast(tf.argmax(logits, axis=2) == tf.argmax(hot, axis=2), tf.float32)
        sums = tf.stack([tf.reduce_sum(entropy * batch.valid, axis=0), tf.reduce_sum(hits * batch.valid, axis=0)])
        return Moving(updated, first, second, heads.update_average(moving.average, moments)), sums

    def _pool(self, parameters: Sequence[Tensor], features: Tensor) -> Tensor:
        """Computes the pooled output of the backbone's tail for features at the cut, shape (batch, width)."""
        fixed = [variable.value for variable in self._tail.non_trainable_variables]
        return self._tail.stateless_call(list(parameters[2:]), fixed, features, training=False)[0]

    def _forward(self, parameters: Sequence[Tensor], average: Tensor, features: Tensor, scales: Tensor) -> Tensor:
        import tensorflow as tf

        pooled = features if self._tail is None else self._pool(parameters, features)
        normalised = heads.normalise_inference(pooled, average)
        return heads.compute_logits(HeadParameters(*parameters[:2]), normalised, tf.ones_like(normalised), scales)


def _batches(features: Features) -> Iterator[NDArray[np.float32]]:
    positions = np.arange(len(features))
    return (features.take(positions[s : s + EVALUATION_BATCH]) for s in range(0, len(features), EVALUATION_BATCH))
