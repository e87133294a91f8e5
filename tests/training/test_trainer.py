"""Fits of a recipe: the published one against plain Keras, final ones, and what a fit leaves behind for the next."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numba
import numpy as np
import pytest
import tensorflow as tf
from cut_features import cut_key
from plain import PlainHead, kept_in
from sklearn.metrics import accuracy_score, f1_score, log_loss
from worlds import (
    WIDTH,
    fit_final,
    make_features,
    make_fold_data,
    make_task,
    make_trainer,
    probabilities_of,
    quick_start,
    replace_labels,
    shift_validation_labels,
)

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.data.splits import DataSplits, Fold
from hirise_imb.features.arrays import Features
from hirise_imb.features.inputs import Input
from hirise_imb.imbalance.class_weights import InversePower
from hirise_imb.imbalance.logit_adjustment import softmax
from hirise_imb.imbalance.losses import Focal, LabelDistributionAwareMargin, LogitAdjustedCrossEntropy
from hirise_imb.imbalance.sampling import ClassSampling, RandomOversampling
from hirise_imb.imbalance.smote import SyntheticOversampling
from hirise_imb.imbalance.temperature import Temperature
from hirise_imb.metrics.classification import macro_f1
from hirise_imb.models.closed_form import Discriminant, NearestMean
from hirise_imb.models.heads import HeadState
from hirise_imb.models.projection import NuisanceProjection
from hirise_imb.recipe import FINE_TUNING_EPOCHS, Cosine, Monitor, Recipe, Retraining
from hirise_imb.training import head_kernel, learners, tail_network
from hirise_imb.training.learners import HeadLearner
from hirise_imb.training.tail_network import Network, TrainingState
from hirise_imb.training.trainer import CrossValidation, Run, Trainer
from hirise_imb.utils.errors import FitFailed

QUICK = Recipe(max_epochs=3)
TAIL = Recipe(cut="late", backbone_learning_rate=1e-2, max_epochs=2)
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def task() -> DataSplits:
    return make_task()


@pytest.fixture(scope="module")
def trainer(backbone: Backbone, task: DataSplits) -> Trainer:
    """One for all tests that only look at runs, as in a study."""
    return make_trainer(backbone, task, "late")


def bits(run: Run) -> bytes:
    assert run.temperature > 0
    return probabilities_of(run).tobytes() + run.history.to_numpy().tobytes() + np.float64(run.temperature).tobytes()


# --- the published fit against plain Keras ---


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize(
    ("recipe", "loss"),
    [
        (Recipe(learning_rate=1e-3), "categorical_crossentropy"),
        (Recipe(learning_rate=3e-3, batch_size=20, class_weights=InversePower(1.0)), "categorical_crossentropy"),
        (Recipe(learning_rate=1e-2, batch_size=7, loss=Focal(2.0)), keras.losses.CategoricalFocalCrossentropy(1.0)),
    ],
    ids=["baseline", "class weights", "focal"],
)
def test_the_reference_fit_is_that_of_plain_keras(
    recipe: Recipe,
    loss: str | keras.losses.Loss,
    dropout: float,
    backbone: Backbone,
    task: DataSplits,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows in the order of the seed, dropout by the seed, blocks of four steps, figures and predictions of Keras."""
    recipe, seed = dataclasses.replace(recipe, dropout=dropout, max_epochs=4), 5
    monkeypatch.setattr(learners, "_BLOCK_BYTES", 4 * recipe.batch_size * WIDTH * 4)
    run = make_trainer(backbone, task).fit_reference(recipe, seed)
    plain = PlainHead(seed, loss, recipe.learning_rate, dropout)
    features, labels = make_features(task), task.images.labels
    (x, y), *scored = [
        (features.take(rows), labels[rows]) for rows in (task.split.train, task.split.heldout, task.test)
    ]
    weights = len(y) / (8 * np.bincount(y)) if recipe.class_weights == InversePower(1.0) else None
    rng, done, expected, predicted = np.random.default_rng(seed), 0, [], []
    for epoch in range(recipe.max_epochs):
        order, sums = rng.permutation(len(y)), np.zeros(2)
        batches = np.split(order, range(recipe.batch_size, len(y), recipe.batch_size))
        for start in range(0, len(batches), 4):
            block = batches[start : start + 4]
            kept = kept_in((len(block), recipe.batch_size, WIDTH), dropout, done, seed)
            for mask, rows in zip(kept, block, strict=True):
                sums += plain.step(x[rows], y[rows], mask[: len(rows)], weights)
            done += len(block)
        val, test = (plain.probabilities(part) for part, _ in scored)
        scores = [
            [log_loss(y_true, q), accuracy_score(y_true, q.argmax(axis=1))]
            for (_, y_true), q in zip(scored, (val, test), strict=True)
        ]
        macro = f1_score(scored[0][1], val.argmax(axis=1), average="macro", zero_division=0)
        expected.append([epoch + 1, *sums / len(y), *scores[0], macro, *scores[1]])
        predicted.append((val, test))
    np.testing.assert_allclose(run.history.to_numpy(), expected, rtol=1e-4)
    losses = [row[3] for row in expected]
    assert losses[-1] < losses[0] - 0.02  # else anything would agree
    assert run.best_epoch == 1 + int(np.argmin(losses))
    val, test = predicted[run.best_epoch - 1]
    np.testing.assert_allclose(probabilities_of(run), test, rtol=1e-3, atol=1e-5)
    assert run.temperature == pytest.approx(1 / fitted_scale(np.log(val), scored[0][1]), rel=1e-3)


