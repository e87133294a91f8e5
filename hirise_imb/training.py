"""Recipes and cached features give fitted runs.

There is one training loop. What is trained stands above a cut of the backbone: at the cut `top` heads alone, below it
the end of the backbone too. A `Network` is built and compiled once for each cut and used by all runs from it. Runs that
go through the same rows in the same order train together, one head each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.evaluation import confusion, log_loss, macro_f1
from hirise_imb.features import Features
from hirise_imb.heads import dropout_bits
from hirise_imb.landmarks import CLASSES
from hirise_imb.network import Block, Network, Settings
from hirise_imb.recipe import Recipe

TOGETHER = 8
"""Heads in one pass."""

_BLOCK_BYTES = 4 << 20
"""Features of a block of steps; they are read again and again, so a block should stay in the processor's cache. Each
block draws its own dropout masks, so the numbers of a run depend on this."""


@dataclass(frozen=True)
class Examples:
    """Images of one split, with their features at one cut."""

    images: tuple[str, ...]
    features: Features
    labels: NDArray[np.int64]
    copies: NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """What a run learns from and is scored on, at one cut; validation and test hold one image a landmark."""

    train: Examples
    val: Examples
    test: Examples
    landmark_counts: NDArray[np.int64]
    """Training landmarks of each class, shape (8,)."""


@dataclass(frozen=True)
class Run:
    """A fitted recipe.

    `history` has one row an epoch: loss and accuracy of train, val and test, and val_macro_f1. The loss is
    cross-entropy in nats whatever loss was trained; the training figures are running means over the epoch, with
    dropout, as Keras reports them. Test columns are there only where the test split was asked for.
    """

    seed: int
    history: pd.DataFrame
    best_epoch: int
    """Counted from 1; its weights gave the probabilities."""
    val_confusion: NDArray[np.int64]
    """Counts on validation, shape (8, 8)."""
    test: NDArray[np.float32] | None
    """Class probabilities, shape (n_test, 8), where the test split was asked for."""
    seconds: float
    """Its share of the wall time of the pass."""
    cut_short: bool = False
    """Whether its `on_epoch` ended it, before its stopping rule did."""

    @property
    def val_macro_f1(self) -> float:
        """Macro F1 on validation at the best epoch."""
        return macro_f1(self.val_confusion)


OnEpoch = Callable[[int, float], bool]
"""Takes an epoch's number from 1 and the validation macro F1 of the best one so far; tells whether the run goes on."""


@dataclass(frozen=True)
class Job:
    """A run to be made."""

    recipe: Recipe
    seed: int
    """Of initial weights, order of rows, dropout and sampling."""
    on_epoch: OnEpoch | None = None


class Trainer:
    """Fits recipes on one data set. Networks and features of each cut are kept between runs."""

    def __init__(self, backbone: Backbone, tasks: dict[str, Task]) -> None:
        """Take the task at every cut that recipes will name."""
        import tensorflow as tf

        # Same seed, same machine, same numbers: without it, parallel reductions add in any order.
        tf.config.experimental.enable_op_determinism()
        self._backbone = backbone
        self.tasks = tasks
        self._networks: dict[str, Network] = {}

    def fit(self, recipe: Recipe, seed: int, *, score_test: bool = False) -> Run:
        """Train until the recipe's stopping rule says so, then predict with the weights of the best epoch.

        Args:
            recipe: what to do.
            seed: of everything random.
            score_test: whether to record and predict the test split, which no choice depends on.
        """
        return self._fit([Job(recipe, seed)], score_test)[0]

    def fit_together(self, jobs: Sequence[Job]) -> list[Run]:
        """Fit each job; those that go through the same rows in the same order train in one pass.

        A run's numbers do not depend on the others: there are always `TOGETHER` heads in a pass, some of them idle.
        What a run's `on_epoch` raises ends all.
        """
        groups: dict[object, list[int]] = {}
        for place, job in enumerate(jobs):
            groups.setdefault(_shared(job), []).append(place)
        runs: dict[int, Run] = {}
        for places in groups.values():
            most = TOGETHER if jobs[places[0]].recipe.cut == TOP else 1
            for start in range(0, len(places), most):
                some = places[start : start + most]
                idle = [Job(jobs[some[0]].recipe, jobs[some[0]].seed)] * (most - len(some))
                fitted = self._fit([jobs[place] for place in some], False, idle)
                runs |= dict(zip(some, fitted, strict=True))
        return [runs[place] for place in range(len(jobs))]

    def _fit(self, jobs: Sequence[Job], score_test: bool, idle: Sequence[Job] = ()) -> list[Run]:
        """One pass; `idle` jobs fill up the heads."""
        begin = time.monotonic()
        recipe = jobs[0].recipe
        task = self.tasks[recipe.cut]
        if recipe.cut not in self._networks:
            self._networks[recipe.cut] = Network(self._backbone, recipe.cut)
        network = self._networks[recipe.cut]
        state = network.start([job.seed for job in (*jobs, *idle)])
        settings = _settings([*jobs, *idle], task)
        rows = _Rows(jobs[0], task.train, network.width)
        fits = [_Fit(job) for job in jobs]
        for epoch in range(1, 1 + max(job.recipe.max_epochs for job in jobs)):
            sums = sum((network.train(state, settings, block) for block in rows.epoch()), np.zeros((2, 1))) / rows.count
            val = network.probabilities(state, task.val.features)
            test = network.probabilities(state, task.test.features) if score_test else None
            for head, fit in enumerate(fits):
                if fit.going:
                    figures = {
                        "epoch": epoch,
                        "train_loss": float(sums[0][head]),
                        "train_accuracy": float(sums[1][head]),
                    }
                    fit.see(figures, task, val[head], None if test is None else test[head])
            if not any(fit.going for fit in fits):
                break
        seconds = (time.monotonic() - begin) / len(jobs)
        return [fit.run(seconds) for fit in fits]


