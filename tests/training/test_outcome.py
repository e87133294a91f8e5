"""Outcomes of fits: a value, or the failure that is raised where the value is needed."""

from __future__ import annotations

import pytest

from hirise_imb.training.outcome import Outcome, attempt
from hirise_imb.utils.errors import FitFailed, NotApplicable


def fail() -> int:
    raise NotApplicable("There are too few sources.")


def test_a_value_comes_back() -> None:
    assert attempt(lambda: 3).get() == 3
    assert attempt(lambda: 3).then(str).get() == "3"


def test_a_failure_is_raised_as_it_was() -> None:
    outcome = attempt(fail)
    with pytest.raises(NotApplicable, match=r"^There are too few sources\.$"):
        outcome.get()


def test_what_follows_a_failure_is_not_computed() -> None:
    outcome = attempt(fail).then(lambda value: pytest.fail(f"called with {value}"))
    with pytest.raises(NotApplicable):
        outcome.get()


def test_what_follows_may_fail() -> None:
    outcome = Outcome(3).then(lambda _: fail())
    with pytest.raises(FitFailed, match="too few sources"):
        outcome.get()


def test_other_errors_are_not_outcomes() -> None:
    with pytest.raises(ZeroDivisionError):
        attempt(lambda: 1 // 0)
