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
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

from optuna.trial import BaseTrial

from hirise_imb.config import Override, Range, check_known, format_override
from hirise_imb.utils.errors import UserError

Value = str | float | int
Settings = Mapping[str, Value]
"""Values by the name of their parameter; a parameter that does not apply is absent."""
Condition = tuple[str, tuple[str, ...]]
"""Name of a categorical parameter, and the choices with which another parameter applies."""

_METADATA_KEY = "parameter"


@dataclass(frozen=True, kw_only=True)
class Parameter(ABC):
    """A hyperparameter of a strategy."""

    name: str = ""
    """Name of the dataclass field that declares it."""
    help: str
    """What it does, with its unit."""
    source: str
    """Paper and year, or where else its range comes from."""
    when: Condition | None = None
    """The condition under which it applies; None if it always does."""
    default: Value

    @abstractmethod
    def suggest(self, trial: BaseTrial) -> Value:
        """Returns the value that a trial suggests."""

    @abstractmethod
    def allows(self, value: Value) -> bool:
        """Returns whether a value of the right type is in the range."""

    @abstractmethod
    def describe_range(self) -> str:
        """Returns the range in words, or the value that is fixed."""

    @abstractmethod
    def narrow(self, override: Override) -> Parameter:
        """Returns the parameter with a fixed value or a narrower range; the default moves to the nearest value in it.

        Raises:
            ValueError: the override is of the wrong kind or outside the range; the message says what it must be.
        """

    @property
    @abstractmethod
    def as_override(self) -> Override:
        """The override that would narrow the declared parameter to this one."""

    @abstractmethod
    def accept(self, value: object) -> Value:
        """Returns the value in the parameter's own type.

        Raises:
            ValueError: it is of another type or out of range.
        """

    def applies(self, settings: Settings) -> bool:
        """Returns whether the parameter applies, given the settings of the parameters before it."""
        return self.when is None or settings.get(self.when[0]) in self.when[1]

    def _refuse(self, value: object) -> ValueError:
        return ValueError(f"{self.name} must be {self.describe_range()}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Float(Parameter):
    """A number in a closed interval."""

    low: float
    high: float
    log: bool = False
    """Whether it is searched on a logarithmic scale."""
    default: float

    def suggest(self, trial: BaseTrial) -> float:
        """Returns the number that a trial suggests."""
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)

    def allows(self, value: Value) -> bool:
        """Returns whether a number is in the range."""
        return self.low <= float(value) <= self.high  # False for NaN

    def describe_range(self) -> str:
        """Returns the ends and the scale, or the fixed number."""
        if self.low == self.high:
            return f"fixed at {_format(self.low)}"
        return f"a number from {_format(self.low)} to {_format(self.high)}{', log scale' if self.log else ''}"

    @property
    def as_override(self) -> Override:
        """The fixed number, or both ends."""
        return self.low if self.low == self.high else Range(self.low, self.high)

    def accept(self, value: object) -> float:
        """Returns the number as a float."""
        if isinstance(value, bool) or not isinstance(value, float | int) or not self.allows(value):
            raise self._refuse(value)
        return float(value)

    def narrow(self, override: Override) -> Float:
        """Returns the parameter with a fixed number or with other ends within its own."""
        low, high = _interval(override, self.low, self.high)
        if not all(isinstance(end, float | int) and self.allows(end) for end in (low, high)):
            raise ValueError(f"it must be {self.describe_range()}, or a table with low and high in that range")
        low, high = float(low), float(high)
        return replace(self, low=low, high=high, default=min(max(self.default, low), high))


@dataclass(frozen=True, kw_only=True)
class Integer(Parameter):
    """An integer in a closed interval."""

    low: int
    high: int
    default: int

    def suggest(self, trial: BaseTrial) -> int:
        """Returns the integer that a trial suggests."""
        return trial.suggest_int(self.name, self.low, self.high)

    def allows(self, value: Value) -> bool:
        """Returns whether an integer is in the range."""
        return self.low <= int(value) <= self.high

    def describe_range(self) -> str:
        """Returns the ends, or the fixed integer."""
        return f"fixed at {self.low}" if self.low == self.high else f"an integer from {self.low} to {self.high}"

    @property
    def as_override(self) -> Override:
        """The fixed integer, or both ends."""
        return self.low if self.low == self.high else Range(self.low, self.high)

    def accept(self, value: object) -> int:
        """Returns the integer."""
        if isinstance(value, bool) or not isinstance(value, int) or not self.allows(value):
            raise self._refuse(value)
        return int(value)

    def narrow(self, override: Override) -> Integer:
        """Returns the parameter with a fixed integer or with other ends within its own."""
        low, high = _interval(override, self.low, self.high)
        if not (isinstance(low, int) and isinstance(high, int) and self.allows(low) and self.allows(high)):
            raise ValueError(f"it must be {self.describe_range()}, or a table with low and high in that range")
        return replace(self, low=low, high=high, default=min(max(self.default, low), high))