def _shared(job: Job) -> tuple[Any, ...]:
    """What runs of one pass have in common: the rows, their order and the dropout mask."""
    recipe = job.recipe
    return recipe.cut, recipe.sampling, recipe.batch_size, recipe.dropout, job.seed


def _settings(jobs: Sequence[Job], task: Task) -> Settings:
    recipes = [job.recipe for job in jobs]
    terms = [recipe.loss.terms(task.landmark_counts) for recipe in recipes]
    classes = [recipe.class_weights.weights(task.landmark_counts) for recipe in recipes]
    return Settings(
        weights=np.array([t.weights * w for t, w in zip(terms, classes, strict=True)], np.float32),
        focus=np.array([t.focus for t in terms], np.float32),
        rates=np.array([recipe.learning_rate for recipe in recipes], np.float32),
        backbone_rate=recipes[0].backbone_learning_rate,
        dropout=recipes[0].dropout,
    )


class _Rows:
    """The training rows of a pass, in a new order each epoch."""

    def __init__(self, job: Job, train: Examples, width: int) -> None:
        self._width = width
        self._rng = np.random.default_rng(job.seed)
        self._rows = job.recipe.sampling.rows(train.labels, train.copies, job.seed)
        self._train = train
        self._batch = job.recipe.batch_size
        self._most = self._batch * max(1, _BLOCK_BYTES // (4 * self._batch * int(np.prod(train.features.shape))))
        self._seed = job.seed
        self._steps = 0
        self.count = len(self._rows)
        """Rows of an epoch."""

    def epoch(self) -> Iterator[Block]:
        """All rows once; a block is read while the one before is trained on."""
        order = self._rng.permutation(self._rows)
        parts = [order[start : start + self._most] for start in range(0, len(order), self._most)]
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self._block, parts[0])
            for part in parts[1:]:
                block, ahead = ahead.result(), pool.submit(self._block, part)
                yield block
            yield ahead.result()

    def _block(self, rows: NDArray[np.int64]) -> Block:
        def filled(values: NDArray[np.float32]) -> NDArray[np.float32]:
            """In batches, with zeros where rows are missing."""
            whole = values
            if missing := self._most - len(values):
                whole = np.concatenate([values, np.zeros((missing, *values.shape[1:]), np.float32)])
            return whole.reshape(-1, self._batch, *values.shape[1:])

        block = Block.of(
            features=filled(self._train.features.take(rows)),
            one_hot=filled(np.eye(len(CLASSES), dtype=np.float32)[self._train.labels[rows]]),
            valid=filled(np.ones((len(rows), 1), np.float32)),
            bits=dropout_bits((self._most // self._batch, self._batch, self._width), (self._seed, self._steps)),
            steps=-(-len(rows) // self._batch),
        )
        self._steps += block.steps
        return block


class _Fit:
    """One run of a pass: its history, its best epoch so far and what was predicted there."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._sign = -1.0 if job.recipe.monitor == "val_loss" else 1.0
        self._history: list[dict[str, float]] = []
        self._best = -np.inf
        self._epoch = 0
        self._confusion: NDArray[np.int64] = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
        self._test: NDArray[np.float32] | None = None
        self._cut_short = False
        self.going = True
        """Whether the stopping rule lets it train on."""

    def see(
        self, figures: dict[str, float], task: Task, val: NDArray[np.float32], test: NDArray[np.float32] | None
    ) -> None:
        """Note an epoch: keep it if it is better than all before, and stop where the recipe says so."""
        recipe, epoch = self._job.recipe, int(figures["epoch"])
        found = confusion(task.val.labels, val.argmax(axis=1))
        figures = figures | _figures("val", task.val.labels, val) | {"val_macro_f1": macro_f1(found)}
        if test is not None:
            figures |= _figures("test", task.test.labels, test)
        self._history.append(figures)
        if not np.isfinite(figures["val_loss"]):  # macro F1 is finite whatever the probabilities are
            raise FloatingPointError(f"val_loss became {figures['val_loss']} in epoch {epoch}")
        value = self._sign * figures[recipe.monitor]
        if value > self._best:
            self._best, self._epoch, self._confusion, self._test = value, epoch, found, test
        self.going = epoch < recipe.max_epochs and epoch - self._epoch < recipe.patience
        if self._job.on_epoch is not None:
            wanted = self._job.on_epoch(epoch, self._history[self._epoch - 1]["val_macro_f1"])
            self._cut_short = self.going and not wanted
            self.going = self.going and wanted

    def run(self, seconds: float) -> Run:
        """What came out."""
        return Run(
            seed=self._job.seed,
            history=pd.DataFrame(self._history),
            best_epoch=self._epoch,
            val_confusion=self._confusion,
            test=self._test,
            seconds=seconds,
            cut_short=self._cut_short,
        )


def _figures(split: str, labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> dict[str, float]:
    accuracy = (probabilities.argmax(axis=1) == labels).mean()
    return {f"{split}_loss": log_loss(labels, probabilities), f"{split}_accuracy": float(accuracy)}
