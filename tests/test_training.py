"""One run: against plain Keras, its stopping rule, and what it may leave behind for the next: nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
from plain import PlainHead, kept_in
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss
from worlds import WIDTH, make_task

from hirise_imb import network, training
from hirise_imb.backbones import TOP, Backbone
from hirise_imb.evaluation import macro_f1
from hirise_imb.features import Features
from hirise_imb.losses import Focal, InversePower
from hirise_imb.network import Network, State
from hirise_imb.recipe import Monitor, Recipe
from hirise_imb.sampling import RandomOversampling
from hirise_imb.training import Job, Run, Task, Trainer

LATE = (12, 12, 12)
"""Shape of the toy backbone's features at the cut `late`."""
QUICK = Recipe(max_epochs=3)
TAIL = Recipe(cut="late", backbone_learning_rate=1e-2, max_epochs=2)


@pytest.fixture(scope="module")
def task() -> Task:
    return make_task()


@pytest.fixture(scope="module")
def tasks(task: Task) -> dict[str, Task]:
    return {TOP: task, "late": make_task("late", shape=LATE)}


@pytest.fixture(scope="module")
def trainer(backbone: Backbone, tasks: dict[str, Task]) -> Trainer:
    """One for all tests that only look at runs, as in a study."""
    return Trainer(backbone, tasks)


