"""Named checks that run one by one, as parameters of a pytest test, or all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One check of one strategy or backbone; call it to run it."""

    subject: str
    """Name of the strategy or backbone."""
    name: str
    """The contract that is checked, in snake case."""
    run: Callable[[], None]

    def __call__(self) -> None:
        """Runs the check.

        Raises:
            AssertionError: it failed; the message names subject and check.
        """
        try:
            self.run()
        except Exception as error:  # whatever the code under test may raise
            reason = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            raise AssertionError(f"{self.subject} fails {self.name}: {reason}") from error

    def __str__(self) -> str:
        """Returns subject and name, as the id of a parametrised test."""
        return f"{self.subject}-{self.name}"


def run_checks(checks: Iterable[Check]) -> None:
    """Runs all checks.

    Raises:
        AssertionError: at least one failed; the message lists all failures.
    """
    failures = []
    for check in checks:
        try:
            check()
        except AssertionError as error:
            failures.append(str(error))
    if failures:
        raise AssertionError("\n".join(failures))


def expect(condition: object, message: str) -> None:
    """Raises AssertionError with the message unless the condition holds, even under `python -O`."""
    if not condition:
        raise AssertionError(message)
