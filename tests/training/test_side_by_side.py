"""Seeds and folds that train side by side: each comes out as it would alone, bit for bit, and fits are shared."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from worlds import make_fold_data, make_task, make_trainer, probabilities_of

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.imbalance.class_bias import ClassBias
from hirise_imb.imbalance.class_weights import EffectiveNumber, InversePower
from hirise_imb.imbalance.logit_adjustment import PosthocLogitAdjustment
from hirise_imb.imbalance.losses import Focal, LabelDistributionAwareMargin, LogitAdjustedCrossEntropy
from hirise_imb.imbalance.sampling import ClassSampling, RandomOversampling, Undersampling
from hirise_imb.metrics.classification import macro_f1
from hirise_imb.metrics.targets import find_target
from hirise_imb.models.closed_form import Logistic, NearestMean
from hirise_imb.models.linear import LinearClassifier
from hirise_imb.models.projection import NuisanceProjection
from hirise_imb.recipe import Cosine, Recipe
from hirise_imb.training.learners import HeadLearner, TailLearner
from hirise_imb.training.stage_fit import FitRequest, StageFit
from hirise_imb.training.trainer import CrossValidation, Run, Trainer
from hirise_imb.utils.errors import FitFailed, NotApplicable

QUICK = Recipe(learning_rate=1e-2, max_epochs=3)
FIXED = dataclasses.replace(QUICK, monitor="none")
"""No choice of an epoch, which all seeds and folds have a part in."""
DEEP = Recipe(cut="late", backbone_learning_rate=1e-2, max_epochs=2, patience=1)
VARIED = [
    FIXED,
    dataclasses.replace(FIXED, loss=Focal(2.0)),
    dataclasses.replace(FIXED, class_weights=EffectiveNumber(0.99), loss=Focal(1.0, 0.5), dropout=0.5),
    dataclasses.replace(FIXED, learning_rate=3e-2, weight_decay=0.1, loss=LogitAdjustedCrossEntropy(), batch_size=20),
    dataclasses.replace(FIXED, head=Cosine(10.0), loss=LabelDistributionAwareMargin()),
    dataclasses.replace(FIXED, class_weights=InversePower(1.0), reweight_after=0.5, rate_drops=(0.6,)),
    dataclasses.replace(FIXED, sampling=RandomOversampling(0.5)),
    dataclasses.replace(FIXED, sampling=ClassSampling(0.5, progressive=True)),
    dataclasses.replace(FIXED, sampling=Undersampling(1.0)),
]
"""Every way in which heads are trained."""


@pytest.fixture(scope="module")
def trainer(backbone: Backbone) -> Trainer:
    """One for all tests that only look at fits, as in a study."""
    return make_trainer(backbone, make_task(), "late")


def bits(fit: CrossValidation | Run) -> tuple[object, ...]:
    """Everything but times."""
    history = fit.history.to_numpy().tobytes(), tuple(fit.history)
    if isinstance(fit, Run):
        return fit.seed, *history, fit.best_epoch, fit.temperature, probabilities_of(fit).tobytes()
    numbers = fit.log_probabilities.tobytes(), fit.confusions.tobytes()
    return fit.seeds, *history, *numbers, fit.epochs, fit.capped, fit.temperatures


def anew(trainer: Trainer, recipe: Recipe, seeds: Sequence[int] = (0, 1)) -> CrossValidation:
    """A cross-validation that is made, whatever the trainer has kept."""
    trainer._stages.cache.clear()
    return trainer.cross_validate(recipe, seeds)


def stage_fit(trainer: Trainer, recipe: Recipe, seeds: Sequence[int], assignments: Sequence[int]) -> StageFit:
    trainer._stages.cache.clear()
    return trainer._stages.fit(FitRequest(recipe, tuple(seeds), tuple(assignments), "cross-validation"))


def classifiers(fit: StageFit) -> list[list[LinearClassifier]]:
    """The heads by seed and fold."""
    return [[head.classifier for head in heads] for heads in fit.heads]


def numbers(classifier: LinearClassifier) -> bytes:
    parts = classifier.kernel, classifier.bias, classifier.centre, classifier.gain
    return b"".join(part.tobytes() for part in parts)


# --- the company does not matter ---


@pytest.mark.parametrize("recipe", VARIED, ids=range(len(VARIED)))
def test_each_head_is_the_one_that_trains_alone(recipe: Recipe, trainer: Trainer) -> None:
    splits = trainer.splits
    found = classifiers(stage_fit(trainer, recipe, (5, 6, 7), (0, 1, 0)))
    assert [len(folds) for folds in found] == [4, 4, 4]
    for seed, number, heads in zip((5, 6, 7), (0, 1, 0), found, strict=True):
        for fold, head in zip(splits.assignments[number], heads, strict=True):
            learner = HeadLearner(recipe, seed, make_fold_data(splits, fold))
            for epoch in (1, 2, 3):
                learner.train_epoch(epoch)
            assert numbers(learner.snapshot().classifier()) == numbers(head)
    assert len({numbers(head) for heads in found for head in heads}) == 12


@pytest.mark.parametrize("recipe", [*VARIED[:3], dataclasses.replace(DEEP, monitor="none")], ids=range(4))
def test_seeds_have_the_same_bits_in_any_company(recipe: Recipe, trainer: Trainer) -> None:
    expected = {
        (seed, number): [numbers(head) for head in classifiers(stage_fit(trainer, recipe, [seed], [number]))[0]]
        for seed in (0, 3)
        for number in (0, 1)
    }
    for company in ([(3, 1), (0, 0)], [(0, 1), (3, 1), (0, 0), (3, 0)], [(0, 0), (0, 0), (3, 0)]):
        seeds, assignments = zip(*company, strict=True)
        found = classifiers(stage_fit(trainer, recipe, seeds, assignments))
        for key, heads in zip(company, found, strict=True):
            assert [numbers(head) for head in heads] == expected[key]


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_the_number_of_threads_changes_no_bit(threads: int, trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = [QUICK, dataclasses.replace(VARIED[2], monitor="val_macro_f1"), VARIED[5], DEEP]
    expected = [bits(anew(trainer, recipe)) for recipe in recipes]
    monkeypatch.setattr(os, "cpu_count", lambda: threads)
    assert [bits(anew(trainer, recipe)) for recipe in recipes] == expected


def test_a_machine_that_does_not_tell_its_processors_trains_too(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = bits(anew(trainer, QUICK))
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert bits(anew(trainer, QUICK)) == expected


def test_fits_have_the_same_bits_whatever_came_before(trainer: Trainer, backbone: Backbone) -> None:
    recipes = [*VARIED, DEEP, dataclasses.replace(QUICK, members=2), Recipe(head=NearestMean("unit", 1.0))]
    fresh = make_trainer(backbone, trainer.splits, "late", fresh=True)

    def fit(one: Trainer, order: Sequence[Recipe]) -> dict[Recipe, tuple[object, ...]]:
        validations = {recipe: one.cross_validate(recipe, (0, 1)) for recipe in order}
        return {r: (*bits(v), *bits(one.fit_final(r, 4, v))) for r, v in validations.items()}

    expected = fit(trainer, recipes)
    assert len(set(expected.values())) == len(recipes)
    assert fit(fresh, recipes[::-1]) == expected
    trainer._stages.cache.clear()
    assert fit(trainer, recipes[::-1]) == expected


# --- seeds and assignments ---


def test_each_seed_has_the_assignment_of_its_place(trainer: Trainer) -> None:
    """Whatever its number."""
    nearest = Recipe(head=NearestMean("none", 0.0))
    one, other = trainer.cross_validate(nearest, (0, 1)), trainer.cross_validate(nearest, (9, 0))
    np.testing.assert_array_equal(one.log_probabilities, other.log_probabilities)
    assert (one.seeds, other.seeds) == ((0, 1), (9, 0))
    assert np.abs(one.log_probabilities[0] - one.log_probabilities[1]).max() > 1e-3
    alone = trainer.cross_validate(nearest, (9,))
    np.testing.assert_array_equal(alone.log_probabilities, one.log_probabilities[:1])


# --- what is fitted once ---


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Cut and seed of each learner."""
    found: list[tuple[str, int]] = []
    for learner in (HeadLearner, TailLearner):
        original = learner.__init__

        def note(self: Any, recipe: Recipe, seed: int, *rest: Any, original: Any = original) -> None:  # noqa: ANN401
            found.append((recipe.cut if isinstance(self, TailLearner) else TOP, seed))
            original(self, recipe, seed, *rest)

        monkeypatch.setattr(learner, "__init__", note)
    return found


