"""What a recipe does around its training: folds, members, further heads, views, adjustments, a second head."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from builders import as_landmarks
from cut_features import cut_key
from scipy.optimize import minimize_scalar
from sklearn.metrics import confusion_matrix
from sklearn.preprocessing import StandardScaler
from worlds import (
    fit_final,
    make_features,
    make_fold_data,
    make_task,
    make_trainer,
    probabilities_of,
    quick_start,
    replace_labels,
)

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.data.dataset import ClassSet
from hirise_imb.data.splits import DataSplits, Fold
from hirise_imb.features.arrays import Features
from hirise_imb.features.inputs import Input
from hirise_imb.imbalance.class_bias import ClassBias
from hirise_imb.imbalance.class_weights import EffectiveNumber, InversePower
from hirise_imb.imbalance.logit_adjustment import Adjustment, NoAdjustment, PosthocLogitAdjustment
from hirise_imb.imbalance.losses import LabelDistributionAwareMargin, LogitAdjustedCrossEntropy
from hirise_imb.imbalance.sampling import ClassSampling, RandomOversampling, Undersampling
from hirise_imb.imbalance.smote import SyntheticOversampling
from hirise_imb.imbalance.temperature import Temperature
from hirise_imb.models.closed_form import Discriminant, Logistic, NearestMean
from hirise_imb.models.heads import HeadState, class_mean_state
from hirise_imb.models.linear import LinearClassifier
from hirise_imb.models.projection import NuisanceProjection
from hirise_imb.models.weight_scaling import WeightScaling
from hirise_imb.recipe import Cosine, Recipe, Retraining
from hirise_imb.training.learners import FoldData, HeadLearner, TailLearner
from hirise_imb.training.tail_network import Network
from hirise_imb.training.trainer import CrossValidation, Run, Trainer
from hirise_imb.utils.errors import NotApplicable

QUICK = Recipe(learning_rate=1e-2, max_epochs=3, monitor="none")
"""All of its epochs are trained, in a cross-validation as in a final fit."""
SEEDS = (4, 7)
CLASSES = np.arange(8)

Predict = Callable[[Fold, int], Callable[[np.ndarray], np.ndarray]]
"""From a fold and a seed to the logits of a fitted model for some rows."""


@pytest.fixture(scope="module")
def task() -> DataSplits:
    return make_task()


@pytest.fixture(scope="module")
def trainer(backbone: Backbone, task: DataSplits) -> Trainer:
    """Its mirrored features are others than the plain ones, and are right for landmarks alone."""
    features = {cut_key(cut): make_features(task, cut) for cut in (TOP, "late")}
    features[cut_key(TOP, "fh")] = make_features(task, noise=0.5)
    features |= {key: Features.of(values) for key, values in zip(LATE.keys, late_statistics(task), strict=True)}
    return quick_start(Trainer(backbone, task, features))


LATE = Input(layer="late", pooling="mean_std")


def late_statistics(task: DataSplits) -> list[np.ndarray]:
    """Means and standard deviations at the layer `late`, of very different scales."""
    return [scale * make_features(task, seed=seed).stored for seed, scale in ((1, 1e-3), (2, 50))]


def log_softmax(z: np.ndarray) -> np.ndarray:
    return np.asarray(z - np.logaddexp.reduce(z, axis=-1, keepdims=True))


def fit_head(
    task: DataSplits, fold: Fold, seed: int, recipe: Recipe = QUICK, features: Features | None = None
) -> LinearClassifier:
    """The recipe's head on one fold, trained without the trainer."""
    learner = HeadLearner(recipe, seed, make_fold_data(task, fold, features))
    for epoch in range(1, 1 + recipe.max_epochs):
        learner.train_epoch(epoch)
    return learner.snapshot().classifier()


def predict_heads(task: DataSplits, recipe: Recipe = QUICK, features: Features | None = None) -> Predict:
    """Logits of the recipe's head."""
    x = make_features(task) if features is None else features

    def fit(fold: Fold, seed: int) -> Callable[[np.ndarray], np.ndarray]:
        head = fit_head(task, fold, seed, recipe, features)
        return lambda rows: head.logits(x.take(rows))

    return fit


def predict_closed_form(task: DataSplits, head: Any, x: np.ndarray | None = None) -> Predict:  # noqa: ANN401
    """Logits of a closed-form head, which is fitted on all training images."""
    values = make_features(task).stored if x is None else x

    def fit(fold: Fold, seed: int) -> Callable[[np.ndarray], np.ndarray]:
        rows, images = fold.train, task.images
        fitted = head.fit(as_landmarks(values[rows], images.labels[rows], images.sources[rows]))
        return lambda rows: np.asarray(fitted.logits(values[rows]))

    return fit


