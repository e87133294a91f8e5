"""The trainer, which turns recipes and cached features into scores and predictions.

A recipe goes through stages: heads are trained or computed on the features of each fold, the backbone's tail is trained
from these, a head is retrained, and logits are adjusted last. Stages that recipes have in common are fitted once:
recipes that differ only in the treatment of their logits share one fit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.data.splits import DataSplits
from hirise_imb.features.arrays import Features
from hirise_imb.features.inputs import FeatureKey
from hirise_imb.imbalance.logit_adjustment import Correction, cross_fit_adjustment
from hirise_imb.imbalance.temperature import Temperature
from hirise_imb.metrics.classification import Predictions, confusion_matrix
from hirise_imb.metrics.targets import MACRO_F1, Target
from hirise_imb.recipe import Recipe
from hirise_imb.training.epoch_loop import OnEpoch
from hirise_imb.training.fitted import FittedHead, FittedModel, average_kinds, mean_log_probabilities
from hirise_imb.training.stage_fit import FitProtocol, FitRequest, StageFit
from hirise_imb.training.stages import StageRunner
from hirise_imb.training.tail_network import Network
from hirise_imb.utils.errors import NotFinite

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CrossValidation:
    """A recipe in cross-validations by source: its score, and what its final fits need to know.

    Each seed has an assignment of sources to folds of its own, and predicts every landmark of training and validation
    once, by a model that has not seen its source.
    """

    seeds: tuple[int, ...]
    epochs: tuple[int, ...]
    """Number of epochs of each stage for a final fit; empty for a closed-form head."""
    capped: bool
    """Whether the best epoch of a stage is the last one allowed, so that more might be better."""
    history: pd.DataFrame
    """One row per epoch, means over seeds and folds: epoch, train_loss, train_accuracy, val_loss, val_accuracy and
    val_macro_f1 of the trained head before its logits are treated. Without rows for a closed-form head."""
    log_probabilities: NDArray[np.float32]
    """Out-of-fold log probabilities before adjustment, shape (n_seeds, n_landmarks, n_classes)."""
    temperatures: tuple[float, ...]
    """Temperature of each kind of head, by which its logits are divided before they are averaged with others; 1 for a
    single kind."""
    confusions: Ints
    """Confusion matrix of each seed after adjustment, shape (n_seeds, n_classes, n_classes)."""
    score: float
    """Validation score: the target metric of all out-of-fold predictions after adjustment, mean over seeds."""
    notes: tuple[str, ...]
    """How the data of some fold limited the recipe, if it did."""
    seconds: float
    """Wall time."""


@dataclass(frozen=True)
class Run:
    """A fit that has predicted the test split.

    `history` has one row per epoch: loss and accuracy of train, val and test, and val_macro_f1, of the trained head
    before its logits are treated; of an ensemble, those of the first member. The loss is cross-entropy in nats
    whichever loss was trained; the training columns are running means over the epoch, with dropout, as Keras reports
    them. A final fit has no validation landmarks: its validation columns are those of the cross-validation at the same
    epochs. A closed-form head has no rows.
    """

    seed: int
    history: pd.DataFrame
    best_epoch: int
    """The epoch whose weights were kept, counted from 1; 0 for a closed-form head."""
    test: Predictions
    """Predictions on the canonical images of the test split."""
    temperature: float
    """The T of log p / T with the lowest negative log-likelihood on validation (Guo et al. 2017). It is not applied: a
    report uses it to show the effect of calibration."""
    notes: tuple[str, ...]
    """How the data limited the recipe, if it did."""
    seconds: float
    """Wall time; fits of several seeds share theirs equally."""
    model: FittedModel | None = None
    """The fit itself; None for a run that was read from a store, which keeps it in a file of its own."""


class Trainer:
    """Fits recipes on one data set. Networks and the latest fits are kept between runs."""

    def __init__(
        self,
        backbone: Backbone | None,
        splits: DataSplits,
        features: Mapping[FeatureKey, Features],
        target: Target = MACRO_F1,
    ) -> None:
        """Takes the data and its features.

        Args:
            backbone: backbone, whose tail recipes may train; None if no recipe does.
            splits: splits of the data set.
            features: features of all images in order, for every view, layer and statistic, and every cut, that recipes
                name. Views that serve only prediction need rows for canonical images alone.
            target: metric by which recipes are scored. Epochs are chosen as the recipe says, by macro F1 or loss.
        """
        import tensorflow as tf

        # Same seed, same machine, same numbers: without it, parallel reductions add up in any order.
        tf.config.experimental.enable_op_determinism()
        self.splits = splits
        self.target = target
        self._backbone, self._features = backbone, features
        self._stages = StageRunner(backbone, splits, features)

    @property
    def backbone(self) -> Backbone | None:
        """The backbone; None if features come from a table."""
        return self._backbone

    def with_splits(self, splits: DataSplits) -> Trainer:
        """Returns a trainer of the same features with other splits, which shares its compiled networks."""
        other = Trainer(self._backbone, splits, self._features, self.target)
        other._stages.networks = self._stages.networks
        other._stages.inputs.concatenations = self._stages.inputs.concatenations
        return other

    def cross_validate(
        self, recipe: Recipe, seeds: Sequence[int], on_epoch: OnEpoch | None = None, first_assignment: int = 0
    ) -> CrossValidation:
        """Scores a recipe by cross-validation over the sources of training and validation.

        Args:
            recipe: recipe to score.
            seeds: seeds of its fits; each has an assignment of its own.
            on_epoch: called after each epoch of a single fit; ensembles and adjusted logits do not call it, because
                the epochs of their fits say little about the recipe as a whole.
            first_assignment: number of the assignment of the first seed; the next seed has the next one.

        Raises:
            FitFailed: the recipe can't be fitted.
        """
        begin = time.monotonic()
        images = self.splits.images
        landmarks = self.splits.landmarks
        labels = images.labels[landmarks]
        assignments = tuple(range(first_assignment, first_assignment + len(seeds)))
        groups = np.stack([self._groups(number) for number in assignments])
        fits = self._fit_kinds(recipe, tuple(seeds), assignments, "cross-validation", on_epoch=on_epoch)
        by_kind = np.stack([self._out_of_fold(recipe, fit, groups) for fit in fits])
        temperatures: tuple[float, ...] = (1.0,)
        if len(fits) > 1:
            temperatures = tuple(_fit_temperature(np.concatenate(logits), labels) for logits in by_kind)
            by_kind = np.stack([_calibrate(logits, labels, groups) for logits in by_kind])
        averaged = average_kinds(by_kind, [recipe.members, *[1] * len(recipe.also)])
        first = fits[0]
        priors = [np.stack(of_seed) for of_seed in first.priors[:: recipe.members]]
        adjusted = [
            cross_fit_adjustment(recipe.adjustment, averaged[i], labels, priors[i], groups[i])
            for i in range(len(seeds))
        ]
        return CrossValidation(
            seeds=tuple(seeds),
            epochs=first.epochs,
            capped=first.capped,
            history=first.histories[0],
            log_probabilities=_narrow(averaged),
            temperatures=temperatures,
            confusions=np.stack([confusion_matrix(labels, z.argmax(axis=1), len(images.classes)) for z in adjusted]),
            score=float(np.mean([self.target.score(labels, z) for z in adjusted])),
            notes=_merge_notes(fits),
            seconds=time.monotonic() - begin,
        )

    def fit_final(self, recipe: Recipe, seed: int, validation: CrossValidation) -> Run:
        """Fits a recipe with one seed; see `fit_finals`."""
        return self.fit_finals(recipe, (seed,), validation)[0]

    def fit_finals(self, recipe: Recipe, seeds: Sequence[int], validation: CrossValidation) -> list[Run]:
        """Fits a recipe with each seed on training and validation together, and predicts the test split.

        A fit does not depend on the other seeds.

        Args:
            recipe: recipe to fit.
            seeds: seeds of the fits.
            validation: cross-validation of the same recipe. It gives the number of epochs, and the out-of-fold
                predictions on which temperatures and the adjustment of logits are fitted.

        Raises:
            FitFailed: the recipe can't be fitted.
        """
        begin = time.monotonic()
        seeds = tuple(seeds)
        fits = self._fit_kinds(recipe, seeds, (0,) * len(seeds), "final", epochs=validation.epochs)
        landmarks = self.splits.landmarks
        labels = np.tile(self.splits.images.labels[landmarks], len(validation.seeds))
        held_out = validation.log_probabilities.reshape(len(labels), -1).astype(np.float64)
        columns = [c for c in ("val_loss", "val_accuracy", "val_macro_f1") if c in validation.history]
        runs = []
        for place, seed in enumerate(seeds):
            first = place * recipe.members  # the number of the seed's first member among all members
            correction = recipe.adjustment.fit(held_out, labels, fits[0].priors[first][0])
            heads: list[tuple[FittedHead, ...]] = []
            for kind, fit in enumerate(fits):
                members = fit.heads[first : first + recipe.members] if kind == 0 else fit.heads[place : place + 1]
                heads.append(tuple(self._normalise_weights(member[0], recipe) for member in members))
            model = FittedModel(
                heads=tuple(heads),
                temperatures=validation.temperatures,
                correction=correction,
                temperature=_fit_temperature(correction(held_out), labels),
            )
            history = fits[0].histories[first].assign(**{column: validation.history[column] for column in columns})
            run = Run(
                seed=seed,
                history=history,
                best_epoch=len(history),
                test=self._predict_test(recipe, model),
                temperature=model.temperature,
                notes=_merge_notes(fits),
                seconds=0.0,
                model=model,
            )
            runs.append(run)
        seconds = (time.monotonic() - begin) / max(len(seeds), 1)
        return [replace(run, seconds=seconds) for run in runs]

    def fit_reference(self, recipe: Recipe, seed: int) -> Run:
        """Fits a recipe as published: on the training split, stopped early on the validation split.

        Raises:
            FitFailed: the recipe can't be fitted.
        """
        begin = time.monotonic()
        fit = self._stages.fit(FitRequest(recipe, (seed,), (0,), "reference"))
        head = fit.heads[0][0]
        rows = self.splits.split.heldout
        held_out = self._mean_log_probabilities(recipe, [head], rows)
        model = FittedModel(
            heads=((head,),),
            temperatures=(1.0,),
            correction=Correction(1.0, np.zeros(len(self.splits.images.classes))),
            temperature=_fit_temperature(held_out, self.splits.images.labels[rows]),
        )
        return Run(
            seed=seed,
            history=fit.histories[0],
            best_epoch=fit.epochs[0],
            test=self._predict_test(recipe, model),
            temperature=model.temperature,
            notes=fit.notes,
            seconds=time.monotonic() - begin,
            model=model,
        )

    def _fit_kinds(
        self,
        recipe: Recipe,
        seeds: tuple[int, ...],
        assignments: tuple[int, ...],
        protocol: FitProtocol,
        epochs: tuple[int, ...] = (),
        on_epoch: OnEpoch | None = None,
    ) -> list[StageFit]:
        """Fits each kind of head whose log probabilities a recipe averages: the members of the first, then others."""
        first = replace(recipe.training(), members=1, also=())
        heads = [first] + [
            replace(Recipe(), inputs=recipe.inputs, projection=recipe.projection, synthesis=recipe.synthesis, head=head)
            for head in recipe.also
        ]
        fits = []
        for head in heads:
            members = recipe.members if head is first else 1
            # A closed form has no epochs and, without synthetic rows, no randomness: one fit serves all seeds.
            deterministic = not head.trained and head.synthesis is None
            request = FitRequest(
                recipe=head,
                seeds=tuple(0 if deterministic else _member_seed(s, m) for s in seeds for m in range(members)),
                assignments=tuple(number for number in assignments for _ in range(members)),
                protocol=protocol,
                epochs=epochs if head.trained else (),
                on_epoch=on_epoch if recipe == head else None,
            )
            fits.append(self._stages.fit(request))
        return fits

    def _groups(self, number: int) -> Ints:
        """Returns the fold of each landmark in an assignment, shape (n_landmarks,)."""
        groups = np.empty(len(self.splits.landmarks), np.int64)
        for fold, rows in enumerate(self.splits.assignments[number]):
            groups[self.splits.landmark_positions(rows.heldout)] = fold
        return groups

    def _out_of_fold(self, recipe: Recipe, fit: StageFit, groups: Ints) -> Floats:
        """Returns out-of-fold log probabilities, means over members, shape (n_seeds, n_landmarks, n_classes)."""
        landmarks = self.splits.landmarks
        members = len(fit.heads) // len(groups)
        result = np.empty((*groups.shape, len(self.splits.images.classes)))
        for i, of_seed in enumerate(groups):
            by_member = fit.heads[i * members : (i + 1) * members]
            for fold in range(len(by_member[0])):
                heads = [self._normalise_weights(member[fold], recipe) for member in by_member]
                result[i, of_seed == fold] = self._mean_log_probabilities(recipe, heads, landmarks[of_seed == fold])
        return result

    def _mean_log_probabilities(self, recipe: Recipe, heads: Sequence[FittedHead], rows: Ints) -> Floats:
        """Returns mean log probabilities over heads and views, shape (n_rows, n_classes)."""
        return mean_log_probabilities(heads, self._views(recipe, rows), self._network(recipe))

    def _predict_test(self, recipe: Recipe, model: FittedModel) -> Predictions:
        logits = model.log_probabilities(self._views(recipe, self.splits.test), self._network(recipe))
        names = tuple(self.splits.images.names[row] for row in self.splits.test)
        return Predictions(names, np.exp(logits).astype(np.float32))

    def _views(self, recipe: Recipe, rows: Ints) -> list[Features]:
        """Returns the features of some images in each view of a recipe."""
        spec = recipe.feature_spec
        inputs = self._stages.inputs
        return [inputs.features(spec.cut, spec.inputs_of(view)).select(rows) for view in spec.views]

    def _network(self, recipe: Recipe) -> Network | None:
        return None if recipe.cut == TOP else self._stages.network(recipe.cut, recipe.trainable)

    def _normalise_weights(self, head: FittedHead, recipe: Recipe) -> FittedHead:
        if recipe.weight_norm == 0:
            return head
        classes = self.splits.images.classes
        classifier = head.classifier.normalise_weights(recipe.weight_norm, classes, keep_bias=recipe.keep_bias)
        return replace(head, classifier=classifier)


def _merge_notes(fits: Sequence[StageFit]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(note for fit in fits for note in fit.notes))


def _member_seed(seed: int, member: int) -> int:
    """Returns the seed of a member of an ensemble; the first has that of the ensemble."""
    return seed if member == 0 else int(np.random.SeedSequence((seed, member)).generate_state(1)[0])


def _narrow(log_probabilities: Floats) -> NDArray[np.float32]:
    """Returns log probabilities in the type in which they are stored.

    Raises:
        NotFinite: one is too large for it, as only absurd features or weights give.
    """
    with np.errstate(over="ignore"):  # refused below
        narrow = log_probabilities.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise NotFinite("a log probability is too large for float32")
    return narrow


def _fit_temperature(logits: Floats, labels: Ints) -> float:
    """Returns the temperature of the lowest negative log-likelihood; labels are repeated for several seeds."""
    labels = np.tile(labels, len(logits) // len(labels))
    return 1 / Temperature().fit(logits, labels, _uniform(logits.shape[1])).scale


def _calibrate(logits: Floats, labels: Ints, groups: Ints) -> Floats:
    """Divides the logits of each seed and fold by the temperature of the seed's other folds; arrays by seed first."""
    priors = np.tile(_uniform(logits.shape[2]), (int(groups.max()) + 1, 1))  # a temperature does not depend on them
    pairs = zip(logits, groups, strict=True)
    return np.stack([cross_fit_adjustment(Temperature(), of_seed, labels, priors, fold) for of_seed, fold in pairs])


def _uniform(n_classes: int) -> Floats:
    return np.full(n_classes, 1 / n_classes)
