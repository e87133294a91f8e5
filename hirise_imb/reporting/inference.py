"""Statistical inference for the arms of a report: confidence intervals, and tests of each arm against the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.data.dataset import ClassSet
from hirise_imb.metrics.bootstrap import (
    MIN_SOURCES,
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

IMAGE_DRAWS = 2_000
"""Number of resamples of images, enough for an interval that is shown only as a warning."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ArmDifference:
    """The difference in macro F1 between two arms on the same resampled sources."""

    interval: Interval | None
    """Confidence interval of the difference; None if none can be given."""
    share_above: float
    """Share of resamples in which the first arm has the higher macro F1."""


@dataclass(frozen=True)
class ReferenceTest:
    """The test of an arm against the reference, as one of the family of tests."""

    swap: SwapTest
    p_holm: float
    """p value adjusted (Holm) for the number of arms that are compared with the reference."""


class Inference:
    """Resamples and tests of all arms of a report, each computed once, on the same resampled sources."""

    def __init__(self, labels: Ints, sources: pd.Series[str], predicted: Mapping[str, Ints], classes: ClassSet) -> None:
        """Counts the hits and predictions of each fit in each source.

        Args:
            labels: true classes, shape (n,).
            sources: names of the sources, shape (n,).
            predicted: predicted classes of each fit, shape (n_fits, n), by arm; the reference comes first.
            classes: classes of the data set.
        """
        numbers, names = pd.factorize(sources)
        self.names = [str(name) for name in names]
        self.counts = {
            arm: SourceCounts.of(labels, fits, numbers.astype(np.int64), len(classes))
            for arm, fits in predicted.items()
        }
        self._labels, self._predicted, self._classes = labels, predicted, classes
        self._reference = next(iter(predicted))

    @property
    def total(self) -> int:
        """Number of sources in the test split."""
        return len(self.names)

    @property
    def family(self) -> int:
        """Number of arms that are tested against the reference."""
        return len(self.counts) - 1

    @cached_property
    def resamples(self) -> dict[str, Resamples]:
        """Bootstrap resamples by arm."""
        return {arm: bootstrap_sources(counts) for arm, counts in self.counts.items()}

    @cached_property
    def by_image(self) -> dict[str, Interval | None]:
        """Interval of macro F1 under the wrong assumption that images are independent, by arm.

        Reports show it only to warn of such intervals.
        """
        return {
            arm: image_interval(self._labels, fits, len(self._classes), IMAGE_DRAWS)
            for arm, fits in self._predicted.items()
        }

    @cached_property
    def tests(self) -> dict[str, ReferenceTest]:
        """Tests of all other arms against the reference, by arm."""
        reference = self.counts[self._reference]
        swaps = {arm: swap_test(counts, reference) for arm, counts in self.counts.items() if arm != self._reference}
        adjusted = holm([swap.p for swap in swaps.values()])
        return {arm: ReferenceTest(swap, p) for (arm, swap), p in zip(swaps.items(), adjusted, strict=True)}

    @property
    def min_detectable_difference(self) -> Interval | None:
        """Smallest and largest minimum detectable difference over the tested arms; None if no arm has one."""
        sizes = [
            tested.swap.min_detectable_difference
            for tested in self.tests.values()
            if tested.swap.min_detectable_difference is not None
        ]
        return Interval(min(sizes), max(sizes)) if sizes else None

    def against(self, arm: str, other: str) -> ArmDifference:
        """Returns the difference in macro F1 between an arm and another."""
        gains = self.resamples[arm].gain_over(self.resamples[other])
        return ArmDifference(expanded_percentile_interval(gains, self.total), float((gains > ROUNDING).mean()))

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