def bits(run: Run) -> bytes:
    assert run.test is not None
    return run.test.tobytes() + run.history.to_numpy().tobytes() + run.val_confusion.tobytes()


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
    task: Task,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows in the order of the seed, dropout by the seed, blocks of four steps, figures and predictions of Keras."""
    recipe, seed = dataclasses.replace(recipe, dropout=dropout, max_epochs=4), 5
    monkeypatch.setattr(training, "_BLOCK_BYTES", 4 * recipe.batch_size * WIDTH * 4)
    run = Trainer(backbone, {TOP: task}).fit(recipe, seed, score_test=True)
    plain = PlainHead(seed, loss, recipe.learning_rate, dropout)
    x, y = task.train.features.take(np.arange(len(task.train.labels))), task.train.labels
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
        val, test = (plain.probabilities(part.features.stored) for part in (task.val, task.test))
        scores = [
            [log_loss(p.labels, q), accuracy_score(p.labels, q.argmax(axis=1))]
            for p, q in ((task.val, val), (task.test, test))
        ]
        macro = f1_score(task.val.labels, val.argmax(axis=1), average="macro", zero_division=0)
        expected.append([epoch + 1, *sums / len(y), *scores[0], macro, *scores[1]])
        chances.append((val, test))
    np.testing.assert_allclose(run.history.to_numpy(), expected, rtol=1e-4)
    losses = [row[3] for row in expected]
    assert losses[-1] < losses[0] - 0.02  # else anything would agree
    assert run.best_epoch == 1 + int(np.argmin(losses))
    val, test = chances[run.best_epoch - 1]
    np.testing.assert_array_equal(run.val_confusion, confusion_matrix(task.val.labels, val.argmax(axis=1)))
    np.testing.assert_allclose(run.test, test, rtol=1e-3, atol=1e-5)


def test_the_training_loss_is_unweighted_cross_entropy(task: Task, trainer: Trainer) -> None:
    # A frozen classifier (learning rate 0, no dropout) has one loss whatever is trained.
    still = Recipe(dropout=0.0, learning_rate=0.0, max_epochs=1, batch_size=1000)
    plain = trainer.fit(still, 0).history
    for recipe in (
        dataclasses.replace(still, class_weights=InversePower(1.0)),
        dataclasses.replace(still, loss=Focal(2.0, 1.0)),
    ):
        other = trainer.fit(recipe, 0).history
        assert other["train_loss"][0] == pytest.approx(plain["train_loss"][0], rel=1e-6)


def test_every_row_of_the_sampling_is_trained_once_an_epoch(
    task: Task, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    original = Features.take

    def noting(self: Features, positions: np.ndarray) -> np.ndarray:
        if len(self) == len(task.train.labels):
            taken.extend(positions)
        return original(self, positions)

    monkeypatch.setattr(Features, "take", noting)
    sampling = RandomOversampling(0.5)
    trainer.fit(Recipe(sampling=sampling, max_epochs=2), 3)
    rows = sampling.rows(task.train.labels, task.train.copies, 3)
    assert sorted(taken) == sorted([*rows, *rows])
    assert taken[: len(rows)] != taken[len(rows) :]


# --- reproducible, and independent of other runs ---


def test_one_seed_gives_the_same_bits_whatever_ran_before(backbone: Backbone, tasks: dict[str, Task]) -> None:
    recipes = [QUICK, dataclasses.replace(QUICK, loss=Focal(1.0)), TAIL]
    one, other = Trainer(backbone, tasks), Trainer(backbone, tasks)
    forwards = [bits(one.fit(recipe, 1, score_test=True)) for recipe in recipes]
    one.fit(dataclasses.replace(QUICK, dropout=0.4), 2)
    again = [bits(one.fit(recipe, 1, score_test=True)) for recipe in recipes]
    backwards = [bits(other.fit(recipe, 1, score_test=True)) for recipe in reversed(recipes)][::-1]
    assert forwards == again == backwards


def test_another_seed_gives_another_run(trainer: Trainer) -> None:
    assert bits(trainer.fit(QUICK, 1, score_test=True)) != bits(trainer.fit(QUICK, 2, score_test=True))


def test_neither_data_nor_backbone_changes(backbone: Backbone, tasks: dict[str, Task], trainer: Trainer) -> None:
    before = [np.copy(task.train.features.stored) for task in tasks.values()]
    weights = [np.copy(weight) for weight in backbone.network.get_weights()]
    trainer.fit(QUICK, 0)
    trainer.fit(TAIL, 0)
    for kept, now in zip(before, (task.train.features.stored for task in tasks.values()), strict=True):
        np.testing.assert_array_equal(kept, now)
    for kept, now in zip(weights, backbone.network.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, now)


def test_many_runs_build_and_compile_nothing_new(
    backbone: Backbone, tasks: dict[str, Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = 0
    traced: list[Callable[..., object]] = []
    original, function = Network.__init__, tf.function

    def counting(self: Network, *arguments: object) -> None:
        nonlocal built
        built += 1
        original(self, *arguments)

    def noting(body: Callable[..., object] | None = None, **options: object) -> object:
        compiled = function(body, **options)
        if getattr(body, "__module__", "") == network.__name__:  # Keras compiles small things of its own
            traced.append(compiled)
        return compiled

    monkeypatch.setattr(Network, "__init__", counting)
    monkeypatch.setattr(tf, "function", noting)
    trainer = Trainer(backbone, tasks)

    def some_runs(seed: int) -> tuple[int, int, int]:
        weighted = dataclasses.replace(QUICK, class_weights=InversePower(seed / 10), learning_rate=seed * 1e-3)
        focal = dataclasses.replace(QUICK, loss=Focal(seed / 3, seed / 4))
        trainer.fit(weighted, seed)
        trainer.fit(dataclasses.replace(focal, dropout=seed / 10), seed)
        trainer.fit(dataclasses.replace(TAIL, backbone_learning_rate=seed * 1e-5), seed)
        trainer.fit_together([Job(recipe, seed) for recipe in (weighted, focal, TAIL)[:seed]])
        trainer.fit(dataclasses.replace(QUICK, sampling=RandomOversampling(seed / 10)), seed)  # of another length
        graphs = sum(compiled.experimental_get_tracing_count() for compiled in traced)  # type: ignore[attr-defined]
        return built, len(traced), graphs

    some_runs(1)
    settled = some_runs(3)
    assert some_runs(4) == some_runs(5) == settled
    # A network for each cut. For one head at each and for eight at the top: a block, what it prepares, a step, a
    # forward pass.
    assert settled[:2] == (2, 12)


def test_runs_of_any_batch_size_follow_each_other(backbone: Backbone, task: Task) -> None:
    recipes = [dataclasses.replace(QUICK, batch_size=size, max_epochs=1) for size in (7, 32, 1000, 7)]
    trainer = Trainer(backbone, {TOP: task})
    found = [bits(trainer.fit(recipe, 0, score_test=True)) for recipe in recipes]
    for recipe, run in zip(recipes[1:], found[1:], strict=True):
        assert run == bits(Trainer(backbone, {TOP: task}).fit(recipe, 0, score_test=True))


# --- when it stops, and what it keeps ---


def test_the_best_epoch_is_restored_after_patience(backbone: Backbone, task: Task) -> None:
    # Validation labels shifted by one class: the better the fit, the worse the validation loss.
    wrong = dataclasses.replace(task.val, labels=(task.val.labels + 1) % 8)
    trainer = Trainer(backbone, {TOP: dataclasses.replace(task, val=wrong)})
    recipe = Recipe(learning_rate=1e-2, patience=3)
    run = trainer.fit(recipe, 0, score_test=True)
    losses = run.history["val_loss"]
    assert run.best_epoch == losses.argmin() + 1
    assert len(losses) == run.best_epoch + 3 < recipe.max_epochs
    assert list(run.history["epoch"]) == list(range(1, len(losses) + 1))
    # The same run stopped at its best epoch has the same weights.
    short = trainer.fit(dataclasses.replace(recipe, max_epochs=run.best_epoch), 0, score_test=True)
    assert run.test is not None
    assert short.test is not None
    assert run.test.tobytes() == short.test.tobytes()
    np.testing.assert_array_equal(run.val_confusion, short.val_confusion)
    chosen = run.history.loc[run.best_epoch - 1]
    assert run.val_macro_f1 == macro_f1(run.val_confusion) == chosen["val_macro_f1"]


@pytest.mark.parametrize(
    ("monitor", "curve", "best", "epochs"),
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
    epochs: int,
    trainer: Trainer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = iter([*curve, *[0.0] * 9])
    figure = "macro_f1" if monitor == "val_macro_f1" else "log_loss"
    monkeypatch.setattr(training, figure, lambda *arguments: next(values))
    recipe = Recipe(monitor=monitor, patience=2, max_epochs=3 if epochs == 3 else 30)  # type: ignore[arg-type]
    run = trainer.fit(recipe, 0)
    assert (run.best_epoch, len(run.history)) == (best, epochs)


@pytest.mark.parametrize("monitor", ["val_loss", "val_macro_f1"])
def test_a_loss_that_is_no_number_is_no_best_epoch(monitor: Monitor, trainer: Trainer) -> None:
    expected = bits(trainer.fit(QUICK, 0, score_test=True))
    with pytest.raises(FloatingPointError, match=r"val_loss became -?(nan|inf) in epoch 1"):
        trainer.fit(Recipe(learning_rate=float("nan"), max_epochs=2, monitor=monitor), 0)
    assert bits(trainer.fit(QUICK, 0, score_test=True)) == expected  # and nothing of it stays


def test_the_history_has_its_columns(trainer: Trainer) -> None:
    always = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_macro_f1"]
    assert list(trainer.fit(QUICK, 0).history) == always
    run = trainer.fit(QUICK, 0, score_test=True)
    assert list(run.history) == [*always, "test_loss", "test_accuracy"]
    assert len(run.history) == 3
    assert run.seed == 0


# --- the test split ---


class Untouchable:
    def __getattribute__(self, name: str) -> object:
        raise AssertionError(f"the test split was asked for {name}")


def test_the_test_split_is_not_touched_unless_asked_for(backbone: Backbone, task: Task) -> None:
    trainer = Trainer(backbone, {TOP: dataclasses.replace(task, test=Untouchable())})  # type: ignore[arg-type]
    run = trainer.fit(QUICK, 0)
    assert run.test is None
    with pytest.raises(AssertionError, match="was asked for"):
        trainer.fit(QUICK, 0, score_test=True)


def test_scoring_the_test_split_changes_no_choice(trainer: Trainer) -> None:
    seen, blind = trainer.fit(QUICK, 0, score_test=True), trainer.fit(QUICK, 0)
    np.testing.assert_array_equal(seen.history[list(blind.history)].to_numpy(), blind.history.to_numpy())
    assert seen.best_epoch == blind.best_epoch


# --- below the top ---


@pytest.mark.parametrize("rate", [0.0, 1e-5, 1e-2])
def test_a_run_moves_the_end_of_the_backbone_at_its_own_rate(
    rate: float, backbone: Backbone, tasks: dict[str, Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []
    original = Network.start

    def noting(self: Network, seeds: list[int]) -> State:
        states.append(original(self, seeds))
        return states[-1]

    monkeypatch.setattr(Network, "start", noting)
    whole = dataclasses.replace(TAIL, backbone_learning_rate=rate, batch_size=1000, max_epochs=1)
    Trainer(backbone, tasks).fit(whole, 0)
    tail = backbone.tail("late")
    kernel, bias = tail.trainable_variables
    [state] = states
    assert len(state.parameters) == 2 + 2
    # Adam's first step has the size of the rate, where there is a gradient.
    for now, before in zip(state.parameters[2:], (kernel, bias), strict=True):
        assert np.abs(now - before.numpy()).max() == pytest.approx(rate, rel=0.02)


def test_batch_normalisation_of_the_backbone_keeps_every_bit(backbone: Backbone, tasks: dict[str, Task]) -> None:
    trainer = Trainer(backbone, tasks)
    trainer.fit(TAIL, 0)
    [network] = trainer._networks.values()
    for now, before in zip(network._tail.get_weights(), backbone.tail("late").get_weights(), strict=True):
        assert now.tobytes() == before.tobytes()  # what is trained is kept in the state of a run


def test_a_tail_that_does_not_move_is_the_top(backbone: Backbone) -> None:
    late = make_task("late", shape=LATE)
    tail = backbone.tail("late")

    def pooled(task: Task) -> Task:
        splits = {}
        for name in ("train", "val", "test"):
            part = getattr(task, name)
            values = np.asarray(tail(part.features.stored, training=False))
            splits[name] = dataclasses.replace(part, features=Features(values, part.features.rows))
        return dataclasses.replace(task, **splits)

    trainer = Trainer(backbone, {"late": late, TOP: pooled(late)})
    below = trainer.fit(dataclasses.replace(TAIL, backbone_learning_rate=0.0, learning_rate=1e-2), 0)
    above = trainer.fit(Recipe(learning_rate=1e-2, max_epochs=2), 0)
    np.testing.assert_allclose(below.history.to_numpy(), above.history.to_numpy(), rtol=1e-4)
