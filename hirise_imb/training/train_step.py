"""What is trained above one cut of a backbone: compiled once, used by all runs from that cut.

Steps run in blocks inside the compiled function, so that what surrounds them is paid for once a block. At the cut `top`
the features are fixed, so a whole block is normalised at once and a step is little more than the products of the heads;
below it a step goes through the backbone's end first. What recipes vary enters as tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.features.arrays import Features
from hirise_imb.imbalance.losses import row_losses
from hirise_imb.models import heads
from hirise_imb.models.heads import Tensor

EVALUATION_BATCH = 256

_BETA_1, _BETA_2, _ADAM_EPSILON = 0.9, 0.999, 1e-7
"""Keras' defaults of Adam (Kingma and Ba 2015)."""


@dataclass
class TrainingState:
    """All that training changes."""

    parameters: list[Tensor]
    """Of the heads as from `heads.first_parameters`, then of the backbone's end."""
    first: list[Tensor]
    """Adam's mean of the gradients of each parameter."""
    second: list[Tensor]
    """Adam's mean of their squares."""
    average: Tensor
    """Moving mean and variance of the pooled features, shape (2, width)."""
    steps: int = 0


@dataclass(frozen=True)
class HeadOptions:
    """What recipes vary in a step: one entry a head, or one number where the heads have it in common."""

    weights: NDArray[np.float32]
    """Of classes in the loss, shape (n_heads, 8)."""
    focus: NDArray[np.float32]
    """Shape (n_heads,)."""
    offsets: NDArray[np.float32]
    """Added to the logits in the loss, shape (n_heads, 8)."""
    margins: NDArray[np.float32]
    """Taken off the own class's logit in the loss, shape (n_heads, 8)."""
    scales: NDArray[np.float32]
    """Of heads that measure cosines, else 0, shape (n_heads,)."""
    rates: NDArray[np.float32]
    """Learning rates of the heads, shape (n_heads,)."""
    decay: NDArray[np.float32]
    """Of the heads' kernels, decoupled from the loss (Loshchilov and Hutter 2019), shape (n_heads,)."""
    backbone_rate: float
    dropout: float


@dataclass(frozen=True)
class StepBlock:
    """Rows of some steps; all blocks of a pass have one shape, the last is filled up."""

    features: Tensor
    """Shape (most_steps, batch, ...)."""
    one_hot: Tensor
    """Shape (most_steps, batch, 8)."""
    valid: Tensor
    """1 for a row, 0 for padding, shape (most_steps, batch, 1)."""
    bits: Tensor
    """From `heads.dropout_bits`, shape (most_steps, batch, width of the pooled features)."""
    steps: int
    """Batches that hold a row."""

    @classmethod
    def of(
        cls,
        features: NDArray[np.float32],
        one_hot: NDArray[np.float32],
        valid: NDArray[np.float32],
        bits: NDArray[np.uint16],
        steps: int,
    ) -> StepBlock:
        """A block from arrays; it can be made in another thread, ahead of its use."""
        import tensorflow as tf

        return cls(tf.constant(features), tf.constant(one_hot), tf.constant(valid), tf.constant(bits), steps)


