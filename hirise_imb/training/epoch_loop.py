"""The epoch loop: the seeds and folds of a recipe train side by side, epoch by epoch, and are scored together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.features.arrays import Features
from hirise_imb.imbalance.logit_adjustment import softmax
from hirise_imb.metrics.calibration import log_loss
from hirise_imb.recipe import Monitor
from hirise_imb.training.learners import EpochSums, EvaluationSet, HeadLearner, Learner, Snapshot
from hirise_imb.training.scoring import EpochScores, HeldOut, score_epoch
from hirise_imb.utils.errors import FitFailed

Ints = NDArray[np.int64]
Learners = Sequence[Sequence[Learner]]
"""Learners by seed and fold."""

OnEpoch = Callable[[int, float], None]
"""Called after each epoch with its number, from 1, and the macro F1 on held-out landmarks at the best epoch so far."""


@dataclass(frozen=True)
class StoppingRule:
    """When a training ends, and which of its epochs counts."""

    monitor: Monitor
    max_epochs: int
    patience: int
    """Epochs without improvement after which training stops."""


@dataclass(frozen=True)
class TrainingResult:
    """The result of the epochs of a recipe."""

    histories: tuple[pd.DataFrame, ...]
    """One row per epoch; see `trainer.Run`. A single table of means over seeds with held-out landmarks, and one for
    each seed without them."""
    epochs: int
    """The best epoch, counted from 1: on all held-out landmarks, so the number of epochs for further fits."""
    capped: bool
    """Whether the best epoch is the last one allowed, so that more might have been better."""
    snapshots: tuple[tuple[Snapshot, ...], ...]
    """The weights that predict each part of the held-out landmarks, by seed and fold."""


def train_validated(
    learners: Learners,
    data: Sequence[Sequence[EvaluationSet]],
    held_out: HeldOut,
    rule: StoppingRule,
    test: EvaluationSet | None = None,
    on_epoch: OnEpoch | None = None,
) -> TrainingResult:
    """Trains until the stopping rule ends it, and chooses the epochs on held-out landmarks.

    Args:
        learners: learners by seed and fold.
        data: held-out landmarks of each seed and fold.
        held_out: the same landmarks, pooled.
        rule: stopping rule.
        test: test split; if given, it is recorded in the history, but no result depends on it.
        on_epoch: called after each epoch.

    Raises:
        FitFailed: the loss on held-out landmarks, or on the test split, became infinite or NaN.
    """
    best = _Best(learners, rule)
    rows: list[dict[str, float]] = []
    logits = np.empty((len(learners), len(held_out.labels), held_out.n_classes), np.float32)
    positions = [(seed, part) for seed, parts in enumerate(held_out.parts) for part in parts]
    with _trainer(learners, [evaluation.features for sets in data for evaluation in sets]) as train_all:
        for epoch in range(1, 1 + rule.max_epochs):
            sums, predicted = train_all(epoch)
            for (seed, part), values in zip(positions, predicted, strict=True):
                logits[seed, part] = values
            if not np.isfinite(logits).all():
                raise FitFailed(f"val_loss became infinite or NaN in epoch {epoch}")
            scores = score_epoch(held_out, logits, rule.monitor)
            validation = {"val_loss": scores.loss, "val_accuracy": scores.accuracy, "val_macro_f1": scores.macro_f1}
            row = _describe(epoch, sums) | validation
            if test is not None:
                row |= _describe_test(epoch, learners[0][0].logits(test.features), test.labels)
            rows.append(row)
            best.update(epoch, scores)
            if on_epoch is not None:
                on_epoch(epoch, rows[best.epoch - 1]["val_macro_f1"])
            if best.is_final(epoch):
                break
    history = pd.DataFrame(rows)
    capped = rule.monitor != "none" and best.epoch == rule.max_epochs
    return TrainingResult((history,), best.epoch, capped, best.snapshots())


def train_epochs(learners: Learners, epochs: int, test: EvaluationSet) -> TrainingResult:
    """Trains for a number of epochs, without held-out landmarks; histories have no validation columns.

    Raises:
        FitFailed: the loss on the training rows, or on the test split, became infinite or NaN.
    """
    rows: list[list[dict[str, float]]] = [[] for _ in learners]
    with _trainer(learners, [test.features] * len(learners)) as train_all:
        for epoch in range(1, 1 + epochs):
            sums, predicted = train_all(epoch)
            if not np.isfinite([part.entropy for part in sums]).all():
                raise FitFailed(f"train_loss became infinite or NaN in epoch {epoch}")
            for of_seed, part, logits in zip(rows, sums, predicted, strict=True):
                of_seed.append(_describe(epoch, [part]) | _describe_test(epoch, logits, test.labels))
    snapshots = tuple(tuple(learner.snapshot() for learner in folds) for folds in learners)
    return TrainingResult(tuple(map(pd.DataFrame, rows)), epochs, False, snapshots)


class _Best:
    """The best epoch so far of each part of the held-out landmarks, with its weights, and of all of them.

    Each follows the stopping rule by itself. If a part could improve for as long as others do, the epoch chosen for it
    would depend on the end of training, and so on its own labels.
    """

    def __init__(self, learners: Learners, rule: StoppingRule) -> None:
        self._learners = learners
        self._rule = rule
        self._values = [[-np.inf] * len(folds) for folds in learners]
        self._epochs = [[0] * len(folds) for folds in learners]
        self._snapshots: list[list[Snapshot | None]] = [[None] * len(folds) for folds in learners]
        self._value = -np.inf
        self.epoch = 0
        """The best epoch of all landmarks."""

    def update(self, epoch: int, scores: EpochScores) -> None:
        """Compares an epoch with the best."""
        for seed, folds in enumerate(self._learners):
            for fold, learner in enumerate(folds):
                value = scores.part_choices[seed][fold]
                if self._improves(epoch, self._epochs[seed][fold], value, self._values[seed][fold]):
                    self._values[seed][fold], self._epochs[seed][fold] = value, epoch
                    self._snapshots[seed][fold] = learner.snapshot()
        if self._improves(epoch, self.epoch, scores.choice, self._value):
            self._value, self.epoch = scores.choice, epoch

    def is_final(self, epoch: int) -> bool:
        """Whether the stopping rule has ended all of them after this epoch."""
        last = max(self.epoch, *(best for folds in self._epochs for best in folds))
        return self._rule.monitor != "none" and epoch - last >= self._rule.patience

    def snapshots(self) -> tuple[tuple[Snapshot, ...], ...]:
        """Returns the weights of each part's best epoch."""
        return tuple(tuple(one for one in folds if one is not None) for folds in self._snapshots)

    def _improves(self, epoch: int, best_epoch: int, value: float, best: float) -> bool:
        if self._rule.monitor == "none":
            return True
        return epoch - best_epoch <= self._rule.patience and value > best


