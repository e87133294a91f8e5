"""The strategies one by one: which recipe they make of settings, and what they say of themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hirise_imb.backbones import TOP
from hirise_imb.features.inputs import Input
from hirise_imb.features.views import DIHEDRAL, JITTERED
from hirise_imb.imbalance.class_bias import ClassBias
from hirise_imb.imbalance.class_weights import EffectiveNumber, InversePower
from hirise_imb.imbalance.logit_adjustment import NoAdjustment, PosthocLogitAdjustment
from hirise_imb.imbalance.losses import CrossEntropy, Focal, LabelDistributionAwareMargin, LogitAdjustedCrossEntropy
from hirise_imb.imbalance.mixing import Mixup, Remix
from hirise_imb.imbalance.sampling import ClassSampling, EveryImage, RandomOversampling, SplitFileRows, Undersampling
from hirise_imb.imbalance.smote import SyntheticOversampling
from hirise_imb.imbalance.temperature import Temperature
from hirise_imb.models.closed_form import Discriminant, Logistic, NearestMean
from hirise_imb.models.projection import NuisanceProjection
from hirise_imb.models.reweighting import DeepFeatureReweighting
from hirise_imb.models.weight_scaling import WeightScaling
from hirise_imb.recipe import Cosine, Linear, Recipe, Retraining
from hirise_imb.strategies import CONTROL, STRATEGIES, RecipeContext, Strategy
from hirise_imb.testing.declarations import draw_settings, make_recipe
from hirise_imb.testing.toy import CUTS

each = pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES.keys())

TUNED = Recipe(learning_rate=1e-3, weight_decay=1e-2, monitor="val_macro_f1", max_epochs=100, patience=10)
"""The control with its defaults."""
LDAM = replace(
    TUNED,
    head=Cosine(30.0),
    loss=LabelDistributionAwareMargin(0.5),
    class_weights=EffectiveNumber(0.9999),
    reweight_after=0.8,
    rate_drops=(0.8, 0.9),
    monitor="none",
    max_epochs=30,
)
"""Epochs 160 and 180 of 200 in the paper."""
UNFROZEN = replace(TUNED, cut="late", backbone_learning_rate=1e-4)
LIGHT = replace(
    TUNED,
    head=Cosine(25.0),
    loss=LogitAdjustedCrossEntropy(0.5),
    cut="late",
    backbone_learning_rate=1e-3,
    trainable="norms",
    start="class_means",
)
THREE = (Discriminant(0.1, 1.0), Logistic(1e-2, 0.5))


def random_recipes(strategy: Strategy, trials: int = 30) -> list[Recipe]:
    return [make_recipe(strategy, settings) for settings, _ in draw_settings(strategy, trials)]


# --- what they say of themselves ---


def test_there_are_26_and_names_are_keys() -> None:
    assert {name: strategy.name for name, strategy in STRATEGIES.items()} == {name: name for name in STRATEGIES}
    assert len(STRATEGIES) == 26
    assert len({strategy.summary for strategy in STRATEGIES.values()}) == 26


@each
def test_a_strategy_says_what_it_does_and_who_described_it(strategy: Strategy) -> None:
    assert 0 < len(strategy.summary) < 90
    assert "\n" not in strategy.summary
    assert not strategy.summary.endswith(".")
    years = [word for word in strategy.source.replace(";", " ").replace(")", " ").split() if word.isdigit()]
    assert strategy.source in ("control", "this project") or any(1900 < int(year) < 2030 for year in years)


@each
def test_what_a_strategy_starts_from_comes_before_it(strategy: Strategy) -> None:
    names = list(STRATEGIES)
    assert all(names.index(base) < names.index(strategy.name) for base in strategy.depends_on)


@each
def test_what_is_trained_in_a_strategy_watches_macro_f1_unless_it_has_a_schedule(strategy: Strategy) -> None:
    for recipe in random_recipes(strategy):
        if recipe.trained:
            assert recipe.monitor == ("none" if has_schedule(recipe) else "val_macro_f1")


def has_schedule(recipe: Recipe) -> bool:
    progressive = isinstance(recipe.sampling, ClassSampling) and recipe.sampling.progressive
    return recipe.reweight_after > 0 or bool(recipe.rate_drops) or progressive


@each
def test_a_schedule_comes_to_its_end_in_the_epochs_that_are_trained(strategy: Strategy) -> None:
    """Class weights take effect before the last epoch, and the learning rate falls."""
    for recipe in random_recipes(strategy, 100):
        last = (recipe.max_epochs - 1) / recipe.max_epochs
        assert recipe.reweight_after <= last
        assert not recipe.rate_drops or recipe.rate_drops[0] <= last
        if recipe.reweight_after:
            assert recipe.rate_drops[0] == recipe.reweight_after
            assert recipe.class_weights != InversePower()


@each
def test_a_strategy_leaves_the_published_run_alone_but_for_its_own_part(strategy: Strategy) -> None:
    """Batch size and dropout are no strategy's; so are rule and patience of stopping, and the cap seldom binds."""
    for recipe in random_recipes(strategy):
        assert recipe.batch_size == 32
        assert recipe.dropout == 0.2
        if recipe.trained and not has_schedule(recipe):
            assert recipe.max_epochs == 100
            assert recipe.patience == 10