def fitted_scale(logits: np.ndarray, labels: np.ndarray) -> float:
    return Temperature().fit(logits, labels, np.full(8, 1 / 8)).scale


def test_the_reference_fit_has_the_blocks_of_the_published_one() -> None:
    """Dropout depends on the number of steps for which masks are drawn at once: 16 with features of ResNet50V2."""
    for width, block in ((2048, 16), (1280, 25), (WIDTH, 64)):
        task = make_task()
        stored = np.zeros((len(task.images.labels), width), np.float32)
        learner = HeadLearner(Recipe(), 0, make_fold_data(task, task.split, Features.of(stored)))
        assert learner._rows.block == block


def test_the_best_epoch_of_the_reference_fit_is_restored_after_patience(backbone: Backbone, task: DataSplits) -> None:
    trainer = make_trainer(backbone, shift_validation_labels(task))
    recipe = Recipe(learning_rate=1e-2, patience=3)
    run = trainer.fit_reference(recipe, 0)
    losses = run.history["val_loss"]
    assert run.best_epoch == losses.argmin() + 1
    assert len(losses) == run.best_epoch + 3 < recipe.max_epochs
    assert list(run.history["epoch"]) == list(range(1, len(losses) + 1))
    # The same run stopped at its best epoch has the same weights.
    short = trainer.fit_reference(dataclasses.replace(recipe, max_epochs=run.best_epoch), 0)
    assert probabilities_of(run).tobytes() == probabilities_of(short).tobytes()
    assert run.temperature == short.temperature
    assert short.best_epoch == run.best_epoch == len(short.history)


@pytest.mark.parametrize("monitor", ["val_loss", "val_macro_f1"])
def test_the_reference_fit_keeps_the_best_epoch_of_its_monitor(
    monitor: Monitor, backbone: Backbone, task: DataSplits
) -> None:
    trainer = make_trainer(backbone, shift_validation_labels(task))
    lengths = set()
    for patience in (1, 2, 5):
        recipe = Recipe(learning_rate=3e-2, max_epochs=40, monitor=monitor, patience=patience)
        run = trainer.fit_reference(recipe, 0)
        values = (-1 if monitor == "val_loss" else 1) * run.history[monitor].to_numpy()
        assert run.best_epoch == values.argmax() + 1
        assert len(values) == min(recipe.max_epochs, run.best_epoch + patience)
        lengths.add(len(values))
    assert len(lengths) > 1


def test_the_reference_fit_depends_on_nothing_but_the_given_split(backbone: Backbone, task: DataSplits) -> None:
    """Neither on folds, nor on what else is fitted, nor on features of variants that it does not use."""
    expected = bits(make_trainer(backbone, task).fit_reference(Recipe(), 3))
    reversed_folds = tuple(folds[::-1] for folds in task.assignments[::-1])
    none = np.empty(0, np.int64)
    for changes in ({"assignments": reversed_folds}, {"assignments": ()}, {"pool": none}):
        changed = dataclasses.replace(task, **changes)
        assert bits(make_trainer(backbone, changed).fit_reference(Recipe(), 3)) == expected
    busy = make_trainer(backbone, task, "late")
    for recipe in (QUICK, TAIL, Recipe(), Recipe(head=NearestMean("unit", 1.0))):
        fit_final(busy, recipe, 3)
    assert bits(busy.fit_reference(Recipe(), 3)) == expected
    # Test labels enter its history alone.
    other = replace_labels(task, task.test, np.roll(task.images.labels[task.test], 1))
    features = make_features(task)
    run = quick_start(Trainer(backbone, other, {cut_key(TOP): features})).fit_reference(Recipe(), 3)
    once = quick_start(Trainer(backbone, task, {cut_key(TOP): features})).fit_reference(Recipe(), 3)
    assert probabilities_of(run).tobytes() == probabilities_of(once).tobytes()
    assert (run.best_epoch, run.temperature) == (once.best_epoch, once.temperature)


