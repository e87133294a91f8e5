"""The training loop against plain Keras, its stopping rule, and what one run may leave behind for the next: nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
from worlds import WIDTH, make_task

from hirise_imb import training
from hirise_imb.backbones import TOP, Backbone
from hirise_imb.evaluation import macro_f1
from hirise_imb.features import Features
from hirise_imb.losses import Focal, InversePower
from hirise_imb.recipe import Recipe
from hirise_imb.sampling import RandomOversampling
from hirise_imb.training import Network, Run, Task, Trainer

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


def plain_keras(network: Network, learning_rate: float, dropout: float) -> keras.Model:
    """The reference head as anybody would write it, with the weights that `network` starts from."""
    head = keras.Sequential(
        [
            keras.Input((WIDTH,)),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(8, activation="softmax"),
        ]
    )
    head.compile(keras.optimizers.Adam(learning_rate), loss="categorical_crossentropy")
    head.set_weights([np.copy(weight) for weight in network.model.get_weights() if weight.dtype == np.float32])
    return head


def start(backbone: Backbone, recipe: Recipe, seed: int) -> Network:
    network = Network(backbone, recipe.cut, recipe.dropout)
    network.start(recipe, seed)
    return network


@pytest.mark.parametrize(
    ("recipe", "weighted"),
    [
        (Recipe(dropout=0.0, max_epochs=4), False),
        (Recipe(dropout=0.0, max_epochs=4, class_weights=InversePower(1.0), learning_rate=3e-3, batch_size=7), True),
    ],
    ids=["baseline", "class weights"],
)
def test_the_loss_curve_is_that_of_plain_keras(
    recipe: Recipe, weighted: bool, backbone: Backbone, task: Task, trainer: Trainer
) -> None:
    seed = 5
    run = trainer.fit(recipe, seed)
    head = plain_keras(start(backbone, recipe, seed), recipe.learning_rate, 0.0)
    x, y = task.train.features.take(np.arange(len(task.train.labels))), task.train.labels
    counts = np.bincount(y)
    weights = {k: len(y) / (8 * n) for k, n in enumerate(counts)} if weighted else None
    rng = np.random.default_rng(seed)
    for epoch in range(recipe.max_epochs):
        order = rng.permutation(len(y))
        for first in range(0, len(y), recipe.batch_size):
            rows = order[first : first + recipe.batch_size]
            head.train_on_batch(x[rows], np.eye(8)[y[rows]], class_weight=weights)
        val = np.asarray(head(task.val.features.stored, training=False))
        expected = -np.log(val[np.arange(len(val)), task.val.labels]).mean()
        assert run.history["val_loss"][epoch] == pytest.approx(expected, abs=1e-4)
        assert run.history["val_accuracy"][epoch] == (val.argmax(axis=1) == task.val.labels).mean()
    assert run.history["val_loss"].iloc[-1] < run.history["val_loss"].iloc[0] - 0.005  # else anything would agree


def test_one_weighted_step_is_that_of_keras_class_weight(backbone: Backbone, task: Task) -> None:
    recipe = Recipe(dropout=0.0, learning_rate=1e-2)
    network = start(backbone, recipe, 0)
    head = plain_keras(network, recipe.learning_rate, 0.0)
    rows = np.arange(20)
    x, y = task.train.features.take(rows), task.train.labels[rows]
    class_weight = np.arange(1, 9) / 3
    one_hot = np.eye(8, dtype=np.float32)[y]
    network.step(type(recipe.loss))(
        tf.constant(x), tf.constant(one_hot), tf.constant(class_weight[y].astype(np.float32)), {}
    )
    head.train_on_batch(x, one_hot, class_weight=dict(enumerate(class_weight)))
    ours = [weight for weight in network.model.get_weights() if weight.dtype == np.float32]
    for mine, theirs in zip(ours, head.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-6)


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
        if getattr(body, "__module__", "") == training.__name__:  # Keras compiles small things of its own
            traced.append(compiled)
        return compiled

    monkeypatch.setattr(Network, "__init__", counting)
    monkeypatch.setattr(tf, "function", noting)
    trainer = Trainer(backbone, tasks)

    def some_runs(seed: int) -> tuple[int, int, int]:
        trainer.fit(dataclasses.replace(QUICK, class_weights=InversePower(seed / 10), learning_rate=seed * 1e-3), seed)
        trainer.fit(dataclasses.replace(QUICK, loss=Focal(seed / 3, seed / 4)), seed)
        trainer.fit(dataclasses.replace(TAIL, backbone_learning_rate=seed * 1e-5), seed)
        graphs = sum(compiled.experimental_get_tracing_count() for compiled in traced)  # type: ignore[attr-defined]
        return built, len(traced), graphs

    some_runs(1)
    settled = some_runs(2)
    assert some_runs(3) == some_runs(4) == settled
    assert settled[:2] == (2, 5)  # a network for each cut; a step for each loss there, and a forward pass each


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


def test_a_loss_that_is_no_number_is_no_best_epoch(trainer: Trainer) -> None:
    with pytest.raises(FloatingPointError, match=r"val_loss became -?(nan|inf) in epoch"):
        trainer.fit(Recipe(learning_rate=float("nan"), max_epochs=2), 0)
    assert np.isfinite(trainer.fit(QUICK, 0).history.to_numpy()).all()  # and nothing of it stays


def test_the_history_has_its_columns(trainer: Trainer) -> None:
    always = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_macro_f1"]
    assert list(trainer.fit(QUICK, 0).history) == always
    run = trainer.fit(QUICK, 0, score_test=True)
    assert list(run.history) == [*always, "test_loss", "test_accuracy"]
    assert len(run.history) == 3
    assert run.seed == 0


# --- the callback ---


def test_the_callback_gets_the_best_so_far(trainer: Trainer) -> None:
    for monitor in ("val_loss", "val_macro_f1"):
        seen: list[tuple[int, float]] = []
        recipe = Recipe(monitor=monitor, learning_rate=3e-2, max_epochs=8)  # type: ignore[arg-type]
        history = trainer.fit(recipe, 0, on_epoch=lambda epoch, best, seen=seen: seen.append((epoch, best))).history
        assert [epoch for epoch, _ in seen] == list(history["epoch"])
        for epoch, best in seen:
            before = history.iloc[:epoch]
            row = before["val_loss"].argmin() if monitor == "val_loss" else before["val_macro_f1"].argmax()
            assert best == before["val_macro_f1"].iloc[row]


def test_what_the_callback_raises_ends_the_run_and_nothing_else(trainer: Trainer) -> None:
    expected = bits(trainer.fit(QUICK, 0, score_test=True))

    class Stop(Exception):
        pass

    epochs = []

    def stop(epoch: int, best: float) -> None:
        epochs.append(epoch)
        if epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        trainer.fit(Recipe(), 7, on_epoch=stop)
    assert epochs == [1, 2]
    assert bits(trainer.fit(QUICK, 0, score_test=True)) == expected


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


def variables(network: Network) -> dict[str, np.ndarray]:
    return {variable.path: np.copy(variable.numpy()) for variable in network.tail.variables}


def fit_tail(backbone: Backbone, tasks: dict[str, Task], rate: float) -> tuple[Network, dict[str, np.ndarray]]:
    """A run at the cut `late` that kept its last epoch; return its network and the tail's variables before."""
    recipe = dataclasses.replace(TAIL, backbone_learning_rate=rate, monitor="val_loss")
    trainer = Trainer(backbone, tasks)
    before = variables(start(backbone, recipe, 0))
    kept = trainer.fit(recipe, 0)
    [network] = trainer._networks.values()
    assert kept.best_epoch >= 1
    return network, dict(zip(variables(network), before.values(), strict=True))


def test_batch_normalisation_of_the_backbone_keeps_every_bit(backbone: Backbone, tasks: dict[str, Task]) -> None:
    network, before = fit_tail(backbone, tasks, 1e-2)
    norms = [layer for layer in network.tail.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 1
    frozen = {variable.path for layer in norms for variable in layer.variables}
    after = variables(network)
    assert len(frozen) == 4
    for path in frozen:
        assert after[path].tobytes() == before[path].tobytes(), path
    moved = {path for path in after if after[path].tobytes() != before[path].tobytes()}
    assert moved == set(after) - frozen  # kernel and bias of the convolution above the cut
    assert len(moved) == 2


def test_the_tail_has_a_learning_rate_of_its_own(backbone: Backbone, tasks: dict[str, Task]) -> None:
    def change(rate: float) -> float:
        network, before = fit_tail(backbone, tasks, rate)
        return max(float(np.abs(value - before[path]).max()) for path, value in variables(network).items())

    assert change(0.0) == 0
    # Adam's steps have the size of the rate at first.
    assert change(1e-3) / change(1e-5) == pytest.approx(100, rel=0.5)


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
