"""Checks of a strategy's declarations and of its recipes; they train nothing."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import optuna
import tomli_w
from optuna.trial import FixedTrial

from hirise_imb.backbones import TOP
from hirise_imb.features.inputs import PLAIN, feature_keys
from hirise_imb.recipe import PLAIN_VIEW, Recipe
from hirise_imb.strategies import (
    STRATEGIES,
    Categorical,
    Float,
    Integer,
    OptimiserParameters,
    Parameter,
    RecipeContext,
    Settings,
    Strategy,
    Value,
    search_space,
)
from hirise_imb.testing.checks import expect
from hirise_imb.testing.toy import CUTS, LAYERS

Run = Callable[[Strategy], None]


def make_recipe(strategy: Strategy, settings: Settings | None = None) -> Recipe:
    """Returns the recipe for some settings and defaults otherwise; strategies it depends on have their defaults."""
    bases = {base: make_recipe(STRATEGIES[base]) for base in strategy.depends_on}
    return strategy.recipe(settings or {}, RecipeContext(CUTS, bases, tuple(LAYERS)))


def draw_settings(strategy: Strategy, trials: int = 30) -> list[tuple[dict[str, Value], optuna.Trial]]:
    """Returns random settings and the trials that suggested them."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    new_trials = [study.ask() for _ in range(trials)]
    return [(strategy.space.suggest(trial), trial) for trial in new_trials]


def settings_that_reach(strategy: Strategy, parameter: Parameter) -> dict[str, Value]:
    """Returns the settings with which a parameter applies."""
    if parameter.when is None:
        return {}
    name, values = parameter.when
    return {**settings_that_reach(strategy, strategy.space[name]), name: values[0]}


def wrong_values(parameter: Parameter) -> list[object]:
    """Returns values of other types and outside the range."""
    wrong: list[object] = [None, True, False, [], {}, np.bool_(True)]
    if isinstance(parameter, Categorical):
        return [*wrong, "", "no such choice", parameter.choices[0].swapcase(), 0, 1.0]
    wrong += [str(parameter.default), float("nan"), float("inf"), -float("inf")]
    if isinstance(parameter, Integer):
        return [*wrong, float(parameter.default), parameter.low - 1, parameter.high + 1]
    if isinstance(parameter, Float):
        wrong += [float(np.nextafter(parameter.low, -np.inf)), float(np.nextafter(parameter.high, np.inf))]
    return wrong


def describes_itself(strategy: Strategy) -> None:
    """Checks name (snake case, a file name and a key), summary (one line) and source."""
    name, summary, source = strategy.name, strategy.summary, strategy.source
    expect(name and name.replace("_", "").isalnum() and name == name.lower(), f"the name {name!r} is not snake case")
    expect(0 < len(summary) < 90 and "\n" not in summary, "the summary is not one line of less than 90 characters")
    expect(not summary.endswith("."), "the summary ends with a full stop")
    expect(source.strip(), "there is no source")


def parameters_are_described(strategy: Strategy) -> None:
    """Checks that each parameter has help, a source, a range, and a default inside the range."""
    for parameter in strategy.space:
        expect(parameter.name.isidentifier(), f"{parameter.name} is not an identifier")
        expect(parameter.help.strip() and "\n" not in parameter.help, f"the help of {parameter.name} is not one line")
        expect(parameter.source.strip(), f"{parameter.name} has no source")
        expect(parameter.allows(parameter.default), f"the default of {parameter.name} is out of range")
        if isinstance(parameter, Categorical):
            expect(len(set(parameter.choices)) == len(parameter.choices) > 1, f"{parameter.name} has one choice twice")
        elif isinstance(parameter, Float | Integer):
            expect(parameter.low < parameter.high, f"{parameter.name} has an empty range")
        if isinstance(parameter, Float) and parameter.log:
            expect(parameter.low > 0, f"{parameter.name} has a logarithmic scale that starts at 0 or below")