# --- final fits ---


def train_plainly(task: DataSplits, recipe: Recipe, seed: int, epochs: int) -> tuple[np.ndarray, list[list[float]]]:
    """The probabilities of the test split after so many epochs on training and validation, and loss and accuracy."""
    data = make_fold_data(task, Fold(task.pool, task.test))
    learner, x = HeadLearner(recipe, seed, data), data.heldout.features
    rows, predicted = [], np.empty(0)
    for epoch in range(1, 1 + epochs):
        sums = learner.train_epoch(epoch)
        predicted = softmax(learner.logits(x))
        scores = log_loss(data.heldout.labels, predicted), accuracy_score(data.heldout.labels, predicted.argmax(axis=1))
        rows.append([epoch, sums.entropy / sums.rows, sums.hits / sums.rows, *scores])
    classifier = learner.snapshot().classifier()
    return softmax(classifier.logits(x.take(np.arange(len(x))))), rows


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(learning_rate=3e-2, max_epochs=60),
        Recipe(learning_rate=1e-2, monitor="val_macro_f1", class_weights=InversePower(1.0), patience=3),
        Recipe(
            learning_rate=1e-2,
            monitor="none",
            max_epochs=6,
            rate_drops=(0.5,),
            reweight_after=0.5,
            class_weights=InversePower(1.0),
            sampling=ClassSampling(0.0, progressive=True),
        ),
    ],
    ids=["val_loss", "val_macro_f1", "none"],
)
def test_a_final_fit_trains_on_training_and_validation_for_the_epochs_of_the_validation(
    recipe: Recipe, trainer: Trainer, task: DataSplits
) -> None:
    validation = trainer.cross_validate(recipe, SEEDS)
    [epochs] = validation.epochs
    assert recipe.monitor == "none" or 1 < epochs < recipe.max_epochs
    run = trainer.fit_final(recipe, 7, validation)
    expected, rows = train_plainly(task, recipe, 7, epochs)
    np.testing.assert_array_equal(probabilities_of(run), expected.astype(np.float32))
    assert (run.seed, run.best_epoch) == (7, epochs)
    columns = ["epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy"]
    np.testing.assert_allclose(run.history[columns].to_numpy(), rows, rtol=1e-6)
    for column in ("val_loss", "val_accuracy", "val_macro_f1"):  # at the same epochs
        assert run.history[column].tolist() == validation.history[column].tolist()
    assert validation.history["epoch"].tolist() == list(range(1, 1 + epochs))
    assert trainer.fit_final(recipe, 7, validation).history.equals(run.history)


def test_a_final_fit_takes_the_epochs_that_it_is_given(trainer: Trainer, task: DataSplits) -> None:
    """Whatever cap and patience of the recipe are."""
    recipe = Recipe(learning_rate=1e-2, max_epochs=2, patience=1)
    validation = trainer.cross_validate(recipe, SEEDS)
    for epochs in (1, 9):
        run = trainer.fit_final(recipe, 7, dataclasses.replace(validation, epochs=(epochs,)))
        np.testing.assert_array_equal(
            probabilities_of(run), train_plainly(task, recipe, 7, epochs)[0].astype(np.float32)
        )
        assert run.best_epoch == len(run.history) == epochs


