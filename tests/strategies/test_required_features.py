"""What strategies need of a backbone, and which of them do with one vector for each image."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pytest

from hirise_imb.backbones import TOP
from hirise_imb.config import Override, StudyDefinition
from hirise_imb.features.inputs import MAP, TOP_MEAN, FeatureKey, Input, RequiredFeatures, feature_keys
from hirise_imb.recipe import PLAIN_VIEW
from hirise_imb.strategies import STRATEGIES, Strategy, check_vectors_suffice, select_strategies
from hirise_imb.strategies.plain import PlainStrategy
from hirise_imb.testing.declarations import draw_settings, make_recipe
from hirise_imb.utils.errors import UserError

REFUSED = {
    "partial_unfreeze": "needs a backbone to fine-tune",
    "decoupled": "needs a backbone to fine-tune",
    "light_tuning": "needs a backbone to fine-tune",
    "augmentation": "needs a backbone to fine-tune",
    "photometric": "needs other views of the images",
    "representation": "needs feature maps of a backbone",
    "tta": "needs other views of the images",
    "combined": 'needs other views of the images unless [strategies.combined] has features = "plain"',
    "combined_features": "needs feature maps of a backbone",
}


def check(*names: str, overrides: Mapping[str, Mapping[str, Override]] | None = None) -> None:
    check_vectors_suffice(select_strategies(STRATEGIES, names, overrides or {}), names)


def refusal(*names: str, overrides: Mapping[str, Mapping[str, Override]] | None = None) -> str:
    """The message about these strategies, or an empty string."""
    try:
        check(*names, overrides=overrides)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", REFUSED)
def test_a_strategy_that_needs_more_is_refused(name: str) -> None:
    message = refusal("focal_loss", name)
    assert message.startswith(f"A table of features has one vector for each image, which is not enough for {name} (")
    assert REFUSED[name] in message
    assert "leave it out of strategies (--strategies focal_loss), or leave out features" in message


def test_the_message_has_the_strategies_that_remain() -> None:
    names = StudyDefinition().strategies
    remaining = re.search(r"\(--strategies (\S+)\)", refusal(*names))
    assert remaining is not None
    check(*remaining[1].split(","))
    assert {*names} - {*remaining[1].split(",")} == {"representation", "combined_features"}


def test_all_of_them_are_named_at_once() -> None:
    message = refusal(*STRATEGIES)
    assert all(f"{name} ({reason}" in message for name, reason in REFUSED.items())
    assert "leave them out" in message


@pytest.mark.parametrize("name", [name for name in STRATEGIES if not refusal(name)])
def test_recipes_of_the_others_take_one_vector_for_each_image(name: str) -> None:
    strategy = STRATEGIES[name]
    for settings in [*strategy.initial_settings(), *(settings for settings, _ in draw_settings(strategy))]:
        recipe = make_recipe(strategy, settings)
        assert (recipe.cut, recipe.views, feature_keys(recipe.inputs)) == (TOP, PLAIN_VIEW, (TOP_MEAN,))


def test_an_override_can_leave_nothing_but_the_vector() -> None:
    check("combined", overrides={"combined": {"features": "plain"}})
    message = refusal("combined", overrides={"combined": {"features": "concatenated"}})
    assert 'unless [strategies.combined] has features = "plain"' in message


def test_a_strategy_falls_with_the_one_it_depends_on() -> None:
    class Dependent(PlainStrategy):
        name = "dependent"
        depends_on = ("tta",)

    strategies = [*select_strategies(STRATEGIES, ["tta"], {}), Dependent()]
    with pytest.raises(UserError, match=r"not enough for dependent \(depends on tta\): leave it out"):
        check_vectors_suffice(strategies, ["dependent"])


def test_a_strategy_requires_its_inputs_views_and_cuts() -> None:
    class Everything(PlainStrategy):
        trains_backbone = True
        views = ("plain", "fh")

        def inputs(self, layers: Sequence[str]) -> tuple[Input, ...]:
            return Input("photometric"), Input(layer=layers[0], pooling="mean_std")

    required = Everything().required_features(("l",), ("early", "late"))
    std = FeatureKey("plain", "l", "std")
    pooled = (TOP_MEAN, FeatureKey("photometric", TOP, "mean"), FeatureKey("plain", "l", "mean"), std)
    maps = (FeatureKey("plain", "early", MAP), FeatureKey("plain", "late", MAP))
    mirrored = (FeatureKey("fh", TOP, "mean"), FeatureKey("fh", "l", "mean"), FeatureKey("fh", "l", "std"))
    assert required == RequiredFeatures(pooled + maps, mirrored)
    plain: Strategy = STRATEGIES["plain"]
    assert plain.required_features(("l",), ("late",)) == RequiredFeatures((TOP_MEAN,), ())
    # What all images have, canonical images need not have once more; feature maps come last.
    mirror = RequiredFeatures((FeatureKey("fh", TOP, "mean"),), ())
    assert RequiredFeatures.union([required, mirror]) == RequiredFeatures(
        pooled + mirror.images + maps, tuple(key for key in mirrored if key not in mirror.images)
    )
