"""What learns in epochs on one fold: a head on features of the frozen backbone, or a head with the backbone's tail."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data.splits import TrainingPool
from hirise_imb.features.arrays import Features
from hirise_imb.imbalance.class_weights import ClassCounts
from hirise_imb.imbalance.mixing import Mixture
from hirise_imb.imbalance.sampling import Sampling
from hirise_imb.models.heads import HeadState, dropout_bits, dropout_threshold, initial_state
from hirise_imb.models.linear import LinearClassifier
from hirise_imb.models.preparation import Preparation
from hirise_imb.recipe import RATE_DROP, Cosine, Recipe
from hirise_imb.training import head_kernel
from hirise_imb.training.tail_network import HeadOptions, Network, StepBlock, TrainingState

_BLOCK_BYTES = 4 << 20
_BLOCK_STEPS = 64
"""Size of the features of a block, and its most steps. Each block draws its own dropout masks, so the numbers of a run
depend on these."""

_VIEW_STREAM, _MIXING_STREAM = 1, 2
"""Distinguish the random numbers that draw views and mixtures from others with the same seed."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class EvaluationSet:
    """Landmarks that are predicted, one canonical image each."""

    features: Features
    labels: Ints
    """Class id of each landmark, shape (n,)."""


@dataclass(frozen=True)
class FoldData:
    """Training and held-out data of one fold, at one cut."""

    features: Features
    """Features of the images of the pool."""
    pool: TrainingPool
    landmarks: Ints
    """Number of landmarks of each class in the pool, shape (n_classes,)."""
    sources: Ints
    """Number of sources with landmarks of each class in the pool, shape (n_classes,)."""
    heldout: EvaluationSet
    preparation: Preparation = field(default_factory=Preparation)
    """What was done to the features."""
    training_views: tuple[Features, ...] = ()
    """Features of the same images as `features` in each view that rows are drawn from; empty without augmentation."""

    def counts(self, sampling: Sampling) -> ClassCounts:
        """Returns the counts that formulas of losses and weights use when rows are sampled this way."""
        return ClassCounts(self.landmarks, self.sources, sampling.shares(self.pool))


class EpochSums(NamedTuple):
    """Sums over the rows of an epoch, with dropout, as Keras reports them."""

    entropy: float
    """Cross-entropy in nats, whichever loss was trained; of mixed rows, with their mixed labels."""
    hits: float
    rows: int


class Learner(Protocol):
    """Learns on one fold."""

    def train_epoch(self, epoch: int) -> EpochSums:
        """Trains for an epoch, counted from 1."""
        ...

    def logits(self, features: Features) -> NDArray[np.float32]:
        """Computes logits in inference mode, shape (n, n_classes)."""
        ...

    def snapshot(self) -> Snapshot:
        """Returns the weights as they are now; further training does not change them."""
        ...


@dataclass(frozen=True)
class Snapshot:
    """The weights of a head after some epoch, and of the tail below it if that was trained."""

    head: HeadState
    tail: TrainingState | None = None

    def classifier(self) -> LinearClassifier:
        """Returns the head as a classifier on pooled features."""
        return self.head.classifier()