ADJUSTED = [
    QUICK,
    dataclasses.replace(QUICK, adjustment=PosthocLogitAdjustment(1.0)),
    dataclasses.replace(QUICK, adjustment=ClassBias(0.1)),
    dataclasses.replace(QUICK, weight_norm=0.5),
]
"""Recipes that differ in the treatment of their logits."""


def test_the_treatment_of_logits_costs_no_training(trainer: Trainer, made: list[tuple[str, int]]) -> None:
    expected = [bits(anew(trainer, recipe)) for recipe in ADJUSTED]
    assert len(set(expected)) == len(ADJUSTED)
    trainer._stages.cache.clear()
    made.clear()
    assert [bits(trainer.cross_validate(recipe, (0, 1))) for recipe in ADJUSTED] == expected
    assert made == [(TOP, 0)] * 4 + [(TOP, 1)] * 4
    trainer.cross_validate(QUICK, (0, 2))
    assert len(made) == 16
    validation = trainer.cross_validate(QUICK, (0, 1))
    for recipe in ADJUSTED:
        trainer.fit_final(recipe, 0, validation)
    assert len(made) == 17
    trainer.fit_reference(QUICK, 0)
    assert len(made) == 18


def test_an_ensemble_trains_its_members_side_by_side(trainer: Trainer, made: list[tuple[str, int]]) -> None:
    """Its first member has the seed of the ensemble."""
    trainer._stages.cache.clear()
    trainer.cross_validate(dataclasses.replace(FIXED, members=3), (5, 6))
    seeds = [seed for _, seed in made[::4]]
    assert [seed for _, seed in made] == [seed for seed in seeds for _ in range(4)]
    assert len(set(seeds)) == 6
    assert (seeds[0], seeds[3]) == (5, 6)


