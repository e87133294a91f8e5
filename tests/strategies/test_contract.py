"""What every strategy keeps to when it is run, and what single strategies must give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from builders import as_landmarks
from cut_features import cut_key
from worlds import probabilities_of

from hirise_imb.backbones import TOP
from hirise_imb.data.dataset import ClassSet
from hirise_imb.features.arrays import Features
from hirise_imb.features.inputs import FeatureKey
from hirise_imb.features.views import DIHEDRAL
from hirise_imb.imbalance.logit_adjustment import PosthocLogitAdjustment
from hirise_imb.models.projection import NuisanceProjection
from hirise_imb.recipe import Recipe
from hirise_imb.strategies import STRATEGIES, Settings, Strategy
from hirise_imb.testing import Check, strategy_checks
from hirise_imb.testing.declarations import make_recipe
from hirise_imb.testing.strategies import (
    SEEDS,
    ToyFits,
    fits_without_class,
    make_quick_recipe,
    moved_fits,
    noisy_fits,
    succeeded,
)
from hirise_imb.testing.strategies import TOLERANCE as EXACT
from hirise_imb.testing.toy import Toy, ToyClasses
from hirise_imb.utils.errors import FitFailed, NotApplicable

TOY_SETTINGS: Mapping[str, Settings] = {
    # Training ends soon after all classes are told apart, with logits that can't spare all of the prior.
    "logit_adjustment": {"tau": 0.25},
    # The rest saves time.
    "undersampling": {"members": 2},
    "ensemble": {"kind": "heads"},
    "ldam_drw": {"epochs": 15},
    "augmentation": {"views": "both", "mixing": "remix"},  # everything at once
}
"""Settings with which the strategies of this package run on the toy task."""

COMPUTED = ("prototypes", "logistic", "feature_reweighting")
CHECKS = [
    check for strategy in STRATEGIES.values() for check in strategy_checks(strategy, TOY_SETTINGS.get(strategy.name))
]


def quick_recipe(strategy: Strategy, given: Settings | None = None) -> Recipe:
    """Returns the recipe of settings that suit the toy task, except for those that are given."""
    return make_quick_recipe(strategy, {**TOY_SETTINGS.get(strategy.name, {}), **(given or {})})


def recipe_for(name: str, **given: str | float) -> Recipe:
    """Returns the same for a strategy by name."""
    return quick_recipe(STRATEGIES[name], given)


@pytest.fixture(scope="module")
def noisy() -> ToyFits:
    """Clusters that overlap, so that numbers have something to differ in."""
    return noisy_fits()


@pytest.fixture(scope="module")
def fitted_elsewhere() -> None:
    """The moved task has seen all strategies, the last one first: what was fitted before must play no part."""
    for strategy in reversed(list(STRATEGIES.values())):
        moved_fits().final(quick_recipe(strategy))


def with_features(toy: Toy, changes: Mapping[FeatureKey, np.ndarray]) -> Toy:
    new = {key: Features.of(np.asarray(values, np.float32)) for key, values in changes.items()}
    return replace(toy, features={**toy.features, **new})


# --- every strategy ---


@pytest.mark.usefixtures("fitted_elsewhere")
@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_every_strategy_passes_the_contract(check: Check) -> None:
    check()


@pytest.mark.parametrize("name", [name for name, strategy in STRATEGIES.items() if not strategy.trains_backbone])
def test_no_training_landmarks_of_other(name: str) -> None:
    """Only what learns from `other` by its nature refuses."""
    outcome = fits_without_class(0).final(recipe_for(name))
    if name == "nuisance_projection":
        with pytest.raises(
            NotApplicable, match=r"^A projection of rank 5 needs at least 6 sources of other; there are 0\.$"
        ):
            outcome.get()
    else:
        assert outcome.failure is None
        assert np.isfinite(fits_without_class(0).probabilities(recipe_for(name))).all()


@pytest.mark.parametrize("name", [name for name, strategy in STRATEGIES.items() if not strategy.trains_backbone])
def test_classes_without_a_majority(name: str) -> None:
    """Only what is about the majority class by its nature refuses."""
    classes = ToyClasses(ClassSet(("dust", "olivine", "pyroxene")), (20, 12, 8))
    fits = noisy_fits(classes)
    recipe = recipe_for(name)
    refusals = {
        "undersampling": "Under-sampling needs a majority class, and this data set names none.",
        "nuisance_projection": "A nuisance projection needs a majority class, and this data set names none.",
    }
    if name in refusals:
        with pytest.raises(NotApplicable) as caught:
            fits.final(recipe).get()
        assert str(caught.value) == refusals[name]
    else:
        assert fits.probabilities(recipe).shape == (len(fits.toy.task.test), 3)
        assert succeeded(fits.validation(recipe)).score > 0.5


@pytest.mark.parametrize("name", COMPUTED)
def test_what_is_computed_knows_neither_seed_nor_order(name: str, noisy: ToyFits) -> None:
    recipe = recipe_for(name)
    expected = noisy.probabilities(recipe)
    validation = noisy.trainer.cross_validate(recipe, (8, 9))
    original = succeeded(noisy.validation(recipe))
    np.testing.assert_array_equal(validation.log_probabilities, original.log_probabilities)
    other = noisy.trainer.fit_final(recipe, SEEDS[0] + 1, validation)
    np.testing.assert_array_equal(probabilities_of(other), expected)
    shuffled = np.random.default_rng(0).permutation(noisy.toy.task.pool)
    turned = ToyFits.of(replace(noisy.toy, task=replace(noisy.toy.task, pool=shuffled)))
    # Logistic regression ends near its optimum, and where it ends depends on rounding.
    np.testing.assert_allclose(turned.probabilities(recipe), expected, atol=EXACT if name == "prototypes" else 1e-3)


def test_another_seed_gives_other_numbers(noisy: ToyFits) -> None:
    for name in ("plain", "oversampling", "undersampling", "smote"):
        recipe = recipe_for(name)
        validation = succeeded(noisy.validation(recipe))
        other = probabilities_of(noisy.trainer.fit_final(recipe, SEEDS[0] + 1, validation))
        assert np.abs(other - noisy.probabilities(recipe)).max() > 1e-4


def test_a_remedy_that_can_not_be_says_so(noisy: ToyFits) -> None:
    impossible = replace(recipe_for("nuisance_projection"), projection=NuisanceProjection(500))
    with pytest.raises(FitFailed, match=r"^A projection of rank 500 needs at least 501 sources of other; "):
        noisy.validation(impossible).get()


# --- what must be the same ---


def same_fits(one: Recipe, other: Recipe, noisy: ToyFits, tolerance: float = 0.0) -> None:
    """Cross-validations and final fits of both recipes agree."""
    found, expected = succeeded(noisy.validation(one)), succeeded(noisy.validation(other))
    np.testing.assert_allclose(found.log_probabilities, expected.log_probabilities, atol=tolerance, rtol=tolerance)
    np.testing.assert_array_equal(found.confusions, expected.confusions)
    np.testing.assert_allclose(noisy.probabilities(one), noisy.probabilities(other), atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("class_weights", {"power": 0.0}),
        ("class_weights", {"power": 0.0, "unit": "sources"}),
        ("logit_adjusted_loss", {"tau": 0.0}),
        ("logit_adjustment", {"tau": 0.0}),
    ],
)
def test_a_remedy_of_strength_zero_is_none(name: str, given: dict[str, str | float], noisy: ToyFits) -> None:
    same_fits(recipe_for(name, **given), recipe_for("plain"), noisy)


def test_focal_loss_with_gamma_0_is_cross_entropy(noisy: ToyFits) -> None:
    same_fits(recipe_for("focal_loss", gamma=0.0), recipe_for("plain"), noisy, 1e-5)


def test_an_ensemble_of_seeds_is_the_control_that_averages_as_many(noisy: ToyFits) -> None:
    assert recipe_for("ensemble", kind="seeds", members=3) == replace(recipe_for("plain"), members=3)


def test_after_uniform_sampling_no_prior_is_left_to_adjust(noisy: ToyFits) -> None:
    recipe = recipe_for("oversampling", power=0.0)
    adjusted = replace(recipe, adjustment=PosthocLogitAdjustment(1.0))
    np.testing.assert_allclose(noisy.probabilities(adjusted), noisy.probabilities(recipe), atol=EXACT)
    # After any other sampling there is.
    halfway = recipe_for("oversampling", power=0.5)
    adjusted = replace(halfway, adjustment=PosthocLogitAdjustment(1.0))
    assert np.abs(noisy.probabilities(adjusted) - noisy.probabilities(halfway)).max() > 0.05


def test_the_prior_that_is_taken_off_is_that_of_the_training_images(noisy: ToyFits) -> None:
    """z - tau log prior, by hand."""
    task = noisy.toy.task
    shares = np.bincount(task.images.labels[task.pool], minlength=8) / len(task.pool)
    expected = noisy.probabilities(recipe_for("plain")) / shares**0.5
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(noisy.probabilities(recipe_for("logit_adjustment", tau=0.5)), expected, atol=1e-5)


def test_a_temperature_changes_no_decision(noisy: ToyFits) -> None:
    plain, found = recipe_for("plain"), recipe_for("temperature")
    np.testing.assert_array_equal(noisy.probabilities(found).argmax(axis=1), noisy.probabilities(plain).argmax(axis=1))
    assert np.abs(noisy.probabilities(found) - noisy.probabilities(plain)).max() > 1e-3
    one, other = succeeded(noisy.validation(found)), succeeded(noisy.validation(plain))
    np.testing.assert_array_equal(one.confusions, other.confusions)


def test_views_that_are_all_alike_change_nothing(noisy: ToyFits) -> None:
    plain = noisy.toy.features[cut_key(TOP)].stored
    alike = ToyFits.of(with_features(noisy.toy, {cut_key(TOP, view): plain for view in DIHEDRAL}))
    for views in ("mirror", "rotations", "dihedral"):
        np.testing.assert_allclose(
            alike.probabilities(recipe_for("tta", views=views)), noisy.probabilities(recipe_for("plain")), atol=EXACT
        )
    assert np.abs(noisy.probabilities(recipe_for("tta")) - noisy.probabilities(recipe_for("plain"))).max() > 1e-3


def test_an_ensemble_averages_the_calibrated_log_probabilities_of_its_heads(noisy: ToyFits) -> None:
    """One trained head and two in closed form, each by itself and then by hand."""
    whole = recipe_for("ensemble", kind="heads")
    alone = [replace(whole, also=()), *(Recipe(head=head) for head in whole.also)]
    parts = []
    for recipe in alone:
        run = succeeded(noisy.final(recipe))  # whose temperature is that of the out-of-fold predictions
        parts.append(np.log(noisy.probabilities(recipe).astype(float)) / run.temperature)
    expected = np.exp(np.mean(parts, axis=0))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(noisy.probabilities(whole), expected, atol=1e-5)


def test_what_was_projected_out_moves_no_prediction(noisy: ToyFits) -> None:
    recipe = recipe_for("nuisance_projection")
    toy, images = noisy.toy, noisy.toy.task.images
    values = toy.features[cut_key(TOP)].stored.astype(np.float64)
    rows = toy.task.pool
    taught = NuisanceProjection(5).directions(as_landmarks(values[rows], images.labels[rows], images.sources[rows]))
    # The sources of `other` no longer differ in these: the scatter between their means vanishes there.
    others = rows[images.labels[rows] == 0]
    means = [values[others[images.sources[others] == s]].mean(axis=0) for s in np.unique(images.sources[others])]
    spread = np.var(means - (means @ taught) @ taught.T, axis=0)
    assert np.var((means - (means @ taught) @ taught.T) @ taught, axis=0).max() < 1e-20
    assert spread.sum() < np.var(means, axis=0).sum()
    moved = values.copy()
    moved[toy.task.test] += 3 * np.random.default_rng(0).normal(size=(len(toy.task.test), 5)) @ taught.T
    elsewhere = ToyFits.of(with_features(toy, {cut_key(TOP): moved}))
    np.testing.assert_allclose(elsewhere.probabilities(recipe), noisy.probabilities(recipe), atol=1e-4)
    assert np.abs(elsewhere.probabilities(recipe_for("plain")) - noisy.probabilities(recipe_for("plain"))).max() > 0.1


def test_a_strategy_that_starts_from_the_control_shares_its_training(noisy: ToyFits) -> None:
    """What is done to logits after training costs no training: epochs are those of the control."""
    plain = recipe_for("plain")
    for name in ("logit_adjustment", "tau_norm", "class_bias", "temperature", "tta"):
        recipe = recipe_for(name)
        assert recipe.training() == plain
        assert succeeded(noisy.validation(recipe)).history.equals(succeeded(noisy.validation(plain)).history)
        assert succeeded(noisy.final(recipe)).history.equals(succeeded(noisy.final(plain)).history)


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES.keys())
def test_defaults_can_be_run_as_they_are(strategy: Strategy, noisy: ToyFits) -> None:
    """Without what suits the toy."""
    for settings in ({}, *strategy.initial_points()):
        if settings.get("rank") == 20:
            continue  # the toy has too few sources
        recipe = make_recipe(strategy, settings)
        if recipe.trained:
            recipe = replace(recipe, max_epochs=10, patience=2)
        succeeded(noisy.validation(recipe))


def test_classes_of_few_landmarks_have_as_many_neighbours_as_they_can(noisy: ToyFits) -> None:
    notes = succeeded(noisy.validation(recipe_for("smote", neighbours=7))).notes
    assert any("instead of 7" in note for note in notes)
    assert succeeded(noisy.validation(recipe_for("smote", neighbours=1))).notes == ()
