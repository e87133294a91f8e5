"""Hyperparameters of strategies: one declaration gives the check, the search space, the help and a typed object.

A strategy declares its hyperparameters as the fields of a frozen dataclass:

    @dataclass(frozen=True)
    class FocalLossParameters(OptimiserParameters):
        gamma: float = number(0.0, 5.0, default=2.0, help="focusing exponent", source="Lin et al. 2017")

`search_space(FocalLossParameters)` then suggests and checks settings (a plain dict from name to value, as databases and
reports store it), and its `parse` turns them into a `FocalLossParameters`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

from optuna.trial import BaseTrial

from hirise_imb.config import Override, check_known, format_override
from hirise_imb.strategies.parameters import (
    Categorical,
    Condition,
    Float,
    Integer,
    Parameter,
    Settings,
    Value,
    format_value,
)
from hirise_imb.utils.errors import UserError

_METADATA_KEY = "parameter"
"""Key of the parameter in the metadata of its dataclass field."""


@dataclass(frozen=True)
class Parameters:
    """The hyperparameters of a strategy; subclasses declare them with `number`, `integer`, `choice` and `reuse`."""


P_co = TypeVar("P_co", bound=Parameters, covariant=True)
T = TypeVar("T", bound=Parameters)
C = TypeVar("C", bound=str)


def number(
    low: float, high: float, *, default: float, help: str, source: str, log: bool = False, when: Condition | None = None
) -> float:
    """Declares a `Float` as a field of a parameters class."""
    parameter = Float(low=low, high=high, log=log, default=default, help=help, source=source, when=when)
    return field(default=default, metadata={_METADATA_KEY: parameter})


def integer(low: int, high: int, *, default: int, help: str, source: str, when: Condition | None = None) -> int:
    """Declares an `Integer` as a field of a parameters class."""
    parameter = Integer(low=low, high=high, default=default, help=help, source=source, when=when)
    return field(default=default, metadata={_METADATA_KEY: parameter})


def choice(*, default: C, help: str, source: str, when: Condition | None = None) -> C:
    """Declares a `Categorical` as a field of a parameters class; its choices are those of the field's Literal type."""
    parameter = Categorical(default=default, help=help, source=source, when=when)
    return field(default=default, metadata={_METADATA_KEY: parameter})