def test_further_heads_do_not_train_the_first_anew(trainer: Trainer, made: list[tuple[str, int]]) -> None:
    trainer._stages.cache.clear()
    for also in ((), (NearestMean("unit", 1.0),), (Logistic(0.1, 1.0), NearestMean("unit", 1.0))):
        trainer.cross_validate(dataclasses.replace(QUICK, also=also), (0, 1))
    assert len(made) == 8


def test_a_head_below_a_tail_is_trained_once(trainer: Trainer, made: list[tuple[str, int]]) -> None:
    trainer._stages.cache.clear()
    for recipe in (
        dataclasses.replace(DEEP, cut=TOP, backbone_learning_rate=Recipe().backbone_learning_rate),
        DEEP,
        dataclasses.replace(DEEP, backbone_learning_rate=1e-3),
    ):
        trainer.cross_validate(recipe, (0,))
    assert [cut for cut, _ in made] == [TOP] * 4 + ["late"] * 8


def test_the_latest_fits_alone_are_kept(trainer: Trainer, made: list[tuple[str, int]]) -> None:
    """A long search does not fill the memory, with tails least of all."""
    trainer._stages.cache.clear()
    for k in range(14):
        trainer.cross_validate(dataclasses.replace(FIXED, learning_rate=1e-3 * k, max_epochs=1), (0,))
    for k in range(3):
        trainer.cross_validate(dataclasses.replace(DEEP, backbone_learning_rate=1e-3 * k, max_epochs=1), (0,))
    kept = trainer._stages.cache.values()
    assert len([fit for fit in kept if fit.heads[0][0].tail is not None]) == 2
    assert len([fit for fit in kept if fit.heads[0][0].tail is None]) <= 12


# --- the callback ---


def note(calls: list[tuple[int, float]]) -> Callable[[int, float], None]:
    return lambda epoch, best: calls.append((epoch, best))


