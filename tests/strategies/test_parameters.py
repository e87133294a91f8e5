"""Parameters and search spaces: what is refused, what is suggested, and what a definition overrides."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest
from builders import quick
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from hirise_imb.config import Override, Range
from hirise_imb.strategies import (
    NO_OVERRIDES,
    STRATEGIES,
    Categorical,
    Float,
    Integer,
    OptimiserParameters,
    Parameters,
    RecipeContext,
    choice,
    integer,
    number,
    reuse,
    search_space,
    select_strategies,
)
from hirise_imb.strategies.class_weights import ClassWeightsParameters
from hirise_imb.strategies.combined import CombinedParameters
from hirise_imb.testing.toy import CUTS
from hirise_imb.utils.errors import UserError

texts: dict[str, Any] = {"help": "what it does", "source": "Someone 2000"}


@dataclass(frozen=True)
class NestedParameters(Parameters):
    kind: Literal["a", "b"] = choice(default="a", **texts)
    inner: Literal["c", "d"] = choice(default="d", when=("kind", ("b",)), **texts)
    x: float = number(0.0, 1.0, default=0.5, when=("inner", ("d",)), **texts)


NESTED = search_space(NestedParameters)


# --- parameters by themselves ---


@quick
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.floats(allow_nan=True, allow_infinity=True))
def test_a_real_allows_what_lies_between(low: float, width: float, value: float) -> None:
    high = low + width
    parameter = Float(name="x", low=low, high=high, default=low, **texts)
    assert parameter.allows(value) == (low <= value <= high)


@quick
@given(st.integers(-100, 100), st.integers(0, 100), st.integers(-300, 300))
def test_an_integer_allows_what_lies_between(low: int, width: int, value: int) -> None:
    parameter = Integer(name="n", low=low, high=low + width, default=low, **texts)
    assert parameter.allows(value) == (value in range(low, low + width + 1))


def test_ranges_in_words() -> None:
    assert Float(name="x", low=1e-4, high=1.0, log=True, default=1.0, **texts).describe_range() == (
        "a number from 0.0001 to 1, log scale"
    )
    assert Float(name="x", low=0.0, high=1.5, default=1.0, **texts).describe_range() == "a number from 0 to 1.5"
    assert Integer(name="n", low=1, high=4, default=1, **texts).describe_range() == "an integer from 1 to 4"
    assert Categorical(name="c", choices=("a", "b"), default="a", **texts).describe_range() == "one of a, b"
    # A fixed value is given with all its digits.
    assert Float(name="x", low=0.12345678, high=0.12345678, default=0.12345678, **texts).describe_range() == (
        "fixed at 0.12345678"
    )
    assert Integer(name="n", low=2, high=2, default=2, **texts).describe_range() == "fixed at 2"
    assert Categorical(name="c", choices=("a",), default="a", **texts).describe_range() == "fixed at a"


# --- declarations ---


def test_own_parameters_come_before_inherited_ones() -> None:
    names = [parameter.name for parameter in search_space(ClassWeightsParameters)]
    assert names == ["scheme", "unit", "power", "one_minus_beta", "learning_rate", "weight_decay"]


def test_choices_are_those_of_the_type() -> None:
    kind = NESTED["kind"]
    assert isinstance(kind, Categorical)
    assert kind.choices == ("a", "b")


def test_whoever_trains_has_the_same_optimiser() -> None:
    """No remedy is given a wider search than the control."""
    common = list(search_space(OptimiserParameters))
    trained = [name for name, one in STRATEGIES.items() if issubclass(one.parameters, OptimiserParameters)]
    untrained = [
        "logit_adjustment",
        "tau_norm",
        "class_bias",
        "temperature",
        "prototypes",
        "logistic",
        "feature_reweighting",
        "augmentation",
        "tta",
        "ensemble",
        "augmentation",  # it has the optimiser that partial unfreezing chose
    ]
    # The second stage of decoupled tunes its optimiser if it trains a head.
    assert set(trained) == set(STRATEGIES) - {*untrained, "decoupled"}
    for name, strategy in STRATEGIES.items():
        tuned = [parameter for parameter in strategy.space if parameter.name in ("learning_rate", "weight_decay")]
        expected = [replace(one, when=("kind", ("retrained",))) for one in common] if name == "decoupled" else common
        assert tuned == ([] if name in untrained else expected)


def test_a_reused_parameter_follows_the_one_it_is_taken_from() -> None:
    original, here = search_space(ClassWeightsParameters)["power"], search_space(CombinedParameters)["weight_power"]
    assert isinstance(original, Float)
    assert isinstance(here, Float)
    assert (here.low, here.high, here.log, here.help) == (original.low, original.high, original.log, original.help)
    assert (here.default, original.default) == (0.5, 1.0)
    assert here.source.startswith(f"{original.source}; here default 0.5: ")
    assert here.when == ("correction", ("class_weights",))
    focal = STRATEGIES["focal_loss"].space["one_minus_beta"]
    assert focal.describe_range() == search_space(ClassWeightsParameters)["one_minus_beta"].describe_range()


def test_a_field_that_is_no_parameter_is_refused() -> None:
    @dataclass(frozen=True)
    class Undeclared(Parameters):
        x: float = 0.5

    @dataclass(frozen=True)
    class WrongType(Parameters):
        n: float = integer(1, 3, default=2, **texts)

    @dataclass(frozen=True)
    class WrongReuse(Parameters):
        n: int = reuse(NestedParameters, "x")

    for owner, name in ((Undeclared, "x"), (WrongType, "n"), (WrongReuse, "n")):
        with pytest.raises(TypeError, match=rf"^{owner.__name__}\.{name} must be a float declared with number\(\), "):
            search_space(owner)


# --- settings ---


def test_a_parameter_below_one_that_does_not_apply_does_not_apply() -> None:
    assert NESTED.complete({}) == {"kind": "a"}
    assert NESTED.complete({"kind": "b"}) == {"kind": "b", "inner": "d", "x": 0.5}
    assert NESTED.complete({"kind": "b", "inner": "c"}) == {"kind": "b", "inner": "c"}
    assert NESTED.suggest(FixedTrial({"kind": "b", "inner": "d", "x": 0.25})) == {"kind": "b", "inner": "d", "x": 0.25}
    with pytest.raises(ValueError, match="no parameter x here; with these settings there are kind, inner, x"):
        NESTED.complete({"x": 0.5})


def test_what_does_not_apply_has_its_default_in_the_typed_object() -> None:
    assert NESTED.parse({}) == NestedParameters("a", "d", 0.5)
    assert NESTED.parse({"kind": "b", "x": 1}) == NestedParameters("b", "d", 1.0)
    assert type(NESTED.parse({"kind": "b", "x": 1}).x) is float


def test_a_strategy_checks_the_settings_of_its_recipes() -> None:
    context = RecipeContext(CUTS)
    with pytest.raises(ValueError, match=r"^gamma must be a number from 0 to 5, got 7$"):
        STRATEGIES["focal_loss"].recipe({"gamma": 7}, context)
    assert STRATEGIES["focal_loss"].recipe({}, context) == STRATEGIES["focal_loss"].recipe({"gamma": 2}, context)


def test_there_are_as_many_cuts_as_partial_unfreezing_may_ask_for() -> None:
    from hirise_imb.backbones import BACKBONES

    depth = STRATEGIES["partial_unfreeze"].space["depth"]
    assert isinstance(depth, Integer)
    assert len(CUTS) >= depth.high
    assert all(len(card.cuts) >= depth.high for card in BACKBONES.values())


# --- overrides ---


@pytest.mark.parametrize(
    ("name", "overrides", "ranges", "settings"),
    [
        ("focal_loss", {"gamma": 3}, {"gamma": "fixed at 3"}, {"gamma": 3.0}),
        ("focal_loss", {"gamma": Range(2.5)}, {"gamma": "a number from 2.5 to 5"}, {"gamma": 2.5}),
        ("focal_loss", {"gamma": Range(1, 3)}, {"gamma": "a number from 1 to 3"}, {"gamma": 2.0}),
        ("focal_loss", {"gamma": Range(high=1.5)}, {"gamma": "a number from 0 to 1.5"}, {"gamma": 1.5}),
        ("undersampling", {"members": 2}, {"members": "fixed at 2"}, {"members": 2}),
        ("undersampling", {"members": Range(5, 6)}, {"members": "an integer from 5 to 6"}, {"members": 5}),
        ("undersampling", {"ratio": Range(4.0)}, {"ratio": "a number from 4 to 10, log scale"}, {"ratio": 4.0}),
        (
            "oversampling",
            {"scheme": ("progressive", "source")},
            {"scheme": "one of source, progressive"},
            {"scheme": "source"},
        ),
        ("oversampling", {"scheme": "random"}, {"scheme": "fixed at random"}, {"scheme": "random", "ratio": 0.1}),
        (
            "plain",
            {"weight_decay": 0.1},
            {"weight_decay": "fixed at 0.1"},
            {"learning_rate": 1e-3, "weight_decay": 0.1},
        ),
    ],
)
def test_an_override_fixes_or_narrows_and_moves_the_default(
    name: str, overrides: dict[str, Override], ranges: dict[str, str], settings: dict[str, object]
) -> None:
    strategy = STRATEGIES[name].narrow(overrides)
    for parameter, expected in ranges.items():
        assert strategy.space[parameter].describe_range() == expected
    assert strategy.space.complete({}).items() >= settings.items()
    assert STRATEGIES[name].overrides == {}  # the registered one is as it was
    assert strategy.recipe({}, RecipeContext(CUTS)) == STRATEGIES[name].recipe(settings, RecipeContext(CUTS))  # type: ignore[arg-type]


def test_nothing_outside_a_narrowed_range_is_suggested_or_taken() -> None:
    import optuna

    strategy = STRATEGIES["focal_loss"].narrow({"gamma": Range(1, 3), "weights": "none"})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    suggested = [strategy.space.suggest(study.ask()) for _ in range(30)]
    assert all(1 <= float(settings["gamma"]) <= 3 and settings["weights"] == "none" for settings in suggested)
    with pytest.raises(ValueError, match=r"^gamma must be a number from 1 to 3, got 0\.5$"):
        strategy.space.complete({"gamma": 0.5})


def test_what_can_never_apply_is_left_out() -> None:
    strategy = STRATEGIES["combined"].narrow({"correction": ("class_weights", "oversampling")})
    left_out = {p.name for p in STRATEGIES["combined"].space} - {p.name for p in strategy.space}
    assert left_out == {"loss_tau", "max_margin", "gamma", "adjustment", "tau", "strength"}


def test_initial_points_outside_a_narrowed_range_are_skipped() -> None:
    weights = STRATEGIES["class_weights"]
    assert len(weights.initial_settings()) == 3
    fixed = weights.narrow({"scheme": "inverse_power"}).initial_settings()
    assert [point["power"] for point in fixed] == [1.0, 0.5]
    # The default moves to the initial point, which is then no second one.
    low = weights.narrow({"scheme": "inverse_power", "power": Range(0.0, 0.5)}).initial_settings()
    assert [point["power"] for point in low] == [0.5]
    other = weights.narrow({"scheme": "effective_number"}).initial_settings()
    assert [point.get("power") for point in other] == [None]


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        (
            "focal_loss",
            {"gama": 2.0},
            "There is no parameter of [strategies.focal_loss] 'gama': did you mean gamma? Known: gamma, weights, "
            "one_minus_beta, learning_rate, weight_decay.",
        ),
        (
            "focal_loss",
            {"gamma": 7},
            "strategies.focal_loss.gamma is 7: it must be a number from 0 to 5, or a table with low and high in that "
            "range.",
        ),
        (
            "focal_loss",
            {"gamma": "high"},
            'strategies.focal_loss.gamma is "high": it must be a number from 0 to 5, or a table with low and high in '
            "that range.",
        ),
        (
            "focal_loss",
            {"gamma": Range(1, 6)},
            "strategies.focal_loss.gamma is {low = 1, high = 6}: it must be a number from 0 to 5, or a table with low "
            "and high in that range.",
        ),
        (
            "focal_loss",
            {"gamma": Range(3.0, 1.5)},
            "strategies.focal_loss.gamma is {low = 3.0, high = 1.5}: low 3 is above high 1.5.",
        ),
        (
            "focal_loss",
            {"gamma": float("nan")},
            "strategies.focal_loss.gamma is nan: it must be a number from 0 to 5, or a table with low and high in that "
            "range.",
        ),
        (
            "focal_loss",
            {"gamma": Range(low=float("nan"))},
            "strategies.focal_loss.gamma is {low = nan}: it must be a number from 0 to 5, or a table with low and high "
            "in that range.",
        ),
        (
            "undersampling",
            {"members": 2.5},
            "strategies.undersampling.members is 2.5: it must be an integer from 1 to 6, or a table with low and high "
            "in that range.",
        ),
        (
            "oversampling",
            {"scheme": ("class", "sourse")},
            'strategies.oversampling.scheme is ["class", "sourse"]: it must be one of class, source, progressive, '
            "random, split_file, or a list of some of these.",
        ),
        (
            "oversampling",
            {"scheme": 3},
            "strategies.oversampling.scheme is 3: it must be one of class, source, progressive, random, split_file, or "
            "a list of some of these.",
        ),
        (
            "class_weights",
            {"scheme": "inverse_power", "one_minus_beta": 0.01},
            "strategies.class_weights.one_minus_beta has no effect: it applies only with scheme effective_number, "
            "which [strategies.class_weights] rules out.",
        ),
        (
            "combined",
            {"correction": "oversampling", "tau": 0.5},
            "strategies.combined.tau has no effect: it applies only with adjustment logit_adjustment, which "
            "[strategies.combined] rules out.",
        ),
    ],
)
def test_an_override_that_does_not_fit_is_refused_with_its_key(
    name: str, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        select_strategies(STRATEGIES, [name], {name: overrides})


def test_what_overrides_change_is_told_exactly() -> None:
    focal = STRATEGIES["focal_loss"]
    assert focal.describe_overrides() == NO_OVERRIDES
    assert focal.narrow({"gamma": Range(0, 5), "weights": ("none", "effective_number")}).describe_overrides() == (
        NO_OVERRIDES
    )
    assert focal.narrow({"weights": "none", "gamma": 0.12345678}).describe_overrides() == (
        'gamma = 0.12345678, weights = "none"'
    )
    one, other = focal.narrow({"gamma": Range(1)}), focal.narrow({"gamma": Range(1, 5)})
    assert one.describe_overrides() == other.describe_overrides() == "gamma = {low = 1.0, high = 5.0}"


def test_the_strategies_of_a_study_are_narrowed_and_the_others_are_not() -> None:
    selected = select_strategies(STRATEGIES, ["decoupled", "focal_loss"], {"plain": {"weight_decay": 0.1}})
    assert [strategy.name for strategy in selected] == ["plain", "focal_loss", "partial_unfreeze", "decoupled"]
    assert [strategy.describe_overrides() for strategy in selected] == ["weight_decay = 0.1", *[NO_OVERRIDES] * 3]
    with pytest.raises(UserError, match=r"^There is no strategy 'focal_los': did you mean focal_loss\?"):
        select_strategies(STRATEGIES, ["focal_los"], {})


# --- distinct settings ---


@dataclass(frozen=True)
class FiniteParameters(Parameters):
    kind: Literal["a", "b"] = choice(default="a", **texts)
    members: int = integer(1, 3, default=2, when=("kind", ("b",)), **texts)
    inner: Literal["c", "d"] = choice(default="c", **texts)


def test_distinct_settings_follow_the_conditions() -> None:
    settings = search_space(FiniteParameters).distinct_settings()
    assert settings is not None
    assert list(settings) == [
        {"kind": "a", "inner": "c"},
        {"kind": "a", "inner": "d"},
        *({"kind": "b", "members": members, "inner": inner} for members in (1, 2, 3) for inner in ("c", "d")),
    ]


def test_an_interval_gives_infinitely_many_settings_and_a_fixed_number_one() -> None:
    assert NESTED.distinct_settings() is None
    fixed = NESTED.narrow({"x": 0.5}).distinct_settings()
    assert fixed is not None
    assert list(fixed) == [{"kind": "a"}, {"kind": "b", "inner": "c"}, {"kind": "b", "inner": "d", "x": 0.5}]
    narrow = NESTED.narrow({"kind": "a"}).distinct_settings()  # the interval can't apply
    assert narrow is not None
    assert list(narrow) == [{"kind": "a"}]


def test_a_space_without_parameters_has_one_setting() -> None:
    assert list(search_space(Parameters).distinct_settings() or ()) == [{}]


def test_many_settings_are_not_enumerated_at_once() -> None:
    @dataclass(frozen=True)
    class ManyParameters(Parameters):
        first: int = integer(0, 10**9, default=0, **texts)
        second: int = integer(0, 10**9, default=0, **texts)

    settings = search_space(ManyParameters).distinct_settings()
    assert settings is not None
    assert next(settings) == {"first": 0, "second": 0}
    assert next(settings) == {"first": 0, "second": 1}


@pytest.mark.parametrize(("name", "count"), [("temperature", 2), ("tta", 3), ("prototypes", None)])
def test_strategies_with_few_settings(name: str, count: int | None) -> None:
    space = STRATEGIES[name].space
    settings = space.distinct_settings()
    assert (None if settings is None else len(list(settings))) == count
    assert all(space.complete(one) == one for one in space.distinct_settings() or ())