def test_a_final_fit_uses_every_image_of_training_and_validation(backbone: Backbone, task: DataSplits) -> None:
    """A change of any landmark's label changes it; those of test landmarks do not."""
    recipe = Recipe(learning_rate=1e-2, max_epochs=2)
    features = make_features(task)
    trainer = quick_start(Trainer(backbone, task, {cut_key(TOP): features}))
    validation = trainer.cross_validate(recipe, SEEDS)
    expected = probabilities_of(trainer.fit_final(recipe, 0, validation)).tobytes()
    labels = task.images.labels
    for rows in (task.split.train[:1], task.split.train[-1:], task.split.heldout[:1], task.split.heldout[-1:]):
        changed = replace_labels(task, rows, (labels[rows] + 1) % 8)
        other = quick_start(Trainer(backbone, changed, {cut_key(TOP): features}))
        assert probabilities_of(other.fit_final(recipe, 0, validation)).tobytes() != expected
    changed = replace_labels(task, task.test, (labels[task.test] + 1) % 8)
    other = quick_start(Trainer(backbone, changed, {cut_key(TOP): features}))
    assert probabilities_of(other.fit_final(recipe, 0, validation)).tobytes() == expected


def test_a_recipe_that_still_improves_at_its_last_epoch_is_capped(trainer: Trainer) -> None:
    short = trainer.cross_validate(Recipe(max_epochs=3), SEEDS)
    assert (short.capped, short.epochs) == (True, (3,))
    long = trainer.cross_validate(Recipe(learning_rate=1e-2, max_epochs=200), SEEDS)
    assert not long.capped
    assert not trainer.cross_validate(Recipe(max_epochs=3, monitor="none"), SEEDS).capped


def test_the_score_is_the_mean_of_macro_f1_over_seeds(trainer: Trainer) -> None:
    validation = trainer.cross_validate(QUICK, SEEDS)
    scores = [macro_f1(confusion) for confusion in validation.confusions]
    assert validation.score == np.mean(scores)
    assert scores[0] != scores[1]


def test_times_are_wall_times(trainer: Trainer) -> None:
    trainer._stages.cache.clear()
    validation = trainer.cross_validate(QUICK, SEEDS)
    assert validation.seconds > 0
    assert trainer.fit_final(QUICK, 0, validation).seconds > 0


# --- reproducible, and independent of other runs ---


def test_one_seed_gives_the_same_bits_whatever_ran_before(backbone: Backbone, task: DataSplits) -> None:
    recipes = [QUICK, dataclasses.replace(QUICK, loss=Focal(1.0)), TAIL]
    one, other = make_trainer(backbone, task, "late"), make_trainer(backbone, task, "late", fresh=True)
    forwards = [bits(fit_final(one, recipe, 1)) for recipe in recipes]
    fit_final(one, dataclasses.replace(QUICK, dropout=0.4), 2)
    kept = [bits(fit_final(one, recipe, 1)) for recipe in recipes]
    one._stages.cache.clear()
    again = [bits(fit_final(one, recipe, 1)) for recipe in recipes]
    backwards = [bits(fit_final(other, recipe, 1)) for recipe in reversed(recipes)][::-1]
    assert forwards == kept == again == backwards


def test_another_seed_gives_another_run(trainer: Trainer) -> None:
    assert bits(fit_final(trainer, QUICK, 1)) != bits(fit_final(trainer, QUICK, 2))
    assert bits(trainer.fit_reference(QUICK, 1)) != bits(trainer.fit_reference(QUICK, 2))


def test_neither_data_nor_backbone_changes(backbone: Backbone, task: DataSplits) -> None:
    features = {cut_key(cut): make_features(task, cut) for cut in (TOP, "late")}
    before = [np.copy(kept.stored) for kept in features.values()]
    weights = [np.copy(weight) for weight in backbone.network.get_weights()]
    fit_final(Trainer(backbone, task, features), TAIL)
    for kept, now in zip(before, (each.stored for each in features.values()), strict=True):
        np.testing.assert_array_equal(kept, now)
    for kept, now in zip(weights, backbone.network.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, now)


