"""What the arms of a report tell of other sources: intervals, and each arm against the reference."""

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
"""Resamples of images: enough for an interval that is only shown as a warning."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Against:
    """The macro F1 of an arm against that of another."""

    interval: Interval | None
    """Of the difference, both on the same resampled sources."""
    share_above: float
    """Of resamples in which it is the higher one."""


@dataclass(frozen=True)
class Tested:
    """An arm against the reference, as one of the family of tests."""

    swap: SwapTest
    p_holm: float
    """Adjusted for the number of arms that are compared with the reference."""


class Inference:
    """Computed once for all arms; the same sources are drawn for all of them."""

    def __init__(self, labels: Ints, sources: pd.Series[str], predicted: Mapping[str, Ints], classes: ClassSet) -> None:
        """Count hits and predictions of each fit in each source.

        Args:
            labels: true classes, shape (n,).
            sources: names of the sources, shape (n,).
            predicted: classes that each fit of each arm chose, shape (n_fits, n); the reference first.
            classes: of the data set.
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
        """Sources of the test split."""
        return len(self.names)

    @property
    def family(self) -> int:
        """Arms that are tested against the reference."""
        return len(self.counts) - 1

    @cached_property
    def resamples(self) -> dict[str, Resamples]:
        """By arm."""
        return {arm: bootstrap_sources(counts) for arm, counts in self.counts.items()}

    @cached_property
    def by_image(self) -> dict[str, Interval | None]:
        """The interval of macro F1 that takes images for independent, by arm; to be shown as what it is."""
        return {
            arm: image_interval(self._labels, fits, len(self._classes), IMAGE_DRAWS)
            for arm, fits in self._predicted.items()
        }

    @cached_property
    def tests(self) -> dict[str, Tested]:
        """Each arm but the reference against it."""
        base = self.counts[self._reference]
        swaps = {arm: swap_test(counts, base) for arm, counts in self.counts.items() if arm != self._reference}
        adjusted = holm([swap.p for swap in swaps.values()])
        return {arm: Tested(swap, p) for (arm, swap), p in zip(swaps.items(), adjusted, strict=True)}

    @property
    def min_detectable_difference(self) -> Interval | None:
        """Minimum detectable differences to the reference: smallest and largest over arms.

        None where there is no arm to compare, or none has one.
        """
        sizes = [
            tested.swap.min_detectable_difference
            for tested in self.tests.values()
            if tested.swap.min_detectable_difference is not None
        ]
        return Interval(min(sizes), max(sizes)) if sizes else None

    def against(self, arm: str, other: str) -> Against:
        """The differences of an arm to another."""
        gains = self.resamples[arm].macro_f1 - self.resamples[other].macro_f1
        return Against(expanded_percentile_interval(gains, self.total), float((gains > ROUNDING).mean()))

    def class_intervals(self, arm: str) -> list[Interval | None]:
        """Of F1, one a class; None where it has too few sources, or nothing to vary."""
        return [self.resamples[arm].class_interval(label) for label in range(len(self._classes))]

    def leave_one_out(self, arm: str) -> list[Interval | None]:
        """Lowest and highest F1 without one source of the class, for classes of two sources to five."""
        found: list[Interval | None] = []
        for label, sources in enumerate(self.counts[arm].sources):
            rest = leave_one_source_out(self.counts[arm], label) if 1 < sources < MIN_SOURCES else None
            found.append(None if rest is None else Interval(float(rest.min()), float(rest.max())))
        return found

    def per_source(self, arm: str) -> pd.DataFrame:
        """One row for each source and class that it has: source, class, landmarks, hits (mean over fits), recall."""
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
