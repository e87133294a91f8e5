"""Statistical inference for the arms of a report: confidence intervals, and families of tests between arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.data.dataset import ClassSet
from hirise_imb.metrics.bootstrap import (
    MIN_SOURCES,
    N_RESAMPLES,
    ROUNDING,
    Interval,
    Resamples,
    SourceCounts,
    bootstrap_sources,
    expanded_percentile_interval,
    image_interval,
    leave_one_source_out,
)
from hirise_imb.metrics.permutation import SwapTest, holm, swap_test
from hirise_imb.metrics.target_inference import ArmScores, swap_test_of
from hirise_imb.metrics.targets import MACRO_F1, Target

IMAGE_DRAWS = 2_000
"""Number of resamples of images, enough for an interval that is shown only as a warning."""

_FEWEST_ARMS = 3
"""Fewest arms with a rank correlation: that of two arms is always 1 or -1."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ArmDifference:
    """The difference in the target metric between two arms on the same resampled sources."""

    interval: Interval | None
    """Confidence interval of the difference; None if none can be given."""
    share_above: float
    """Share of resamples in which the first arm has the higher score."""


@dataclass(frozen=True)
class AdjustedTest:
    """The test of an arm against another, as one of a family of tests."""

    other: str
    """Name of the arm that it is compared with."""
    swap: SwapTest
    p_holm: float
    """p value adjusted (Holm) for the number of tests in the family."""