# --- exact recipes ---


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("plain", {}, TUNED),
        ("plain", {"learning_rate": 5e-3, "weight_decay": 0.5}, replace(TUNED, learning_rate=5e-3, weight_decay=0.5)),
        ("oversampling", {}, replace(TUNED, sampling=ClassSampling(0.5))),
        ("oversampling", {"scheme": "class", "power": 0.0}, replace(TUNED, sampling=ClassSampling(0.0))),
        ("oversampling", {"scheme": "source"}, replace(TUNED, sampling=ClassSampling(0.5, by_source=True))),
        (
            "oversampling",
            {"scheme": "progressive", "power": 0.2},
            replace(TUNED, sampling=ClassSampling(0.2, progressive=True), monitor="none", max_epochs=30),
        ),
        (
            "oversampling",
            {"scheme": "progressive", "epochs": 50},
            replace(TUNED, sampling=ClassSampling(0.5, progressive=True), monitor="none", max_epochs=50),
        ),
        ("oversampling", {"scheme": "random", "ratio": 0.3}, replace(TUNED, sampling=RandomOversampling(0.3))),
        ("oversampling", {"scheme": "split_file"}, replace(TUNED, sampling=SplitFileRows())),
        ("smote", {}, replace(TUNED, synthesis=SyntheticOversampling("smote", 0.5, 2))),
        (
            "smote",
            {"kind": "adasyn", "ratio": 0.25, "neighbours": 2},
            replace(TUNED, synthesis=SyntheticOversampling("adasyn", 0.25, 2)),
        ),
        ("undersampling", {}, replace(TUNED, sampling=Undersampling(3.0), members=4)),
        ("undersampling", {"ratio": 1.5, "members": 6}, replace(TUNED, sampling=Undersampling(1.5), members=6)),
        ("class_weights", {}, replace(TUNED, class_weights=InversePower(1.0))),
        (
            "class_weights",
            {"power": 0.25, "unit": "sources"},
            replace(TUNED, class_weights=InversePower(0.25, "sources")),
        ),
        (
            "class_weights",
            {"scheme": "effective_number", "one_minus_beta": 0.01, "unit": "sources"},
            replace(TUNED, class_weights=EffectiveNumber(0.99, "sources")),
        ),
        ("focal_loss", {}, replace(TUNED, loss=Focal(2.0))),
        (
            "focal_loss",
            {"gamma": 0.5, "weights": "effective_number"},
            replace(TUNED, loss=Focal(0.5), class_weights=EffectiveNumber(0.999)),
        ),
        ("logit_adjusted_loss", {}, replace(TUNED, loss=LogitAdjustedCrossEntropy(1.0))),
        ("logit_adjusted_loss", {"tau": 0.25}, replace(TUNED, loss=LogitAdjustedCrossEntropy(0.25))),
        ("ldam_drw", {}, LDAM),
        (
            "ldam_drw",
            {"max_margin": 0.3, "scale": 10.0, "reweight_after": 0.5, "epochs": 40},
            replace(
                LDAM,
                head=Cosine(10.0),
                loss=LabelDistributionAwareMargin(0.3),
                reweight_after=0.5,
                rate_drops=(0.5, 0.75),
                max_epochs=40,
            ),
        ),
        ("partial_unfreeze", {}, UNFROZEN),
        (
            "partial_unfreeze",
            {"depth": 2, "backbone_learning_rate": 2e-5},
            replace(TUNED, cut="early", backbone_learning_rate=2e-5),
        ),
        ("decoupled", {}, replace(UNFROZEN, retraining=Retraining(ClassSampling(0.0), 1e-3, 1e-2))),
        (
            "decoupled",
            {"power": 0.5, "learning_rate": 2e-3, "weight_decay": 0.1},
            replace(UNFROZEN, retraining=Retraining(ClassSampling(0.5), 2e-3, 0.1)),
        ),
        ("decoupled", {"kind": "scaled"}, replace(UNFROZEN, retraining=WeightScaling(0.0, 1e-2))),
        (
            "decoupled",
            {"kind": "scaled", "power": 0.5, "strength": 0.1},
            replace(UNFROZEN, retraining=WeightScaling(0.5, 0.1)),
        ),
        ("light_tuning", {}, LIGHT),
        (
            "light_tuning",
            {"depth": 2, "backbone_learning_rate": 5e-3, "tau": 0.75},
            replace(LIGHT, cut="early", backbone_learning_rate=5e-3, loss=LogitAdjustedCrossEntropy(0.75)),
        ),
        ("light_tuning", {"head": "trained"}, replace(LIGHT, head=Linear(), start="trained")),
        ("augmentation", {}, replace(UNFROZEN, training_views=DIHEDRAL)),
        ("augmentation", {"views": "jittered"}, replace(UNFROZEN, training_views=("plain", *JITTERED))),
        (
            "augmentation",
            {"mixing": "mixup"},
            replace(UNFROZEN, training_views=DIHEDRAL, mixing=Mixup(1.0)),
        ),
        (
            "augmentation",
            {"views": "jittered", "mixing": "remix"},
            replace(UNFROZEN, training_views=("plain", *JITTERED), mixing=Remix(1.0, 3.0, 0.5)),
        ),
        ("augmentation", {"views": "both"}, replace(UNFROZEN, training_views=(*DIHEDRAL, *JITTERED))),
        ("logit_adjustment", {}, replace(TUNED, adjustment=PosthocLogitAdjustment(1.0))),
        ("logit_adjustment", {"tau": 0.3}, replace(TUNED, adjustment=PosthocLogitAdjustment(0.3))),
        ("tau_norm", {}, replace(TUNED, weight_norm=1.0, keep_bias=True)),
        ("tau_norm", {"tau": 0.5, "bias": "dropped"}, replace(TUNED, weight_norm=0.5)),
        ("class_bias", {}, replace(TUNED, adjustment=ClassBias(0.03))),
        ("class_bias", {"strength": 0.5}, replace(TUNED, adjustment=ClassBias(0.5))),
        ("temperature", {}, replace(TUNED, adjustment=Temperature())),
        ("temperature", {"kind": "bias_corrected"}, replace(TUNED, adjustment=Temperature(bias=True))),
        ("prototypes", {}, Recipe(head=Discriminant(0.1, 1.0))),
        ("prototypes", {"shrinkage": 0.5, "prior_power": 0.0}, Recipe(head=Discriminant(0.5, 0.0))),
        ("prototypes", {"kind": "nearest_mean"}, Recipe(head=NearestMean("centred_unit", 1.0))),
        ("prototypes", {"kind": "nearest_mean", "normalise": "unit"}, Recipe(head=NearestMean("unit", 1.0))),
        ("logistic", {}, Recipe(head=Logistic(0.01, 1.0))),
        ("logistic", {"c": 0.5, "power": 0.0}, Recipe(head=Logistic(0.5, 0.0))),
        ("feature_reweighting", {}, Recipe(head=DeepFeatureReweighting(0.1, 0.75))),
        (
            "feature_reweighting",
            {"c": 2.0, "subset_size": 0.0},
            Recipe(head=DeepFeatureReweighting(2.0, 0.0, draws=10)),
        ),
        ("nuisance_projection", {}, replace(TUNED, projection=NuisanceProjection(5))),
        ("nuisance_projection", {"rank": 12}, replace(TUNED, projection=NuisanceProjection(12))),
        (
            "nuisance_projection",
            {"statistic": "covariances"},
            replace(TUNED, projection=NuisanceProjection(5, "covariances")),
        ),
        ("photometric", {}, replace(TUNED, inputs=(Input(), Input("photometric")))),
        ("photometric", {"features": "alone"}, replace(TUNED, inputs=(Input("photometric"),))),
        (
            "representation",
            {},
            replace(TUNED, inputs=(Input(layer="late"), Input(layer="middle", pooling="mean_std"))),
        ),
        (
            "representation",
            {"partner": "none", "depth": 3},
            replace(TUNED, inputs=(Input(layer="early", pooling="mean_std"),)),
        ),
        (
            "representation",
            {"partner": "top", "pooling": "gem"},
            replace(TUNED, inputs=(Input(), Input(layer="middle", pooling="gem"))),
        ),
        ("representation", {"depth": 1, "pooling": "mean"}, replace(TUNED, inputs=(Input(layer="late"),))),
        ("tta", {}, replace(TUNED, views=DIHEDRAL)),
        ("tta", {"views": "mirror"}, replace(TUNED, views=("plain", "fh"))),
        ("tta", {"views": "rotations"}, replace(TUNED, views=("plain", "r90", "r180", "r270"))),
        ("ensemble", {}, replace(TUNED, members=5)),
        ("ensemble", {"kind": "seeds", "members": 2}, replace(TUNED, members=2)),
        ("ensemble", {"kind": "heads"}, replace(TUNED, also=THREE)),
        ("combined", {}, replace(TUNED, class_weights=InversePower(0.5))),
        (
            "combined",
            {"features": "concatenated", "projection": "nuisance", "rank": 3, "heads": "three", "members": 2},
            replace(
                TUNED,
                inputs=(Input(), Input("photometric")),
                projection=NuisanceProjection(3),
                class_weights=InversePower(0.5),
                also=THREE,
                members=2,
            ),
        ),
    ],
)
def test_settings_make_this_recipe(name: str, given: dict[str, Any], expected: Recipe) -> None:
    assert make_recipe(STRATEGIES[name], given) == expected


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tau_norm", {"tau": 0.0}),
        ("ensemble", {"members": 1}),
        ("oversampling", {"power": 1.0}),
    ],
)
def test_no_setting_makes_a_remedy_the_control(name: str, settings: dict[str, Any]) -> None:
    """A search would choose it if it could, and the arm would stand among the remedies."""
    with pytest.raises(ValueError, match=f"^{next(iter(settings))} must be "):
        make_recipe(STRATEGIES[name], settings)


