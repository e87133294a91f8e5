"""Settings of strategies, fitted inside one outer fold: what criteria are computed from.

Heads are trained by the package's own epoch loop. It is given learners that keep the logits of every epoch, so that
several rules for the number of epochs are compared on one training.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data.splits import DataSplits, Fold
from hirise_imb.features.arrays import Features
from hirise_imb.features.inputs import TOP_MEAN
from hirise_imb.features.training_features import TrainingFeatures
from hirise_imb.imbalance.class_bias import ClassBias
from hirise_imb.imbalance.logit_adjustment import Adjustment, PosthocLogitAdjustment, cross_fit_adjustment, log_softmax
from hirise_imb.recipe import Cosine, Linear, Monitor, Recipe
from hirise_imb.strategies import CONTROL, STRATEGIES, RecipeContext, Settings
from hirise_imb.training.epoch_loop import StoppingRule, train_validated
from hirise_imb.training.inputs import StageInputs
from hirise_imb.training.learners import EpochSums, HeadLearner, Snapshot
from hirise_imb.training.scoring import HeldOut, score_epoch
from hirise_imb.training.stage_fit import FitRequest

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Logits = NDArray[np.floating]

TRAINED = (CONTROL, "class_weights", "logit_adjusted_loss", "oversampling")
CLOSED_FORM = ("logistic", "prototypes")
N_TRAINED, N_CLOSED_FORM = 10, 6
"""Numbers of settings of a strategy: the defaults, its first initial point, and random ones."""
CV_SEEDS = (0, 1, 2)
"""Seeds of the cross-validations inside an outer fold, each with an assignment of sources to folds of its own."""
FINAL_SEEDS = (10, 11)

JOINT, ONE_SEED, SMOOTHED, LOSS, POOLED = "macro F1", "one seed", "mean of 5 epochs", "log loss", "pooled folds"
"""Rules for the number of epochs: by macro F1 over all seeds, cross-fitted, as in a search; by that of the first seed
alone; by a moving mean of macro F1; by log loss; and as `JOINT`, but chosen on the landmarks that are then scored."""
NO_EPOCHS = ""
"""Rule of closed-form heads."""
_WINDOW = 2
"""Epochs on either side of the moving mean."""

POSTHOC: dict[str, tuple[tuple[Settings, Adjustment | None], ...]] = {
    "logit_adjustment": tuple(
        ({"tau": tau}, PosthocLogitAdjustment(tau)) for tau in (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5)
    ),
    "class_bias": (
        ({"strength": "none"}, None),
        *(({"strength": strength}, ClassBias(strength)) for strength in (1.0, 0.1)),
    ),
}
"""Adjustments of the control's logits, the one without effect first."""


@dataclass(frozen=True)
class Candidate:
    """One setting of a strategy."""

    strategy: str
    place: int
    """Position in the order of proposals, from 0; the defaults come first."""
    settings: Settings

    @property
    def recipe(self) -> Recipe:
        """The recipe of the setting."""
        return STRATEGIES[self.strategy].recipe(self.settings, RecipeContext(cuts=()))


@dataclass(frozen=True)
class Fits:
    """Predictions of one setting inside one outer fold."""

    strategy: str
    place: int
    settings: Settings
    base: int
    """Place of the control's setting whose logits are adjusted; -1 for a strategy with a head of its own."""
    epochs_by: str
    """Rule by which the number of epochs was chosen."""
    epochs: int
    """Number of epochs of the final fits; 0 for a closed-form head."""
    out_of_fold: Logits
    """Log probabilities of the landmarks of the pool, shape (n_cv_seeds, n_landmarks, n_classes)."""
    test: Logits
    """Log probabilities of the landmarks of the outer fold, shape (n_final_seeds, n_test, n_classes)."""

    def facts(self) -> dict[str, str | int | float]:
        """Returns everything but the predictions, as columns of results."""
        return {
            "strategy": self.strategy,
            "place": self.place,
            "base": self.base,
            "settings": json.dumps(dict(self.settings)),
            "epochs_by": self.epochs_by,
            "epochs": self.epochs,
        }