def conditions_refer_to_earlier_choices(strategy: Strategy) -> None:
    """Checks that a conditional parameter applies with some choices, not all, of a categorical one before it."""
    for parameter in strategy.space:  # which refuses conditions on anything but earlier choices
        if parameter.when is not None:
            above = strategy.space[parameter.when[0]]
            is_selective = isinstance(above, Categorical) and set(parameter.when[1]) < set(above.choices)
            expect(is_selective, f"the condition of {parameter.name} names all choices")


def optimiser_is_the_common_one(strategy: Strategy) -> None:
    """Checks that the optimiser has the control's ranges, so that no strategy searches it more widely."""
    common = search_space(OptimiserParameters)
    for parameter in strategy.space:
        if parameter.name in {shared.name for shared in common}:
            same = replace(parameter, when=None) == common[parameter.name]  # it may apply to some choices only
            expect(same, f"{parameter.name} differs from that of OptimiserParameters")


def wrong_values_are_refused(strategy: Strategy) -> None:
    """Checks that the message names parameter and value."""
    for parameter in strategy.space:
        settings = settings_that_reach(strategy, parameter)
        for value in wrong_values(parameter):
            message = _refusal(strategy, {**settings, parameter.name: value})  # type: ignore[dict-item]
            names_both = message.startswith(f"{parameter.name} must be ") and repr(value) in message
            expect(names_both, f"{parameter.name} = {value!r} is not refused by name")


def unknown_names_are_refused(strategy: Strategy) -> None:
    """Checks that the message lists the known parameters."""
    message = _refusal(strategy, {"no_such_parameter": 1.0})
    lists_all = all(parameter.name in message for parameter in strategy.space)
    expect(
        "no parameter no_such_parameter here" in message and lists_all, "an unknown parameter is not refused by name"
    )


def parameters_that_do_not_apply_are_refused(strategy: Strategy) -> None:
    """Checks that a parameter that would have no effect can't be set."""
    for parameter in strategy.space:
        if parameter.when is None:
            continue
        above = strategy.space[parameter.when[0]]
        for other in set(above.choices if isinstance(above, Categorical) else ()) - set(parameter.when[1]):
            settings = {**settings_that_reach(strategy, above), above.name: other, parameter.name: parameter.default}
            message = _refusal(strategy, settings)
            expect(f"no parameter {parameter.name} here" in message, f"{parameter.name} is accepted with {other}")


def ends_of_ranges_give_recipes(strategy: Strategy) -> None:
    """Checks that every choice and both ends of every range give a recipe."""
    for parameter in strategy.space:
        ends: list[Value] = []
        if isinstance(parameter, Categorical):
            ends = list(parameter.choices)
        elif isinstance(parameter, Float | Integer):
            ends = [parameter.low, parameter.high]
        for value in ends:
            make_recipe(strategy, {**settings_that_reach(strategy, parameter), parameter.name: value})


def random_settings_give_recipes(strategy: Strategy) -> None:
    """Checks that a trial suggests complete settings, and that their recipe is plain data that JSON preserves."""
    for settings, trial in draw_settings(strategy):
        expect(settings == trial.params, "settings differ from the parameters of the trial")
        expect(strategy.space.complete(settings) == settings, "suggested settings are not complete")
        plain = make_recipe(strategy, settings).to_dict()
        expect(json.loads(json.dumps(plain, allow_nan=False)) == plain, "a recipe does not survive JSON")
        expect(make_recipe(strategy, settings) == make_recipe(strategy, settings), "the same settings give two recipes")


def random_settings_reach_everything(strategy: Strategy) -> None:
    """Checks that a search can reach every choice and more than one value of every number."""
    # Many, so that even a rare branch of conditions is drawn several times.
    drawn = [settings for settings, _ in draw_settings(strategy, 300)]
    for parameter in strategy.space:
        values = {settings[parameter.name] for settings in drawn if parameter.name in settings}
        minimum = len(parameter.choices) if isinstance(parameter, Categorical) else 2
        expect(len(values) >= minimum, f"some values of {parameter.name} are out of reach")