@each
def test_every_recipe_but_the_controls_differs_from_the_control(strategy: Strategy) -> None:
    for recipe in random_recipes(strategy, 100):
        control = replace(TUNED, learning_rate=recipe.learning_rate, weight_decay=recipe.weight_decay)
        assert (recipe == control) <= (strategy.name in (CONTROL, "combined"))


@pytest.mark.parametrize(
    "name",
    # combined_features takes over the features alone, which a test of its own checks.
    [name for name, strategy in STRATEGIES.items() if strategy.depends_on and name != "combined_features"],
)
def test_what_starts_from_another_keeps_its_choice(name: str) -> None:
    strategy = STRATEGIES[name]
    (base,) = strategy.depends_on
    chosen = replace(make_recipe(STRATEGIES[base]), learning_rate=7e-3, weight_decay=0.25)
    settings = {parameter.name: parameter.default for parameter in strategy.space if parameter.when is None}
    found = strategy.recipe(settings, RecipeContext(CUTS, {base: chosen}))
    assert (found.learning_rate, found.weight_decay) == (7e-3, 0.25)
    if base == CONTROL and name != "ensemble":
        assert found.training() == chosen


def test_augmentation_trains_at_the_first_cut_whatever_partial_unfreezing_chose() -> None:
    """Features of its views are cached there alone."""
    chosen = make_recipe(STRATEGIES["partial_unfreeze"], {"depth": 2, "backbone_learning_rate": 3e-4})
    found = STRATEGIES["augmentation"].recipe({}, RecipeContext(CUTS, {"partial_unfreeze": chosen}))
    assert found == replace(chosen, cut="late", training_views=DIHEDRAL)


