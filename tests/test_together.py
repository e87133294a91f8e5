"""Several runs in one pass: each comes out as it would alone, bit for bit, and stops by its own rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from worlds import make_task

from hirise_imb import training
from hirise_imb.backbones import TOP, Backbone
from hirise_imb.losses import EffectiveNumber, Focal, InversePower
from hirise_imb.network import Network, State
from hirise_imb.recipe import Recipe
from hirise_imb.sampling import RandomOversampling, SplitFileRows
from hirise_imb.training import TOGETHER, Job, Run, Task, Trainer

QUICK = Recipe(max_epochs=3)
VARIED = [
    QUICK,
    dataclasses.replace(QUICK, loss=Focal(2.0)),
    dataclasses.replace(QUICK, class_weights=InversePower(1.0), learning_rate=1e-2),
    dataclasses.replace(QUICK, class_weights=EffectiveNumber(0.99), loss=Focal(1.0, 0.5), monitor="val_macro_f1"),
    dataclasses.replace(QUICK, learning_rate=3e-2, max_epochs=5),
]
"""Recipes that train together."""


@pytest.fixture(scope="module")
def trainer(backbone: Backbone) -> Trainer:
    """One for all tests that only look at runs, as in a study."""
    return Trainer(backbone, {TOP: make_task(), "late": make_task("late", shape=(12, 12, 12))})


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Heads of each pass."""
    found: list[int] = []
    original = Network.start

    def noting(self: Network, seeds: Sequence[int]) -> State:
        found.append(len(seeds))
        return original(self, seeds)

    monkeypatch.setattr(Network, "start", noting)
    return found


def bits(run: Run) -> tuple[object, ...]:
    assert run.test is None
    history = run.history.to_numpy().tobytes(), tuple(run.history)
    return run.seed, *history, run.best_epoch, run.val_confusion.tobytes(), run.cut_short


def jobs(recipes: Sequence[Recipe], seed: int = 0) -> list[Job]:
    return [Job(recipe, seed) for recipe in recipes]


def alone(trainer: Trainer, recipe: Recipe, seed: int = 0) -> Run:
    [run] = trainer.fit_together([Job(recipe, seed)])
    return run


# --- the company does not matter ---


def test_runs_have_the_same_bits_in_any_company(trainer: Trainer, backbone: Backbone) -> None:
    expected = [bits(alone(trainer, recipe)) for recipe in VARIED]
    assert len(set(expected)) == len(VARIED)
    for order in ([0, 1, 2, 3, 4], [4, 2, 0], [3, 3, 3, 0, 1, 4, 4, 2, 0, 1, 3], [1] * TOGETHER):
        found = trainer.fit_together(jobs([VARIED[k] for k in order]))
        assert [bits(run) for run in found] == [expected[k] for k in order]
    fresh = Trainer(backbone, trainer.tasks)
    assert [bits(run) for run in fresh.fit_together(jobs(VARIED))] == expected


def test_one_run_by_itself_is_the_same_but_for_rounding(trainer: Trainer) -> None:
    for recipe in (*VARIED, dataclasses.replace(QUICK, cut="late")):
        one, other = trainer.fit(recipe, 0), alone(trainer, recipe)
        np.testing.assert_allclose(one.history.to_numpy(), other.history.to_numpy(), rtol=1e-5)
        np.testing.assert_array_equal(one.val_confusion, other.val_confusion)
        assert (one.best_epoch, one.seed, one.cut_short) == (other.best_epoch, other.seed, False)
        assert other.test is None


# --- what shares a pass ---


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling": SplitFileRows()},
        {"sampling": RandomOversampling(0.5)},
        {"dropout": 0.4},
        {"batch_size": 20},
        {"cut": "late"},
        {"seed": 1},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_runs_with_other_rows_or_masks_have_a_pass_of_their_own(
    changes: dict[str, Any], trainer: Trainer, passes: list[int]
) -> None:
    seed = changes.get("seed", 0)
    recipe = dataclasses.replace(QUICK, **{name: value for name, value in changes.items() if name != "seed"})
    expected = [bits(run) for run in (alone(trainer, QUICK), alone(trainer, recipe, seed))]
    passes.clear()
    found = trainer.fit_together([Job(recipe, seed), Job(QUICK, 0), Job(recipe, seed), Job(QUICK, 0)])
    assert [bits(run) for run in found] == [expected[1], expected[0]] * 2
    assert sorted(passes) == ([1, 1, TOGETHER] if recipe.cut == "late" else [TOGETHER, TOGETHER])


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 1), (8, 1), (9, 2), (17, 3)])
def test_a_pass_has_eight_heads(count: int, expected: int, trainer: Trainer, passes: list[int]) -> None:
    recipes = [dataclasses.replace(QUICK, learning_rate=1e-3 * k, max_epochs=1) for k in range(count)]
    runs = trainer.fit_together(jobs(recipes))
    assert passes == [TOGETHER] * expected
    assert len({bits(run) for run in runs}) == len(runs) == count
    last = [bits(alone(trainer, recipe)) for recipe in recipes[-1:]]
    assert [bits(run) for run in runs[-1:]] == last


def test_the_time_of_a_pass_is_shared(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 16.0, 20.0, 21.0])
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    runs = trainer.fit_together([*jobs(VARIED[:3]), Job(QUICK, 1)])
    assert [run.seconds for run in runs] == [2.0, 2.0, 2.0, 1.0]


# --- stopping ---


