"""The training loop: recipes go through epochs, heads that share rows together, folds in step.

A run has one lesson (train on one part of the data, be scored on another) or several, the folds of a cross-validation.
All folds do an epoch, then what is held out of them is scored as one set, so that one stopping rule serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.data.hirise import CLASSES
from hirise_imb.features.arrays import Features
from hirise_imb.imbalance.logit_adjustment import softmax
from hirise_imb.imbalance.losses import ClassCounts
from hirise_imb.imbalance.sampling import Pool, Sampling
from hirise_imb.metrics.calibration import log_loss
from hirise_imb.metrics.classification import confusion_matrix, macro_f1
from hirise_imb.models.closed_form import Classifier
from hirise_imb.models.heads import classifier, dropout_bits
from hirise_imb.recipe import Cosine, Recipe
from hirise_imb.training.train_step import HeadOptions, Network, StepBlock, TrainingState

HEADS_PER_BATCH = 8
"""Heads in one pass."""

_BLOCK_BYTES = 4 << 20
"""Features of a block of steps; they are read again and again, so a block should stay in the processor's cache. Each
block draws its own dropout masks, so the numbers of a run depend on this."""


@dataclass(frozen=True)
class EvaluationSet:
    """Images that are predicted, one a landmark."""

    features: Features
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class FoldData:
    """What one fold learns from and is scored on, at one cut."""

    features: Features
    """Of the images of the pool."""
    pool: Pool
    landmarks: NDArray[np.int64]
    """Of each class in the pool, shape (8,)."""
    sources: NDArray[np.int64]
    """That hold the class in the pool, shape (8,)."""
    heldout: EvaluationSet

    def counts(self, sampling: Sampling) -> ClassCounts:
        """What formulas take, where rows are sampled so."""
        return ClassCounts(self.landmarks, self.sources, sampling.shares(self.pool))


OnEpoch = Callable[[int, float], bool]
"""Takes an epoch's number from 1 and the validation macro F1 of the best one so far; tells whether the run goes on."""


@dataclass(frozen=True)
class Job:
    """A run to be made."""

    recipe: Recipe
    seed: int
    """Of initial weights, order of rows, dropout and sampling."""
    on_epoch: OnEpoch | None = None


@dataclass(frozen=True)
class Snapshot:
    """A head of a network as it was at its best epoch."""

    network: Network
    state: TrainingState
    head: int
    scale: float
    """Of cosines, else 0."""

    def probe(self) -> TrainingState:
        """The state of this head alone."""
        parameters = [value[self.head : self.head + 1] for value in self.state.parameters[:2]]
        return TrainingState(parameters, [], [], self.state.average)

    def logits(self, features: Features) -> NDArray[np.float64]:
        """Shape (n, 8)."""
        return self.classifier().logits(self.network.pooled(self.state, features))

    def classifier(self) -> Classifier:
        """The head, to be used on pooled features."""
        return classifier(self.state.parameters[:2], self.state.average, self.head, self.scale)


@dataclass(frozen=True)
class TrainingResult:
    """What came out of the epochs of one job."""

    history: pd.DataFrame
    """One row an epoch; see `training.Run`."""
    best_epoch: int
    """Counted from 1."""
    snapshots: tuple[Snapshot, ...]
    """One a lesson, from the best epoch."""
    cut_short: bool
    """Whether its `on_epoch` ended it, before its stopping rule did."""


@dataclass(frozen=True)
class Failed:
    """A run that came to nothing, and why."""

    reason: str


def batch_key(job: Job) -> tuple[Any, ...]:
    """What runs of one pass have in common: the rows, their order and the dropout mask."""
    recipe = job.recipe
    rows = recipe.inputs, recipe.projection, recipe.synthesis, recipe.sampling
    # A sampling may move with the epochs' share of all.
    return recipe.cut, rows, recipe.batch_size, recipe.dropout, recipe.max_epochs, job.seed


