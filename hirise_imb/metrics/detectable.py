"""The minimum detectable difference of macro F1 that a test will have, simulated before anything is run.

How small a difference the swap test can detect depends mostly on the sources: how many there are, how many of them have
each class, and how many landmarks each has. Two equally good arms are simulated on these very counts, and tested as a
report would test them. The simulation is that of docs/uncertainty.md, with one skill for all rare classes, since those
of a data set at hand are not known yet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.metrics.bootstrap import MIN_SOURCES, SourceCounts
from hirise_imb.metrics.permutation import swap_test

PAIRS = 100
"""Number of simulated pairs of arms, of which the median is given."""

BETWEEN, OWN = 1.2, 0.6
"""Standard deviations, in log odds of a correct prediction, of the effects of each class in each source: of those that
both arms share, and of those that each arm has by itself.

They are the ones that docs/uncertainty.md uses unless stated otherwise. With five fits they give 0.08 on the test split
of the real sample and 0.04 on all its sources. In its reports, comparisons with the baseline have medians of 0.074 and
0.043, and comparisons with the control 0.035 and 0.025, since many arms share most predictions with it."""

N_FITS = 5
"""Number of fits of each arm where no study says how many it will have; that of the real sample's report."""

_MAJORITY_SKILL, _RARE_SKILL = 3.2, 0.67
"""Log odds of a correct prediction in an average source; that of rare classes is the mean in docs/uncertainty.md."""
_MISSED = 0.8
"""Share of the mistakes on rare classes that are predictions of the majority class."""
_DRAWS = 1000
"""Number of exchanges of a swap test."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DetectableDifference:
    """Minimum detectable difference of macro F1 on some landmarks; None if no difference is large enough."""

    n_sources: int
    """Number of sources of the landmarks."""
    all_classes: float | None
    """Minimum detectable difference of macro F1 over all classes."""
    several_sources: float | None
    """The same over the classes with `MIN_SOURCES` sources or more."""
    n_several: int
    """Number of these classes."""


def count_support(landmarks: pd.DataFrame, n_classes: int) -> Ints:
    """Counts the landmarks of each class in each source, shape (n_sources, n_classes).

    Args:
        landmarks: one row for each landmark, with the columns `source` and `label`.
        n_classes: number of classes of the data set.
    """
    sources = np.unique(landmarks["source"].to_numpy(str), return_inverse=True)[1]
    support = np.zeros((int(sources.max()) + 1, n_classes), np.int64)
    np.add.at(support, (sources, landmarks["label"].to_numpy()), 1)
    return support


def simulate_detectable_difference(support: Ints, majority: int | None, n_fits: int = N_FITS) -> DetectableDifference:
    """Simulates the minimum detectable difference of two equally good arms, median over `PAIRS` pairs.

    Args:
        support: number of landmarks of each class in each source, shape (n_sources, n_classes).
        majority: id of the majority class, which most mistakes are predictions of; None without one.
        n_fits: number of fits of each arm, over which scores are averaged.
    """
    several = np.flatnonzero((support > 0).sum(axis=0) >= MIN_SOURCES)
    of_all, of_several = [], []
    for number in range(PAIRS):
        one, other = _simulate_pair(support, majority, n_fits, np.random.default_rng((number, n_fits)))
        of_all.append(_min_detectable(one, other))
        of_several.append(_min_detectable(_select(one, several), _select(other, several)) if len(several) else np.inf)
    medians = [float(np.median(values)) for values in (of_all, of_several)]
    all_classes, several_sources = (median if np.isfinite(median) else None for median in medians)
    return DetectableDifference(len(support), all_classes, several_sources, len(several))


def _simulate_pair(
    support: Ints, majority: int | None, n_fits: int, rng: np.random.Generator
) -> tuple[SourceCounts, SourceCounts]:
    """Draws the counts of two equally good arms on the same sources."""
    n_classes = support.shape[1]
    skill = np.full(n_classes, _RARE_SKILL)
    # Where a wrong prediction goes: one distribution over the other classes for each true class.
    mistakes = np.ones((n_classes, n_classes))
    if majority is not None:
        skill[majority] = _MAJORITY_SKILL
        mistakes *= (1 - _MISSED) / max(n_classes - 2, 1)
        mistakes[:, majority] = _MISSED
    np.fill_diagonal(mistakes, 0)
    mistakes /= mistakes.sum(axis=1, keepdims=True)
    shared = skill + rng.normal(0, BETWEEN, support.shape)

    def simulate_arm() -> SourceCounts:
        chances = 1 / (1 + np.exp(-shared - rng.normal(0, OWN, support.shape)))
        hits = rng.binomial(support, chances, (n_fits, *support.shape))
        wrong = rng.multinomial(support - hits, mistakes).sum(axis=-2)
        return SourceCounts(support, hits, hits + wrong)

    return simulate_arm(), simulate_arm()


def _select(counts: SourceCounts, classes: Ints) -> SourceCounts:
    """Returns the counts of some of the classes; their false positives in other classes still count."""
    return SourceCounts(counts.support[:, classes], counts.hits[..., classes], counts.predicted[..., classes])


def _min_detectable(one: SourceCounts, other: SourceCounts) -> float:
    difference = swap_test(one, other, _DRAWS).min_detectable_difference
    return np.inf if difference is None else difference
