"""One run: against plain Keras, its stopping rule, and what it may leave behind for the next: nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from plain import PlainHead, kept_in
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss
from worlds import (
    WIDTH,
    make_features,
    make_task,
    make_trainer,
    probabilities_of,
    quick_start,
    refit,
    select_one,
    shift_validation_labels,
)

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.data.splits import DataSplits
from hirise_imb.features.arrays import Features
from hirise_imb.imbalance.class_weights import InversePower
from hirise_imb.imbalance.logit_adjustment import softmax
from hirise_imb.imbalance.losses import Focal, LabelDistributionAwareMargin, LogitAdjustedCrossEntropy
from hirise_imb.imbalance.sampling import ClassSampling, RandomOversampling, Sampling
from hirise_imb.imbalance.temperature import Temperature
from hirise_imb.metrics.classification import macro_f1
from hirise_imb.models.closed_form import Discriminant
from hirise_imb.models.projection import NuisanceProjection
from hirise_imb.recipe import Cosine, Monitor, Recipe
from hirise_imb.training import epoch_loop, train_step
from hirise_imb.training.epoch_loop import Job
from hirise_imb.training.train_step import Network, TrainingState
from hirise_imb.training.trainer import Run, Trainer
from hirise_imb.utils.errors import FitFailed

QUICK = Recipe(max_epochs=3)
TAIL = Recipe(cut="late", backbone_learning_rate=1e-2, max_epochs=2)


@pytest.fixture(scope="module")
def task() -> DataSplits:
    return make_task()


@pytest.fixture(scope="module")
def trainer(backbone: Backbone, task: DataSplits) -> Trainer:
    """One for all tests that only look at runs, as in a study."""
    return make_trainer(backbone, task, "late")


def bits(run: Run) -> bytes:
    return probabilities_of(run).tobytes() + run.history.to_numpy().tobytes() + run.val_confusion.tobytes()


# --- against plain Keras ---


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
def test_a_run_is_that_of_plain_keras(
    recipe: Recipe,
    loss: str | keras.losses.Loss,
    dropout: float,
    backbone: Backbone,
    task: DataSplits,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows in the order of the seed, dropout by the seed, blocks of four steps, figures and predictions of Keras."""
    recipe, seed = dataclasses.replace(recipe, dropout=dropout, max_epochs=4), 5
    monkeypatch.setattr(epoch_loop, "_BLOCK_BYTES", 4 * recipe.batch_size * WIDTH * 4)
    run = refit(make_trainer(backbone, task), recipe, seed)
    plain = PlainHead(seed, loss, recipe.learning_rate, dropout)
    features, labels = make_features(task), task.images.labels
    (x, y), *scored = [
        (features.take(rows), labels[rows]) for rows in (task.split.train, task.split.heldout, task.test)
    ]
    weights = len(y) / (8 * np.bincount(y)) if recipe.class_weights == InversePower(1.0) else None
    rng, done, expected, chances = np.random.default_rng(seed), 0, [], []
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
        chances.append((val, test))
    np.testing.assert_allclose(run.history.to_numpy(), expected, rtol=1e-4)
    losses = [row[3] for row in expected]
    assert losses[-1] < losses[0] - 0.02  # else anything would agree
    assert run.best_epoch == 1 + int(np.argmin(losses))
    val, test = chances[run.best_epoch - 1]
    np.testing.assert_array_equal(run.val_confusion, confusion_matrix(scored[0][1], val.argmax(axis=1)))
    np.testing.assert_allclose(probabilities_of(run), test, rtol=1e-3, atol=1e-5)


def test_the_training_loss_is_unweighted_cross_entropy(trainer: Trainer) -> None:
    # A frozen classifier (learning rate 0, no dropout) has one loss whatever is trained.
    still = Recipe(dropout=0.0, learning_rate=0.0, max_epochs=1, batch_size=1000)
    plain = select_one(trainer, still).history
    for recipe in (
        dataclasses.replace(still, class_weights=InversePower(1.0)),
        dataclasses.replace(still, loss=Focal(2.0, 1.0)),
        dataclasses.replace(still, loss=LogitAdjustedCrossEntropy(1.0)),
    ):
        other = select_one(trainer, recipe).history
        assert other["train_loss"][0] == pytest.approx(plain["train_loss"][0], rel=1e-6)