class HeadLearner:
    """A head on pooled features of the frozen backbone. Several may train at once, each in its own thread."""

    def __init__(self, recipe: Recipe, seed: int, data: FoldData) -> None:
        """Initialises the head; `seed` seeds its weights, the order of rows, dropout and sampling."""
        self._rows = _EpochRows(recipe, seed, data)
        self._stored = _read_only(data.features)
        self._stored_rows = data.features.rows
        self._schedule = _Schedule(recipe, data)
        self._seed = seed
        self._dropout = dropout_threshold(recipe.dropout)
        n_classes, (width,) = len(data.pool.classes), data.features.shape
        self._state = initial_state(width, n_classes, seed, _cosine_scale(recipe))
        self._moments = np.zeros((2, 2 + n_classes, width), np.float32)
        self._bias_moments = np.zeros((2, n_classes), np.float32)
        self._steps = 0

    def train_epoch(self, epoch: int) -> EpochSums:
        """Trains for an epoch, counted from 1."""
        rows, labels = self._rows.draw(epoch)
        state, options = self._state, self._schedule.options(epoch)
        steps = -(-len(rows) // self._rows.batch)
        entropy, hits = head_kernel.train_epoch(
            self._stored,
            self._stored_rows[rows],
            labels,
            self._rows.batch,
            state.stacked,
            state.bias,
            self._moments,
            self._bias_moments,
            state.average,
            head_kernel.dropout_states(self._seed, self._steps, steps, self._rows.block),
            self._rows.block,
            self._dropout,
            options.class_weights,
            options.focus,
            options.offsets,
            options.margins,
            np.float32(state.scale),
            options.learning_rate,
            options.weight_decay,
            self._steps,
        )
        self._steps += steps
        return EpochSums(entropy, hits, len(rows))

    def logits(self, features: Features) -> NDArray[np.float32]:
        """Computes logits in inference mode, shape (n, n_classes)."""
        state, stored = self._state, _read_only(features)
        scale = np.float32(state.scale)
        logits: NDArray[np.float32] = head_kernel.predict(
            stored, features.rows, state.stacked, state.bias, state.average, scale
        )
        return logits

    def snapshot(self) -> Snapshot:
        """Returns the weights as they are now."""
        return Snapshot(self._state.copy())


class TailLearner:
    """A head and the tail of the backbone below it, which continue from a trained head (Kumar et al. 2022)."""

    def __init__(self, recipe: Recipe, seed: int, data: FoldData, network: Network, head: HeadState) -> None:
        """Takes the network at the cut of the recipe, and the head from which training continues."""
        self._rows = _EpochRows(recipe, seed, data)
        self._data = data
        self._schedule = _Schedule(recipe, data)
        self._seed = seed
        self._mixing = recipe.mixing
        self._view_rng, self._mixing_rng = (np.random.default_rng((seed, n)) for n in (_VIEW_STREAM, _MIXING_STREAM))
        self._network = network
        self._state = network.start(head)

    def train_epoch(self, epoch: int) -> EpochSums:
        """Trains for an epoch, counted from 1."""
        options, sums, count = self._schedule.options(epoch), np.zeros(2), 0
        for block, n in self._blocks(epoch):
            sums += self._network.train(self._state, options, block)
            count += n
        return EpochSums(float(sums[0]), float(sums[1]), count)

    def logits(self, features: Features) -> NDArray[np.float32]:
        """Computes logits in inference mode, shape (n, n_classes)."""
        return self._network.logits(self._state, features)

    def snapshot(self) -> Snapshot:
        """Returns the weights as they are now."""
        return Snapshot(self._state.head(), self._state.detach())

    def _blocks(self, epoch: int) -> Iterator[tuple[StepBlock, int]]:
        """Yields the rows of an epoch and their number; a block is read in another thread while one before trains."""
        rows, labels = self._rows.draw(epoch)
        n_views = len(self._data.training_views)
        views = self._view_rng.integers(n_views, size=len(rows)) if n_views else None
        mixture = None
        if self._mixing is not None:
            landmarks = self._data.landmarks
            mixture = Mixture.draw(self._mixing, labels, landmarks, self._rows.batch, self._mixing_rng)
        size = self._rows.batch * self._rows.block
        starts = range(0, len(rows), size)
        first_steps = self._state.steps

        def read(start: int) -> StepBlock:
            part = slice(start, start + size)
            features = self._read_features(rows[part], None if views is None else views[part])
            one_hot = np.eye(len(self._data.pool.classes), dtype=np.float32)[labels[part]]
            if mixture is not None:
                of_part = mixture.select(part)
                features, one_hot = of_part.mix_features(features), of_part.mix_labels(one_hot)
            return self._build_block(features, one_hot, first_steps + start // self._rows.batch)

        with ThreadPoolExecutor(1) as executor:
            prefetched = executor.submit(read, starts[0])
            for start, following in zip(starts, [*starts[1:], None], strict=True):
                block = prefetched.result()
                if following is not None:
                    prefetched = executor.submit(read, following)
                yield block, min(size, len(rows) - start)

    def _read_features(self, rows: Ints, views: Ints | None) -> NDArray[np.float32]:
        """Reads the features of rows, each in the view with its number if there are several views."""
        if views is None:
            return self._data.features.take(rows)
        features = np.empty((len(rows), *self._data.features.shape), np.float32)
        for number, stored in enumerate(self._data.training_views):
            features[views == number] = stored.take(rows[views == number])
        return features

    def _build_block(self, features: NDArray[np.float32], one_hot: NDArray[np.float32], first_step: int) -> StepBlock:
        batch, steps = self._rows.batch, self._rows.block

        def pad(values: NDArray[np.float32]) -> NDArray[np.float32]:
            """Splits rows into mini-batches, with zeros where rows are missing."""
            if missing := batch * steps - len(values):
                values = np.concatenate([values, np.zeros((missing, *values.shape[1:]), np.float32)])
            return values.reshape(steps, batch, *values.shape[1:])

        return StepBlock.of(
            features=pad(features),
            one_hot=pad(one_hot),
            valid=pad(np.ones((len(features), 1), np.float32)),
            bits=dropout_bits((steps, batch, self._network.width), (self._seed, first_step)),
            steps=-(-len(features) // batch),
        )


class _EpochRows:
    """The training rows of a fold, in a new order each epoch."""

    def __init__(self, recipe: Recipe, seed: int, data: FoldData) -> None:
        self._recipe = recipe
        self._pool = data.pool
        self._seed = seed
        self._rng = np.random.default_rng(seed)
        self.batch = recipe.batch_size
        batch_bytes = 4 * self.batch * int(np.prod(data.features.shape))
        self.block = min(_BLOCK_STEPS, max(1, _BLOCK_BYTES // batch_bytes))
        """Steps of a block."""

    def draw(self, epoch: int) -> tuple[Ints, Ints]:
        """Returns the positions of an epoch's images in the pool, and their labels, in the order of training."""
        progress = (epoch - 1) / max(1, self._recipe.max_epochs - 1)
        rows = self._rng.permutation(self._recipe.sampling.rows(self._pool, self._seed, epoch, progress))
        return rows, self._pool.labels[rows]


class _Schedule:
    """The options of the training step in each epoch of a recipe."""

    def __init__(self, recipe: Recipe, data: FoldData) -> None:
        self._recipe = recipe
        counts = data.counts(recipe.sampling)
        n_classes = len(counts.landmarks)
        self._terms = recipe.loss.terms(counts)
        self._weights = recipe.class_weights.weights(counts)
        self._offsets = np.broadcast_to(self._terms.offsets, n_classes).astype(np.float32)
        self._margins = (np.broadcast_to(self._terms.margins, n_classes) * _cosine_scale(recipe)).astype(np.float32)

    def options(self, epoch: int) -> HeadOptions:
        """Returns the options of an epoch."""
        recipe = self._recipe
        share = (epoch - 1) / recipe.max_epochs  # of the epochs that have passed
        weights = self._weights if share >= recipe.reweight_after else np.ones_like(self._weights)
        drops = sum(share >= drop for drop in recipe.rate_drops)
        return HeadOptions(
            class_weights=(self._terms.weights * weights).astype(np.float32),
            focus=np.float32(self._terms.focus),
            offsets=self._offsets,
            margins=self._margins,
            learning_rate=np.float32(recipe.learning_rate * RATE_DROP**drops),
            weight_decay=np.float32(recipe.weight_decay),
            backbone_learning_rate=np.float32(recipe.backbone_learning_rate * RATE_DROP**drops),
            dropout=np.float32(recipe.dropout),
        )


def _cosine_scale(recipe: Recipe) -> float:
    """Returns the scale of a cosine head, 0 for a linear one."""
    return recipe.head.scale if isinstance(recipe.head, Cosine) else 0.0


def _read_only(features: Features) -> NDArray[np.floating]:
    """Returns the stored array as features from the cache are: loops would be compiled again for a writable one."""
    stored = np.asarray(features.stored).view()
    stored.flags.writeable = False
    return stored