class Network:
    """The backbone's end above a cut, and heads on it."""

    def __init__(self, backbone: Backbone, cut: str, width: int) -> None:
        """Build the layers; `start` gives a state.

        Args:
            backbone: whose end is trained below the cut `top`.
            cut: its cut.
            width: of the pooled features; at the cut `top` they need not be the backbone's own.
        """
        self._tail: Any = None if cut == TOP else backbone.tail(cut)
        self.width = width
        self._compiled: dict[str, Any] = {}

    def start(self, seeds: Sequence[int], probe: TrainingState | None = None) -> TrainingState:
        """The first state of a head for each seed; below `top` there can be one.

        Args:
            seeds: of the kernels.
            probe: the state of a head trained at `top`, where training goes on from it (Kumar et al. 2022).
        """
        import tensorflow as tf

        if self._tail is not None and len(seeds) > 1:
            raise ValueError("heads that train the backbone's end can't share it")
        parameters = heads.first_parameters(self.width, seeds)
        average = np.stack([np.zeros(self.width), np.ones(self.width)]).astype(np.float32)
        if probe is not None:
            parameters, average = [np.asarray(value) for value in probe.parameters], np.asarray(probe.average)
        if self._tail is not None:
            parameters += [np.asarray(variable) for variable in self._tail.trainable_variables]
        return TrainingState(
            parameters=[tf.constant(value) for value in parameters],
            first=[tf.zeros_like(value) for value in parameters],
            second=[tf.zeros_like(value) for value in parameters],
            average=tf.constant(average),
        )

    def train(self, state: TrainingState, settings: HeadOptions, block: StepBlock) -> NDArray[np.float32]:
        """Go through a block, changing `state`; return the sums of cross-entropy and of hits, shape (2, n_heads)."""
        import tensorflow as tf

        moving = (state.parameters, state.first, state.second, state.average)
        # Rates by the shapes of the parameters: scales (n_heads, 10, width), bias (n_heads, 8), the backbone's end.
        rates: list[Any] = [settings.rates[:, None, None], settings.rates[:, None]]
        rates += [np.float32(settings.backbone_rate)] * (len(state.parameters) - 2)
        terms = settings.weights, settings.focus, settings.offsets, settings.margins, settings.scales, settings.decay
        moving, sums = self._function(f"block {len(settings.focus)} {block.features.shape}", self._block)(
            moving,
            np.float32(state.steps),
            tf.constant(block.steps),
            (block.features, block.one_hot, block.valid),
            (block.bits, np.float32(settings.dropout)),
            [tf.constant(value) for value in (*terms, *rates)],
        )
        state.parameters, state.first, state.second, state.average = moving
        state.steps += block.steps
        return np.asarray(sums)

    def logits(self, state: TrainingState, features: Features, scales: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of each head in inference mode, shape (n_heads, n, 8); `scales` as in `HeadOptions`."""
        import tensorflow as tf

        forward = self._function(f"forward {state.parameters[1].shape[0]}", self._forward)
        choice = tf.constant(scales)
        parts = [
            np.asarray(forward(state.parameters, state.average, tf.constant(batch), choice))
            for batch in _batches(features)
        ]
        return np.concatenate(parts).transpose(1, 0, 2)

    def pooled(self, state: TrainingState, features: Features) -> NDArray[np.float32]:
        """What the heads stand on, shape (n, width): at `top` the features themselves."""
        import tensorflow as tf

        if self._tail is None:
            return np.concatenate(list(_batches(features)))
        forward = self._function("pooled", self._pooled)
        return np.concatenate(
            [np.asarray(forward(state.parameters, tf.constant(batch))) for batch in _batches(features)]
        )

    def _function(self, name: str, body: Any, **options: bool) -> Any:  # noqa: ANN401  (TensorFlow has no types)
        import tensorflow as tf

        if name not in self._compiled:
            self._compiled[name] = tf.function(body, reduce_retracing=True, **options)
        return self._compiled[name]

    def _block(
        self,
        moving: Any,  # noqa: ANN401
        done: Tensor,
        steps: Tensor,
        rows: Sequence[Tensor],
        dropout: Sequence[Tensor],
        choice: Sequence[Tensor],
    ) -> Any:  # noqa: ANN401
        """The steps of a block, in order."""
        import tensorflow as tf

        # The head's step is many small operations, which XLA makes one; convolutions it does no good on a processor.
        shape = f"{choice[1].shape[0]} {rows[0].shape}"
        prepare = self._function(f"prepare {shape}", self._prepare, jit_compile=True)
        step = self._function(f"step {shape}", self._step, jit_compile=self._tail is None)
        seen, moments, mask = prepare(rows, dropout)
        _, one_hot, valid = rows

        def body(i: Tensor, moving: Any, sums: Tensor) -> Any:  # noqa: ANN401
            batch = (seen[i], moments[i], mask[i], one_hot[i], valid[i])
            moving, more = step(moving, done + tf.cast(i + 1, tf.float32), batch, choice)
            return i + 1, moving, sums + more

        start = (tf.constant(0), moving, tf.zeros((2, choice[1].shape[0])))
        _, moving, sums = tf.while_loop(lambda i, *_: i < steps, body, start, parallel_iterations=1)
        return moving, sums

    def _prepare(self, rows: Sequence[Tensor], dropout: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """All that a block's steps need and that no step changes: features, their moments, dropout masks."""
        features, _, valid = rows
        mask = heads.dropout_mask(*dropout)
        if self._tail is not None:  # its output, which is what is normalised, moves with every step
            return features, mask[:, :2], mask
        normal, moments = heads.normalise(features, valid)
        return normal * mask, moments, mask

    def _step(self, moving: Any, number: Tensor, rows: Sequence[Tensor], choice: Sequence[Tensor]) -> Any:  # noqa: ANN401
        """One step of Adam; return what moved, and the batch's sums of cross-entropy and of hits, (2, n_heads)."""
        import tensorflow as tf

        parameters, first, second, average = moving
        features, moments, mask, one_hot, valid = rows
        weights, focus, offsets, margins, scales, decay, *rates = choice
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            if self._tail is not None:
                features, moments = heads.normalise(self._pooled(parameters, features), valid)
                features *= mask
            logits = heads.logits(parameters[:2], features, mask, scales)
            # The mean is over rows, not over the sum of weights, as Keras' class_weight has it.
            losses = row_losses(one_hot, logits, weights, focus, offsets, margins) * valid / tf.reduce_sum(valid)
        gradients = tape.gradient(losses, parameters)
        first = [m + (g - m) * (1 - _BETA_1) for m, g in zip(first, gradients, strict=True)]
        second = [v + (g * g - v) * (1 - _BETA_2) for v, g in zip(second, gradients, strict=True)]
        unbias = tf.sqrt(1 - tf.pow(_BETA_2, number)) / (1 - tf.pow(_BETA_1, number))
        parameters = [heads.decayed(parameters[0], rates[0] * decay[:, None, None]), *parameters[1:]]
        parameters = [
            p - rate * unbias * m / (tf.sqrt(v) + _ADAM_EPSILON)
            for p, m, v, rate in zip(parameters, first, second, rates, strict=True)
        ]
        hot = one_hot[:, None, :]
        entropy = tf.reduce_logsumexp(logits, axis=2) - tf.reduce_sum(hot * logits, axis=2)
        hits = tf.cast(tf.argmax(logits, axis=2) == tf.argmax(hot, axis=2), tf.float32)
        sums = tf.stack([tf.reduce_sum(entropy * valid, axis=0), tf.reduce_sum(hits * valid, axis=0)])
        return (parameters, first, second, heads.moved(average, moments)), sums

    def _pooled(self, parameters: Sequence[Tensor], features: Tensor) -> Tensor:
        """What the backbone's end makes of features at the cut, shape (batch, width)."""
        fixed = [variable.value for variable in self._tail.non_trainable_variables]
        return self._tail.stateless_call(list(parameters[2:]), fixed, features, training=False)[0]

    def _forward(self, parameters: Sequence[Tensor], average: Tensor, features: Tensor, scales: Tensor) -> Tensor:
        import tensorflow as tf

        pooled = features if self._tail is None else self._pooled(parameters, features)
        settled = heads.settled(pooled, average)
        return heads.logits(parameters[:2], settled, tf.ones_like(settled), scales)


def _batches(features: Features) -> Iterator[NDArray[np.float32]]:
    positions = np.arange(len(features))
    return (features.take(positions[s : s + EVALUATION_BATCH]) for s in range(0, len(features), EVALUATION_BATCH))