@pytest.mark.parametrize("sampling", [RandomOversampling(0.5), ClassSampling(0.5, progressive=True)], ids=str)
def test_every_row_of_the_sampling_is_trained_once_an_epoch(
    sampling: Sampling, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    original = Features.take
    task = make_task(variants=2)
    trainer = make_trainer(backbone, task)
    pool = task.images.pool(task.split.train)

    def noting(self: Features, positions: np.ndarray) -> np.ndarray:
        if len(self) == len(pool.labels):
            taken.extend(positions)
        return original(self, positions)

    monkeypatch.setattr(Features, "take", noting)
    select_one(trainer, Recipe(sampling=sampling, max_epochs=3), 3)
    for epoch in (1, 2, 3):
        rows = sampling.rows(pool, 3, epoch, (epoch - 1) / 2)
        assert taken[: len(rows)] != sorted(taken[: len(rows)])
        assert sorted(taken[: len(rows)]) == sorted(rows)
        del taken[: len(rows)]
    assert not taken


# --- reproducible, and independent of other runs ---


def test_one_seed_gives_the_same_bits_whatever_ran_before(backbone: Backbone, task: DataSplits) -> None:
    recipes = [QUICK, dataclasses.replace(QUICK, loss=Focal(1.0)), TAIL]
    one, other = make_trainer(backbone, task, "late"), make_trainer(backbone, task, "late", fresh=True)
    forwards = [bits(refit(one, recipe, 1)) for recipe in recipes]
    refit(one, dataclasses.replace(QUICK, dropout=0.4), 2)
    kept = [bits(refit(one, recipe, 1)) for recipe in recipes]
    one._stages.cache.clear()
    again = [bits(refit(one, recipe, 1)) for recipe in recipes]
    backwards = [bits(refit(other, recipe, 1)) for recipe in reversed(recipes)][::-1]
    assert forwards == kept == again == backwards


def test_another_seed_gives_another_run(trainer: Trainer) -> None:
    assert bits(refit(trainer, QUICK, 1)) != bits(refit(trainer, QUICK, 2))


def test_neither_data_nor_backbone_changes(backbone: Backbone, task: DataSplits) -> None:
    features = {(cut, "plain"): make_features(task, cut) for cut in (TOP, "late")}
    before = [np.copy(kept.stored) for kept in features.values()]
    weights = [np.copy(weight) for weight in backbone.network.get_weights()]
    refit(Trainer(backbone, task, features), TAIL)
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
        if getattr(body, "__module__", "") == train_step.__name__:  # Keras compiles small things of its own
            traced.append(compiled)
        return compiled

    monkeypatch.setattr(Network, "__init__", counting)
    monkeypatch.setattr(tf, "function", noting)
    trainer = make_trainer(backbone, task, "late", fresh=True)

    def some_runs(seed: int) -> tuple[int, int, int]:
        weighted = dataclasses.replace(QUICK, class_weights=InversePower(seed / 10), learning_rate=seed * 1e-3)
        focal = dataclasses.replace(QUICK, loss=Focal(seed / 3, seed / 4))
        moved = dataclasses.replace(QUICK, loss=LogitAdjustedCrossEntropy(seed / 5), weight_decay=seed / 100)
        margins = LabelDistributionAwareMargin(seed / 10)
        cosine = dataclasses.replace(QUICK, head=Cosine(5.0 * seed), loss=margins, reweight_after=seed % 2)
        refit(trainer, weighted, seed)
        refit(trainer, dataclasses.replace(focal, dropout=seed / 10), seed)
        refit(trainer, dataclasses.replace(TAIL, backbone_learning_rate=seed * 1e-5), seed)
        trainer.select([Job(recipe, seed) for recipe in (weighted, focal, TAIL, moved, cosine)[:seed]], "val")
        trainer.select([Job(weighted, seed)], "grouped-cv")
        select_one(
            trainer, dataclasses.replace(QUICK, sampling=RandomOversampling(seed / 10)), seed
        )  # of another length
        graphs = sum(compiled.experimental_get_tracing_count() for compiled in traced)  # type: ignore[attr-defined]
        return built, len(traced), graphs

    some_runs(1)
    settled = some_runs(3)
    assert some_runs(4) == some_runs(5) == settled
    # A network for each cut; for each a block, what it prepares, a step, a forward pass, and what heads stand on.
    assert settled[:2] == (2, 9)


def test_runs_of_any_batch_size_follow_each_other(backbone: Backbone, task: DataSplits) -> None:
    recipes = [dataclasses.replace(QUICK, batch_size=size, max_epochs=1) for size in (32, 7, 1000)]
    trainer = make_trainer(backbone, task)
    found = [bits(refit(trainer, recipe)) for recipe in recipes]
    assert found[1] == bits(refit(make_trainer(backbone, task, fresh=True), recipes[1]))


# --- when it stops, and what it keeps ---


def test_the_best_epoch_is_restored_after_patience(backbone: Backbone, task: DataSplits) -> None:
    trainer = make_trainer(backbone, shift_validation_labels(task))
    recipe = Recipe(learning_rate=1e-2, patience=3)
    run = refit(trainer, recipe)
    losses = run.history["val_loss"]
    assert run.best_epoch == losses.argmin() + 1
    assert len(losses) == run.best_epoch + 3 < recipe.max_epochs
    assert list(run.history["epoch"]) == list(range(1, len(losses) + 1))
    # The same run stopped at its best epoch has the same weights.
    short = refit(trainer, dataclasses.replace(recipe, max_epochs=run.best_epoch))
    assert probabilities_of(run).tobytes() == probabilities_of(short).tobytes()
    np.testing.assert_array_equal(run.val_confusion, short.val_confusion)
    best = run.history.loc[run.best_epoch - 1]
    assert run.val_macro_f1 == macro_f1(run.val_confusion) == best["val_macro_f1"]


@pytest.mark.parametrize(
    ("monitor", "curve", "best", "length"),
    [
        ("val_macro_f1", [0.2, 0.5, 0.5, 0.4], 2, 4),  # the first of equals
        ("val_macro_f1", [0.1, 0.2, 0.1, 0.3, 0.2, 0.2], 4, 6),  # a bad epoch does not stop it
        ("val_macro_f1", [0.1, 0.2, 0.3], 3, 3),  # max_epochs is smaller than the curve needs
        ("val_loss", [0.9, 0.5, 0.6, 0.5], 2, 4),
    ],
)
def test_the_stopping_rule(
    monitor: str,
    curve: list[float],
    best: int,
    length: int,
    backbone: Backbone,
    task: DataSplits,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = iter([*curve, *[0.0] * 9])
    figure = "macro_f1" if monitor == "val_macro_f1" else "log_loss"
    monkeypatch.setattr(epoch_loop, figure, lambda *arguments: next(values))
    recipe = Recipe(monitor=monitor, patience=2, max_epochs=3 if length == 3 else 30)  # type: ignore[arg-type]
    run = select_one(make_trainer(backbone, task), recipe)
    assert (run.best_epoch, len(run.history)) == (best, length)


@pytest.mark.parametrize("monitor", ["val_loss", "val_macro_f1"])
def test_a_loss_that_is_no_number_is_no_best_epoch(monitor: Monitor, backbone: Backbone, task: DataSplits) -> None:
    trainer = make_trainer(backbone, task)
    broken = Recipe(learning_rate=1e30, max_epochs=2, monitor=monitor)
    reason = r"^val_loss became -?(nan|inf) in epoch 1$"
    with pytest.raises(FitFailed, match=reason):
        trainer.refit(broken, 0)
    [outcome] = trainer.select([Job(broken, 0)], "grouped-cv")
    with pytest.raises(FitFailed, match=reason):
        outcome.get()
    assert bits(refit(trainer, QUICK)) == bits(refit(make_trainer(backbone, task), QUICK))  # nothing of it stays


def test_the_history_has_its_columns(trainer: Trainer) -> None:
    always = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_macro_f1"]
    assert list(select_one(trainer, QUICK).history) == always
    for recipe, length in ((QUICK, 3), (TAIL, 4)):
        run = refit(trainer, recipe)
        assert list(run.history) == [*always, "test_loss", "test_accuracy"]
        assert list(run.history["epoch"]) == list(range(1, length + 1))
        assert run.seed == 0


# --- the test split ---


class Untouchable:
    def __getattribute__(self, name: str) -> object:
        raise AssertionError(f"the test split was asked for {name}")


def test_the_test_split_is_not_touched_unless_asked_for(backbone: Backbone, task: DataSplits, trainer: Trainer) -> None:
    features = make_features(task).stored.copy()
    features[task.test] = np.nan
    without = dataclasses.replace(task, test=Untouchable())  # type: ignore[arg-type]
    blind = quick_start(Trainer(backbone, without, {(TOP, "plain"): Features.of(features)}))
    run = select_one(blind, QUICK)
    assert run.test is None
    np.testing.assert_array_equal(run.history, select_one(trainer, QUICK).history)
    for recipe in (dataclasses.replace(QUICK, projection=NuisanceProjection(2)), Recipe(head=Discriminant(0.5, 0.0))):
        for selection in ("val", "grouped-cv"):
            assert select_one(blind, recipe, selection=selection).test is None
    with pytest.raises(AssertionError, match="was asked for"):
        blind.refit(QUICK, 0)


def test_scoring_the_test_split_changes_no_choice(trainer: Trainer) -> None:
    for recipe in (QUICK, TAIL):
        seen, blind = refit(trainer, recipe), select_one(trainer, recipe)
        np.testing.assert_array_equal(seen.history[list(blind.history)].to_numpy(), blind.history.to_numpy())
        np.testing.assert_array_equal(seen.val_confusion, blind.val_confusion)
        assert seen.best_epoch == blind.best_epoch


def test_its_temperature_is_the_one_that_the_adjustment_fits(trainer: Trainer) -> None:
    """So that a report can show what calibration by validation does to any run."""
    run = refit(trainer, QUICK)
    assert run.temperature is not None
    tempered = softmax(np.log(probabilities_of(run)) / run.temperature)
    adjusted = refit(trainer, dataclasses.replace(QUICK, adjustment=Temperature()))
    np.testing.assert_allclose(tempered, probabilities_of(adjusted), atol=1e-6)
    assert run.temperature != 1
    assert select_one(trainer, QUICK).temperature is None


# --- below the top ---


@pytest.mark.parametrize("rate", [0.0, 1e-5, 1e-2])
def test_a_run_moves_the_end_of_the_backbone_at_its_own_rate(
    rate: float, backbone: Backbone, task: DataSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []
    original = Network.start

    def noting(self: Network, seeds: list[int], probe: TrainingState | None = None) -> TrainingState:
        states.append(original(self, seeds, probe))
        return states[-1]

    monkeypatch.setattr(Network, "start", noting)
    whole = dataclasses.replace(TAIL, backbone_learning_rate=rate, batch_size=1000, max_epochs=1)
    select_one(make_trainer(backbone, task, "late"), whole)
    kernel, bias = backbone.tail("late").trainable_variables
    of_heads, state = states
    assert len(of_heads.moving.parameters) == 2
    assert len(state.moving.parameters) == 2 + 2
    # Adam's first step has the size of the rate, where there is a gradient.
    for now, before in zip(state.moving.parameters[2:], (kernel, bias), strict=True):
        assert np.abs(now - before.numpy()).max() == pytest.approx(rate, rel=0.02)


def test_batch_normalisation_of_the_backbone_keeps_every_bit(backbone: Backbone, task: DataSplits) -> None:
    trainer = make_trainer(backbone, task, "late", fresh=True)
    select_one(trainer, TAIL)
    network = trainer._stages.networks["late", WIDTH]
    for now, before in zip(network._tail.get_weights(), backbone.tail("late").get_weights(), strict=True):
        assert now.tobytes() == before.tobytes()  # what is trained is kept in the state of a run


@pytest.fixture
def pooled(backbone: Backbone, task: DataSplits) -> Trainer:
    """Features at the top are those that the backbone makes of the features at the cut."""
    late = make_features(task, "late")
    top = Features.of(np.asarray(backbone.tail("late")(late.stored, training=False)))
    return quick_start(Trainer(backbone, task, {("late", "plain"): late, (TOP, "plain"): top}))


def test_what_lies_below_the_top_starts_from_the_trained_head(pooled: Trainer) -> None:
    probe = refit(pooled, Recipe(learning_rate=1e-2, max_epochs=5))
    still = refit(pooled, Recipe(cut="late", learning_rate=1e-2, max_epochs=5, patience=9, backbone_learning_rate=0.0))
    np.testing.assert_array_equal(still.history.iloc[:5].to_numpy(), probe.history.to_numpy())
    # A seventh step of a head that knows its task is better than the first step of one that does not.
    assert still.history["train_loss"][5] < probe.history["train_loss"][1]
    assert still.best_epoch > 5


def test_a_second_stage_that_does_not_move_gives_the_logits_of_the_first(
    pooled: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = refit(pooled, Recipe(learning_rate=1e-2, max_epochs=5))
    original = epoch_loop.train_heads

    def slow(network: Network, jobs: list[Job], *others: object) -> object:
        """The second stage alone with a tiny rate, and in one step: moving averages move by a hundredth a step."""
        recipes = [
            job.recipe if job.recipe.cut == TOP else dataclasses.replace(job.recipe, learning_rate=1e-12)
            for job in jobs
        ]
        return original(network, [Job(recipe, job.seed) for job, recipe in zip(jobs, recipes, strict=True)], *others)  # type: ignore[arg-type]

    monkeypatch.setattr(epoch_loop, "train_heads", slow)
    recipe = Recipe(cut="late", learning_rate=1e-2, max_epochs=5, backbone_learning_rate=1e-12)
    run = refit(pooled, recipe)
    np.testing.assert_allclose(probabilities_of(run), probabilities_of(probe), atol=0.05)
    np.testing.assert_allclose(run.history["val_loss"][5:], probe.history["val_loss"][probe.best_epoch - 1], rtol=0.05)