def reuse(
    parameters: type[Parameters],
    name: str,
    *,
    when: Condition | None = None,
    reason: str = "",
    **changes: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401  (of the type of the reused field)
    """Declares a parameter of another strategy as a field of this one, under this field's own name.

    Args:
        parameters: the class that declares the parameter.
        name: the parameter's name there.
        when: the condition under which it applies here.
        reason: why `changes` are made; it is added to the source.
        changes: `low`, `high` or `default` that differ here.
    """
    parameter = replace(search_space(parameters)[name], when=when, **changes)
    if changes:
        text = ", ".join(f"{key} {format_value(value)}" for key, value in changes.items())
        parameter = replace(parameter, source=f"{parameter.source}; here {text}: {reason}")
    return field(default=parameter.default, metadata={_METADATA_KEY: parameter})


@dataclass(frozen=True)
class SearchSpace(Generic[P_co]):
    """The parameters that a search chooses, in the order in which a trial suggests them.

    The condition of a parameter refers to an earlier one.
    """

    owner: type[P_co]
    """The class that declares the parameters."""
    parameters: tuple[Parameter, ...]

    def __iter__(self) -> Iterator[Parameter]:
        """Iterates over the parameters."""
        return iter(self.parameters)

    def __len__(self) -> int:
        """Returns the number of parameters."""
        return len(self.parameters)

    def __getitem__(self, name: str) -> Parameter:
        """Returns the parameter of this name."""
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise KeyError(name)

    def suggest(self, trial: BaseTrial) -> dict[str, Value]:
        """Returns the settings that a trial suggests, for the parameters that apply."""
        settings: dict[str, Value] = {}
        for parameter in self.parameters:
            if parameter.applies(settings):
                settings[parameter.name] = parameter.suggest(trial)
        return settings

    def distinct_settings(self) -> Iterator[dict[str, Value]] | None:
        """Returns all distinct settings, the values of the last parameter changing fastest; None if infinitely many."""
        return None if any(parameter.values is None for parameter in self.parameters) else self._extend({}, 0)

    def count_settings(self, limit: int) -> int:
        """Returns the number of distinct settings, or `limit` if there are more."""
        settings = self.distinct_settings()
        return limit if settings is None else sum(1 for _ in islice(settings, limit))

    def _extend(self, settings: dict[str, Value], index: int) -> Iterator[dict[str, Value]]:
        """Yields settings of the parameters before `index`, with all values of the other parameters that apply."""
        if index == len(self.parameters):
            yield settings
        elif (parameter := self.parameters[index]).applies(settings):
            for value in parameter.values or ():
                yield from self._extend({**settings, parameter.name: value}, index + 1)
        else:
            yield from self._extend(settings, index + 1)

    def complete(self, given: Settings) -> dict[str, Value]:
        """Returns checked settings: the given ones, and defaults for the other parameters that apply.

        Raises:
            ValueError: a name is unknown, a value is of the wrong type or out of range, or a given parameter
                does not apply with the others.
        """
        settings: dict[str, Value] = {}
        for parameter in self.parameters:
            if parameter.applies(settings):
                settings[parameter.name] = parameter.accept(given.get(parameter.name, parameter.default))
        for name in given:
            if name not in settings:
                known = ", ".join(parameter.name for parameter in self.parameters)
                raise ValueError(f"there is no parameter {name} here; with these settings there are {known or 'none'}")
        return settings

    def parse(self, given: Settings) -> P_co:
        """Returns the settings as the typed object; a parameter that does not apply has its declared default.

        Raises:
            ValueError: the settings do not fit the space, as in `complete`.
        """
        return self.owner(**self.complete(given))

    def narrow(self, overrides: Mapping[str, Override], table: str = "parameters") -> SearchSpace[P_co]:
        """Returns the space with fixed values and narrower ranges; parameters that can never apply then are left out.

        Args:
            overrides: overrides by the name of their parameter.
            table: name of their table in the study definition, for messages.

        Raises:
            UserError: a name is unknown, an override is of the wrong kind or outside the declared range, or its
                parameter can never apply.
        """
        for name in overrides:
            check_known(f"parameter of [{table}]", name, [parameter.name for parameter in self.parameters])
        narrowed: dict[str, Parameter] = {}
        for parameter in self.parameters:
            key, override = f"{table}.{parameter.name}", overrides.get(parameter.name)
            if parameter.when is not None and not _can_apply(parameter.when, narrowed):
                if override is None:
                    continue
                condition = f"{parameter.when[0]} {' or '.join(parameter.when[1])}"
                raise UserError(f"{key} has no effect: it applies only with {condition}, which [{table}] rules out.")
            if override is not None:
                try:
                    parameter = parameter.narrow(override)
                except ValueError as error:
                    raise UserError(f"{key} is {format_override(override)}: {error}.") from error
            narrowed[parameter.name] = parameter
        return replace(self, parameters=tuple(narrowed.values()))

    def describe_changes(self, declared: SearchSpace[Any]) -> str:
        """Returns the overrides that narrow the declared space to this one, in TOML on one line."""
        changed = [parameter for parameter in self.parameters if parameter != declared[parameter.name]]
        return ", ".join(f"{parameter.name} = {format_override(parameter.as_override)}" for parameter in changed)


def search_space(parameters: type[T]) -> SearchSpace[T]:
    """Returns the search space that a parameters class declares: its own fields first, then those it inherits.

    Raises:
        TypeError: a field is not declared as a parameter, its type does not match its declaration, or its condition
            does not name choices of an earlier parameter.
    """
    hints = get_type_hints(parameters)
    declared = {item.name: item.metadata.get(_METADATA_KEY) for item in fields(parameters)}
    # `fields` lists inherited ones first; here the optimiser, which all share, comes last.
    names = dict.fromkeys(name for cls in parameters.__mro__ for name in inspect.get_annotations(cls))
    ordered: dict[str, Parameter] = {}
    for name in names:
        if name in declared:
            ordered[name] = _named(parameters, name, hints[name], declared[name])
            _check_condition(parameters, ordered[name], ordered)
    return SearchSpace(parameters, tuple(ordered.values()))


def _named(owner: type[Parameters], name: str, hint: object, parameter: object) -> Parameter:
    """Returns the parameter of a field, with its name and, if it is categorical, its choices."""
    if isinstance(parameter, Categorical) and get_origin(hint) is Literal:
        return replace(parameter, name=name, choices=get_args(hint))
    if (isinstance(parameter, Float) and hint is float) or (isinstance(parameter, Integer) and hint is int):
        return replace(parameter, name=name)
    raise TypeError(
        f"{owner.__name__}.{name} must be a float declared with number(), an int with integer(), a Literal with "
        f"choice(), or any of them with reuse()"
    )


def _can_apply(condition: Condition, earlier: Mapping[str, Parameter]) -> bool:
    """Returns whether a condition can be met after the parameters before it were narrowed."""
    above = earlier.get(condition[0])
    return isinstance(above, Categorical) and not set(above.choices).isdisjoint(condition[1])


def _check_condition(owner: type[Parameters], parameter: Parameter, earlier: Mapping[str, Parameter]) -> None:
    if parameter.when is not None:
        above = earlier.get(parameter.when[0])
        if not isinstance(above, Categorical) or not set() < set(parameter.when[1]) <= set(above.choices):
            raise TypeError(
                f"the condition of {owner.__name__}.{parameter.name} must name choices of a parameter before it"
            )
