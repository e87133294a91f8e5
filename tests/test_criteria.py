"""Criteria by which settings could be chosen (tools/criteria.py), and the divisions of sources they are compared on."""

import numpy as np
import pandas as pd
import pytest

from tools.compare_criteria import halve_sources, list_candidates
from tools.criteria import REFERENCE, choose_simplest, judge


def test_the_simplest_setting_within_one_error_is_chosen() -> None:
    assert choose_simplest([0.50, 0.56, 0.60], [0.05] * 3) == 1
    assert choose_simplest([0.50, 0.56, 0.60], [0.01] * 3) == 2
    assert choose_simplest([0.50, 0.56, 0.60], [0.11, 0.0, 0.0]) == 0


def test_without_an_error_the_first_of_the_best_is_chosen() -> None:
    assert choose_simplest([0.5, 0.6, 0.6], [0.0] * 3) == 1


def test_halves_divide_no_source_and_contain_all_divisible_classes() -> None:
    sources = np.repeat(np.arange(20), 3)
    labels = np.zeros(60, np.int64)
    labels[[4, 31]] = 1  # two sources
    labels[50] = 2  # one source
    for number in range(20):
        development = halve_sources(labels, sources, number)
        assert len(np.unique(sources[development])) == 10
        assert not set(sources[development]) & set(sources[~development])
        assert development[4] != development[31]


def test_halves_depend_on_their_number_alone() -> None:
    labels, sources = np.zeros(20, np.int64), np.arange(20)
    assert (halve_sources(labels, sources, 3) == halve_sources(labels, sources, 3)).all()
    assert (halve_sources(labels, sources, 3) != halve_sources(labels, sources, 4)).any()


def test_classes_that_cannot_be_divided_together_are_refused() -> None:
    # Each two of three sources share a class, so two of them in one half have theirs in that half alone.
    labels, sources = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 1, 2, 2, 0])
    with pytest.raises(ValueError, match="no division of 3 sources"):
        halve_sources(labels, sources, 0)


def test_each_strategy_starts_with_its_defaults() -> None:
    first = {one.strategy: one for one in reversed(list_candidates())}
    assert all(one.place == 0 for one in first.values())
    assert first["logistic"].settings == {"c": 1e-2, "power": 1.0}


def _rows() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "strategy": ["a", "a", "a", "b", "b"],
            **{f"f1_fit{i}": [0.50, 0.58, 0.60, 0.50, 0.40] for i in (0, 1, 2)},
            "average_precision": [0.7, 0.6, 0.5, 0.9, 0.8],
            "error": [0.05] * 5,
            "error_of_gap": [0.0, 0.01, 0.0, 0.0, 0.0],
            "evaluation0": [0.40, 0.70, 0.50, 0.30, 0.60],
            "evaluation1": [0.40, 0.70, 0.50, 0.50, 0.60],
        }
    )


def test_a_criterion_is_judged_by_the_evaluation_of_what_it_chooses() -> None:
    choices = judge(_rows(), REFERENCE)
    assert choices.within == pytest.approx((0.1 + 0.0) / 2)
    assert choices.across == pytest.approx(0.5)
    assert choices.regret_within == pytest.approx((0.2 + 0.2) / 2)
    assert choices.regret_across == pytest.approx(0.2)
    assert choices.correlation_within == pytest.approx((0.5 - 1) / 2)


def test_criteria_differ_in_what_they_choose() -> None:
    assert judge(_rows(), "mean average precision").across == pytest.approx(0.4)
    assert judge(_rows(), "simplest within one standard error").across == pytest.approx(0.7)
    assert judge(_rows(), "simplest within one standard error of the difference").within == pytest.approx(0.05)