def initial_points_differ(strategy: Strategy) -> None:
    """Checks that initial points lie inside the search space, and that each gives a different recipe."""
    points = [strategy.space.complete(point) for point in ({}, *strategy.initial_points())]
    for settings in points:
        expect(strategy.space.suggest(FixedTrial(settings)) == settings, "an initial point can't be suggested")
    recipes = [make_recipe(strategy, settings) for settings in points]
    repeated = [place for place, recipe in enumerate(recipes) if recipe in recipes[:place]]
    expect(not repeated, f"the initial point {', '.join(map(str, repeated))} repeats the recipe of one before it")


def settings_survive_toml_and_json(strategy: Strategy) -> None:
    """Checks that settings that are written and read again give the same recipe."""
    for settings in [strategy.space.complete({}), *(settings for settings, _ in draw_settings(strategy))]:
        recipe = make_recipe(strategy, settings)
        for again in (tomllib.loads(tomli_w.dumps(settings)), json.loads(json.dumps(settings))):
            expect(again == settings, "settings change when they are written and read")
            expect(
                make_recipe(strategy, again) == recipe, "settings give another recipe when they are written and read"
            )
            expect(
                make_recipe(strategy, again).to_dict() == recipe.to_dict(),
                "a recipe changes when its settings are written and read",
            )


def integers_serve_as_floats(strategy: Strategy) -> None:
    """Checks that `tau = 1` gives the recipe of `tau = 1.0`, also as JSON text, by which stored runs are looked up."""
    for parameter in strategy.space:
        if not isinstance(parameter, Float):
            continue
        settings = settings_that_reach(strategy, parameter)
        for value in range(int(np.ceil(parameter.low)), int(parameter.high) + 1):
            texts = {
                json.dumps(make_recipe(strategy, {**settings, parameter.name: number}).to_dict())
                for number in (value, float(value))
            }
            expect(len(texts) == 1, f"{parameter.name} = {value} and {value}.0 give different recipes")


def recipes_keep_to_declared_cuts_and_views(strategy: Strategy) -> None:
    """Checks that recipes use only declared cuts and views, the only ones whose features are cached."""
    recipes = [make_recipe(strategy), *(make_recipe(strategy, settings) for settings, _ in draw_settings(strategy))]
    expect({recipe.cut for recipe in recipes} <= {TOP, *CUTS}, "a recipe names a cut that the backbone does not have")
    fine_tunes = any(recipe.cut != TOP for recipe in recipes)
    expect(fine_tunes == strategy.trains_backbone, "trains_backbone does not agree with the cuts of recipes")
    declared = {*feature_keys(PLAIN), *feature_keys(strategy.inputs(tuple(LAYERS)))}
    inputs = {key for recipe in recipes for key in feature_keys(recipe.inputs)} - declared
    names = ", ".join(sorted("/".join(key) for key in inputs))
    expect(not inputs, f"recipes take the features {names}, which `inputs` does not declare")
    views = {view for recipe in recipes for view in recipe.training_views} - {*strategy.training_views}
    expect(not views, f"recipes train on the views {', '.join(sorted(views))}, which `training_views` does not declare")
    cuts = {recipe.cut for recipe in recipes if recipe.training_views != PLAIN_VIEW}
    expect(cuts <= {CUTS[0]}, "recipes train on views at a cut where their features are not cached")
    views = {view for recipe in recipes for view in recipe.views} - {*PLAIN_VIEW, *strategy.views}
    expect(not views, f"recipes predict the views {', '.join(sorted(views))}, which `views` does not declare")


DECLARATION_CHECKS: tuple[Run, ...] = (
    describes_itself,
    parameters_are_described,
    conditions_refer_to_earlier_choices,
    optimiser_is_the_common_one,
    wrong_values_are_refused,
    unknown_names_are_refused,
    parameters_that_do_not_apply_are_refused,
    ends_of_ranges_give_recipes,
    random_settings_give_recipes,
    random_settings_reach_everything,
    initial_points_differ,
    settings_survive_toml_and_json,
    integers_serve_as_floats,
    recipes_keep_to_declared_cuts_and_views,
)


def _refusal(strategy: Strategy, settings: Settings) -> str:
    """Returns the message with which settings are refused, or an empty string if they are accepted."""
    try:
        strategy.space.complete(settings)
    except ValueError as error:
        return str(error)
    return ""