@dataclass(frozen=True, kw_only=True)
class Categorical(Parameter):
    """One of several strings."""

    choices: Sequence[str] = ()
    default: str

    def suggest(self, trial: BaseTrial) -> str:
        """Returns the choice that a trial suggests."""
        return str(trial.suggest_categorical(self.name, list(self.choices)))

    def allows(self, value: Value) -> bool:
        """Returns whether a string is one of the choices."""
        return value in self.choices

    def describe_range(self) -> str:
        """Returns all choices, or the fixed one."""
        return f"fixed at {self.choices[0]}" if len(self.choices) == 1 else f"one of {', '.join(self.choices)}"

    @property
    def as_override(self) -> Override:
        """The fixed choice, or all choices."""
        return self.choices[0] if len(self.choices) == 1 else tuple(self.choices)

    def accept(self, value: object) -> str:
        """Returns the choice."""
        if not isinstance(value, str) or not self.allows(value):
            raise self._refuse(value)
        return value

    def narrow(self, override: Override) -> Categorical:
        """Returns the parameter with some of its choices, in their declared order.

        A default that is not among them becomes the first of them.
        """
        wanted = (override,) if isinstance(override, str) else override
        if not isinstance(wanted, tuple) or not wanted or not set(wanted) <= set(self.choices):
            raise ValueError(f"it must be {self.describe_range()}, or a list of some of these")
        choices = tuple(choice for choice in self.choices if choice in wanted)
        return replace(self, choices=choices, default=self.default if self.default in choices else choices[0])


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
        text = ", ".join(f"{key} {_format(value)}" for key, value in changes.items())
        parameter = replace(parameter, source=f"{parameter.source}; here {text}: {reason}")
    return field(default=parameter.default, metadata={_METADATA_KEY: parameter})


@dataclass(frozen=True)
class SearchSpace(Generic[P_co]):
    """The parameters that a search chooses, in the order in which a trial is asked for them.

    A condition refers to a parameter before the one that has it.
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
        """Returns the settings that a trial suggests; only parameters that apply are asked for."""
        settings: dict[str, Value] = {}
        for parameter in self.parameters:
            if parameter.applies(settings):
                settings[parameter.name] = parameter.suggest(trial)
        return settings

    def complete(self, given: Settings) -> dict[str, Value]:
        """Returns checked settings: the given ones, and defaults for the other parameters that apply.

        Raises:
            ValueError: a name is unknown, a value is of the wrong type or out of range, or a parameter is given that
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
            ValueError: as for `complete`.
        """
        return self.owner(**self.complete(given))

    def narrow(self, overrides: Mapping[str, Override], table: str = "parameters") -> SearchSpace[P_co]:
        """Returns the space with fixed values and narrower ranges; parameters that can never apply then are left out.

        Args:
            overrides: by the name of the parameter.
            table: the table of the study definition that holds them, for messages.

        Raises:
            UserError: a name is unknown, an override is of the wrong kind or outside the declared range, or its
                parameter can never apply.
        """
        for name in overrides:
            check_known(f"parameter of [{table}]", name, [parameter.name for parameter in self.parameters])
        narrowed: dict[str, Parameter] = {}
        for parameter in self.parameters:
            possible = True
            if parameter.when is not None:
                above = narrowed.get(parameter.when[0])
                possible = isinstance(above, Categorical) and not set(above.choices).isdisjoint(parameter.when[1])
            override = overrides.get(parameter.name)
            key = f"{table}.{parameter.name}"
            if not possible and parameter.when is not None and override is not None:
                condition = f"{parameter.when[0]} {' or '.join(parameter.when[1])}"
                raise UserError(f"{key} has no effect: it applies with {condition} only, which [{table}] rules out.")
            if possible:
                try:
                    narrowed[parameter.name] = parameter if override is None else parameter.narrow(override)
                except ValueError as error:
                    shown = "" if override is None else format_override(override)
                    raise UserError(f"{key} is {shown}: {error}.") from error
        return replace(self, parameters=tuple(narrowed.values()))

    def describe_changes(self, declared: SearchSpace[Any]) -> str:
        """Returns the overrides that narrow the declared space to this one, in TOML on one line."""
        changed = [parameter for parameter in self.parameters if parameter != declared[parameter.name]]
        return ", ".join(f"{parameter.name} = {format_override(parameter.as_override)}" for parameter in changed)


def search_space(parameters: type[T]) -> SearchSpace[T]:
    """Returns the search space that a parameters class declares: its own fields first, then those it inherits.

    Raises:
        TypeError: a field is not declared as a parameter, its type does not go with its declaration, or its condition
            does not name choices of a parameter before it.
    """
    hints = get_type_hints(parameters)
    declared = {one.name: one.metadata.get(_METADATA_KEY) for one in fields(parameters)}
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


def _check_condition(owner: type[Parameters], parameter: Parameter, before: Mapping[str, Parameter]) -> None:
    if parameter.when is not None:
        above = before.get(parameter.when[0])
        if not isinstance(above, Categorical) or not set() < set(parameter.when[1]) <= set(above.choices):
            raise TypeError(
                f"the condition of {owner.__name__}.{parameter.name} must name choices of a parameter before it"
            )


def _interval(override: Override, low: float, high: float) -> tuple[Any, Any]:
    """Returns the ends that an override names, unchecked; low and high fill in what a table leaves out."""
    if not isinstance(override, Range):
        return (None, None) if isinstance(override, bool) else (override, override)
    ends = (low if override.low is None else override.low, high if override.high is None else override.high)
    if ends[0] > ends[1]:
        raise ValueError(f"low {_format(ends[0])} is above high {_format(ends[1])}")
    return ends


def _format(value: Value) -> str:
    """Returns a number in as few digits as tell its value."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)