# --- compositions ---


COMBINED = STRATEGIES["combined"]


def corrections(recipe: Recipe) -> int:
    """How often the prior is corrected; LDAM and its late weights are one correction."""
    margins = isinstance(recipe.loss, LabelDistributionAwareMargin)
    weighted = recipe.class_weights != InversePower() and not margins
    by_loss = margins or isinstance(recipe.loss, LogitAdjustedCrossEntropy)
    return (
        weighted
        + by_loss
        + (recipe.sampling != EveryImage())
        + isinstance(recipe.adjustment, PosthocLogitAdjustment | ClassBias)
    )


def test_no_composition_corrects_the_prior_twice() -> None:
    recipes = random_recipes(COMBINED, 500)
    assert {corrections(recipe) for recipe in recipes} == {0, 1}
    assert all(isinstance(recipe.head, Linear) or recipe.adjustment == NoAdjustment() for recipe in recipes)


@pytest.mark.parametrize("correction", ["class_weights", "oversampling", "logit_adjusted_loss", "ldam_drw"])
@pytest.mark.parametrize("adjustment", ["none", "logit_adjustment", "class_bias"])
def test_a_second_correction_can_not_even_be_written(correction: str, adjustment: str) -> None:
    with pytest.raises(ValueError, match="no parameter adjustment here"):
        make_recipe(COMBINED, {"correction": correction, "adjustment": adjustment})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, TUNED),
        ({"correction": "class_weights", "weight_power": 1.5}, replace(TUNED, class_weights=InversePower(1.5))),
        ({"correction": "oversampling", "sampling_power": 0.1}, replace(TUNED, sampling=ClassSampling(0.1))),
        ({"correction": "logit_adjusted_loss", "loss_tau": 1.0}, replace(TUNED, loss=LogitAdjustedCrossEntropy(1.0))),
        ({"correction": "focal_loss", "gamma": 1.0}, replace(TUNED, loss=Focal(1.0))),
        (
            {"correction": "ldam_drw", "max_margin": 0.3},
            replace(LDAM, head=Cosine(15.0), loss=LabelDistributionAwareMargin(0.3)),
        ),
        ({"adjustment": "logit_adjustment", "tau": 1.0}, replace(TUNED, adjustment=PosthocLogitAdjustment(1.0))),
        ({"adjustment": "class_bias", "strength": 0.1}, replace(TUNED, adjustment=ClassBias(0.1))),
        ({"features": "concatenated"}, replace(TUNED, inputs=(Input(), Input("photometric")))),
        ({"projection": "nuisance", "rank": 20}, replace(TUNED, projection=NuisanceProjection(20))),
        ({"heads": "three"}, replace(TUNED, also=THREE)),
        ({"members": 4}, replace(TUNED, members=4)),
    ],
)
def test_each_remedy_can_be_had_alone(given: dict[str, Any], expected: Recipe) -> None:
    assert make_recipe(COMBINED, {"correction": "none", **given}) == expected


