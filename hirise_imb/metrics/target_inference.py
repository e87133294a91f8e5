"""Resampling and the swap test for any target metric; `bootstrap` and `permutation` do the same for macro F1, faster.

Draws of sources and fits are those of `bootstrap`, and exchanges those of `permutation`, so that only the metric
differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import lcm

import numpy as np
from numpy.typing import NDArray

from hirise_imb.metrics.bootstrap import N_RESAMPLES, count_confusions, draw_resamples
from hirise_imb.metrics.permutation import SwapTest, judge_exchanges
from hirise_imb.metrics.targets import DecisionTarget, RankingTarget, Target

N_RANKINGS = 2_000
"""Number of resamples, and of exchanges, for a metric of rankings, which has to go through all landmarks each time."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ArmScores:
    """The predictions of all fits of an arm, whose sources can be weighted."""

    target: Target
    labels: Ints
    """True classes, shape (n,)."""
    sources: Ints
    """Index of the source of each landmark, from 0, shape (n,)."""
    probabilities: NDArray[np.float32]
    """Predicted probabilities of each fit, shape (n_fits, n, n_classes)."""

    @property
    def n_sources(self) -> int:
        """Number of sources."""
        return int(self.sources.max()) + 1

    @property
    def n_draws(self) -> int:
        """Number of resamples and of random exchanges."""
        return N_RANKINGS if isinstance(self.target, RankingTarget) else N_RESAMPLES

    @cached_property
    def confusions(self) -> Floats:
        """Confusion matrix of each fit in each source, shape (n_fits, n_sources, n_classes, n_classes)."""
        predicted = self.probabilities.argmax(axis=2)
        return count_confusions(self.labels, predicted, self.sources, self.probabilities.shape[2]).astype(float)

    def score_draws(self, weights: Floats) -> Floats:
        """Returns the score of each fit with the sources weighted, shape (n_fits, n_draws).

        Args:
            weights: how often each source counts in each draw, shape (n_draws, n_sources).
        """
        if isinstance(self.target, DecisionTarget):
            return np.stack([self.target.of_confusion(np.tensordot(weights, fit, 1)) for fit in self.confusions])
        assert isinstance(self.target, RankingTarget)
        return np.stack([self.target.of_weights(self.labels, fit, self.sources, weights) for fit in self.probabilities])

    def resample(self) -> Floats:
        """Returns the score in each resample of sources and fits, shape (n_draws,); NaN where it is undefined.

        Resample i consists of the same sources for every arm, and of the same fits for arms with equal numbers of fits.
        """
        weights, shares = draw_resamples(self.n_sources, len(self.probabilities), self.n_draws)
        return np.asarray(np.einsum("fd,df->d", self.score_draws(weights), shares))

    def score(self) -> float:
        """Returns the mean score over fits."""
        return float(np.mean([self.target.score(self.labels, fit) for fit in self.probabilities]))


def swap_test_of(one: ArmScores, other: ArmScores, seed: int = 0) -> SwapTest:
    """Compares two arms on the same sources, as `permutation.swap_test` does for macro F1.

    Args:
        one: predictions of the first arm.
        other: predictions of the second arm.
        seed: seed of the random exchanges.

    Raises:
        ValueError: the arms were not tested on the same landmarks.
    """
    if not (np.array_equal(one.labels, other.labels) and np.array_equal(one.sources, other.sources)):
        raise ValueError("the arms were not tested on the same landmarks")
    differs = _find_differences(one, other)
    informative = np.unique(one.sources[differs])

    def exchange(swaps: Floats) -> Floats:
        of_source = np.zeros((len(swaps), one.n_sources))
        of_source[:, informative] = swaps
        return _exchange(one, other, of_source)

    return judge_exchanges(one.score() - other.score(), exchange, len(informative), one.n_draws, seed)


def _find_differences(one: ArmScores, other: ArmScores) -> NDArray[np.bool_]:
    """Returns which landmarks an exchange can make a difference for, shape (n,)."""
    first, second = _pair(one.probabilities, other.probabilities)
    if isinstance(one.target, DecisionTarget):
        return np.asarray((first.argmax(axis=2) != second.argmax(axis=2)).any(axis=0))
    return np.asarray((first != second).any(axis=(0, 2)))


def _exchange(one: ArmScores, other: ArmScores, swaps: Floats) -> Floats:
    """Returns the difference between the arms after each exchange, shape (n_draws,)."""
    target = one.target
    if isinstance(target, DecisionTarget):
        first, second = _pair(one.confusions, other.confusions)
        differences = np.zeros(len(swaps))
        for mine, theirs in zip(first, second, strict=True):
            shifts = np.tensordot(swaps, theirs - mine, 1)
            differences += target.of_confusion(mine.sum(axis=0) + shifts)
            differences -= target.of_confusion(theirs.sum(axis=0) - shifts)
        return differences / len(first)
    assert isinstance(target, RankingTarget)
    # The landmarks of both arms in one list: those of a source count for the first arm or for the second.
    labels = np.concatenate([one.labels, other.labels])
    sources = np.concatenate([one.sources, other.sources + one.n_sources])
    weights = np.hstack([1 - swaps, swaps])
    differences = np.zeros(len(swaps))
    first, second = _pair(one.probabilities, other.probabilities)
    for mine, theirs in zip(first, second, strict=True):
        scores = np.concatenate([mine, theirs])
        differences += target.of_weights(labels, scores, sources, weights)
        differences -= target.of_weights(labels, scores, sources, 1 - weights)
    return differences / len(first)


def _pair(first: NDArray[np.floating], second: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Returns arrays of equally many fits: both are repeated until they have equal numbers."""
    n_fits = lcm(len(first), len(second))
    one, other = (np.concatenate([fits] * (n_fits // len(fits))) for fits in (first, second))
    return one, other