def train_heads(
    network: Network,
    jobs: Sequence[Job],
    lessons: Sequence[FoldData],
    test: EvaluationSet | None = None,
    probes: Sequence[TrainingState] | None = None,
) -> list[TrainingResult | Failed]:
    """Train jobs that have `shared` in common, in one pass, until the stopping rule of each says so.

    Args:
        network: at the cut of the recipes.
        jobs: up to `HEADS_PER_BATCH`; one below the cut `top`.
        lessons: one a fold, at that cut.
        test: recorded in the history where it is given; nothing depends on it.
        probes: states of heads from which training goes on, one a lesson.
    """
    heads = len(jobs) if probes is not None else HEADS_PER_BATCH
    # Always as many heads: the numbers of a run do not depend on how many it trains beside.
    all_jobs = [*jobs, *[Job(jobs[0].recipe, jobs[0].seed)] * (heads - len(jobs))]
    seeds = [job.seed for job in all_jobs]
    states = [network.start(seeds, None if probes is None else probes[place]) for place in range(len(lessons))]
    rows = [_Rows(jobs[0], lesson, network.width) for lesson in lessons]
    fits = [_Fit(job) for job in jobs]
    counts = [lesson.counts(jobs[0].recipe.sampling) for lesson in lessons]
    labels = np.concatenate([lesson.heldout.labels for lesson in lessons])
    for epoch in range(1, 1 + max(job.recipe.max_epochs for job in jobs)):
        sums, count = np.zeros((2, heads)), 0
        for state, counted, drawn in zip(states, counts, rows, strict=True):
            settings = _settings(all_jobs, counted, epoch)
            sums += sum((network.train(state, settings, block) for block in drawn.epoch(epoch)), np.zeros((2, 1)))
            count += drawn.count
        scales = settings.scales
        held = [
            network.logits(state, lesson.heldout.features, scales)
            for state, lesson in zip(states, lessons, strict=True)
        ]
        val = np.concatenate(held, axis=1)
        tested = None if test is None else network.logits(states[0], test.features, scales)
        for head, fit in enumerate(fits):
            if fit.going:
                figures = {
                    "epoch": epoch,
                    "train_loss": float(sums[0][head]) / count,
                    "train_accuracy": float(sums[1][head]) / count,
                }
                figures |= _figures("val", labels, val[head])
                figures["val_macro_f1"] = macro_f1(confusion_matrix(labels, val[head].argmax(axis=1), len(CLASSES)))
                if test is not None and tested is not None:
                    figures |= _figures("test", test.labels, tested[head])
                fit.see(figures, [Snapshot(network, _settled(state), head, float(scales[head])) for state in states])
        if not any(fit.going for fit in fits):
            break
    return [fit.result() for fit in fits]


def _settings(jobs: Sequence[Job], counts: ClassCounts, epoch: int) -> HeadOptions:
    recipes = [job.recipe for job in jobs]
    terms = [recipe.loss.terms(counts) for recipe in recipes]
    equal = np.ones(len(CLASSES))
    classes = [r.class_weights.weights(counts) if epoch > r.reweight_after else equal for r in recipes]
    scales = np.array([r.head.scale if isinstance(r.head, Cosine) else 0.0 for r in recipes], np.float32)
    whole = (len(jobs), len(CLASSES))
    return HeadOptions(
        weights=np.array([t.weights * w for t, w in zip(terms, classes, strict=True)], np.float32),
        focus=np.array([t.focus for t in terms], np.float32),
        offsets=np.array([np.broadcast_to(t.offsets, whole[1:]) for t in terms], np.float32),
        margins=np.array([np.broadcast_to(t.margins, whole[1:]) for t in terms], np.float32) * scales[:, None],
        scales=scales,
        rates=np.array([recipe.learning_rate for recipe in recipes], np.float32),
        decay=np.array([recipe.weight_decay for recipe in recipes], np.float32),
        backbone_rate=recipes[0].backbone_learning_rate,
        dropout=recipes[0].dropout,
    )