def shares(task: DataSplits, rows: np.ndarray) -> np.ndarray:
    return np.bincount(task.images.labels[rows], minlength=8) / len(rows)


def whole(task: DataSplits) -> Fold:
    """What final fits are trained on."""
    return Fold(task.pool, np.empty(0, np.int64))


def out_of_fold(task: DataSplits, predict: Predict) -> np.ndarray:
    """Log probabilities of the landmarks by models that have not seen them, shape (n_seeds, n_landmarks, n_classes)."""
    found = np.full((len(SEEDS), len(task.landmarks), len(task.images.classes)), np.nan)
    for place, seed in enumerate(SEEDS):
        for fold in task.assignments[place]:
            found[place, task.landmark_positions(fold.heldout)] = log_softmax(predict(fold, seed)(fold.heldout))
    return found


def check_validation(validation: CrossValidation, task: DataSplits, z: np.ndarray, adjusted: np.ndarray) -> None:
    """The cross-validation has these out-of-fold logits, and decides by the adjusted ones."""
    labels = task.images.labels[task.landmarks]
    np.testing.assert_allclose(validation.log_probabilities, log_softmax(z), rtol=1e-3, atol=1e-4)
    for confusion, values in zip(validation.confusions, adjusted, strict=True):
        np.testing.assert_array_equal(confusion, confusion_matrix(labels, values.argmax(axis=1), labels=CLASSES))


def check_run(run: Run, task: DataSplits, logits: np.ndarray) -> None:
    """The run predicts the test split as these logits say."""
    assert run.test.images == tuple(task.images.names[row] for row in task.test)
    np.testing.assert_allclose(run.test.probabilities, np.exp(log_softmax(logits)), rtol=1e-3, atol=1e-5)


def check(trainer: Trainer, recipe: Recipe, predict: Predict) -> tuple[CrossValidation, Run]:
    """The recipe's models are those of `predict`, in each fold and in the final fit; its logits are not adjusted."""
    task = trainer.splits
    validation = trainer.cross_validate(recipe, SEEDS)
    z = out_of_fold(task, predict)
    check_validation(validation, task, z, z)
    run = trainer.fit_final(recipe, 9, validation)
    check_run(run, task, predict(whole(task), 9)(task.test))
    return validation, run


# --- what is averaged ---


def member_seed(seed: int, member: int) -> int:
    """The first member has the seed of the ensemble."""
    return int(np.random.SeedSequence((seed, member)).generate_state(1)[0]) if member else seed


def predict_members(task: DataSplits, members: int) -> Predict:
    """Mean log probabilities of several heads."""

    def fit(fold: Fold, seed: int) -> Callable[[np.ndarray], np.ndarray]:
        heads = [predict_heads(task)(fold, member_seed(seed, number)) for number in range(members)]
        return lambda rows: np.asarray(np.mean([log_softmax(head(rows)) for head in heads], axis=0))

    return fit


def test_members_average_their_log_probabilities(trainer: Trainer, task: DataSplits) -> None:
    assert len({member_seed(seed, number) for seed in (*SEEDS, 9) for number in range(3)}) == 9
    validation, run = check(trainer, dataclasses.replace(QUICK, members=3), predict_members(task, 3))
    assert validation.temperatures == (1.0,)  # of one kind
    assert run.seed == 9


def plain_temperature(z: np.ndarray, labels: np.ndarray) -> float:
    """The T of the least mean negative log-likelihood."""

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(z / np.exp(log_temperature))[np.arange(len(z)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10}).x))


ALSO = (Discriminant(0.1, 1.0), Logistic(0.1, 1.0))


@pytest.mark.parametrize("variants", [1, 2])
@pytest.mark.parametrize("members", [1, 2])
def test_heads_of_several_kinds_are_calibrated_before_they_are_averaged(
    variants: int, members: int, backbone: Backbone
) -> None:
    """In a cross-validation by the temperature of a seed's other folds, in final fits by that of all landmarks.

    A kind counts as often as it has fits. Closed-form heads are fitted on all images of a landmark.
    """
    task = make_task(variants=variants)
    trainer = make_trainer(backbone, task)
    recipe = dataclasses.replace(QUICK, also=ALSO, members=members)
    labels = task.images.labels[task.landmarks]

    kinds = [predict_members(task, members), *(predict_closed_form(task, head) for head in ALSO)]
    weights = [members, 1, 1]
    by_kind = [out_of_fold(task, predict) for predict in kinds]
    calibrated = []
    for z in by_kind:
        divided = np.empty_like(z)
        for place, folds in enumerate(task.assignments):
            for fold in folds:
                own = np.isin(task.landmarks, fold.heldout)
                divided[place, own] = z[place, own] / plain_temperature(z[place, ~own], labels[~own])
        calibrated.append(divided)
    averaged = np.average(calibrated, axis=0, weights=weights)
    validation = trainer.cross_validate(recipe, SEEDS)
    check_validation(validation, task, averaged, averaged)
    temperatures = [plain_temperature(np.concatenate(z), np.tile(labels, len(SEEDS))) for z in by_kind]
    np.testing.assert_allclose(validation.temperatures, temperatures, rtol=1e-3)
    assert max(temperatures) > 1.3 * min(temperatures)  # else nothing would be calibrated
    parts = [
        log_softmax(predict(whole(task), 9)(task.test)) / temperature
        for predict, temperature in zip(kinds, temperatures, strict=True)
    ]
    check_run(trainer.fit_final(recipe, 9, validation), task, np.average(parts, axis=0, weights=weights))


