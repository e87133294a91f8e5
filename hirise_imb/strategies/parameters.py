"""What a strategy lets a search choose: declared once; checks, search space and lists follow from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import BaseTrial

Value = str | float | int
Settings = Mapping[str, Value]


@dataclass(frozen=True, kw_only=True)
class Parameter(ABC):
    """A setting of a strategy."""

    name: str
    help: str
    """What it does, with its unit."""
    source: str
    """Paper and year, or where else its range comes from."""
    when: tuple[str, tuple[Value, ...]] | None = None
    """Another parameter and its values with which this one is there; always, where it is None."""
    default: Value
    """The best-known value."""

    @abstractmethod
    def suggest(self, trial: BaseTrial) -> Value:
        """Ask a trial for a value."""

    @abstractmethod
    def allows(self, value: Value) -> bool:
        """Whether a value of the right type is in the range."""

    @abstractmethod
    def range(self) -> str:
        """The values it can have, in words."""

    @property
    @abstractmethod
    def types(self) -> tuple[type, ...]:
        """Of its values."""

    def check(self, value: object) -> None:
        """Refuse a value.

        Raises:
            ValueError: it is of another type or out of range.
        """
        right = isinstance(value, self.types) and not isinstance(value, bool)
        if not right or not self.allows(value):  # type: ignore[arg-type]
            raise ValueError(f"{self.name} must be {self.range()}, got {value!r}")

    def there(self, settings: Mapping[str, Any]) -> bool:
        """Whether it is one of the parameters that go with the settings before it."""
        return self.when is None or settings.get(self.when[0]) in self.when[1]


@dataclass(frozen=True, kw_only=True)
class Float(Parameter):
    """A number between two others."""

    low: float
    high: float
    log: bool = False
    """Whether ratios matter, not differences."""
    default: float

    types = (float, int)

    def suggest(self, trial: BaseTrial) -> Value:
        """A number in the range."""
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)

    def allows(self, value: Value) -> bool:
        """Whether it is in the range."""
        return self.low <= float(value) <= self.high  # not so for NaN

    def range(self) -> str:
        """Its ends, and its scale."""
        return f"a number from {self.low:g} to {self.high:g}{', log scale' if self.log else ''}"


@dataclass(frozen=True, kw_only=True)
class Integer(Parameter):
    """A whole number between two others."""

    low: int
    high: int
    default: int

    types = (int,)

    def suggest(self, trial: BaseTrial) -> Value:
        """A number in the range."""
        return trial.suggest_int(self.name, self.low, self.high)

    def allows(self, value: Value) -> bool:
        """Whether it is in the range."""
        return self.low <= int(value) <= self.high

    def range(self) -> str:
        """Its ends."""
        return f"a whole number from {self.low} to {self.high}"


@dataclass(frozen=True, kw_only=True)
class Categorical(Parameter):
    """One of some words."""

    choices: Sequence[str]
    default: str

    types = (str,)

    def suggest(self, trial: BaseTrial) -> Value:
        """One of them."""
        return str(trial.suggest_categorical(self.name, list(self.choices)))

    def allows(self, value: Value) -> bool:
        """Whether it is one of them."""
        return value in self.choices

    def range(self) -> str:
        """All of them."""
        return f"one of {', '.join(self.choices)}"


def suggest_settings(parameters: Sequence[Parameter], trial: BaseTrial) -> dict[str, Value]:
    """Ask a trial for every parameter that is there."""
    settings: dict[str, Value] = {}
    for parameter in parameters:
        if parameter.there(settings):
            settings[parameter.name] = parameter.suggest(trial)
    return settings


def complete_settings(parameters: Sequence[Parameter], given: Settings) -> dict[str, Value]:
    """Settings with the defaults of what is not given, all checked.

    Raises:
        ValueError: a name is unknown, a value is of the wrong type or out of range, or a parameter is given that does
            not go with the others.
    """
    settings: dict[str, Value] = {}
    for parameter in parameters:
        if parameter.there(settings):
            value = given.get(parameter.name, parameter.default)
            parameter.check(value)
            settings[parameter.name] = value
    for name in given:
        if name not in settings:
            known = ", ".join(parameter.name for parameter in parameters)
            raise ValueError(f"there is no parameter {name} here; with these settings there are {known or 'none'}")
    return settings