@pytest.fixture
def hard(backbone: Backbone) -> Trainer:
    """Validation labels shifted by one class: the better the fit, the worse the validation loss."""
    task = make_task()
    return Trainer(backbone, {TOP: dataclasses.replace(task, val=shifted(task))})


def shifted(task: Task) -> Any:  # noqa: ANN401
    return dataclasses.replace(task.val, labels=(task.val.labels + 1) % 8)


def test_each_head_stops_by_its_own_rule(hard: Trainer) -> None:
    base = Recipe(learning_rate=1e-2, max_epochs=12)
    changes: list[dict[str, Any]] = [
        {"patience": 3},
        {"patience": 5},
        {"monitor": "val_macro_f1", "patience": 4},
        {"max_epochs": 2},
        {"learning_rate": 0.0, "patience": 1},
        {"learning_rate": 1e-3},
    ]
    recipes = [dataclasses.replace(base, **change) for change in changes]
    together = hard.fit_together(jobs(recipes))
    assert [bits(run) for run in together] == [bits(alone(hard, recipe)) for recipe in recipes]
    assert len({len(run.history) for run in together}) >= 4
    for run, recipe in zip(together, recipes, strict=True):
        sign = -1 if recipe.monitor == "val_loss" else 1
        values = sign * run.history[recipe.monitor].to_numpy()
        assert run.best_epoch == values.argmax() + 1
        assert len(values) == min(recipe.max_epochs, run.best_epoch + recipe.patience)
        assert not run.cut_short


# --- the callback ---


def note(calls: list[tuple[int, float]], last: int | None = None) -> Callable[[int, float], bool]:
    """Goes on until the epoch `last`."""

    def on_epoch(epoch: int, best: float) -> bool:
        calls.append((epoch, best))
        return epoch != last

    return on_epoch


def test_each_callback_gets_the_best_so_far_of_its_run(hard: Trainer) -> None:
    recipes = [dataclasses.replace(recipe, max_epochs=4 + k, patience=3) for k, recipe in enumerate(VARIED)]
    calls: list[list[tuple[int, float]]] = [[] for _ in recipes]
    runs = hard.fit_together([Job(recipe, 0, note(seen)) for recipe, seen in zip(recipes, calls, strict=True)])
    for recipe, run, seen in zip(recipes, runs, calls, strict=True):
        assert [epoch for epoch, _ in seen] == list(run.history["epoch"])
        for epoch, best in seen:
            before = run.history.iloc[:epoch]
            row = before["val_loss"].argmin() if recipe.monitor == "val_loss" else before["val_macro_f1"].argmax()
            assert best == before["val_macro_f1"].iloc[row]
    assert len({len(seen) for seen in calls}) > 1


def test_a_callback_ends_its_run_and_no_other(trainer: Trainer) -> None:
    recipes = [dataclasses.replace(recipe, max_epochs=6, patience=6) for recipe in VARIED[:4]]
    whole = [alone(trainer, recipe) for recipe in recipes]
    calls: list[list[tuple[int, float]]] = [[] for _ in recipes]
    lasts = [None, 2, 4, None]
    some = [Job(*given) for given in zip(recipes, [0] * 4, map(note, calls, lasts), strict=True)]
    runs = trainer.fit_together(some)
    assert [len(seen) for seen in calls] == [len(run.history) for run in runs] == [6, 2, 4, 6]
    assert [run.cut_short for run in runs] == [False, True, True, False]
    for run, other, recipe in zip(runs, whole, recipes, strict=True):
        cut_short = alone(trainer, dataclasses.replace(recipe, max_epochs=len(run.history)))
        assert bits(dataclasses.replace(run, cut_short=False)) == bits(cut_short)
        np.testing.assert_array_equal(run.history.to_numpy(), other.history.iloc[: len(run.history)].to_numpy())


def test_a_run_that_stops_by_itself_is_not_ended_by_its_callback(hard: Trainer) -> None:
    impatient = Recipe(learning_rate=1e-2, patience=2)
    last = len(alone(hard, impatient).history)
    assert last < impatient.max_epochs
    given = [(dataclasses.replace(impatient, max_epochs=3), 3), (impatient, last), (impatient, last - 1)]
    runs = hard.fit_together([Job(recipe, 0, note([], end)) for recipe, end in given])
    assert [run.cut_short for run in runs] == [False, False, True]
    assert [len(run.history) for run in runs] == [3, last, last - 1]


def test_what_a_callback_raises_ends_all_and_leaves_nothing_behind(trainer: Trainer) -> None:
    expected = [bits(run) for run in trainer.fit_together(jobs(VARIED))]

    class Stop(Exception):
        pass

    def stop(epoch: int, best: float) -> bool:
        if epoch == 2:
            raise Stop
        return True

    calls: list[tuple[int, float]] = []
    with pytest.raises(Stop):
        trainer.fit_together([Job(Recipe(), 7, note(calls)), Job(Recipe(), 7, stop), Job(Recipe(), 8, note(calls))])
    assert [epoch for epoch, _ in calls] == [1, 2]
    assert [bits(run) for run in trainer.fit_together(jobs(VARIED))] == expected


def test_a_run_that_is_no_number_any_more_ends_all_and_leaves_nothing_behind(trainer: Trainer) -> None:
    expected = [bits(run) for run in trainer.fit_together(jobs(VARIED))]
    broken = dataclasses.replace(QUICK, learning_rate=float("nan"))
    with pytest.raises(FloatingPointError, match=r"val_loss became -?(nan|inf) in epoch 1"):
        trainer.fit_together(jobs([*VARIED, broken]))
    assert [bits(run) for run in trainer.fit_together(jobs(VARIED))] == expected