@pytest.mark.parametrize("variants", [1, 2])
def test_a_closed_form_head_has_no_epochs_and_no_seed(variants: int, backbone: Backbone) -> None:
    task = make_task(variants=variants)
    nearest = NearestMean("centred_unit", 0.5)
    trainer = make_trainer(backbone, task)
    validation, run = check(trainer, Recipe(head=nearest), predict_closed_form(task, nearest))
    assert (len(validation.history), validation.epochs, validation.capped) == (0, (), False)
    assert (len(run.history), run.best_epoch) == (0, 0)
    other = trainer.fit_final(Recipe(head=nearest), 1, trainer.cross_validate(Recipe(head=nearest), (2, 3)))
    np.testing.assert_array_equal(probabilities_of(other), probabilities_of(run))


def test_views_are_averaged_in_prediction_alone(trainer: Trainer, task: DataSplits) -> None:
    views = make_features(task), make_features(task, noise=0.5)

    def predict(fold: Fold, seed: int) -> Callable[[np.ndarray], np.ndarray]:
        head = fit_head(task, fold, seed)
        return lambda rows: np.asarray(np.mean([log_softmax(head.logits(view.take(rows))) for view in views], axis=0))

    _, run = check(trainer, dataclasses.replace(QUICK, views=("plain", "fh")), predict)
    assert np.abs(probabilities_of(run) - probabilities_of(fit_final(trainer, QUICK, 9))).max() > 0.01


def test_inputs_stand_side_by_side(trainer: Trainer, task: DataSplits) -> None:
    x = np.concatenate([make_features(task).stored, make_features(task, noise=0.5).stored], axis=1)
    nearest = NearestMean("none", 0.0)
    check(trainer, Recipe(inputs=(Input(), Input("fh")), head=nearest), predict_closed_form(task, nearest, x))
    wide = predict_heads(task, QUICK, Features.of(x))
    check(trainer, dataclasses.replace(QUICK, inputs=(Input(), Input("fh"))), wide)


@pytest.mark.parametrize("head", [NearestMean("none", 0.0), NearestMean("unit", 1.0), Discriminant(0.5, 1.0)])
def test_statistics_of_layers_are_standardised_on_training_images(
    trainer: Trainer, task: DataSplits, head: NearestMean | Discriminant
) -> None:
    x = np.concatenate([make_features(task).stored, *late_statistics(task)], axis=1)

    def fit(fold: Fold, seed: int) -> Callable[[np.ndarray], np.ndarray]:
        scaled = StandardScaler().fit(x[fold.train].astype(np.float64)).transform(x)
        return predict_closed_form(task, head, scaled)(fold, seed)

    check(trainer, Recipe(inputs=(Input(), LATE), head=head), fit)


def test_a_projection_follows_standardisation(trainer: Trainer, task: DataSplits) -> None:
    x = np.concatenate(late_statistics(task), axis=1)
    head, projection = Discriminant(0.5, 1.0), NuisanceProjection(2)

    def fit(fold: Fold, seed: int) -> Callable[[np.ndarray], np.ndarray]:
        scaled = StandardScaler().fit(x[fold.train].astype(np.float64)).transform(x)
        rows, images = fold.train, task.images
        u = projection.directions(as_landmarks(scaled[rows], images.labels[rows], images.sources[rows]))
        return predict_closed_form(task, head, scaled - (scaled @ u) @ u.T)(fold, seed)

    check(trainer, Recipe(inputs=(LATE,), head=head, projection=projection), fit)