@dataclass(frozen=True)
class Family:
    """Tests whose p values are adjusted together, by arm."""

    tests: Mapping[str, AdjustedTest]

    def __len__(self) -> int:
        """Returns the number of tests."""
        return len(self.tests)

    @property
    def min_detectable_difference(self) -> Interval | None:
        """Smallest and largest minimum detectable difference over the tests; None if no test has one."""
        sizes = [test.swap.min_detectable_difference for test in self.tests.values()]
        defined = [size for size in sizes if size is not None]
        return Interval(min(defined), max(defined)) if defined else None


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rank correlation between two scores of several arms."""

    arms: int
    """Number of arms."""
    rho: float | None
    """The correlation; None for fewer than three arms, or if a score is equal for all of them."""
    p: float | None
    """Two-sided p value from random orders of the arms; None without a correlation."""


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> RankCorrelation:
    """Returns the rank correlation between two scores, each with one value for each arm."""
    from scipy.stats import rankdata

    if len(first) < _FEWEST_ARMS or np.ptp(first) < ROUNDING or np.ptp(second) < ROUNDING:
        return RankCorrelation(len(first), None, None)
    # Rounding makes scores equal that differ only in the last bits, which then share a rank.
    ranks = np.stack([rankdata(np.round(scores, 12)) for scores in (first, second)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    ranks /= np.linalg.norm(ranks, axis=1, keepdims=True)
    rho = float(np.clip(ranks[0] @ ranks[1], -1, 1))
    shuffled = np.random.default_rng(0).permuted(np.tile(ranks[0], (N_RESAMPLES, 1)), axis=1) @ ranks[1]
    n_as_large = int(np.count_nonzero(np.abs(shuffled) >= abs(rho) - ROUNDING))
    return RankCorrelation(len(first), rho, (1 + n_as_large) / (1 + N_RESAMPLES))


class Inference:
    """Resamples and tests of all arms of a report, each computed once, on the same resampled sources."""

    def __init__(
        self,
        labels: Ints,
        sources: pd.Series[str],
        predicted: Mapping[str, Ints],
        classes: ClassSet,
        target: Target = MACRO_F1,
        probabilities: Mapping[str, NDArray[np.float32]] = MappingProxyType({}),
    ) -> None:
        """Counts the hits and predictions of each fit in each source.

        Args:
            labels: true classes, shape (n,).
            sources: names of the sources, shape (n,).
            predicted: predicted classes of each fit, shape (n_fits, n), by arm.
            classes: classes of the data set.
            target: metric of intervals and tests; those of single classes are of F1.
            probabilities: probabilities of each fit, shape (n_fits, n, n_classes), by arm; empty for macro F1, which
                is computed faster from the predicted classes.
        """
        numbers, names = pd.factorize(sources)
        self.names = [str(name) for name in names]
        self.counts = {
            arm: SourceCounts.of(labels, fits, numbers.astype(np.int64), len(classes))
            for arm, fits in predicted.items()
        }
        self._labels, self._predicted, self._classes = labels, predicted, classes
        self._arm_scores = {
            arm: ArmScores(target, labels, numbers.astype(np.int64), fits) for arm, fits in probabilities.items()
        }

    @property
    def total(self) -> int:
        """Number of sources in the test split."""
        return len(self.names)

    @cached_property
    def resamples(self) -> dict[str, Resamples]:
        """Bootstrap resamples by arm."""
        return {arm: bootstrap_sources(counts) for arm, counts in self.counts.items()}

    @cached_property
    def draws(self) -> dict[str, Floats]:
        """The target metric in each resample of sources and fits, shape (n_draws,), by arm."""
        if self._arm_scores:
            return {arm: scores.resample() for arm, scores in self._arm_scores.items()}
        return {arm: resamples.macro_f1() for arm, resamples in self.resamples.items()}

    def interval(self, arm: str) -> Interval | None:
        """Returns the confidence interval of the target metric; None if none can be given."""
        return self._interval_of(self.draws[arm])

    def _interval_of(self, values: Floats) -> Interval | None:
        return expanded_percentile_interval(values[np.isfinite(values)], self.total)

    @cached_property
    def by_image(self) -> dict[str, Interval | None]:
        """Interval of macro F1 under the wrong assumption that images are independent, by arm.

        Reports show it only to warn of such intervals.
        """
        return {
            arm: image_interval(self._labels, fits, len(self._classes), IMAGE_DRAWS)
            for arm, fits in self._predicted.items()
        }

    def family(self, pairs: Mapping[str, str]) -> Family:
        """Tests arms against others and adjusts the p values (Holm 1979).

        Args:
            pairs: names of the arms, with the name of the arm that each is compared with.
        """
        swaps = {arm: self.swap_test(arm, other) for arm, other in pairs.items()}
        adjusted = holm([swap.p for swap in swaps.values()])
        return Family(
            {arm: AdjustedTest(pairs[arm], swap, p) for (arm, swap), p in zip(swaps.items(), adjusted, strict=True)}
        )

    def swap_test(self, arm: str, other: str) -> SwapTest:
        """Tests whether an arm differs from another in the target metric."""
        if self._arm_scores:
            return swap_test_of(self._arm_scores[arm], self._arm_scores[other])
        return swap_test(self.counts[arm], self.counts[other])

    def against(self, arm: str, other: str) -> ArmDifference:
        """Returns the difference in the target metric between an arm and another."""
        gains = self.draws[arm] - self.draws[other]
        return ArmDifference(self._interval_of(gains), float((gains > ROUNDING).mean()))

    def class_differences(self, arm: str, other: str) -> list[Interval | None]:
        """Returns the interval of the difference in F1 between an arm and another, for each class.

        Both arms are scored on the same resampled sources. None for a class with too few sources, or without variation,
        as where both arms agree on every landmark. No interval is corrected for the number of classes or arms.
        """
        gains = self.resamples[arm].f1 - self.resamples[other].f1
        columns = zip(gains.T, self.resamples[arm].sources, strict=True)
        return [expanded_percentile_interval(gain[np.isfinite(gain)], int(sources)) for gain, sources in columns]

    def class_intervals(self, arm: str) -> list[Interval | None]:
        """Returns the interval of the F1 of each class; None for a class with too few sources or no variation."""
        return [self.resamples[arm].class_interval(label) for label in range(len(self._classes))]

    def leave_one_out(self, arm: str) -> list[Interval | None]:
        """Returns the lowest and the highest F1 of each class when one of its sources is left out.

        None for a class with a single source, which leaves nothing, and for one with enough sources for an interval.
        """
        ranges: list[Interval | None] = []
        for label, sources in enumerate(self.counts[arm].sources):
            scores = leave_one_source_out(self.counts[arm], label) if 1 < sources < MIN_SOURCES else None
            ranges.append(None if scores is None else Interval(float(scores.min()), float(scores.max())))
        return ranges

    def per_source(self, arm: str) -> pd.DataFrame:
        """Returns a table with a row for each source and each of its classes.

        Columns: source, class, landmarks, hits (mean over fits) and recall.
        """
        counts = self.counts[arm]
        places, labels = np.nonzero(counts.support)
        support, hits = counts.support[places, labels], counts.hits.mean(axis=0)[places, labels]
        return pd.DataFrame(
            {
                "source": np.array(self.names)[places],
                "class": np.array(self._classes.names)[labels],
                "landmarks": support,
                "hits": hits,
                "recall": hits / support,
            }
        )
