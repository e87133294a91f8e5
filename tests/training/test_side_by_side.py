"""Several runs in one pass: each comes out as it would alone, bit for bit, and stops by its own rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from worlds import done, make_task, make_trainer, select_one, shift_validation_labels

from hirise_imb.backbones import Backbone
from hirise_imb.imbalance.class_bias import ClassBias
from hirise_imb.imbalance.class_weights import EffectiveNumber, InversePower
from hirise_imb.imbalance.logit_adjustment import PosthocLogitAdjustment
from hirise_imb.imbalance.losses import Focal, LabelDistributionAwareMargin, LogitAdjustedCrossEntropy
from hirise_imb.imbalance.sampling import RandomOversampling, SplitFileRows
from hirise_imb.models.projection import NuisanceProjection
from hirise_imb.recipe import Cosine, Recipe
from hirise_imb.training import epoch_loop, stages
from hirise_imb.training import trainer as trainer_module
from hirise_imb.training.epoch_loop import HEADS_PER_BATCH, Job
from hirise_imb.training.train_step import Network, TrainingState
from hirise_imb.training.trainer import Run, Trainer
from hirise_imb.utils.errors import FitFailed, NotApplicable

QUICK = Recipe(max_epochs=3)
VARIED = [
    QUICK,
    dataclasses.replace(QUICK, loss=Focal(2.0)),
    dataclasses.replace(QUICK, class_weights=InversePower(1.0), learning_rate=1e-2),
    dataclasses.replace(QUICK, class_weights=EffectiveNumber(0.99), loss=Focal(1.0, 0.5), monitor="val_macro_f1"),
    dataclasses.replace(QUICK, learning_rate=3e-2, weight_decay=0.1, loss=LogitAdjustedCrossEntropy()),
    dataclasses.replace(QUICK, head=Cosine(10.0), loss=LabelDistributionAwareMargin(), learning_rate=1e-2),
    dataclasses.replace(QUICK, class_weights=InversePower(1.0), reweight_after=1, learning_rate=1e-2),
]
"""Recipes that train together."""


@pytest.fixture(scope="module")
def trainer(backbone: Backbone) -> Trainer:
    """One for all tests that only look at runs, as in a study."""
    return make_trainer(backbone, make_task(), "late")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Heads of each pass."""
    found: list[int] = []
    original = Network.start

    def noting(self: Network, seeds: Sequence[int], probe: TrainingState | None = None) -> TrainingState:
        found.append(len(seeds))
        return original(self, seeds, probe)

    monkeypatch.setattr(Network, "start", noting)
    return found


def bits(run: Run) -> tuple[object, ...]:
    assert run.test is None
    history = run.history.to_numpy().tobytes(), tuple(run.history)
    return run.seed, *history, run.best_epoch, run.val_confusion.tobytes(), run.pruned


def jobs(recipes: Sequence[Recipe], seed: int = 0) -> list[Job]:
    return [Job(recipe, seed) for recipe in recipes]


def select(trainer: Trainer, given: Sequence[Job]) -> list[Run]:
    """Runs that are made anew, whatever the trainer has kept."""
    trainer._stages.cache.clear()
    return [done(outcome) for outcome in trainer.select(given, "val")]


def alone(trainer: Trainer, recipe: Recipe, seed: int = 0) -> Run:
    [run] = select(trainer, [Job(recipe, seed)])
    return run


# --- the company does not matter ---


def test_runs_have_the_same_bits_in_any_company(trainer: Trainer, backbone: Backbone) -> None:
    expected = [bits(alone(trainer, recipe)) for recipe in VARIED]
    assert len(set(expected)) == len(VARIED)
    for order in ([0, 1, 2, 3, 4, 5, 6], [6, 4, 2, 0, 5], [3, 3, 3, 0, 1, 4, 4, 2, 0, 6, 3, 5], [1] * HEADS_PER_BATCH):
        found = select(trainer, jobs([VARIED[k] for k in order]))
        assert [bits(run) for run in found] == [expected[k] for k in order]
    fresh = make_trainer(backbone, trainer.splits, fresh=True)
    assert [bits(run) for run in select(fresh, jobs(VARIED))] == expected