def test_a_trained_head_standardises_first(trainer: Trainer, task: DataSplits) -> None:
    """Without it, features of a small scale would vanish in the epsilon of batch normalisation."""
    x = np.concatenate(late_statistics(task), axis=1)

    def fit(fold: Fold, seed: int) -> Callable[[np.ndarray], np.ndarray]:
        scaled = StandardScaler().fit(x[fold.train].astype(np.float64)).transform(x).astype(np.float32)
        return predict_heads(task, QUICK, Features.of(scaled))(fold, seed)

    check(trainer, dataclasses.replace(QUICK, inputs=(LATE,)), fit)


# --- what is done to weights and logits ---


@pytest.mark.parametrize("keep_bias", [False, True])
def test_weights_are_normalised_by_a_power_of_their_length(keep_bias: bool, trainer: Trainer, task: DataSplits) -> None:
    def predict(fold: Fold, seed: int) -> Callable[[np.ndarray], np.ndarray]:
        one = fit_head(task, fold, seed)
        weights = one.kernel * one.gain
        lengths = np.linalg.norm(weights, axis=1)
        bias = one.bias / lengths**0.7 if keep_bias else 0
        x = make_features(task)
        return lambda rows: np.asarray((x.take(rows) - one.centre) @ (weights / lengths[:, None] ** 0.7).T + bias)

    check(trainer, dataclasses.replace(QUICK, weight_norm=0.7, keep_bias=keep_bias), predict)


@pytest.mark.parametrize(
    "adjustment", [PosthocLogitAdjustment(0.8), ClassBias(0.01), Temperature(), Temperature(bias=True)], ids=str
)
@pytest.mark.parametrize("members", [1, 2])
def test_an_adjustment_is_fitted_out_of_fold(
    members: int, adjustment: Adjustment, trainer: Trainer, task: DataSplits
) -> None:
    """Each fold's on the seed's other folds, under the fold's prior; that of a final fit on all of all seeds."""
    recipe = dataclasses.replace(QUICK, adjustment=adjustment, members=members)
    labels = task.images.labels[task.landmarks]
    predict = predict_members(task, members)
    z = out_of_fold(task, predict)
    adjusted = np.empty_like(z)
    for place, folds in enumerate(task.assignments):
        for fold in folds:
            own = np.isin(task.landmarks, fold.heldout)
            correction = adjustment.fit(z[place, ~own], labels[~own], shares(task, fold.train))
            adjusted[place, own] = correction(z[place, own])
    validation = trainer.cross_validate(recipe, SEEDS)
    check_validation(validation, task, z, adjusted)
    run = trainer.fit_final(recipe, 9, validation)
    correction = adjustment.fit(np.concatenate(z), np.tile(labels, 2), shares(task, task.pool))
    test = log_softmax(predict(whole(task), 9)(task.test))
    check_run(run, task, correction(test))
    assert np.abs(probabilities_of(run) - np.exp(test)).max() > 1e-3
    temperature = plain_temperature(correction(np.concatenate(z)), np.tile(labels, 2))
    assert run.temperature == pytest.approx(temperature, rel=1e-3)


def test_a_final_fit_of_an_adjusted_recipe_does_not_look_at_test_labels(backbone: Backbone, task: DataSplits) -> None:
    recipe = dataclasses.replace(QUICK, adjustment=ClassBias(0.01), also=ALSO)
    shuffled = replace_labels(task, task.test, np.random.default_rng(0).permutation(task.images.labels[task.test]))
    one, other = (fit_final(make_trainer_on(backbone, each, make_features(task)), recipe) for each in (task, shuffled))
    np.testing.assert_array_equal(probabilities_of(one), probabilities_of(other))
    assert one.temperature == other.temperature


def make_trainer_on(backbone: Backbone, task: DataSplits, features: Features) -> Trainer:
    return quick_start(Trainer(backbone, task, {cut_key(TOP): features}))


SMOTE = SyntheticOversampling("smote", 1.0, 3)


@pytest.mark.parametrize(
    "recipe",
    [
        dataclasses.replace(QUICK, sampling=ClassSampling(0.0)),
        dataclasses.replace(QUICK, sampling=RandomOversampling(1.0)),
        dataclasses.replace(QUICK, class_weights=InversePower(1.0)),
        dataclasses.replace(QUICK, class_weights=EffectiveNumber(1 - 1e-9)),
        dataclasses.replace(QUICK, loss=LogitAdjustedCrossEntropy()),
        dataclasses.replace(QUICK, synthesis=SMOTE),
        Recipe(head=Logistic(1.0, 0.0), synthesis=SMOTE),
    ],
    ids=["class sampling", "oversampling", "weights", "effective number", "loss", "synthesis", "closed form"],
)
def test_where_the_prior_was_evened_out_an_adjustment_changes_nothing(recipe: Recipe, trainer: Trainer) -> None:
    adjusted = dataclasses.replace(recipe, adjustment=PosthocLogitAdjustment(1.0))
    one, other = trainer.cross_validate(recipe, SEEDS), trainer.cross_validate(adjusted, SEEDS)
    np.testing.assert_array_equal(one.confusions, other.confusions)
    expected = probabilities_of(trainer.fit_final(recipe, 9, one))
    np.testing.assert_allclose(probabilities_of(trainer.fit_final(adjusted, 9, other)), expected, rtol=1e-4)