Epoch = tuple[list[EpochSums], list[NDArray[np.float32]]]
"""Sums over training rows, and predicted logits, by learner."""


@contextmanager
def _trainer(learners: Learners, to_predict: Sequence[Features]) -> Iterator[Callable[[int], Epoch]]:
    """Gives a function that trains all learners for an epoch, and then predicts features with each.

    Heads train in threads, one for each processor: their numbers do not depend on each other, and the compiled epoch
    does not hold the interpreter. Tails share TensorFlow's own threads, so they train one after the other.

    Args:
        learners: learners by seed and fold.
        to_predict: features that each learner predicts after an epoch, in the same order.
    """
    flat = [learner for folds in learners for learner in folds]

    def run(epoch: int, apply: Callable[..., Iterable[tuple[EpochSums, NDArray[np.float32]]]]) -> Epoch:
        def train(learner: Learner, features: Features) -> tuple[EpochSums, NDArray[np.float32]]:
            return learner.train_epoch(epoch), learner.logits(features)

        sums, predicted = zip(*apply(train, flat, to_predict), strict=True)
        return list(sums), list(predicted)

    if not all(isinstance(learner, HeadLearner) for learner in flat):
        yield lambda epoch: run(epoch, map)
        return
    with ThreadPoolExecutor(min(len(flat), os.cpu_count() or 1)) as executor:
        yield lambda epoch: run(epoch, executor.map)


def _describe(epoch: int, sums: Sequence[EpochSums]) -> dict[str, float]:
    rows = sum(part.rows for part in sums)
    entropy, hits = sum(part.entropy for part in sums), sum(part.hits for part in sums)
    return {"epoch": epoch, "train_loss": entropy / rows, "train_accuracy": hits / rows}


def _describe_test(epoch: int, logits: NDArray[np.float32], labels: Ints) -> dict[str, float]:
    if not np.isfinite(logits).all():
        raise FitFailed(f"test_loss became infinite or NaN in epoch {epoch}")
    accuracy = float((logits.argmax(axis=1) == labels).mean())
    return {"test_loss": log_loss(labels, softmax(logits)), "test_accuracy": accuracy}
