"""The kinds of hyperparameters: numbers, integers and choices, with their checks and how they are narrowed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.trial import BaseTrial

from hirise_imb.config import Override, Range

Value = str | float | int
Settings = Mapping[str, Value]
"""Values by the name of their parameter; a parameter that does not apply is absent."""
Condition = tuple[str, tuple[str, ...]]
"""Name of a categorical parameter, and the choices with which another parameter applies."""


@dataclass(frozen=True, kw_only=True)
class Parameter(ABC):
    """A hyperparameter of a strategy."""

    name: str = ""
    """Name of the dataclass field that declares it."""
    help: str
    """Its effect and its unit, in one line."""
    source: str
    """Paper and year, or another origin of its range."""
    when: Condition | None = None
    """The condition under which it applies; None if it always does."""
    default: Value

    @abstractmethod
    def suggest(self, trial: BaseTrial) -> Value:
        """Returns the value that a trial suggests."""

    @abstractmethod
    def allows(self, value: Value) -> bool:
        """Returns whether a value of the right type is in the range."""

    @property
    @abstractmethod
    def values(self) -> Sequence[Value] | None:
        """All values in the range, in ascending or declared order; None if there are infinitely many."""

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
    """Whether it is sampled on a logarithmic scale."""
    default: float

    def suggest(self, trial: BaseTrial) -> float:
        """Returns the number that a trial suggests."""
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)

    def allows(self, value: Value) -> bool:
        """Returns whether a number is in the range."""
        return self.low <= float(value) <= self.high  # False for NaN

    @property
    def values(self) -> tuple[float] | None:
        """The fixed number; None for an interval."""
        return (self.low,) if self.low == self.high else None

    def describe_range(self) -> str:
        """Returns the ends and the scale, or the fixed number."""
        if self.low == self.high:
            return f"fixed at {format_value(self.low)}"
        return f"a number from {format_value(self.low)} to {format_value(self.high)}{', log scale' if self.log else ''}"

    @property
    def as_override(self) -> Override:
        """The fixed number, or both ends."""
        return self.low if self.low == self.high else Range(self.low, self.high)

    def accept(self, value: object) -> float:
        """Returns the number as a float."""
        # Python counts a bool as an integer.
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

    @property
    def values(self) -> range:
        """All integers in the range."""
        return range(self.low, self.high + 1)

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

    @property
    def values(self) -> Sequence[str]:
        """All choices."""
        return self.choices

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
        names = (override,) if isinstance(override, str) else override
        if not isinstance(names, tuple) or not names or not set(names) <= set(self.choices):
            raise ValueError(f"it must be {self.describe_range()}, or a list of some of these")
        choices = tuple(choice for choice in self.choices if choice in names)
        return replace(self, choices=choices, default=self.default if self.default in choices else choices[0])


def _interval(override: Override, low: float, high: float) -> tuple[Any, Any]:
    """Returns the ends that an override names, unchecked; low and high fill in what a table leaves out."""
    if not isinstance(override, Range):
        return (None, None) if isinstance(override, bool) else (override, override)
    ends = (low if override.low is None else override.low, high if override.high is None else override.high)
    if ends[0] > ends[1]:
        raise ValueError(f"low {format_value(ends[0])} is above high {format_value(ends[1])}")
    return ends


def format_value(value: Value) -> str:
    """Returns a number with as few digits as identify its value."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)