def test_where_it_was_not_an_adjustment_changes_much(trainer: Trainer) -> None:
    plain, adjusted = (
        fit_final(trainer, dataclasses.replace(QUICK, sampling=ClassSampling(0.5), adjustment=adjustment))
        for adjustment in (NoAdjustment(), PosthocLogitAdjustment(1.0))
    )
    assert np.abs(probabilities_of(plain) - probabilities_of(adjusted)).max() > 0.05


# --- what heads are fitted on ---


@pytest.mark.parametrize("variants", [1, 2])
def test_a_projection_is_learnt_on_the_training_images_and_part_of_the_head(variants: int, backbone: Backbone) -> None:
    task, projection = make_task(variants=variants), NuisanceProjection(3)
    x = make_features(task).stored

    def predict(fold: Fold, seed: int) -> Callable[[np.ndarray], np.ndarray]:
        training = as_landmarks(x[fold.train], task.images.labels[fold.train], task.images.sources[fold.train])
        u = projection.directions(training).astype(np.float32)
        return predict_heads(task, QUICK, Features.of(x - (x @ u) @ u.T))(fold, seed)

    check(make_trainer(backbone, task), dataclasses.replace(QUICK, projection=projection), predict)


@pytest.mark.parametrize("head", ["trained", "closed form"])
def test_synthetic_rows_are_between_landmarks_and_added_to_all_images(
    head: str, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(variants=2)
    x, images = make_features(task).stored, task.images
    synthesis = SyntheticOversampling("smote", 0.5, 6)
    used: list[FoldData] = []
    original = HeadLearner.__init__

    def note(self: HeadLearner, recipe: Recipe, seed: int, data: FoldData) -> None:
        used.append(data)
        original(self, recipe, seed, data)

    monkeypatch.setattr(HeadLearner, "__init__", note)

    def extend(fold: Fold, seed: int) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        rows = fold.train[images.is_canonical[fold.train]]
        canonical = as_landmarks(x[rows], images.labels[rows], images.sources[rows])
        new = synthesis.resample(canonical, np.bincount(images.labels[fold.train], minlength=8), seed)
        features = np.concatenate([x[fold.train], new.features])
        return features, np.concatenate([images.labels[fold.train], new.labels]), new.notes

    base = QUICK if head == "trained" else Recipe(head=Logistic(0.1, 0.5))
    recipe = dataclasses.replace(base, synthesis=synthesis)
    trainer = make_trainer(backbone, task)
    validation = trainer.cross_validate(recipe, SEEDS)
    run = trainer.fit_final(recipe, 9, validation)
    folds = [(fold, seed) for place, seed in enumerate(SEEDS) for fold in task.assignments[place]]
    expected = [extend(fold, seed) for fold, seed in [*folds, (whole(task), 9)]]
    # Classes of few landmarks have fewer neighbours, which is told.
    notes = [note for _, _, fold_notes in expected[:-1] for note in fold_notes]
    assert validation.notes == tuple(dict.fromkeys(notes))
    assert any("instead of 6" in note for note in validation.notes)
    if head == "closed form":
        fitted = base.head.fit(as_landmarks(*expected[-1][:2], np.full(len(expected[-1][1]), -1)))  # type: ignore[union-attr]
        check_run(run, task, fitted.logits(x[task.test]))
        return
    assert len(used) == len(expected)
    for data, (features, labels, _), (fold, _) in zip(used, expected, [*folds, (whole(task), 9)], strict=True):
        np.testing.assert_allclose(data.features.take(np.arange(len(labels))), features, rtol=1e-6)
        np.testing.assert_array_equal(data.pool.labels, labels)
        assert data.pool.counts().min() >= round(0.5 * data.pool.counts().max())
        canonical = fold.train[images.is_canonical[fold.train]]
        np.testing.assert_array_equal(data.landmarks, np.bincount(images.labels[canonical], minlength=8))


# --- cross-validation ---


def test_every_landmark_of_the_pool_is_predicted_once_by_the_model_of_its_fold(backbone: Backbone) -> None:
    task = make_task(variants=2)
    nearest = NearestMean("none", 1.0)
    images = task.images
    for folds in task.assignments:
        assert sorted(np.concatenate([fold.heldout for fold in folds])) == sorted(task.landmarks)
        for fold in folds:
            assert not set(images.sources[fold.train]) & set(images.sources[fold.heldout])
    validation, _ = check(make_trainer(backbone, task), Recipe(head=nearest), predict_closed_form(task, nearest))
    landmarks = np.concatenate([task.split.train[::2], task.split.heldout])
    sizes = np.bincount(images.labels[landmarks])
    np.testing.assert_array_equal(validation.confusions.sum(axis=2), [sizes, sizes])


MARKED: Sequence[Recipe] = [
    Recipe(head=NearestMean("none", 0.0)),
    Recipe(learning_rate=1e-2, max_epochs=12, monitor="val_macro_f1"),
    Recipe(learning_rate=1e-2, max_epochs=12, monitor="none", members=2),
    Recipe(learning_rate=1e-2, max_epochs=12, monitor="none", also=(NearestMean("none", 0.0),)),
]


@pytest.mark.parametrize("recipe", MARKED, ids=["closed form", "trained", "members", "kinds"])
@pytest.mark.parametrize("assignment", [0, 1])
def test_no_model_has_seen_the_sources_it_is_judged_on(assignment: int, recipe: Recipe, backbone: Backbone) -> None:
    """A source's images have one class and a mark of their own: who has seen the source knows, who has not can't."""
    task = make_task()
    task = replace_labels(task, np.arange(len(task.images.labels)), task.images.sources % 8)
    marks = Features.of(5 * np.eye(24, dtype=np.float32)[task.images.sources])
    recipe = dataclasses.replace(recipe, adjustment=ClassBias(0.01))

    def hits(assignments: tuple[tuple[Fold, ...], ...]) -> np.ndarray:
        """Share of right predictions, by seed."""
        trainer = make_trainer_on(backbone, dataclasses.replace(task, assignments=assignments), marks)
        confusions = trainer.cross_validate(recipe, SEEDS).confusions
        return np.asarray(np.trace(confusions, axis1=1, axis2=2) / confusions.sum(axis=(1, 2)))

    assert hits(task.assignments).max() < 0.3
    # One assignment that leaks is seen, and in its own seed alone.
    leaking = list(task.assignments)
    leaking[assignment] = tuple(Fold(task.pool, fold.heldout) for fold in task.assignments[assignment])
    found = hits(tuple(leaking))
    assert found[assignment] > 0.8
    assert found[1 - assignment] < 0.3


def test_a_tail_has_not_seen_the_sources_it_is_judged_on(backbone: Backbone) -> None:
    task = make_task()
    task = replace_labels(task, np.arange(len(task.images.labels)), task.images.sources % 8)
    late = np.random.default_rng(0).uniform(0, 4, (24, 1, 1, 12)).astype(np.float32)
    marks = np.broadcast_to(late[task.images.sources], (len(task.images.labels), 12, 12, 12)).copy()
    top = np.asarray(backbone.tail("late")(marks, training=False))
    recipe = Recipe(learning_rate=1e-2, cut="late", backbone_learning_rate=1e-3, max_epochs=20, batch_size=8)

    def hits(assignments: tuple[tuple[Fold, ...], ...]) -> float:
        features = {cut_key(TOP): Features.of(top), cut_key("late"): Features.of(marks)}
        changed = dataclasses.replace(task, assignments=assignments)
        [confusion] = quick_start(Trainer(backbone, changed, features)).cross_validate(recipe, (0,)).confusions
        return float(confusion.trace() / confusion.sum())

    assert hits(task.assignments) < 0.3
    assert hits((tuple(Fold(task.pool, fold.heldout) for fold in task.assignments[0]),)) > 0.7


# --- other data sets ---


def test_recipes_are_fitted_to_any_number_of_classes(backbone: Backbone) -> None:
    eight = make_task()
    images = dataclasses.replace(
        eight.images, labels=eight.images.labels % 3, classes=ClassSet(("dust", "olivine", "pyroxene"))
    )
    task = dataclasses.replace(eight, images=images)
    trainer = make_trainer(backbone, task, "late", fresh=True)
    base = Recipe(learning_rate=1e-2, batch_size=8, max_epochs=12)
    recipes = [
        dataclasses.replace(base, class_weights=InversePower(1.0), adjustment=ClassBias(0.01)),
        dataclasses.replace(base, head=Cosine(8.0), loss=LabelDistributionAwareMargin()),
        dataclasses.replace(base, cut="late", backbone_learning_rate=1e-3),
        dataclasses.replace(base, also=(NearestMean("unit", 1.0),)),
    ]
    for recipe in recipes:
        validation = trainer.cross_validate(recipe, SEEDS)
        assert validation.confusions.shape == (2, 3, 3)
        assert (validation.confusions.sum(axis=(1, 2)) == len(task.landmarks)).all()
        run = trainer.fit_final(recipe, 0, validation)
        assert probabilities_of(run).shape == (len(task.test), 3)
        assert validation.score > 0.5 or recipe.cut != TOP  # features at the two cuts have nothing in common here
    assert probabilities_of(trainer.fit_reference(base, 0)).shape == (len(task.test), 3)


def test_remedies_that_need_a_majority_class_fail_with_the_reason_where_there_is_none(backbone: Backbone) -> None:
    task = make_task()
    images = dataclasses.replace(task.images, classes=ClassSet(task.images.classes.names))
    trainer = make_trainer(backbone, dataclasses.replace(task, images=images))
    validation = trainer.cross_validate(QUICK, SEEDS)
    for changes, remedy in (
        ({"sampling": Undersampling(1.0)}, "Under-sampling"),
        ({"projection": NuisanceProjection(1)}, "A nuisance projection"),
    ):
        recipe = dataclasses.replace(QUICK, **changes)
        message = rf"^{remedy} needs a majority class, and this data set names none\.$"
        with pytest.raises(NotApplicable, match=message):
            trainer.cross_validate(recipe, SEEDS)
        with pytest.raises(NotApplicable, match=message):
            trainer.fit_final(recipe, 0, validation)


# --- a second head ---


def test_a_retrained_head_stands_on_the_trained_end_of_the_backbone(
    trainer: Trainer, task: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[Any, Recipe, FoldData]] = []
    for learner in (HeadLearner, TailLearner):
        original = learner.__init__

        def note(self: Any, recipe: Recipe, seed: int, data: FoldData, *rest: Any, original: Any = original) -> None:  # noqa: ANN401
            made.append((self, recipe, data))
            original(self, recipe, seed, data, *rest)

        monkeypatch.setattr(learner, "__init__", note)
    trainer._stages.cache.clear()
    second = Retraining(ClassSampling(0.0), 5e-3, 0.1)
    deep = Recipe(cut="late", backbone_learning_rate=1e-3, learning_rate=1e-2, max_epochs=2, monitor="none")
    recipe = dataclasses.replace(deep, retraining=second)
    validation = trainer.cross_validate(recipe, SEEDS)
    assert len(validation.epochs) == 3  # of the head, of the tail below it, and of the new head
    assert [type(learner) for learner, _, _ in made] == [HeadLearner] * 8 + [TailLearner] * 8 + [HeadLearner] * 8
    made.clear()
    run = trainer.fit_final(recipe, 0, validation)
    (above, _, _), (below, _, _), (anew, used, data) = made
    assert (type(above), type(below), type(anew)) == (HeadLearner, TailLearner, HeadLearner)
    assert (used.sampling, used.learning_rate, used.weight_decay) == (second.sampling, 5e-3, 0.1)
    tail = below.snapshot().tail
    late, network = make_features(task, "late"), trainer._stages.networks["late"]
    pooled = {rows.tobytes(): network.pooled(tail.tail, late.select(rows)) for rows in (task.pool, task.test)}
    np.testing.assert_array_equal(data.features.stored, pooled[task.pool.tobytes()])
    backbone = trainer._stages._backbone
    assert backbone is not None
    before = np.asarray(backbone.tail("late")(late.take(task.pool), training=False))
    assert np.abs(data.features.stored - before).max() > 1e-3
    expected = anew.snapshot().classifier().logits(pooled[task.test.tobytes()])
    np.testing.assert_allclose(probabilities_of(run), np.exp(log_softmax(expected)), rtol=1e-4, atol=1e-6)
    assert run.best_epoch == len(run.history) == validation.epochs[2]


def test_weights_are_scaled_on_the_trained_end_of_the_backbone(
    trainer: Trainer, task: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the training images of each fold, which logits then owe their prior to."""
    made: list[tuple[TailLearner, FoldData]] = []
    original = TailLearner.__init__

    def note(self: TailLearner, recipe: Recipe, seed: int, data: FoldData, *rest: Any) -> None:  # noqa: ANN401
        made.append((self, data))
        original(self, recipe, seed, data, *rest)

    monkeypatch.setattr(TailLearner, "__init__", note)
    trainer._stages.cache.clear()
    scaling, late, network = WeightScaling(0.5, 0.01), make_features(task, "late"), trainer._stages.network("late")
    deep = Recipe(cut="late", backbone_learning_rate=1e-3, learning_rate=1e-2, max_epochs=2, monitor="none")
    recipe = dataclasses.replace(deep, retraining=scaling, adjustment=PosthocLogitAdjustment(0.7))

    def predict(number: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits of the rows by a learner, before and after scaling."""
        learner, data = made[number]
        tail, head = learner.snapshot().tail, learner.snapshot().classifier()
        assert tail is not None
        training = head.logits(network.pooled(tail.tail, data.features))
        factors = scaling.fit(training, data.pool.labels, data.pool.counts())
        z = head.logits(network.pooled(tail.tail, late.select(rows)))
        return z, factors * z

    validation = trainer.cross_validate(recipe, SEEDS)
    assert len(made) == 8
    z = np.full((2, len(task.landmarks), 8), np.nan)
    adjusted = z.copy()
    for place, folds in enumerate(task.assignments):
        for k, fold in enumerate(folds):
            own = task.landmark_positions(fold.heldout)
            plain, scaled = predict(4 * place + k, fold.heldout)
            assert np.abs(scaled - plain).max() > 0.01
            z[place, own] = log_softmax(scaled)
            prior = np.bincount(task.images.labels[fold.train], minlength=8) ** 0.5
            adjusted[place, own] = z[place, own] - 0.7 * np.log(prior / prior.sum())
    check_validation(validation, task, z, adjusted)
    unscaled = trainer.cross_validate(deep, SEEDS)
    assert validation.epochs == unscaled.epochs
    assert validation.history.equals(unscaled.history)
    assert len(made) == 8  # it shares the training of the recipe without
    run = trainer.fit_final(recipe, 9, validation)
    prior = np.bincount(task.images.labels[task.pool], minlength=8) ** 0.5
    check_run(run, task, predict(8, task.test)[1] - 0.7 * np.log(prior / prior.sum()))


# --- a head at class means ---


def test_light_tuning_starts_from_the_class_means_of_each_fold(
    trainer: Trainer, task: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads: list[HeadState] = []
    original = TailLearner.__init__

    def note(self: TailLearner, recipe: Recipe, seed: int, data: FoldData, network: Network, head: HeadState) -> None:
        heads.append(head.copy())
        original(self, recipe, seed, data, network, head)

    monkeypatch.setattr(TailLearner, "__init__", note)
    trainer._stages.cache.clear()
    recipe = Recipe(
        head=Cosine(20.0),
        loss=LogitAdjustedCrossEntropy(1.0),
        cut="late",
        trainable="norms",
        start="class_means",
        backbone_learning_rate=1e-3,
        max_epochs=3,
        monitor="none",
    )
    validation = trainer.cross_validate(recipe, SEEDS)
    assert validation.epochs == (0, 3)  # there is no head to train first
    assert validation.history["epoch"].tolist() == [1, 2, 3]
    folds = [fold for folds in task.assignments for fold in folds]
    assert len(heads) == len(folds) == 8
    top = make_features(task)
    for head, fold in zip(heads, folds, strict=True):
        x, labels = top.take(fold.train).astype(float), task.images.labels[fold.train]
        np.testing.assert_allclose(head.average, [x.mean(axis=0), x.var(axis=0)], rtol=1e-5, atol=1e-6)
        x = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-3)
        means = np.stack([x[labels == k].mean(axis=0) for k in CLASSES])
        np.testing.assert_allclose(head.stacked[2:], means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-5)
        # Nearest class means by cosine are what the head predicts.
        cosines = x @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
        expected = 20 * cosines / np.linalg.norm(x, axis=1, keepdims=True)
        np.testing.assert_allclose(head.classifier().logits(top.take(fold.train)), expected, rtol=1e-4, atol=1e-4)
    run = trainer.fit_final(recipe, 0, validation)
    assert len(run.history) == 3
    trained = trainer.cross_validate(dataclasses.replace(recipe, start="trained"), SEEDS)
    assert trained.epochs == (3, 3)
    assert np.abs(trained.log_probabilities - validation.log_probabilities).max() > 0.01


def test_a_class_without_training_images_starts_at_a_random_direction(task: DataSplits) -> None:
    x, labels = make_features(task).take(task.pool), task.images.labels[task.pool]
    present = labels != 5
    one, other, again = (class_mean_state(x[present], labels[present], 8, seed, 20.0) for seed in (0, 1, 0))
    same = np.arange(8) != 5
    np.testing.assert_array_equal(one.stacked[2:][same], other.stacked[2:][same])
    assert np.abs(one.stacked[7] - other.stacked[7]).max() > 1e-3
    np.testing.assert_array_equal(one.stacked, again.stacked)
    # The mean of the only class is the centre, which has no direction.
    assert np.isfinite(class_mean_state(x[labels == 0], labels[labels == 0], 8, 0, 20.0).classifier().kernel).all()
