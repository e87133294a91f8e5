"""The minimum detectable difference that is simulated before a study."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.special import expit
from simulated import N_CLASSES, OFFICIAL, SAMPLE, Law, Layout

from hirise_imb.metrics.bootstrap import SourceCounts
from hirise_imb.metrics.detectable import DetectableDifference, count_support, simulate_detectable_difference
from hirise_imb.metrics.permutation import swap_test

Ints = NDArray[np.int64]


def support_of(layout: Layout) -> Ints:
    return count_support(pd.DataFrame({"label": layout.labels, "source": layout.sources.astype(str)}), N_CLASSES)


def test_landmarks_are_counted_by_source_and_class() -> None:
    landmarks = pd.DataFrame({"source": ["b", "a", "b", "b"], "label": [0, 2, 2, 2]})
    assert count_support(landmarks, 4).tolist() == [[0, 0, 1, 0], [1, 0, 2, 0]]


def by_definition(support: Ints, skill: list[float], mistakes: list[list[float]], n_fits: int) -> DetectableDifference:
    """The simulation as docs/uncertainty.md states it, from the same random numbers."""
    several = np.flatnonzero((support > 0).sum(axis=0) >= 6)
    shares = np.array(mistakes) / np.sum(mistakes, axis=1, keepdims=True)
    found: list[list[float]] = []
    for number in range(100):
        rng = np.random.default_rng((number, n_fits))
        both = np.array(skill) + rng.normal(0, 1.2, support.shape)
        arms = []
        for _ in range(2):
            chances = expit(both + rng.normal(0, 0.6, support.shape))
            hits = rng.binomial(support, chances, (n_fits, *support.shape))
            wrong = rng.multinomial(support - hits, shares).sum(axis=2)
            arms.append((hits, hits + wrong))
        sizes = []
        for k in (np.arange(support.shape[1]), several):
            one, other = (SourceCounts(support[:, k], hits[..., k], predicted[..., k]) for hits, predicted in arms)
            sizes.append(swap_test(one, other, 1000).min_detectable_difference or np.inf)
        found.append(sizes)
    of_all, of_several = np.median(found, axis=0)
    return DetectableDifference(len(support), float(of_all), float(of_several), len(several))


RARE, MAJORITY = 0.67, 3.2
REST = (1 - 0.8) / 2
SIMULATIONS: dict[str, tuple[int, list[int], int | None, list[float], list[list[float]], int]] = {
    "three classes": (
        7,
        [7, 6, 5],
        0,
        [MAJORITY, RARE, RARE],
        [[0, 0.5, 0.5], [0.8, 0, 0.2], [0.8, 0.2, 0]],
        2,
    ),
    "four classes": (
        7,
        [7, 7, 7, 5],
        1,
        [RARE, MAJORITY, RARE, RARE],
        [[0, 0.8, REST, REST], [REST, 0, REST, REST], [REST, 0.8, 0, REST], [REST, 0.8, REST, 0]],
        1,
    ),
    "no majority class": (
        11,
        [11, 8, 5],
        None,
        [RARE] * 3,
        [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]],
        1,
    ),
}
"""Sources, sources of each class, majority class, log odds of each class, frequencies of mistakes, and fits."""


@pytest.mark.parametrize("name", SIMULATIONS)
def test_it_is_the_simulation_that_is_documented(name: str) -> None:
    n_sources, of_class, majority, skill, mistakes, n_fits = SIMULATIONS[name]
    support = np.where(np.arange(n_sources)[:, None] < of_class, 4, 0)
    support[0, 1] = 1
    found = simulate_detectable_difference(support, majority, n_fits)
    expected = by_definition(support, skill, mistakes, n_fits)
    assert vars(found) == pytest.approx(vars(expected), abs=1e-12)


@pytest.mark.parametrize("layout", [OFFICIAL, SAMPLE], ids=["official", "sample"])
def test_it_agrees_with_the_simulation_of_single_landmarks(layout: Layout) -> None:
    law = Law(between=1.2, own=0.6, layout=layout)
    expected = []
    for number in range(60):
        one, other = law.draw(np.random.default_rng((9, number)), (0.0, 0.0))
        expected.append(swap_test(layout.count(one), layout.count(other), 500).min_detectable_difference)
    # The simulations differ in the skill of rare classes, which is one for all here.
    assert simulate_detectable_difference(support_of(layout), 0, n_fits=1).all_classes == pytest.approx(
        float(np.median([np.inf if value is None else value for value in expected])), rel=0.25
    )


@pytest.mark.parametrize("layout", [OFFICIAL, SAMPLE], ids=["official", "sample"])
def test_more_sources_detect_smaller_differences(layout: Layout) -> None:
    support = support_of(layout)
    differences = [simulate_detectable_difference(np.tile(support, (times, 1)), 0) for times in (1, 2, 4)]
    values = [one.all_classes or 1.0 for one in differences]
    assert values[0] > 1.1 * values[1] > 1.1 * 1.1 * values[2]
    assert [one.n_sources for one in differences] == [len(support) * times for times in (1, 2, 4)]


def test_more_landmarks_of_the_same_sources_help_less_than_more_sources() -> None:
    support = support_of(SAMPLE)
    once, landmarks, sources = (
        simulate_detectable_difference(counts, 0).all_classes or 1.0
        for counts in (support, 4 * support, np.tile(support, (4, 1)))
    )
    assert sources < landmarks < once


def test_more_fits_detect_smaller_differences() -> None:
    one, five = (simulate_detectable_difference(support_of(SAMPLE), 0, n_fits).all_classes or 1.0 for n_fits in (1, 5))
    assert five < one


def test_classes_with_few_sources_are_left_out_of_the_second_value() -> None:
    support = np.zeros((8, 3), np.int64)
    support[:, 0], support[:6, 1], support[:5, 2] = 50, 5, 5
    several = simulate_detectable_difference(support, 0)
    assert several.n_several == 2
    support[5:, 2] = 5
    every = simulate_detectable_difference(support, 0)
    assert every.n_several == 3
    assert every.all_classes == every.several_sources != several.several_sources


def test_a_single_source_detects_nothing() -> None:
    found = simulate_detectable_difference(np.array([[20, 5]]), 0)
    assert (found.all_classes, found.several_sources, found.n_several) == (None, None, 0)


def test_there_need_not_be_a_majority_class() -> None:
    found = simulate_detectable_difference(np.full((20, 3), 4), None)
    assert found.all_classes is not None
    assert found.all_classes == found.several_sources


def test_the_same_counts_give_the_same_value() -> None:
    assert simulate_detectable_difference(support_of(SAMPLE), 0) == simulate_detectable_difference(
        support_of(SAMPLE), 0
    )
