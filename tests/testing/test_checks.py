"""The contract checks that ship: right subjects pass, wrong ones fail with a message that names check and subject."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import keras
import numpy as np
import pytest

from hirise_imb.backbones import BACKBONES, BackboneCard
from hirise_imb.features.inputs import Input
from hirise_imb.imbalance.class_weights import ClassCounts, InversePower
from hirise_imb.imbalance.logit_adjustment import PosthocLogitAdjustment
from hirise_imb.imbalance.losses import LogitAdjustedCrossEntropy
from hirise_imb.recipe import Recipe
from hirise_imb.strategies import CONTROL, STRATEGIES, OptimiserParameters, Settings, TrainedStrategy, choice, number
from hirise_imb.testing import Check, backbone_checks, check_backbone, check_strategy, strategy_checks
from hirise_imb.testing.toy import TOY


@dataclass(frozen=True)
class DropParameters(OptimiserParameters):
    kind: Literal["some", "none"] = choice(default="some", help="whether any", source="this project")
    share: float = number(0.0, 0.9, default=0.5, help="how much", source="this project", when=("kind", ("some",)))


class DropStrategy(TrainedStrategy[DropParameters]):
    name = "drop"
    summary = "another dropout"
    source = "this project"
    parameters = DropParameters

    def apply(self, recipe: Recipe, parameters: DropParameters) -> Recipe:
        return replace(recipe, dropout=parameters.share)


@dataclass(frozen=True)
class WiderParameters(DropParameters):
    learning_rate: float = number(1e-5, 1.0, default=1e-3, log=True, help="wider", source="this project")


@dataclass(frozen=True)
class UnboundParameters(OptimiserParameters):
    share: float = number(0.0, 0.9, default=0.5, help="how much", source="this project", when=("kind", ("some",)))
    kind: Literal["some", "none"] = choice(default="some", help="whether any", source="this project")


@dataclass(frozen=True)
class EveryParameters(OptimiserParameters):
    kind: Literal["some", "none"] = choice(default="some", help="whether any", source="this project")
    share: float = number(
        0.0, 0.9, default=0.5, help="how much", source="this project", when=("kind", ("some", "none"))
    )


@dataclass(frozen=True)
class LooseParameters(OptimiserParameters):
    share: float = number(0.0, 1.0, default=0.5, help="how much", source="this project")


class Repeats(DropStrategy):
    def initial_points(self) -> list[Settings]:
        return [{"share": 0.5}]


class Undeclared(DropStrategy):
    def apply(self, recipe: Recipe, parameters: DropParameters) -> Recipe:
        return replace(recipe, inputs=(Input(), Input("photometric")))


class Forgetful(DropStrategy):
    """Each call gives another recipe."""

    calls = 0

    def apply(self, recipe: Recipe, parameters: DropParameters) -> Recipe:
        self.calls += 1
        return replace(recipe, patience=self.calls)


class Idle(DropStrategy):
    """Learns next to nothing."""

    def apply(self, recipe: Recipe, parameters: DropParameters) -> Recipe:
        return replace(recipe, learning_rate=0.0)


class Nominal(DropStrategy):
    """Differs from the control in its name, and in fields that change nothing."""

    def __init__(self, **fields: object) -> None:
        self.fields = fields

    def apply(self, recipe: Recipe, parameters: DropParameters) -> Recipe:
        return replace(recipe, **self.fields)  # type: ignore[arg-type]


@dataclass(frozen=True)
class EightWeights:
    """Class weights for the classes of one data set."""

    def weights(self, counts: ClassCounts) -> np.ndarray:
        assert len(counts.landmarks) > 0
        return np.linspace(0.5, 1.5, 8)


def of(parameters: type[OptimiserParameters]) -> DropStrategy:
    strategy = DropStrategy()
    strategy.parameters = parameters  # type: ignore[assignment]
    return strategy


@pytest.mark.parametrize(
    ("strategy", "check", "reason"),
    [
        (type("Bad", (DropStrategy,), {"summary": "It drops features."})(), "describes_itself", "full stop"),
        (of(WiderParameters), "optimiser_is_the_common_one", "learning_rate differs"),
        (
            of(UnboundParameters),
            "conditions_refer_to_earlier_choices",
            r"TypeError: the condition of UnboundParameters\.share must name choices of a parameter before it",
        ),
        (of(EveryParameters), "conditions_refer_to_earlier_choices", "condition of share names all choices"),
        (of(LooseParameters), "ends_of_ranges_give_recipes", "dropout must be in"),
        (Repeats(), "initial_points_differ", "initial point 1 repeats"),
        (Undeclared(), "recipes_keep_to_declared_cuts_and_views", "the features photometric/top/mean"),
        (Forgetful(), "random_settings_give_recipes", "two recipes"),
        (Idle(), "separable_classes_are_told_apart", "macro F1 on the test split is 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_strategy_fails_by_name(strategy: DropStrategy, check: str, reason: str) -> None:
    [broken] = [one for one in strategy_checks(strategy) if one.name == check]
    with pytest.raises(AssertionError, match=rf"(?s)^drop fails {check}: .*{reason}"):
        broken()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"members": 1},
        {"adjustment": PosthocLogitAdjustment(0.0)},
        {"class_weights": InversePower(0.0, "sources")},
        {"loss": LogitAdjustedCrossEntropy(0.0)},
        {"backbone_learning_rate": 1.0},
    ],
    ids=str,
)
def test_a_strategy_that_changes_nothing_fails(fields: dict[str, object]) -> None:
    [check] = [one for one in strategy_checks(Nominal(**fields)) if one.name == "differs_from_the_control"]
    with pytest.raises(AssertionError, match=r"^drop fails differs_from_the_control: .* probabilities of the control$"):
        check()


@pytest.mark.parametrize("fields", [{"members": 2}, {"adjustment": PosthocLogitAdjustment(0.1)}], ids=str)
def test_a_strategy_that_changes_something_passes(fields: dict[str, object]) -> None:
    [check] = [one for one in strategy_checks(Nominal(**fields)) if one.name == "differs_from_the_control"]
    check()


def test_every_strategy_but_the_control_must_differ_from_it() -> None:
    for name, strategy in STRATEGIES.items():
        names = [check.name for check in strategy_checks(strategy)]
        assert ("differs_from_the_control" in names) == (name != CONTROL)
        for count in ("three", "fifteen"):
            assert f"learns_{count}_classes" in names
            differs = name != CONTROL and not strategy.trains_backbone
            assert (f"differs_from_the_control_with_{count}_classes" in names) == differs


@pytest.mark.parametrize("count", ["three", "fifteen"])
@pytest.mark.parametrize("check", ["learns_{}_classes", "differs_from_the_control_with_{}_classes"])
def test_a_strategy_for_the_eight_classes_of_hirise_fails(check: str, count: str) -> None:
    by_name = {one.name: one for one in strategy_checks(Nominal(class_weights=EightWeights()))}
    by_name["separable_classes_are_told_apart"]()
    name = check.format(count)
    with pytest.raises(AssertionError, match=f"^drop fails {name}: "):
        by_name[name]()


def test_a_strategy_that_learns_nothing_fails_with_any_number_of_classes() -> None:
    by_name = {one.name: one for one in strategy_checks(Idle())}
    for name in ("learns_three_classes", "learns_fifteen_classes"):
        with pytest.raises(AssertionError, match=rf"^drop fails {name}: macro F1 on .* is 0\.\d+, below 0\.7$"):
            by_name[name]()


def test_all_failures_are_listed_at_once() -> None:
    with pytest.raises(AssertionError) as caught:
        check_strategy(Undeclared())
    assert "drop fails recipes_keep_to_declared_cuts_and_views: " in str(caught.value)
    assert "drop fails ends_of_ranges_give_recipes" not in str(caught.value)


def test_checks_have_names_of_their_own() -> None:
    for checks in (strategy_checks(DropStrategy()), backbone_checks(TOY)):
        ids = [str(check) for check in checks]
        assert len(set(ids)) == len(ids) > 7
        assert all(re.fullmatch(r"(drop|toy)-[a-z_]+", one) for one in ids)


@pytest.mark.parametrize(
    "check",
    [
        *backbone_checks(TOY),
        *backbone_checks(BACKBONES["efficientnet-lite0"], "imagenet"),
        *backbone_checks(BACKBONES["resnet50v2"]),
    ],
    ids=str,
)
def test_every_backbone_passes_the_contract(check: Check) -> None:
    check()


def built(change: Callable[[keras.Model], keras.Model]) -> BackboneCard:
    return replace(TOY, build=lambda weights, shape: change(TOY.build(weights, shape)))


def draw_again(network: keras.Model) -> keras.Model:
    network.set_weights([np.random.default_rng().normal(size=weight.shape) for weight in network.get_weights()])
    return network


@pytest.mark.parametrize(
    ("card", "check"),
    [
        (replace(TOY, feature_width=17), "trunk_and_tail_equal_the_network"),
        (replace(TOY, cuts={"early": "early", "late": "late"}), "cuts_are_ordered"),
        (replace(TOY, cuts={}), "describes_itself"),
        (replace(TOY, cut_shapes={"late": (18, 11)}), "declared_shapes_are_those_of_the_cuts"),
        (built(draw_again), "random_weights_are_repeatable"),
        (replace(TOY, build=lambda _, shape: TOY.build("random", shape)), "missing_weights_are_refused"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_backbone_fails_by_name(card: BackboneCard, check: str) -> None:
    with pytest.raises(AssertionError, match=rf"toy fails {check}: "):
        check_backbone(card)


def test_importing_the_checks_takes_neither_pytest_nor_tensorflow() -> None:
    code = "import sys, hirise_imb.testing; print(*{'pytest', 'keras', 'tensorflow', 'sklearn'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