def test_folds_go_in_step_and_their_company_does_not_matter_either(trainer: Trainer) -> None:
    together = trainer.select(jobs(VARIED), "grouped-cv")
    trainer._stages.cache.clear()
    for recipe, run in zip(VARIED, together, strict=True):
        assert bits(select_one(trainer, recipe, selection="grouped-cv")) == bits(done(run))


def test_a_run_for_the_test_split_is_the_same(trainer: Trainer) -> None:
    for recipe in (*VARIED, dataclasses.replace(QUICK, cut="late")):
        one, other = trainer.refit(recipe, 0), alone(trainer, recipe)
        assert bits(dataclasses.replace(one, test=None, history=one.history[list(other.history)])) == bits(other)


# --- what shares a pass ---


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling": SplitFileRows()},
        {"sampling": RandomOversampling(0.5)},
        {"dropout": 0.4},
        {"batch_size": 20},
        {"max_epochs": 5},
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
    found = select(trainer, [Job(recipe, seed), Job(QUICK, 0), Job(recipe, seed), Job(QUICK, 0)])
    assert [bits(run) for run in found] == [expected[1], expected[0]] * 2
    assert passes.count(1) == (recipe.cut == "late")
    assert passes.count(HEADS_PER_BATCH) >= 2 - (recipe.cut == "late")


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 1), (8, 1), (9, 2), (17, 3)])
def test_a_pass_has_eight_heads(count: int, expected: int, trainer: Trainer, passes: list[int]) -> None:
    recipes = [dataclasses.replace(QUICK, learning_rate=1e-3 * k, max_epochs=1) for k in range(count)]
    runs = select(trainer, jobs(recipes))
    assert passes == [HEADS_PER_BATCH] * expected
    assert len({bits(run) for run in runs}) == len(runs) == count
    last = [bits(alone(trainer, recipe)) for recipe in recipes[-1:]]
    assert [bits(run) for run in runs[-1:]] == last