def list_candidates() -> list[Candidate]:
    """Returns the settings of all strategies, in the order of proposals."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    candidates = []
    for name in (*TRAINED, *CLOSED_FORM):
        strategy = STRATEGIES[name]
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=zlib.crc32(name.encode())))
        settings = [s for s in strategy.initial_settings() if s.get("scheme") != "progressive"][:2]
        while len(settings) < (N_TRAINED if name in TRAINED else N_CLOSED_FORM):
            # Progressive sampling needs a fixed number of epochs, which is a choice of its own.
            if (random := strategy.space.suggest(study.ask())).get("scheme") != "progressive":
                settings.append(random)
        candidates += [Candidate(name, place, one) for place, one in enumerate(settings)]
    return candidates


def write_candidates(path: Path) -> None:
    """Writes the settings as JSON."""
    path.write_text(json.dumps([vars(one) | {"settings": dict(one.settings)} for one in list_candidates()], indent=1))


def read_candidates(path: Path) -> list[Candidate]:
    """Reads the settings."""
    return [Candidate(**one) for one in json.loads(path.read_text())]


def fit_candidate(splits: DataSplits, features: Features, candidate: Candidate) -> Iterator[Fits]:
    """Fits a setting inside an outer fold: one result for each rule for epochs, and for each adjustment of it."""
    if not candidate.recipe.trained:
        yield _fit_closed_form(splits, features, candidate)
        return
    for fits in _fit_trained(splits, features, candidate):
        yield fits
        if candidate.strategy == CONTROL and fits.epochs_by in (JOINT, ONE_SEED):
            yield from adjust(splits, fits)


def _fit_closed_form(splits: DataSplits, features: Features, candidate: Candidate) -> Fits:
    """Computes a closed-form head on each fold and on the pool. It has no seed, so one final fit serves all."""
    images, landmarks = splits.images, splits.landmarks
    head = candidate.recipe.head
    assert not isinstance(head, Linear | Cosine)

    def predict(train: Ints, rows: Ints) -> Floats:
        training = TrainingFeatures(features.take(train), images.labels[train], images.sources[train], images.classes)
        return log_softmax(head.fit(training).logits(features.take(rows)))

    out_of_fold = np.empty((len(CV_SEEDS), len(landmarks), len(images.classes)), np.float32)
    for number, folds in enumerate(splits.assignments):
        for fold in folds:
            out_of_fold[number, splits.landmark_positions(fold.heldout)] = predict(fold.train, fold.heldout)
    test = np.stack([predict(splits.pool, splits.test)] * len(FINAL_SEEDS))
    return Fits(candidate.strategy, candidate.place, candidate.settings, -1, NO_EPOCHS, 0, out_of_fold, test)


class RecordingLearner:
    """A head learner that keeps the logits of every epoch."""

    def __init__(self, learner: HeadLearner) -> None:
        """Takes the learner."""
        self._learner = learner
        self.recorded: list[NDArray[np.float32]] = []
        """Logits after each epoch, shape (n, n_classes)."""

    def train_epoch(self, epoch: int) -> EpochSums:
        """Trains for an epoch, counted from 1."""
        return self._learner.train_epoch(epoch)

    def logits(self, features: Features) -> NDArray[np.float32]:
        """Computes logits in inference mode, shape (n, n_classes), and keeps them."""
        self.recorded.append(self._learner.logits(features))
        return self.recorded[-1]

    def snapshot(self) -> Snapshot:
        """Returns the weights as they are now."""
        return self._learner.snapshot()


def _fit_trained(splits: DataSplits, features: Features, candidate: Candidate) -> Iterator[Fits]:
    for name, (epochs, out_of_fold, test) in train(splits, features, candidate.recipe).items():
        common = candidate.strategy, candidate.place, candidate.settings, -1
        yield Fits(*common, name, epochs, log_softmax(out_of_fold), log_softmax(test))


def train(
    splits: DataSplits, features: Features, recipe: Recipe
) -> dict[str, tuple[int, NDArray[np.float32], NDArray[np.float32]]]:
    """Trains a head on all inner folds, and then on the pool.

    Returns:
        By rule for epochs, the number of epochs, the out-of-fold logits, and the logits of the outer fold; see `Fits`.
    """
    inputs = StageInputs(splits, {TOP_MEAN: features})
    request = FitRequest(recipe, CV_SEEDS, tuple(range(len(CV_SEEDS))), "cross-validation")
    data, _ = inputs.data(request)
    held_out = inputs.held_out(request)
    learners = [
        [RecordingLearner(HeadLearner(recipe, seed, fold)) for fold in folds]
        for seed, folds in zip(CV_SEEDS, data, strict=True)
    ]
    rule = StoppingRule(recipe.monitor, recipe.max_epochs, recipe.patience)
    result = train_validated(learners, [[fold.heldout for fold in folds] for folds in data], held_out, rule)
    by_epoch = np.empty((len(result.histories[0]), len(CV_SEEDS), len(held_out.labels), held_out.n_classes), np.float32)
    for i, folds in enumerate(learners):
        for learner, part in zip(folds, held_out.parts[i], strict=True):
            by_epoch[:, i, part] = learner.recorded
    chosen = choose_epochs(held_out, by_epoch, recipe.patience)
    final = _train_final(inputs, recipe, max(epochs for epochs, _ in chosen.values()))
    return {name: (epochs, out_of_fold, final[:, epochs - 1]) for name, (epochs, out_of_fold) in chosen.items()}


def _train_final(inputs: StageInputs, recipe: Recipe, epochs: int) -> NDArray[np.float32]:
    """Trains on the pool; returns logits of the outer fold after each epoch, by seed, epoch, landmark and class."""
    request = FitRequest(recipe, FINAL_SEEDS, (0,) * len(FINAL_SEEDS), "final")
    test = inputs.test_set(request)
    assert test is not None
    predicted = []
    for seed, (pool,) in zip(FINAL_SEEDS, inputs.data(request)[0], strict=True):
        learner = HeadLearner(recipe, seed, pool)
        for epoch in range(1, 1 + epochs):
            learner.train_epoch(epoch)
            predicted.append(learner.logits(test.features))
    return np.stack(predicted).reshape(len(FINAL_SEEDS), epochs, *predicted[0].shape)


def choose_epochs(
    held_out: HeldOut, by_epoch: NDArray[np.float32], patience: int
) -> Mapping[str, tuple[int, NDArray[np.float32]]]:
    """Chooses the number of epochs by each rule.

    Args:
        held_out: held-out landmarks of all seeds and folds.
        by_epoch: their logits after each epoch, shape (n_epochs, n_seeds, n_landmarks, n_classes).
        patience: epochs without improvement after which training would stop.

    Returns:
        By rule, the number of epochs of a final fit, and the logits that count as out-of-fold predictions, shape
        (n_seeds, n_landmarks, n_classes); `ONE_SEED` has one.
    """
    first = HeldOut(held_out.labels, held_out.parts[:1], held_out.n_classes)

    def choose(
        held_out: HeldOut, monitor: Monitor = "val_macro_f1", window: int = 0
    ) -> tuple[int, NDArray[np.float32]]:
        """Chooses an epoch for each part on all other landmarks, and one on all landmarks."""
        n_seeds = len(held_out.parts)
        scores = [score_epoch(held_out, logits[:n_seeds], monitor) for logits in by_epoch]
        out_of_fold = np.empty_like(by_epoch[0, :n_seeds])
        for i, parts in enumerate(held_out.parts):
            for k, part in enumerate(parts):
                values = [one.part_choices[i][k] for one in scores]
                out_of_fold[i, part] = by_epoch[best_epoch(values, patience, window), i, part]
        return best_epoch([one.choice for one in scores], patience, window) + 1, out_of_fold

    joint = choose(held_out)
    return {
        JOINT: joint,
        ONE_SEED: choose(first),
        SMOOTHED: choose(held_out, window=_WINDOW),
        LOSS: choose(held_out, "val_loss"),
        POOLED: (joint[0], by_epoch[joint[0] - 1]),
    }


def best_epoch(values: Sequence[float], patience: int, window: int = 0) -> int:
    """Returns the epoch, counted from 0, that a stopping rule keeps.

    Args:
        values: quantity after each epoch: the greater, the better.
        patience: epochs without improvement after which training stops.
        window: epochs on either side that are averaged with each epoch first; fewer at the ends.
    """
    smooth = [float(np.mean(values[max(0, i - window) : i + window + 1])) for i in range(len(values))]
    best = 0
    for i, value in enumerate(smooth):
        if i - best > patience:
            break
        if value > smooth[best]:
            best = i
    return best


def adjust(splits: DataSplits, fits: Fits, names: Sequence[str] = tuple(POSTHOC)) -> Iterator[Fits]:
    """Yields the predictions with each post-hoc adjustment, which is fitted on landmarks of the pool alone.

    Args:
        splits: outer fold.
        fits: predictions of a head that was trained on each image once, all with the same weight.
        names: kinds of adjustments.
    """
    images = splits.images
    labels = images.labels[splits.landmarks]
    out_of_fold, test = fits.out_of_fold.astype(np.float64), fits.test.astype(np.float64)
    n_seeds, _, n_classes = out_of_fold.shape

    def prior(rows: Ints) -> Floats:
        """Returns the class prior of training rows; the control samples each image once and weighs none."""
        return np.bincount(images.labels[rows], minlength=n_classes) / len(rows)

    assignments = splits.assignments[:n_seeds]
    priors = [np.stack([prior(fold.train) for fold in folds]) for folds in assignments]
    groups = [_fold_of_landmarks(splits, folds) for folds in assignments]
    for name in names:
        for place, (values, adjustment) in enumerate(POSTHOC[name]):
            adjusted, adjusted_test = out_of_fold, test
            if adjustment is not None:
                adjusted = np.stack(
                    [
                        cross_fit_adjustment(adjustment, out_of_fold[i], labels, priors[i], groups[i])
                        for i in range(n_seeds)
                    ]
                )
                pooled = out_of_fold.reshape(-1, n_classes)
                correction = adjustment.fit(pooled, np.tile(labels, n_seeds), prior(splits.pool))
                adjusted_test = np.stack([correction(one) for one in test])
            common = fits.epochs_by, fits.epochs
            yield Fits(name, place, values, fits.place, *common, log_softmax(adjusted), log_softmax(adjusted_test))


def _fold_of_landmarks(splits: DataSplits, folds: Sequence[Fold]) -> Ints:
    """Returns the fold of each landmark of the pool, shape (n_landmarks,)."""
    fold_of = np.empty(len(splits.landmarks), np.int64)
    for number, fold in enumerate(folds):
        fold_of[splits.landmark_positions(fold.heldout)] = number
    return fold_of
