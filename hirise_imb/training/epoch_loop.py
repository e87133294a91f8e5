"""The epoch loop: recipes train epoch by epoch; heads that share rows, and all folds, train together.

A run has one fold (training on one part of the data, scoring on another) or several. All folds train for an epoch, then
their held-out landmarks are scored as one set, so that one stopping rule serves all folds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.data.splits import TrainingPool
from hirise_imb.features.arrays import Features
from hirise_imb.imbalance.class_weights import ClassCounts
from hirise_imb.imbalance.logit_adjustment import softmax
from hirise_imb.imbalance.sampling import Sampling
from hirise_imb.metrics.calibration import log_loss
from hirise_imb.metrics.classification import confusion_matrix, macro_f1
from hirise_imb.models.heads import dropout_bits, extract_classifier
from hirise_imb.models.linear import LinearClassifier
from hirise_imb.recipe import Cosine, Recipe
from hirise_imb.training.outcome import Outcome
from hirise_imb.training.train_step import HeadOptions, Network, StepBlock, TrainingState
from hirise_imb.utils.errors import FitFailed

HEADS_PER_BATCH = 8
"""Number of heads that train in one pass."""

_BLOCK_BYTES = 4 << 20
"""Size of the features of a block. They are read several times, so a block should fit into the processor's cache. Each
block draws its own dropout masks, so the numbers of a run depend on this."""

_BLOCK_STEPS = 64
"""Steps of a block at most. The last block of an epoch is filled up with zeros: of narrow features, most of a block of
that size would be padding. Wide ones reach the size with fewer steps."""

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

    def counts(self, sampling: Sampling) -> ClassCounts:
        """Returns the counts that formulas of losses and weights use when rows are sampled this way."""
        return ClassCounts(self.landmarks, self.sources, sampling.shares(self.pool))


OnEpoch = Callable[[int, float], bool]
"""Called after each epoch with its number, from 1, and the validation macro F1 of the best epoch so far; returns
whether the run continues."""


@dataclass(frozen=True)
class Job:
    """A recipe to be trained with one seed."""

    recipe: Recipe
    seed: int
    """Seeds initial weights, the order of rows, dropout and sampling."""
    on_epoch: OnEpoch | None = None


@dataclass(frozen=True)
class Snapshot:
    """A head of a network with its weights after the best epoch."""

    network: Network
    state: TrainingState
    head: int
    """Index of the head in the network."""
    scale: float
    """Scale of a cosine head, 0 for a linear one."""

    def probe(self) -> TrainingState:
        """Returns the state of this head alone, from which training below `top` continues."""
        moving = self.state.moving
        parameters = [value[self.head : self.head + 1] for value in moving.heads]
        return TrainingState(moving._replace(parameters=parameters, first_moments=[], second_moments=[]))

    def logits(self, features: Features) -> NDArray[np.float64]:
        """Computes logits in inference mode, shape (n, n_classes)."""
        return self.classifier().logits(self.network.pooled(self.state, features))

    def classifier(self) -> LinearClassifier:
        """Returns the head as a classifier on pooled features."""
        return extract_classifier(self.state.heads, self.state.moving.average, self.head, self.scale)


@dataclass(frozen=True)
class TrainingResult:
    """The result of the epochs of one job."""

    history: pd.DataFrame
    """One row per epoch; see `trainer.Run`."""
    best_epoch: int
    """Counted from 1."""
    snapshots: tuple[Snapshot, ...]
    """One for each fold, from the best epoch."""
    pruned: bool
    """Whether `on_epoch` ended the run before its own stopping rule did."""


def batch_key(job: Job) -> tuple[Any, ...]:
    """Returns what the runs of one pass must share: the rows, their order, and the dropout masks."""
    recipe = job.recipe
    rows = recipe.inputs, recipe.projection, recipe.synthesis, recipe.sampling
    # The number of epochs belongs to the key because progressive sampling depends on the share of it that has passed.
    return recipe.cut, rows, recipe.batch_size, recipe.dropout, recipe.max_epochs, job.seed


def train_heads(
    network: Network,
    jobs: Sequence[Job],
    folds: Sequence[FoldData],
    test: EvaluationSet | None = None,
    probes: Sequence[TrainingState] | None = None,
) -> list[Outcome[TrainingResult]]:
    """Trains jobs with the same `batch_key` in one pass, until the stopping rule of each ends it.

    A job fails, with its reason, when its validation loss becomes infinite or NaN.

    Args:
        network: network at the cut of the recipes.
        jobs: up to `HEADS_PER_BATCH`; a single one below the cut `top`.
        folds: data of the folds, at that cut.
        test: test split; if given, it is recorded in the history, but no result depends on it.
        probes: states of heads from which training continues, one for each fold.
    """
    n_heads = len(jobs) if probes is not None else HEADS_PER_BATCH
    # The pass is always filled up with idle heads: the shapes of the products, and with them the rounding of a run's
    # numbers, must not depend on the number of runs in its pass.
    heads = [*jobs, *[Job(jobs[0].recipe, jobs[0].seed)] * (n_heads - len(jobs))]
    seeds = [job.seed for job in heads]
    states = [network.start(seeds, None if probes is None else probes[fold]) for fold in range(len(folds))]
    epoch_rows = [_EpochRows(jobs[0], fold, network.width) for fold in folds]
    progress = [_RunProgress(job) for job in jobs]
    counts = [fold.counts(jobs[0].recipe.sampling) for fold in folds]
    labels = np.concatenate([fold.heldout.labels for fold in folds])
    scales = _cosine_scales(heads)
    for epoch in range(1, 1 + max(job.recipe.max_epochs for job in jobs)):
        sums, count = np.zeros((2, n_heads)), 0
        for state, fold_counts, rows in zip(states, counts, epoch_rows, strict=True):
            options = _head_options(heads, fold_counts, epoch)
            sums += sum((network.train(state, options, block) for block in rows.blocks(epoch)), np.zeros((2, 1)))
            count += rows.count
        by_fold = [
            network.logits(state, fold.heldout.features, scales) for state, fold in zip(states, folds, strict=True)
        ]
        val_logits = np.concatenate(by_fold, axis=1)
        test_logits = None if test is None else network.logits(states[0], test.features, scales)
        for head, run in enumerate(progress):
            if not run.active:
                continue
            scores = {
                "epoch": epoch,
                "train_loss": float(sums[0][head]) / count,
                "train_accuracy": float(sums[1][head]) / count,
            }
            scores |= _loss_and_accuracy("val", labels, val_logits[head])
            predicted = val_logits[head].argmax(axis=1)
            scores["val_macro_f1"] = macro_f1(confusion_matrix(labels, predicted, network.n_classes))
            if test is not None and test_logits is not None:
                scores |= _loss_and_accuracy("test", test.labels, test_logits[head])
            run.record(scores, [Snapshot(network, state.detach(), head, float(scales[head])) for state in states])
        if not any(run.active for run in progress):
            break
    return [run.outcome() for run in progress]


def _cosine_scales(jobs: Sequence[Job]) -> NDArray[np.float32]:
    heads = [job.recipe.head for job in jobs]
    return np.array([head.scale if isinstance(head, Cosine) else 0.0 for head in heads], np.float32)


def _head_options(jobs: Sequence[Job], counts: ClassCounts, epoch: int) -> HeadOptions:
    recipes = [job.recipe for job in jobs]
    terms = [recipe.loss.terms(counts) for recipe in recipes]
    n_classes = len(counts.landmarks)
    # With deferred re-weighting, class weights take effect only after some epochs.
    weights = [r.class_weights.weights(counts) if epoch > r.reweight_after else np.ones(n_classes) for r in recipes]
    scales = _cosine_scales(jobs)
    return HeadOptions(
        class_weights=np.array([t.weights * w for t, w in zip(terms, weights, strict=True)], np.float32),
        focus=np.array([t.focus for t in terms], np.float32),
        offsets=np.array([np.broadcast_to(t.offsets, n_classes) for t in terms], np.float32),
        margins=np.array([np.broadcast_to(t.margins, n_classes) for t in terms], np.float32) * scales[:, None],
        scales=scales,
        learning_rates=np.array([recipe.learning_rate for recipe in recipes], np.float32),
        weight_decay=np.array([recipe.weight_decay for recipe in recipes], np.float32),
        backbone_learning_rate=np.float32(recipes[0].backbone_learning_rate),
        dropout=np.float32(recipes[0].dropout),
    )


class _EpochRows:
    """The training rows of a pass on one fold, in a new order each epoch."""

    def __init__(self, job: Job, fold: FoldData, width: int) -> None:
        self._width = width
        self._rng = np.random.default_rng(job.seed)
        self._job = job
        self._fold = fold
        self._batch = job.recipe.batch_size
        batch_bytes = 4 * self._batch * int(np.prod(fold.features.shape))
        self._block_rows = self._batch * min(_BLOCK_STEPS, max(1, _BLOCK_BYTES // batch_bytes))
        self._steps = 0
        self.count = 0
        """Number of rows in the epoch."""

    def blocks(self, epoch: int) -> Iterator[StepBlock]:
        """Yields all rows of an epoch; each block is read in another thread during training on the one before."""
        recipe = self._job.recipe
        progress = (epoch - 1) / max(1, recipe.max_epochs - 1)
        rows = recipe.sampling.rows(self._fold.pool, self._job.seed, epoch, progress)
        order = self._rng.permutation(rows)
        self.count = len(order)
        parts = [order[start : start + self._block_rows] for start in range(0, len(order), self._block_rows)]
        with ThreadPoolExecutor(1) as executor:
            prefetched = executor.submit(self._read_block, parts[0])
            for part in parts[1:]:
                block, prefetched = prefetched.result(), executor.submit(self._read_block, part)
                yield block
            yield prefetched.result()

    def _read_block(self, rows: Ints) -> StepBlock:
        def pad(values: NDArray[np.float32]) -> NDArray[np.float32]:
            """Splits rows into mini-batches, with zeros where rows are missing."""
            if missing := self._block_rows - len(values):
                values = np.concatenate([values, np.zeros((missing, *values.shape[1:]), np.float32)])
            return values.reshape(-1, self._batch, *values.shape[1:])

        pool = self._fold.pool
        bits_shape = (self._block_rows // self._batch, self._batch, self._width)
        block = StepBlock.of(
            features=pad(self._fold.features.take(rows)),
            one_hot=pad(np.eye(len(pool.classes), dtype=np.float32)[pool.labels[rows]]),
            valid=pad(np.ones((len(rows), 1), np.float32)),
            # Seeded by the number of steps before the block, so that a mask depends on nothing but seed and step.
            bits=dropout_bits(bits_shape, (self._job.seed, self._steps)),
            steps=-(-len(rows) // self._batch),
        )
        self._steps += block.steps
        return block


class _RunProgress:
    """The history of one run of a pass, its best epoch so far, and the weights of that epoch."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._sign = -1.0 if job.recipe.monitor == "val_loss" else 1.0
        self._history: list[dict[str, float]] = []
        self._best_value = -np.inf
        self._best_epoch = 0
        self._snapshots: Sequence[Snapshot] = ()
        self._pruned = False
        self._failure: str | None = None
        self.active = True
        """Whether the run continues."""

    def record(self, scores: dict[str, float], snapshots: Sequence[Snapshot]) -> None:
        """Records an epoch, keeps its weights if it is the best so far, and applies the stopping rule."""
        recipe, epoch = self._job.recipe, int(scores["epoch"])
        self._history.append(scores)
        if not np.isfinite(scores["val_loss"]):  # macro F1 is finite whatever the probabilities are
            self._failure = f"val_loss became {scores['val_loss']} in epoch {epoch}"
            self.active = False
            return
        value = self._sign * scores[recipe.monitor]
        if value > self._best_value:
            self._best_value, self._best_epoch, self._snapshots = value, epoch, snapshots
        # Patience counts from the epoch in which class weights take effect: before it, another loss is trained.
        reference_epoch = max(self._best_epoch, recipe.reweight_after)
        self.active = epoch < recipe.max_epochs and epoch - reference_epoch < recipe.patience
        if self._job.on_epoch is not None:
            proceed = self._job.on_epoch(epoch, self._history[self._best_epoch - 1]["val_macro_f1"])
            self._pruned = self.active and not proceed
            self.active = self.active and proceed

    def outcome(self) -> Outcome[TrainingResult]:
        """Returns the result of the run, or why it failed."""
        if self._failure is not None:
            return Outcome(failure=FitFailed(self._failure))
        return Outcome(
            TrainingResult(pd.DataFrame(self._history), self._best_epoch, tuple(self._snapshots), self._pruned)
        )


def _loss_and_accuracy(split: str, labels: Ints, logits: NDArray[np.float32]) -> dict[str, float]:
    accuracy = (logits.argmax(axis=1) == labels).mean()
    return {f"{split}_loss": log_loss(labels, softmax(logits)), f"{split}_accuracy": float(accuracy)}
