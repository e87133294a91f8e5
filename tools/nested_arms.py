"""Equal arms on the real sample: heads that differ in nothing but their seeds, folds and the settings they chose.

`tools.nested_inference` compares them in pairs. An arm is evaluated as in a study: in each outer fold, heads are fitted
on all other sources and predict the fold, and the predictions of all folds are pooled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data import HIRISE
from hirise_imb.data.folds import assign_folds
from hirise_imb.data.splits import DataSplits, Fold, ImageTable, make_outer_split
from hirise_imb.features.arrays import Features
from hirise_imb.features.inputs import TOP_MEAN
from hirise_imb.imbalance.logit_adjustment import log_prior, log_softmax
from hirise_imb.metrics.classification import confusion_matrix, macro_f1
from hirise_imb.recipe import Recipe
from hirise_imb.training.inputs import StageInputs
from hirise_imb.training.learners import FoldData, HeadLearner
from hirise_imb.training.stage_fit import FitRequest
from tools.nested_layout import N_FOLDS

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

N_SEEDS = 3
"""Fits of an arm, whose scores are averaged."""
EPOCHS = 20
CHECKPOINTS = (5, 10, 15, 20)
"""Numbers of epochs from which an arm may choose."""
TAUS = (0.0, 0.25, 0.5, 1.0)
"""Weights of the log prior in a post-hoc logit adjustment from which an arm may choose."""
FIXED = Recipe(learning_rate=1e-3, weight_decay=1e-2, monitor="none", max_epochs=EPOCHS)
"""The control with its default settings, trained for a fixed number of epochs."""
CANDIDATES = (FIXED, replace(FIXED, learning_rate=3e-3), replace(FIXED, learning_rate=3e-3, weight_decay=0.3))


@dataclass(frozen=True)
class Sample:
    """Images of the real sample and their pooled features."""

    images: ImageTable
    features: Features

    @classmethod
    def load(cls, path: Path) -> Sample:
        """Reads a file that `tools.nested_inference extract` has written."""
        with np.load(path) as file:
            names = tuple(str(number) for number in range(len(file["labels"])))
            images = ImageTable(
                names, file["labels"], file["copies"], file["sources"], file["is_canonical"], HIRISE.classes
            )
            return cls(images, Features.of(file["features"]))

    @property
    def landmarks(self) -> Ints:
        """Canonical images of all splits."""
        return np.flatnonzero(self.images.is_canonical)

    def outer_folds(self, number: int) -> Ints:
        """Returns the outer fold of each landmark, shape (n_landmarks,)."""
        images, rows = self.images, self.landmarks
        return assign_folds(images.labels[rows], images.sources[rows], images.classes, N_FOLDS, number).folds


@dataclass(frozen=True)
class Choice:
    """The settings that an arm uses in one outer fold."""

    recipe: Recipe
    epochs: int
    tau: float


def compile_training(sample: Sample) -> None:
    """Trains a head for one epoch and predicts, after which the compiled loops are in memory."""
    splits = make_outer_split(sample.images, sample.landmarks[sample.outer_folds(0) == 0], 1)
    [data] = _fold_data(sample, splits, "final")
    learner = HeadLearner(FIXED, 0, data)
    learner.train_epoch(1)
    learner.logits(data.features)


def predict_fixed(sample: Sample, number: int, arm: int) -> NDArray[np.uint8]:
    """Predicts all landmarks by heads with fixed settings.

    Args:
        sample: the sample.
        number: number of the assignment of sources to outer folds.
        arm: number of the arm, from which its seeds follow.

    Returns:
        Predicted classes, shape (N_SEEDS, n_landmarks).
    """
    predicted, _ = _predict(sample, number, arm, chooses=False)
    return predicted


def predict_chosen(sample: Sample, number: int, arm: int) -> tuple[NDArray[np.uint8], list[Choice]]:
    """Predicts all landmarks by heads whose settings are chosen inside each outer fold.

    The inner cross-validation has an assignment and seeds of the arm's own.

    Returns:
        Predicted classes, shape (N_SEEDS, n_landmarks), and the choice of each outer fold.
    """
    return _predict(sample, number, arm, chooses=True)


def _predict(sample: Sample, number: int, arm: int, *, chooses: bool) -> tuple[NDArray[np.uint8], list[Choice]]:
    landmarks, fold_of = sample.landmarks, sample.outer_folds(number)
    predicted = np.zeros((N_SEEDS, len(landmarks)), np.uint8)
    choices = []
    for fold in range(N_FOLDS):
        splits = make_outer_split(sample.images, landmarks[fold_of == fold], 1)
        choice = choose(sample, splits, arm) if chooses else Choice(FIXED, EPOCHS, 0.0)
        choices.append(choice)
        [data] = _fold_data(sample, splits, "final")
        for i in range(N_SEEDS):
            learner = HeadLearner(choice.recipe, N_SEEDS * arm + i, data)
            for epoch in range(1, choice.epochs + 1):
                learner.train_epoch(epoch)
            logits = learner.logits(sample.features.select(splits.test))
            predicted[i, fold_of == fold] = (logits - choice.tau * _log_prior(data)).argmax(axis=1)
    return predicted, choices


def choose(sample: Sample, splits: DataSplits, arm: int) -> Choice:
    """Chooses settings by macro F1 of an inner cross-validation of the pool."""
    images, landmarks = sample.images, splits.landmarks
    labels, sources = images.labels[landmarks], images.sources[landmarks]
    fold_of = assign_folds(labels, sources, images.classes, number=arm).folds
    folds = tuple(
        Fold(splits.pool[~np.isin(images.sources[splits.pool], sources[fold_of == k])], landmarks[fold_of == k])
        for k in range(int(fold_of.max()) + 1)
    )
    inner = _fold_data(sample, replace(splits, assignments=(folds,)), "cross-validation")
    options = list(product(range(len(CANDIDATES)), CHECKPOINTS, TAUS))
    predicted = {option: np.zeros(len(landmarks), np.int64) for option in options}
    for number, recipe in enumerate(CANDIDATES):
        for k, data in enumerate(inner):
            # Seeds that no final fit uses.
            learner = HeadLearner(recipe, 10**6 + arm, data)
            for epoch in range(1, EPOCHS + 1):
                learner.train_epoch(epoch)
                if epoch in CHECKPOINTS:
                    logits = log_softmax(learner.logits(data.heldout.features))
                    for tau in TAUS:
                        adjusted = logits - tau * _log_prior(data)
                        predicted[number, epoch, tau][fold_of == k] = adjusted.argmax(axis=1)
    scores = [macro_f1(confusion_matrix(labels, predicted[option], len(images.classes))) for option in options]
    number, epochs, tau = options[int(np.argmax(scores))]
    return Choice(CANDIDATES[number], epochs, tau)


def _fold_data(sample: Sample, splits: DataSplits, protocol: str) -> tuple[FoldData, ...]:
    """Returns the data of each fold of the inner cross-validation, or of the fit on the whole pool."""
    request = FitRequest(FIXED, (0,), (0,), "final" if protocol == "final" else "cross-validation")
    (data,), _ = StageInputs(splits, {TOP_MEAN: sample.features}).data(request)
    return data


def _log_prior(data: FoldData) -> Floats:
    return log_prior(data.counts(FIXED.sampling).shares)
