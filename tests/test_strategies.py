"""The contract that every strategy keeps, and the baseline that all are compared with."""

import json
from typing import Any

import optuna
import pytest
from optuna.trial import FixedTrial

from hirise_imb.backbones import TOP
from hirise_imb.losses import ClassWeights, CrossEntropy, EffectiveNumber, Focal, InversePower
from hirise_imb.recipe import Recipe
from hirise_imb.sampling import EveryImage, RandomOversampling, SplitFileRows
from hirise_imb.strategies import STRATEGIES, Strategy

CUTS = ("late", "middle", "early")
each = pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES.keys())


def random_recipes(strategy: Strategy, seed: int = 0, asks: int = 30) -> list[tuple[dict[str, Any], Recipe]]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    found = []
    for _ in range(asks):
        trial = study.ask()
        recipe = strategy.recipe(trial, CUTS)
        found.append((dict(trial.params), recipe))
    return found


def starting_recipes(strategy: Strategy) -> list[Recipe]:
    return [strategy.recipe(FixedTrial(dict(settings)), CUTS) for settings in strategy.starts(CUTS)]


# --- the contract ---


def test_names_are_keys_and_differ() -> None:
    assert {name: strategy.name for name, strategy in STRATEGIES.items()} == {name: name for name in STRATEGIES}
    assert {"class_weights", "oversampling", "focal_loss", "partial_unfreeze"} <= set(STRATEGIES)


@each
def test_a_strategy_says_what_it_does_and_who_described_it(strategy: Strategy) -> None:
    assert strategy.summary.strip()
    assert "\n" not in strategy.summary
    assert any(year.isdigit() and len(year) == 4 for year in strategy.source.replace(";", " ").split())


@each
def test_starts_name_what_is_asked_for_and_nothing_else(strategy: Strategy) -> None:
    starts = strategy.starts(CUTS)
    assert starts
    for settings in starts:
        trial = FixedTrial(dict(settings))
        strategy.recipe(trial, CUTS)
        assert trial.params == settings  # `params` holds what was asked for


@each
def test_starts_are_inside_the_search_space_and_differ(strategy: Strategy) -> None:
    # A value outside its range only warns in a fixed trial, and warnings are errors here.
    recipes = starting_recipes(strategy)
    assert all(recipe not in recipes[:n] for n, recipe in enumerate(recipes))
    assert all(recipe != Recipe() for recipe in recipes)


@each
def test_random_settings_make_recipes_of_plain_values(strategy: Strategy) -> None:
    for _, recipe in random_recipes(strategy):
        plain = recipe.to_dict()
        assert json.loads(json.dumps(plain, allow_nan=False)) == plain


@each
def test_known_settings_make_the_same_recipe_again(strategy: Strategy) -> None:
    found = random_recipes(strategy)
    for settings, recipe in found:
        again = strategy.recipe(FixedTrial(settings), CUTS)
        assert again == recipe
        assert again.to_dict() == recipe.to_dict()
    for settings, recipe in found:
        for others, other in found:
            assert (recipe == other) == (recipe.to_dict() == other.to_dict())
            if settings == others:
                assert recipe == other


@each
def test_a_backbone_is_trained_exactly_where_the_strategy_says_so(strategy: Strategy) -> None:
    recipes = [*starting_recipes(strategy), *(recipe for _, recipe in random_recipes(strategy))]
    assert {recipe.cut for recipe in recipes} <= {TOP, *CUTS}
    assert any(recipe.cut != TOP for recipe in recipes) == strategy.trains_backbone


# --- the four strategies ---


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("class_weights", {"class_weights"}),
        ("oversampling", {"sampling"}),
        ("focal_loss", {"loss"}),
        ("partial_unfreeze", {"cut", "backbone_learning_rate"}),
    ],
)
def test_a_strategy_changes_its_own_fields_and_the_monitor(name: str, own: set[str]) -> None:
    base = Recipe().to_dict()
    for _, recipe in random_recipes(STRATEGIES[name]):
        changed = {field for field, value in recipe.to_dict().items() if value != base[field]}
        assert changed <= own | {"monitor"}
        assert recipe.monitor == "val_macro_f1"


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({"scheme": "inverse_power", "power": 1.0}, InversePower(1.0)),
        ({"scheme": "inverse_power", "power": 0.25}, InversePower(0.25)),
        ({"scheme": "effective_number", "one_minus_beta": 0.001}, EffectiveNumber(0.999)),
    ],
)
def test_class_weights(settings: dict[str, Any], weights: ClassWeights) -> None:
    expected = Recipe(class_weights=weights, monitor="val_macro_f1")
    assert STRATEGIES["class_weights"].recipe(FixedTrial(settings), CUTS) == expected


def test_oversampling() -> None:
    strategy = STRATEGIES["oversampling"]
    split_file = strategy.recipe(FixedTrial({"scheme": "split_file"}), CUTS)
    assert split_file == Recipe(sampling=SplitFileRows(), monitor="val_macro_f1")
    random = strategy.recipe(FixedTrial({"scheme": "random", "ratio": 0.3}), CUTS)
    assert random == Recipe(sampling=RandomOversampling(0.3), monitor="val_macro_f1")


def test_focal_loss() -> None:
    found = STRATEGIES["focal_loss"].recipe(FixedTrial({"gamma": 3.0, "alpha_power": 0.5}), CUTS)
    assert found == Recipe(loss=Focal(3.0, 0.5), monitor="val_macro_f1")


def test_partial_unfreeze_reaches_every_cut() -> None:
    strategy = STRATEGIES["partial_unfreeze"]
    found = strategy.recipe(FixedTrial({"cut": "early", "backbone_learning_rate": 2e-5}), CUTS)
    assert found == Recipe(cut="early", backbone_learning_rate=2e-5, monitor="val_macro_f1")
    assert {recipe.cut for _, recipe in random_recipes(strategy)} == set(CUTS)
    assert {recipe.cut for recipe in starting_recipes(strategy)} == {"late"}


# --- the baseline ---


def test_the_baseline_is_the_published_reference_run() -> None:
    base = Recipe()
    assert base.sampling == EveryImage()
    assert base.class_weights == InversePower(0.0)
    assert base.loss == CrossEntropy()
    assert base.cut == TOP == "top"
    assert base.learning_rate == 1e-4
    assert base.batch_size == 32
    assert base.dropout == 0.2
    assert base.max_epochs == 30
    assert base.monitor == "val_loss"
    assert base.patience == 4


def test_a_recipe_as_plain_values() -> None:
    recipe = Recipe(class_weights=EffectiveNumber(0.9), loss=Focal(1.0, 0.5), sampling=RandomOversampling(0.2))
    assert recipe.to_dict() == {
        "sampling": {"kind": "RandomOversampling", "ratio": 0.2},
        "class_weights": {"kind": "EffectiveNumber", "beta": 0.9},
        "loss": {"kind": "Focal", "gamma": 1.0, "alpha_power": 0.5},
        "cut": "top",
        "backbone_learning_rate": 1e-5,
        "learning_rate": 1e-4,
        "batch_size": 32,
        "dropout": 0.2,
        "max_epochs": 30,
        "monitor": "val_loss",
        "patience": 4,
    }
    assert Recipe(loss=CrossEntropy()).to_dict()["loss"] == {"kind": "CrossEntropy"}