class _Rows:
    """The training rows of a pass, in a new order each epoch."""

    def __init__(self, job: Job, lesson: FoldData, width: int) -> None:
        self._width = width
        self._rng = np.random.default_rng(job.seed)
        self._job = job
        self._lesson = lesson
        self._batch = job.recipe.batch_size
        self._most = self._batch * max(1, _BLOCK_BYTES // (4 * self._batch * int(np.prod(lesson.features.shape))))
        self._steps = 0
        self.count = 0
        """Rows of the epoch."""

    def epoch(self, number: int) -> Iterator[StepBlock]:
        """All rows of an epoch once; a block is read while the one before is trained on."""
        recipe = self._job.recipe
        progress = (number - 1) / max(1, recipe.max_epochs - 1)
        order = self._rng.permutation(recipe.sampling.rows(self._lesson.pool, self._job.seed, number, progress))
        self.count = len(order)
        parts = [order[start : start + self._most] for start in range(0, len(order), self._most)]
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self._block, parts[0])
            for part in parts[1:]:
                block, ahead = ahead.result(), pool.submit(self._block, part)
                yield block
            yield ahead.result()

    def _block(self, rows: NDArray[np.int64]) -> StepBlock:
        def filled(values: NDArray[np.float32]) -> NDArray[np.float32]:
            """In batches, with zeros where rows are missing."""
            whole = values
            if missing := self._most - len(values):
                whole = np.concatenate([values, np.zeros((missing, *values.shape[1:]), np.float32)])
            return whole.reshape(-1, self._batch, *values.shape[1:])

        bits = (self._most // self._batch, self._batch, self._width)
        block = StepBlock.of(
            features=filled(self._lesson.features.take(rows)),
            one_hot=filled(np.eye(len(CLASSES), dtype=np.float32)[self._lesson.pool.labels[rows]]),
            valid=filled(np.ones((len(rows), 1), np.float32)),
            bits=dropout_bits(bits, (self._job.seed, self._steps)),
            steps=-(-len(rows) // self._batch),
        )
        self._steps += block.steps
        return block


def _settled(state: TrainingState) -> TrainingState:
    """A state to predict with, which further training leaves as it is."""
    return TrainingState(state.parameters, [], [], state.average)


class _Fit:
    """One run of a pass: its history, its best epoch so far and what the network was there."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._sign = -1.0 if job.recipe.monitor == "val_loss" else 1.0
        self._history: list[dict[str, float]] = []
        self._best = -np.inf
        self._epoch = 0
        self._snapshots: Sequence[Snapshot] = ()
        self._cut_short = False
        self._failure: str | None = None
        self.going = True
        """Whether the stopping rule lets it train on."""

    def see(self, figures: dict[str, float], snapshots: Sequence[Snapshot]) -> None:
        """Note an epoch: keep it if it is better than all before, and stop where the recipe says so."""
        recipe, epoch = self._job.recipe, int(figures["epoch"])
        self._history.append(figures)
        if not np.isfinite(figures["val_loss"]):  # macro F1 is finite whatever the probabilities are
            self._failure = f"val_loss became {figures['val_loss']} in epoch {epoch}"
            self.going = False
            return
        value = self._sign * figures[recipe.monitor]
        if value > self._best:
            self._best, self._epoch, self._snapshots = value, epoch, snapshots
        # Patience counts from where the recipe has begun in earnest.
        since = max(self._epoch, recipe.reweight_after)
        self.going = epoch < recipe.max_epochs and epoch - since < recipe.patience
        if self._job.on_epoch is not None:
            wanted = self._job.on_epoch(epoch, self._history[self._epoch - 1]["val_macro_f1"])
            self._cut_short = self.going and not wanted
            self.going = self.going and wanted

    def result(self) -> TrainingResult | Failed:
        """What came out."""
        if self._failure is not None:
            return Failed(self._failure)
        return TrainingResult(pd.DataFrame(self._history), self._epoch, tuple(self._snapshots), self._cut_short)


def _figures(split: str, labels: NDArray[np.int64], logits: NDArray[np.float32]) -> dict[str, float]:
    accuracy = (logits.argmax(axis=1) == labels).mean()
    return {f"{split}_loss": log_loss(labels, softmax(logits)), f"{split}_accuracy": float(accuracy)}