@pytest.mark.parametrize("recipe", [QUICK, DEEP], ids=["head", "tail"])
def test_the_callback_sees_the_last_stage_of_every_fit(recipe: Recipe, trainer: Trainer) -> None:
    """Even where the same fit was kept; and it changes nothing."""
    expected = bits(anew(trainer, recipe))
    for _ in range(2):
        calls: list[tuple[int, float]] = []
        found = trainer.cross_validate(recipe, (0, 1), note(calls))
        assert bits(found) == expected
        epochs = [epoch for epoch, _ in calls]
        first = found.epochs[0] if recipe.cut != TOP else 0
        assert epochs == list(range(first + 1, first + 1 + len(calls)))
        assert len(calls) >= sum(found.epochs) - first
        assert calls[-1][1] == found.history["val_macro_f1"].iloc[-1]  # at the best epoch


def test_ensembles_and_adjusted_logits_do_not_call(trainer: Trainer) -> None:
    calls: list[tuple[int, float]] = []
    for changes in ({"members": 2}, {"also": (NearestMean("unit", 1.0),)}, {"adjustment": ClassBias(0.1)}):
        trainer.cross_validate(dataclasses.replace(QUICK, **changes), (0, 1), note(calls))
    assert calls == []


def test_what_a_callback_raises_ends_the_fit_and_leaves_nothing_behind(trainer: Trainer) -> None:
    expected = [bits(anew(trainer, recipe)) for recipe in (QUICK, DEEP)]

    class Stop(Exception):
        pass

    calls: list[int] = []

    def stop(epoch: int, best: float) -> None:
        calls.append(epoch)
        if epoch % 2 == 0:
            raise Stop

    trainer._stages.cache.clear()
    for recipe in (QUICK, DEEP):
        with pytest.raises(Stop):
            trainer.cross_validate(recipe, (0, 1), stop)
    assert calls[:2] == [1, 2]
    assert [bits(trainer.cross_validate(recipe, (0, 1))) for recipe in (QUICK, DEEP)] == expected


# --- fits that fail ---


@pytest.mark.parametrize("monitor", ["val_loss", "val_macro_f1", "none"])
def test_a_fit_that_is_no_number_any_more_fails_and_leaves_nothing_behind(monitor: Any, trainer: Trainer) -> None:  # noqa: ANN401
    broken = dataclasses.replace(QUICK, learning_rate=1e30, monitor=monitor)
    expected = bits(anew(trainer, QUICK))
    validation = trainer.cross_validate(QUICK, (0, 1))
    trainer._stages.cache.clear()
    calls: list[tuple[int, float]] = []
    for fit in (
        lambda: trainer.cross_validate(broken, (0, 1), note(calls)),
        lambda: trainer.cross_validate(dataclasses.replace(broken, members=2), (0, 1)),
        lambda: trainer.fit_reference(broken, 0),
    ):
        with pytest.raises(FitFailed, match=r"^val_loss became infinite or NaN in epoch 1$"):
            fit()
    with pytest.raises(FitFailed, match=r"^train_loss became infinite or NaN in epoch [12]$"):
        trainer.fit_final(broken, 0, dataclasses.replace(validation, epochs=(3,)))
    assert calls == []
    assert bits(trainer.cross_validate(QUICK, (0, 1))) == expected


def test_a_recipe_that_the_data_does_not_allow_fails_with_the_reason(trainer: Trainer) -> None:
    far = dataclasses.replace(QUICK, projection=NuisanceProjection(40))
    with pytest.raises(NotApplicable, match="rank 40"):
        trainer.cross_validate(far, (0, 1))
    assert isinstance(trainer.cross_validate(QUICK, (0, 1)), CrossValidation)


@pytest.mark.parametrize("name", ["g_mean", "mean_average_precision"])
def test_recipes_are_scored_by_the_target(name: str, trainer: Trainer) -> None:
    splits = trainer.splits
    target = find_target(name, (), splits.images.classes.names)
    other = Trainer(trainer.backbone, splits, trainer._features, target).with_splits(splits)
    validation, usual = (one.cross_validate(FIXED, (0, 1)) for one in (other, trainer))
    labels = splits.images.labels[splits.landmarks]
    expected = [target.score(labels, logits) for logits in validation.log_probabilities]
    assert validation.score == pytest.approx(np.mean(expected))
    assert validation.score != usual.score
    assert usual.score == pytest.approx(np.mean([macro_f1(confusion) for confusion in usual.confusions]))
    assert bits(validation) == bits(usual)  # training does not depend on the target
