"""Declared parameters: what is refused, what is asked for, and that settings survive being written down."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import numpy as np
import optuna
import pytest
import tomli_w
from builders import quick
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FixedTrial
from toys import CUTS, recipe_of

from hirise_imb.strategies import STRATEGIES, Strategy, complete_settings, suggest_settings
from hirise_imb.strategies.base import OPTIMISER, TrainedStrategy
from hirise_imb.strategies.parameters import Categorical, Float, Integer, Parameter

each = pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES.keys())
EVERY = [(strategy, parameter) for strategy in STRATEGIES.values() for parameter in strategy.parameters]


def among(chosen: list[tuple[Strategy, Parameter]]) -> pytest.MarkDecorator:
    names = [f"{strategy.name}-{parameter.name}" for strategy, parameter in chosen]
    return pytest.mark.parametrize(("strategy", "parameter"), chosen, ids=names)


each_parameter = among(EVERY)
each_conditional = among([(strategy, parameter) for strategy, parameter in EVERY if parameter.when is not None])
each_real = among([(strategy, parameter) for strategy, parameter in EVERY if isinstance(parameter, Float)])


def reach(strategy: Strategy, parameter: Parameter) -> dict[str, Any]:
    """Settings with which a parameter is there."""
    if parameter.when is None:
        return {}
    name, values = parameter.when
    above = next(other for other in strategy.parameters if other.name == name)
    return {**reach(strategy, above), name: values[0]}


def ends(parameter: Parameter) -> list[Any]:
    if isinstance(parameter, Categorical):
        return list(parameter.choices)
    assert isinstance(parameter, Float | Integer)
    return [parameter.low, parameter.high]


def wrong(parameter: Parameter) -> list[object]:
    """Values of other types and outside the range."""
    bad: list[object] = [None, True, False, [], {}, np.bool_(True)]
    if isinstance(parameter, Categorical):
        return [*bad, "", "no such word", parameter.choices[0].upper(), 0, 1.0]
    assert isinstance(parameter, Float | Integer)
    bad += [str(parameter.default), float("nan"), float("inf"), -float("inf")]
    if isinstance(parameter, Integer):
        return [*bad, float(parameter.default), parameter.low - 1, parameter.high + 1]
    return [*bad, float(np.nextafter(parameter.low, -np.inf)), float(np.nextafter(parameter.high, np.inf))]


def drawn(strategy: Strategy, trials: int = 30) -> list[tuple[dict[str, Any], optuna.Trial]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    asked = [study.ask() for _ in range(trials)]
    return [(suggest_settings(strategy.parameters, trial), trial) for trial in asked]


@pytest.fixture(autouse=True, scope="module")
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


# --- declarations ---


@each_parameter
def test_a_parameter_says_what_it_does_and_where_it_comes_from(strategy: Strategy, parameter: Parameter) -> None:
    assert parameter.name.isidentifier()
    assert parameter.help.strip()
    assert "\n" not in parameter.help
    assert parameter.source.strip()
    assert parameter.allows(parameter.default)
    if isinstance(parameter, Float | Integer):
        assert parameter.low < parameter.high
    if isinstance(parameter, Float) and parameter.log:
        assert parameter.low > 0


@each
def test_names_are_not_used_twice(strategy: Strategy) -> None:
    names = [parameter.name for parameter in strategy.parameters]
    assert len(set(names)) == len(names)


@each_conditional
def test_a_condition_is_about_a_choice_before(strategy: Strategy, parameter: Parameter) -> None:
    assert parameter.when is not None
    name, values = parameter.when
    before = strategy.parameters[: strategy.parameters.index(parameter)]
    above = next(other for other in before if other.name == name)
    assert isinstance(above, Categorical)
    assert values
    assert set(values) < set(above.choices)


@each
def test_whoever_trains_has_the_same_optimiser(strategy: Strategy) -> None:
    """The same objects: no remedy is given a wider search than the control."""
    tuned = [parameter for parameter in strategy.parameters if parameter.name in {one.name for one in OPTIMISER}]
    if isinstance(strategy, TrainedStrategy) or strategy.name == "decoupled":
        assert len(tuned) == len(OPTIMISER)
        assert all(one is other for one, other in zip(tuned, OPTIMISER, strict=True))
    else:
        assert not tuned


# --- what is refused ---


@each_parameter
def test_wrong_values_are_refused_by_name(strategy: Strategy, parameter: Parameter) -> None:
    there = reach(strategy, parameter)
    for value in wrong(parameter):
        with pytest.raises(ValueError, match=f"^{parameter.name} must be ") as caught:
            complete_settings(strategy.parameters, {**there, parameter.name: value})
        assert repr(value) in str(caught.value)


@each_parameter
def test_the_ends_of_a_range_belong_to_it(strategy: Strategy, parameter: Parameter) -> None:
    for value in ends(parameter):
        recipe_of(strategy, {**reach(strategy, parameter), parameter.name: value})


@each
def test_unknown_names_are_refused(strategy: Strategy) -> None:
    with pytest.raises(ValueError, match=r"no parameter tua here; .* there are ") as caught:
        complete_settings(strategy.parameters, {"tua": 1.0})
    always = [parameter.name for parameter in strategy.parameters if parameter.when is None]
    assert all(name in str(caught.value) for name in always)


@each_conditional
def test_what_does_not_go_with_the_rest_is_refused(strategy: Strategy, parameter: Parameter) -> None:
    assert parameter.when is not None
    name, values = parameter.when
    above = next(other for other in strategy.parameters if other.name == name)
    assert isinstance(above, Categorical)
    for other in set(above.choices) - set(values):
        with pytest.raises(ValueError, match=f"no parameter {parameter.name} here"):
            complete_settings(
                strategy.parameters, {**reach(strategy, above), name: other, parameter.name: parameter.default}
            )


# --- what is asked for ---


@each
def test_random_settings_are_declared_and_give_recipes(strategy: Strategy) -> None:
    for settings, trial in drawn(strategy):
        assert settings == trial.params  # nothing else is asked for, and nothing less
        assert complete_settings(strategy.parameters, settings) == settings
        recipe = recipe_of(strategy, settings)
        plain = recipe.to_dict()
        assert json.loads(json.dumps(plain, allow_nan=False)) == plain


@each
def test_random_settings_reach_every_parameter_and_choice(strategy: Strategy) -> None:
    found = [settings for settings, _ in drawn(strategy, 300)]
    for parameter in strategy.parameters:
        values = {settings[parameter.name] for settings in found if parameter.name in settings}
        if isinstance(parameter, Categorical):
            assert values == set(parameter.choices)
        else:
            assert len(values) > 1


@each
def test_starts_can_be_asked_for_differ_and_are_no_repetition(strategy: Strategy) -> None:
    """As a search asks for them: a value outside a distribution would warn, and warnings are errors here."""
    starts = [complete_settings(strategy.parameters, start) for start in ({}, *strategy.starts())]
    for settings in starts:
        assert suggest_settings(strategy.parameters, FixedTrial(settings)) == settings
    recipes = [recipe_of(strategy, settings) for settings in starts]
    assert all(recipe not in recipes[:place] for place, recipe in enumerate(recipes))


# --- written down and read again ---


@each
def test_settings_survive_toml_and_json(strategy: Strategy) -> None:
    for settings in [complete_settings(strategy.parameters, {}), *(settings for settings, _ in drawn(strategy))]:
        for again in (tomllib.loads(tomli_w.dumps(settings)), json.loads(json.dumps(settings))):
            assert again == settings
            assert recipe_of(strategy, again) == recipe_of(strategy, settings)
            assert recipe_of(strategy, again).to_dict() == recipe_of(strategy, settings).to_dict()


@each_real
def test_a_whole_number_will_do_for_any_number(strategy: Strategy, parameter: Float) -> None:
    """Somebody writes `tau = 1`: the recipe is that of 1.0, also as text, by which stored runs are found."""
    there = reach(strategy, parameter)
    for number in range(int(np.ceil(parameter.low)), int(parameter.high) + 1):
        one = recipe_of(strategy, {**there, parameter.name: number}).to_dict()
        other = recipe_of(strategy, {**there, parameter.name: float(number)}).to_dict()
        assert json.dumps(one) == json.dumps(other)


# --- parameters by themselves ---

texts = {"help": "what it does", "source": "Someone 2000"}


@quick
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.floats(allow_nan=True, allow_infinity=True))
def test_a_real_allows_what_lies_between(low: float, width: float, value: float) -> None:
    high = low + width
    parameter = Float(name="x", low=low, high=high, default=low, **texts)
    assert parameter.allows(value) == (low <= value <= high)


@quick
@given(st.integers(-100, 100), st.integers(0, 100), st.integers(-300, 300))
def test_a_whole_number_allows_what_lies_between(low: int, width: int, value: int) -> None:
    parameter = Integer(name="n", low=low, high=low + width, default=low, **texts)
    assert parameter.allows(value) == (value in range(low, low + width + 1))


def test_ranges_in_words() -> None:
    assert Float(name="x", low=1e-4, high=1.0, log=True, default=1.0, **texts).range() == (
        "a number from 0.0001 to 1, log scale"
    )
    assert Float(name="x", low=0.0, high=1.5, default=1.0, **texts).range() == "a number from 0 to 1.5"
    assert Integer(name="n", low=1, high=4, default=1, **texts).range() == "a whole number from 1 to 4"
    assert Categorical(name="c", choices=("a", "b"), default="a", **texts).range() == "one of a, b"


def test_a_parameter_below_one_that_is_not_there_is_not_there() -> None:
    kind = Categorical(name="kind", choices=("a", "b"), default="a", **texts)
    inner = Categorical(name="inner", choices=("c", "d"), default="d", when=("kind", ("b",)), **texts)
    number = Float(name="x", low=0.0, high=1.0, default=0.5, when=("inner", ("d",)), **texts)
    parameters = (kind, inner, number)
    assert complete_settings(parameters, {}) == {"kind": "a"}
    assert complete_settings(parameters, {"kind": "b"}) == {"kind": "b", "inner": "d", "x": 0.5}
    assert complete_settings(parameters, {"kind": "b", "inner": "c"}) == {"kind": "b", "inner": "c"}
    assert suggest_settings(parameters, FixedTrial({"kind": "b", "inner": "d", "x": 0.25})) == {
        "kind": "b",
        "inner": "d",
        "x": 0.25,
    }
    with pytest.raises(ValueError, match="no parameter x here; with these settings there are kind, inner, x"):
        complete_settings(parameters, {"x": 0.5})


def test_there_are_as_many_cuts_as_partial_unfreezing_may_ask_for() -> None:
    from hirise_imb.backbones import BACKBONES

    depth = next(one for one in STRATEGIES["partial_unfreeze"].parameters if one.name == "depth")
    assert isinstance(depth, Integer)
    assert len(CUTS) >= depth.high
    assert all(len(card.cuts) >= depth.high for card in BACKBONES.values())