def test_combined_features_is_combined_on_the_selected_features() -> None:
    strategy = STRATEGIES["combined_features"]
    inputs = (Input(layer="early", pooling="gem"),)
    context = RecipeContext(CUTS, {"representation": replace(TUNED, inputs=inputs, learning_rate=5e-3)})
    for settings in ({}, {"correction": "none", "adjustment": "class_bias", "heads": "three"}, {"members": 3}):
        expected = replace(make_recipe(COMBINED, settings), inputs=inputs)
        assert strategy.recipe(settings, context) == expected
    shared = {parameter.name: parameter for parameter in strategy.space}
    assert {parameter.name: parameter for parameter in COMBINED.space if parameter.name != "features"} == shared


def test_random_compositions_hold_every_remedy() -> None:
    recipes = random_recipes(COMBINED, 500)
    assert {type(recipe.loss) for recipe in recipes} == {
        CrossEntropy,
        Focal,
        LogitAdjustedCrossEntropy,
        LabelDistributionAwareMargin,
    }
    assert {type(recipe.adjustment) for recipe in recipes} == {NoAdjustment, PosthocLogitAdjustment, ClassBias}
    assert {type(recipe.sampling) for recipe in recipes} == {EveryImage, ClassSampling}
    assert {recipe.members for recipe in recipes} == {1, 2, 3, 4}
    assert {len(recipe.also) for recipe in recipes} == {0, 2}
    assert {recipe.inputs for recipe in recipes} == {(Input(),), (Input(), Input("photometric"))}
    # Two remedies of different kinds do go together.
    assert any(recipe.projection and recipe.also and recipe.adjustment != NoAdjustment() for recipe in recipes)


# --- the baseline ---


def test_the_baseline_is_the_published_reference_run() -> None:
    base = Recipe()
    assert base.head == Linear()
    assert base.sampling == EveryImage()
    assert base.class_weights == InversePower(0.0)
    assert base.loss == CrossEntropy()
    assert base.cut == TOP == "top"
    assert base.inputs == (Input("plain", "top", "mean"),)
    assert base.views == ("plain",)
    assert (base.projection, base.synthesis, base.retraining) == (None, None, None)
    assert (base.also, base.members, base.adjustment) == ((), 1, NoAdjustment())
    assert (base.weight_norm, base.weight_decay, base.reweight_after, base.rate_drops) == (0, 0, 0, ())
    assert base.learning_rate == 1e-4
    assert base.batch_size == 32
    assert base.dropout == 0.2
    assert base.max_epochs == 30
    assert base.monitor == "val_loss"
    assert base.patience == 4