def test_many_runs_build_and_compile_nothing_new(
    backbone: Backbone, task: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = 0
    traced: list[Callable[..., object]] = []
    original, function = Network.__init__, tf.function

    def counting(self: Network, *arguments: Any) -> None:  # noqa: ANN401
        nonlocal built
        built += 1
        original(self, *arguments)

    def noting(body: Callable[..., object] | None = None, **options: object) -> object:
        compiled = function(body, **options)
        if getattr(body, "__module__", "") == tail_network.__name__:  # Keras compiles small things of its own
            traced.append(compiled)
        return compiled

    monkeypatch.setattr(Network, "__init__", counting)
    monkeypatch.setattr(tf, "function", noting)
    trainer = make_trainer(backbone, task, "late", fresh=True)

    def some_runs(seed: int) -> tuple[int, int, int]:
        weighted = dataclasses.replace(TAIL, class_weights=InversePower(seed / 10), learning_rate=seed * 1e-3)
        moved = dataclasses.replace(TAIL, loss=LogitAdjustedCrossEntropy(seed / 5), weight_decay=seed / 100)
        cosine = dataclasses.replace(TAIL, head=Cosine(5.0 * seed), loss=LabelDistributionAwareMargin(seed / 10))
        scheduled = dataclasses.replace(TAIL, monitor="none", rate_drops=(seed / 10,), max_epochs=seed)
        for recipe in (weighted, moved, cosine, scheduled):
            fit_final(trainer, dataclasses.replace(recipe, dropout=seed / 10), seed)
        trainer.fit_reference(dataclasses.replace(TAIL, loss=Focal(seed / 3, seed / 4)), seed)
        fit_final(trainer, dataclasses.replace(TAIL, sampling=RandomOversampling(seed / 10)), seed)  # of another length
        graphs = sum(compiled.experimental_get_tracing_count() for compiled in traced)  # type: ignore[attr-defined]
        return built, len(traced), graphs

    some_runs(1)
    settled = some_runs(3)
    assert some_runs(4) == some_runs(5) == settled
    # One network; for it a block, a step, a forward pass, and what heads stand on.
    assert settled[:2] == (1, 4)


def test_an_epoch_is_compiled_once_for_all_recipes(
    backbone: Backbone, task: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compilation takes as long as thousands of epochs: every recipe has arrays of one type and layout."""
    types: dict[str, set[str]] = {"train_epoch": set(), "predict": set()}
    for name, found in types.items():
        original = getattr(head_kernel, name)

        def note(*arguments: Any, original: Any = original, found: set[str] = found) -> Any:  # noqa: ANN401
            found.add(str(tuple(map(numba.typeof, arguments))))
            return original(*arguments)

        monkeypatch.setattr(head_kernel, name, note)
    features = {cut_key(cut): make_features(task, cut) for cut in (TOP, "late")}
    features[cut_key(TOP, "photometric")] = make_features(task, noise=0.5)
    features[cut_key(TOP)].stored.flags.writeable = False  # as from the cache
    trainer = quick_start(Trainer(backbone, task, features))
    for recipe in (
        QUICK,
        dataclasses.replace(QUICK, loss=Focal(2.0, 1.0), class_weights=InversePower(1.0), weight_decay=0.1),
        dataclasses.replace(QUICK, head=Cosine(), loss=LabelDistributionAwareMargin()),
        dataclasses.replace(QUICK, monitor="none", rate_drops=(0.5,), sampling=ClassSampling(0.0, progressive=True)),
        dataclasses.replace(QUICK, inputs=(Input(), Input("photometric"))),
        dataclasses.replace(QUICK, inputs=(Input("photometric"),)),
        dataclasses.replace(QUICK, projection=NuisanceProjection(2)),
        dataclasses.replace(QUICK, synthesis=SyntheticOversampling("smote", 0.5, 2)),
        dataclasses.replace(TAIL, retraining=Retraining(ClassSampling(0.0), 1e-3, 0.1)),
    ):
        fit_final(trainer, recipe)
    assert {name: len(found) for name, found in types.items()} == {"train_epoch": 1, "predict": 1}


def test_runs_of_any_batch_size_follow_each_other(backbone: Backbone, task: DataSplits) -> None:
    for base in (QUICK, TAIL):
        recipes = [dataclasses.replace(base, batch_size=size, max_epochs=1) for size in (32, 7, 1000)]
        trainer = make_trainer(backbone, task, "late")
        found = [bits(fit_final(trainer, recipe)) for recipe in recipes]
        assert found[1] == bits(fit_final(make_trainer(backbone, task, "late", fresh=True), recipes[1]))
        assert len(set(found)) == 3


# --- the history ---


def test_the_history_has_its_columns(trainer: Trainer) -> None:
    validated = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_macro_f1"]
    for recipe in (QUICK, TAIL):
        validation = trainer.cross_validate(recipe, SEEDS)
        assert list(validation.history) == validated
        final, reference = trainer.fit_final(recipe, 0, validation), trainer.fit_reference(recipe, 0)
        for run in (final, reference):
            assert set(run.history) == {*validated, "test_loss", "test_accuracy"}
            assert list(run.history["epoch"]) == list(range(1, len(run.history) + 1))
            assert not run.history.isna().any(axis=None)
            assert run.seed == 0
        assert len(final.history) == sum(validation.epochs) == len(validation.history)


# --- the test split ---


class Untouchable:
    def __getattribute__(self, name: str) -> object:
        raise AssertionError(f"the test split was asked for {name}")


def test_a_cross_validation_does_not_touch_the_test_split(
    backbone: Backbone, task: DataSplits, trainer: Trainer
) -> None:
    features = {cut_key(cut): make_features(task, cut) for cut in (TOP, "late")}
    for values in features.values():
        values.stored[task.test] = np.nan
    without = dataclasses.replace(task, test=Untouchable())  # type: ignore[arg-type]
    blind = quick_start(Trainer(backbone, without, features))
    for recipe in (
        QUICK,
        TAIL,
        dataclasses.replace(TAIL, retraining=Retraining(ClassSampling(0.0), 1e-3, 0.1)),
        dataclasses.replace(QUICK, projection=NuisanceProjection(2), adjustment=Temperature(), members=2),
        dataclasses.replace(QUICK, synthesis=SyntheticOversampling("smote", 0.5, 2)),
        dataclasses.replace(QUICK, also=(Discriminant(0.5, 0.0),)),
        Recipe(head=Discriminant(0.5, 0.0)),
    ):
        found, expected = blind.cross_validate(recipe, SEEDS), trainer.cross_validate(recipe, SEEDS)
        np.testing.assert_array_equal(found.log_probabilities, expected.log_probabilities)
        assert found.history.equals(expected.history)
        assert (found.score, found.epochs) == (expected.score, expected.epochs)
        with pytest.raises(AssertionError, match="was asked for"):
            blind.fit_final(recipe, 0, found)
        with pytest.raises(AssertionError, match="was asked for"):
            blind.fit_reference(QUICK, 0)


def test_the_temperature_of_a_run_is_the_one_that_the_adjustment_fits(trainer: Trainer) -> None:
    """So that a report can show what calibration by validation does to any run."""
    recipe = dataclasses.replace(QUICK, learning_rate=1e-2)
    validation = trainer.cross_validate(recipe, SEEDS)
    run = trainer.fit_final(recipe, 0, validation)
    tempered = softmax(np.log(probabilities_of(run)) / run.temperature)
    adjusted = fit_final(trainer, dataclasses.replace(recipe, adjustment=Temperature()))
    np.testing.assert_allclose(tempered, probabilities_of(adjusted), atol=1e-6)
    assert abs(run.temperature - 1) > 0.01
    assert adjusted.temperature == pytest.approx(1)
    # It depends on the out-of-fold predictions alone.
    assert trainer.fit_final(recipe, 5, validation).temperature == run.temperature


# --- below the top ---


@pytest.mark.parametrize("rate", [0.0, 1e-5, 1e-2])
def test_a_run_moves_the_end_of_the_backbone_at_its_own_rate(
    rate: float, backbone: Backbone, task: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[TrainingState] = []
    original = Network.start

    def noting(self: Network, head: HeadState) -> TrainingState:
        states.append(original(self, head))
        return states[-1]

    monkeypatch.setattr(Network, "start", noting)
    recipe = dataclasses.replace(TAIL, backbone_learning_rate=rate, batch_size=1000)
    trainer = make_trainer(backbone, task, "late")
    validation = trainer.cross_validate(dataclasses.replace(QUICK, max_epochs=1), SEEDS)
    states.clear()
    trainer.fit_final(recipe, 0, dataclasses.replace(validation, epochs=(1, 1)))
    kernel, bias = backbone.tail("late").trainable_variables
    [state] = states
    assert len(state.moving.parameters) == 2 + 2
    # Adam's first step has the size of the rate, where there is a gradient.
    for now, before in zip(state.moving.parameters[2:], (kernel, bias), strict=True):
        assert np.abs(now - before.numpy()).max() == pytest.approx(rate, rel=0.02)


def test_batch_normalisation_of_the_backbone_keeps_every_bit(backbone: Backbone, task: DataSplits) -> None:
    trainer = make_trainer(backbone, task, "late", fresh=True)
    fit_final(trainer, TAIL)
    network = trainer._stages.networks["late"]
    for now, before in zip(network._tail.get_weights(), backbone.tail("late").get_weights(), strict=True):
        assert now.tobytes() == before.tobytes()  # what is trained is kept in the state of a run


@pytest.fixture
def pooled(backbone: Backbone, task: DataSplits) -> Trainer:
    """Features at the top are those that the backbone makes of the features at the cut."""
    late = make_features(task, "late")
    top = Features.of(np.asarray(backbone.tail("late")(late.stored, training=False)))
    return quick_start(Trainer(backbone, task, {cut_key("late"): late, cut_key(TOP): top}))


def test_what_lies_below_the_top_starts_from_the_trained_head(pooled: Trainer) -> None:
    head = Recipe(learning_rate=1e-2, max_epochs=5)
    probe, validation = pooled.fit_reference(head, 0), pooled.cross_validate(head, SEEDS)
    recipe = dataclasses.replace(head, cut="late", backbone_learning_rate=0.0)
    still = pooled.fit_reference(recipe, 0)
    np.testing.assert_array_equal(still.history.iloc[:5].to_numpy(), probe.history.to_numpy())
    # A seventh epoch of a head that knows its task is better than the first of one that does not.
    assert still.history["train_loss"][5] < probe.history["train_loss"][1]
    # The same in folds and in final fits, whose first epochs are those of the head.
    deep = pooled.cross_validate(recipe, SEEDS)
    assert len(deep.epochs) == 2
    assert deep.epochs[0] == validation.epochs[0]
    assert deep.history.iloc[: deep.epochs[0]].equals(validation.history)
    run = pooled.fit_final(recipe, 0, deep)
    shallow = pooled.fit_final(head, 0, validation)
    columns = ["epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy"]
    np.testing.assert_array_equal(run.history[columns].iloc[: deep.epochs[0]], shallow.history[columns])
    assert run.best_epoch == sum(deep.epochs)


def test_fine_tuning_has_a_cap_of_its_own(pooled: Trainer) -> None:
    """An epoch of it costs as much as hundreds of a head."""
    head = Recipe(learning_rate=1e-3, max_epochs=40, monitor="none", batch_size=1000)
    deep = pooled.cross_validate(dataclasses.replace(head, cut="late"), (0,))
    assert deep.epochs == (40, FINE_TUNING_EPOCHS)
    brief = pooled.cross_validate(dataclasses.replace(head, cut="late", max_epochs=2), (0,))
    assert brief.epochs == (2, 2)


def test_a_second_stage_that_does_not_move_gives_the_logits_of_the_first(
    pooled: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = Recipe(learning_rate=1e-2, max_epochs=5)
    validation = pooled.cross_validate(head, SEEDS)
    probe = pooled.fit_final(head, 0, validation)
    original = Network.train

    def slow(self: Network, state: TrainingState, options: Any, block: Any) -> Any:  # noqa: ANN401
        return original(self, state, options._replace(learning_rate=np.float32(1e-12)), block)

    monkeypatch.setattr(Network, "train", slow)
    recipe = dataclasses.replace(head, cut="late", backbone_learning_rate=1e-12)
    # One epoch: moving averages move by a hundredth in each step.
    deep = dataclasses.replace(validation, epochs=(*validation.epochs, 1))
    run = pooled.fit_final(recipe, 0, deep)
    np.testing.assert_allclose(probabilities_of(run), probabilities_of(probe), atol=0.05)
    assert run.history["test_loss"].iloc[-1] == pytest.approx(probe.history["test_loss"].iloc[-1], rel=0.05)


def test_a_cross_validation_is_of_the_type_that_it_says(trainer: Trainer) -> None:
    validation = trainer.cross_validate(TAIL, SEEDS)
    assert isinstance(validation, CrossValidation)
    assert validation.log_probabilities.dtype == np.float32
    assert validation.log_probabilities.shape == (2, len(trainer.splits.landmarks), 8)
    np.testing.assert_allclose(np.exp(validation.log_probabilities).sum(axis=2), 1, rtol=1e-5)


def test_log_probabilities_too_large_for_their_type_fail_the_fit(backbone: Backbone, task: DataSplits) -> None:
    top = make_features(task, TOP)
    huge = np.asarray(top.stored).copy()
    huge[0] = 1e38  # its square fits into the numbers of the fit, but not into those that are stored
    recipe = Recipe(head=NearestMean("none", 1.0))
    with pytest.raises(FitFailed, match=r"^a log probability is too large for float32$"):
        Trainer(backbone, task, {cut_key(TOP): Features.of(huge)}).cross_validate(recipe, SEEDS)