def test_the_time_of_a_pass_is_shared(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [10.0]
    original = epoch_loop.train_heads

    def timed(*arguments: Any) -> Any:  # noqa: ANN401
        clock[0] += 6
        return original(*arguments)

    for module in (stages, trainer_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(epoch_loop, "train_heads", timed)
    deeper = dataclasses.replace(QUICK, cut="late", learning_rate=2e-4)
    runs = select(trainer, [*jobs(VARIED[:3]), Job(QUICK, 1), Job(deeper, 0)])
    assert [run.seconds for run in runs] == [2.0, 2.0, 2.0, 6.0, 12.0]


# --- what is done once ---


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[list[Recipe]]:
    """Recipes of each call that trains."""
    found: list[list[Recipe]] = []
    original = epoch_loop.train_heads

    def noting(network: Network, jobs: Sequence[Job], *others: Any) -> Any:  # noqa: ANN401
        found.append([job.recipe for job in jobs])
        return original(network, jobs, *others)

    monkeypatch.setattr(epoch_loop, "train_heads", noting)
    return found


ADJUSTED = [
    QUICK,
    dataclasses.replace(QUICK, adjustment=PosthocLogitAdjustment(1.0)),
    dataclasses.replace(QUICK, adjustment=ClassBias(0.1)),
    dataclasses.replace(QUICK, weight_norm=0.5),
]
"""Recipes that differ in what is done to their logits."""


def test_what_is_done_to_logits_costs_no_training(trainer: Trainer, trained: list[list[Recipe]]) -> None:
    expected = [bits(alone(trainer, recipe)) for recipe in ADJUSTED]
    assert len({confused for *_, confused, _ in expected}) > 1
    trainer._stages.cache.clear()
    trained.clear()
    found = [bits(select_one(trainer, recipe)) for recipe in ADJUSTED]
    assert trained == [[QUICK]]
    assert found == expected
    assert [bits(done(run)) for run in trainer.select(jobs(ADJUSTED), "val")] == expected
    assert len(trained) == 1
    for changes in ({"seed": 1}, {"selection": "grouped-cv"}):
        select_one(trainer, QUICK, **changes)
    trainer.refit(ADJUSTED[1], 0)
    trainer.refit(ADJUSTED[2], 0)
    assert len(trained) == 4


@pytest.mark.parametrize("changes", [{}, {"cut": "late"}], ids=["top", "below"])
def test_recipes_of_one_round_share_their_training_too(
    changes: dict[str, Any], trainer: Trainer, trained: list[list[Recipe]]
) -> None:
    recipes = [dataclasses.replace(recipe, weight_norm=0.0, **changes) for recipe in ADJUSTED[:3]]
    select(trainer, jobs(recipes))
    assert len(trained) == (2 if changes else 1)


def test_an_ensemble_trains_its_members_and_shares_its_first(trainer: Trainer, trained: list[list[Recipe]]) -> None:
    one, three = alone(trainer, QUICK), dataclasses.replace(QUICK, members=3)
    trained.clear()
    select_one(trainer, three)
    assert trained == [[QUICK]] * 2
    assert bits(dataclasses.replace(select_one(trainer, three), val_confusion=one.val_confusion)) == bits(one)


def test_the_first_stage_is_done_once(trainer: Trainer, trained: list[list[Recipe]]) -> None:
    trainer._stages.cache.clear()
    deep = dataclasses.replace(QUICK, cut="late")
    for recipe in (QUICK, deep, dataclasses.replace(deep, backbone_learning_rate=1e-3)):
        select_one(trainer, recipe)
    assert [recipe.cut for [recipe] in trained] == ["top", "late", "late"]


def test_a_run_that_was_pruned_is_used_by_no_other(trainer: Trainer, trained: list[list[Recipe]]) -> None:
    for recipe in (QUICK, dataclasses.replace(QUICK, cut="late")):
        whole = alone(trainer, recipe)
        [short] = select(trainer, [Job(recipe, 0, note([], len(whole.history) - 1))])
        assert short.pruned
        count = len(trained)
        assert bits(select_one(trainer, recipe)) == bits(whole)
        assert len(trained) == count + 1


# --- stopping ---


@pytest.fixture
def hard(backbone: Backbone) -> Trainer:
    """The better the fit, the worse the validation loss."""
    return make_trainer(backbone, shift_validation_labels(make_task()))


def test_each_head_stops_by_its_own_rule(hard: Trainer) -> None:
    base = Recipe(learning_rate=1e-2, max_epochs=20)
    changes: list[dict[str, Any]] = [
        {"patience": 3},
        {"patience": 5},
        {"monitor": "val_macro_f1", "patience": 4},
        {"monitor": "val_macro_f1", "patience": 2},
        {"learning_rate": 0.0, "patience": 1},
        {"learning_rate": 1e-3},
    ]
    recipes = [dataclasses.replace(base, **change) for change in changes]
    together = select(hard, jobs(recipes))
    assert [bits(run) for run in together] == [bits(alone(hard, recipe)) for recipe in recipes]
    assert len({len(run.history) for run in together}) >= 4
    for run, recipe in zip(together, recipes, strict=True):
        sign = -1 if recipe.monitor == "val_loss" else 1
        values = sign * run.history[recipe.monitor].to_numpy()
        assert run.best_epoch == values.argmax() + 1
        assert len(values) == min(recipe.max_epochs, run.best_epoch + recipe.patience)
        assert not run.pruned


# --- the callback ---


def note(calls: list[tuple[int, float]], last: int | None = None) -> Callable[[int, float], bool]:
    """Goes on until the epoch `last`."""

    def on_epoch(epoch: int, best: float) -> bool:
        calls.append((epoch, best))
        return epoch != last

    return on_epoch


def test_each_callback_gets_the_best_so_far_of_its_run(hard: Trainer) -> None:
    recipes = [dataclasses.replace(recipe, max_epochs=8, patience=2 + k % 3) for k, recipe in enumerate(VARIED)]
    calls: list[list[tuple[int, float]]] = [[] for _ in recipes]
    runs = select(hard, [Job(recipe, 0, note(seen)) for recipe, seen in zip(recipes, calls, strict=True)])
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
    runs = select(trainer, some)
    assert [len(seen) for seen in calls] == [len(run.history) for run in runs] == [6, 2, 4, 6]
    assert [run.pruned for run in runs] == [False, True, True, False]
    for run, other, recipe in zip(runs, whole, recipes, strict=True):
        pruned = alone(trainer, dataclasses.replace(recipe, max_epochs=len(run.history)))
        assert bits(dataclasses.replace(run, pruned=False)) == bits(pruned)
        np.testing.assert_array_equal(run.history.to_numpy(), other.history.iloc[: len(run.history)].to_numpy())


def test_a_run_that_stops_by_itself_is_not_ended_by_its_callback(hard: Trainer) -> None:
    impatient = Recipe(learning_rate=1e-2, patience=2)
    last = len(alone(hard, impatient).history)
    assert last < impatient.max_epochs
    given = [(dataclasses.replace(impatient, max_epochs=3), 3), (impatient, last), (impatient, last - 1)]
    runs = select(hard, [Job(recipe, 0, note([], end)) for recipe, end in given])
    assert [run.pruned for run in runs] == [False, False, True]
    assert [len(run.history) for run in runs] == [3, last, last - 1]


def test_what_a_callback_raises_ends_all_and_leaves_nothing_behind(trainer: Trainer) -> None:
    expected = [bits(run) for run in select(trainer, jobs(VARIED))]

    class Stop(Exception):
        pass

    def stop(epoch: int, best: float) -> bool:
        if epoch == 2:
            raise Stop
        return True

    calls: list[tuple[int, float]] = []
    with pytest.raises(Stop):
        select(trainer, [Job(Recipe(), 7, note(calls)), Job(Recipe(), 7, stop), Job(Recipe(), 8, note(calls))])
    assert [epoch for epoch, _ in calls] == [1, 2]
    assert [bits(run) for run in select(trainer, jobs(VARIED))] == expected


def test_a_run_that_is_no_number_any_more_fails_alone(trainer: Trainer) -> None:
    expected = [bits(run) for run in select(trainer, jobs(VARIED))]
    broken = dataclasses.replace(QUICK, learning_rate=1e30)
    trainer._stages.cache.clear()
    calls: list[tuple[int, float]] = []
    found = trainer.select([*jobs(VARIED[:3]), Job(broken, 0, note(calls)), *jobs(VARIED[3:])], "val")
    assert [bits(done(run)) for run in (*found[:3], *found[4:])] == expected
    with pytest.raises(FitFailed, match=r"^val_loss became -?(nan|inf) in epoch 1$"):
        found[3].get()
    assert calls == []
    assert [bits(run) for run in select(trainer, jobs(VARIED))] == expected


def test_an_ensemble_with_a_member_that_fails_fails(trainer: Trainer) -> None:
    broken = dataclasses.replace(QUICK, learning_rate=1e30, members=2)
    outcomes = trainer.select([Job(broken, 0), Job(QUICK, 0)], "val")
    with pytest.raises(FitFailed, match=r"^val_loss became "):
        outcomes[0].get()
    assert isinstance(outcomes[1].get(), Run)


def test_a_recipe_that_the_data_does_not_allow_fails_with_the_reason(trainer: Trainer) -> None:
    far = dataclasses.replace(QUICK, projection=NuisanceProjection(40))
    outcomes = trainer.select([Job(far, 0), Job(QUICK, 0)], "val")
    with pytest.raises(NotApplicable, match="rank 40"):
        outcomes[0].get()
    assert isinstance(outcomes[1].get(), Run)
