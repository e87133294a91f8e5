"""Outcomes of fits that train together: one may fail while the others succeed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from hirise_imb.utils.errors import FitFailed

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """A value, or the reason why there is none."""

    value: T | None = None
    failure: FitFailed | None = None

    def get(self) -> T:
        """Returns the value.

        Raises:
            FitFailed: the fit failed.
        """
        if self.failure is not None:
            raise self.failure
        assert self.value is not None
        return self.value

    def then(self, function: Callable[[T], U]) -> Outcome[U]:
        """Returns the outcome of `function` applied to the value; a failure stays as it is."""
        if self.failure is not None:
            return Outcome(failure=self.failure)
        return attempt(lambda: function(self.get()))


def attempt(function: Callable[[], T]) -> Outcome[T]:
    """Returns the outcome of a call that may raise `FitFailed`."""
    try:
        return Outcome(function())
    except FitFailed as error:
        return Outcome(failure=error)
