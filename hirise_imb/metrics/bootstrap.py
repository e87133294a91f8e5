"""How far scores would move on other sources: a bootstrap over source observations, with the fits' seeds in it.

Landmarks of one source are alike, so what was drawn at random are sources; resampling images would pretend to hundreds
of independent draws where there are about thirty (`image_interval` shows by how much). All that is needed are the
counts of each source, so ten thousand resamples are a few matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from hirise_imb.metrics.classification import precision_recall_f1

LEVEL = 0.95
"""Nominal coverage of an interval."""

N_RESAMPLES = 10_000
"""Resamples, unless told otherwise."""

MIN_SOURCES = 6
"""Sources below which no interval is given: too few to tell how sources differ (Webb 2014; docs/uncertainty.md)."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SourceCounts:
    """What several fits made of each source; F1 needs no more."""

    support: Ints
    """Landmarks of each class, shape (n_sources, n_classes)."""
    hits: Ints
    """Right predictions of each class, shape (n_fits, n_sources, n_classes)."""
    predicted: Ints
    """Predictions of each class, shape (n_fits, n_sources, n_classes)."""

    @classmethod
    def of(cls, labels: Ints, predicted: Ints, sources: Ints, n_classes: int) -> SourceCounts:
        """Count.

        Args:
            labels: true classes, shape (n,).
            predicted: classes that each fit chose, shape (n_fits, n).
            sources: number of the source of each landmark, from 0, shape (n,).
            n_classes: of the data set.
        """
        size = (int(sources.max()) + 1, n_classes)
        return cls(
            _counted(sources, labels, size),
            np.stack([_counted(sources[fit == labels], labels[fit == labels], size) for fit in predicted]),
            np.stack([_counted(sources, fit, size) for fit in predicted]),
        )

    @property
    def sources(self) -> Ints:
        """Sources of each class, shape (n_classes,)."""
        return np.asarray((self.support > 0).sum(axis=0), np.int64)

    def f1(self, weights: Floats) -> Floats:
        """F1 of each class where each source counts as often as its weight says.

        Args:
            weights: shape (n_draws, n_sources).

        Returns:
            Shape (n_fits, n_draws, n_classes), NaN where a class has no landmark.
        """
        support = weights @ self.support
        f1 = precision_recall_f1(weights @ self.hits, support, weights @ self.predicted)["f1"]
        return np.where(support > 0, f1, np.nan)


ROUNDING = 1e-12
"""Scores closer than this are equal: their means over fits differ in the last digits."""


@dataclass(frozen=True)
class Interval:
    """Two ends, such as those of a range in which a score lies with probability `LEVEL`."""

    low: float
    high: float


@dataclass(frozen=True)
class Resamples:
    """The scores of one arm in each resample; resample i of all arms has the same sources and, of as many, fits."""

    f1: Floats
    """Mean over the resampled fits, shape (draws, n_classes); NaN where no source of a class was drawn."""
    sources: Ints
    """Sources of each class, shape (n_classes,)."""
    total: int
    """Sources of the split."""

    @cached_property
    def macro_f1(self) -> Floats:
        """Mean over the classes, shape (draws,); one of which no source was drawn counts as the mean of the others.

        Such a class would count as 0 otherwise, which is what nobody measured. A class that the split lacks counts as
        0, as in every macro F1.
        """
        there = np.count_nonzero(self.sources) / len(self.sources)
        return np.asarray(there * np.nanmean(self.f1, axis=1), np.float64)

    def interval(self) -> Interval | None:
        """Of macro F1."""
        return expanded_percentile_interval(self.macro_f1, self.total)

    def class_interval(self, label: int) -> Interval | None:
        """Of the F1 of a class."""
        values = self.f1[:, label]
        return expanded_percentile_interval(values[np.isfinite(values)], int(self.sources[label]))


def bootstrap_sources(counts: SourceCounts, draws: int = N_RESAMPLES) -> Resamples:
    """Draw sources with replacement, and fits too, so that the chance in training is in the interval (crossed).

    Draws depend on nothing but how many sources and fits there are, so differences of arms are paired, by seed too.
    """
    fits, sources = len(counts.hits), len(counts.support)
    f1 = counts.f1(_drawn(sources, draws, 0))
    shares = _drawn(fits, draws, 1) / fits
    return Resamples(np.einsum("fdk,df->dk", f1, shares), counts.sources, sources)


def expanded_percentile_interval(values: Floats, clusters: int, level: float = LEVEL) -> Interval | None:
    """The percentile interval with its tails moved outwards for few clusters (Hesterberg 2015, "expanded percentile").

    A bootstrap of n clusters is too narrow by sqrt((n - 1) / n), and its normal quantiles ought to be those of t; with
    29 sources the ends are the quantiles .0185 and .9815.

    Args:
        values: of the resamples, shape (draws,).
        clusters: sources that were resampled.
        level: nominal coverage.

    Returns:
        None for fewer than `MIN_SOURCES` clusters, and where all resamples are alike: a classifier without any
        mistake would seem to be certain.
    """
    from scipy.special import ndtr, stdtrit  # scipy.stats takes a second to import

    if clusters < MIN_SOURCES:
        return None
    tail = ndtr(np.sqrt(clusters / (clusters - 1)) * stdtrit(clusters - 1, (1 - level) / 2))
    return _between(values, float(tail))


def image_interval(labels: Ints, predicted: Ints, n_classes: int, draws: int = N_RESAMPLES) -> Interval | None:
    """The interval of macro F1 that a bootstrap over images would give. It is too narrow; reports show how much.

    Args:
        labels: true classes, shape (n,).
        predicted: classes that each fit chose, shape (n_fits, n).
        n_classes: of the data set.
        draws: number of resamples.

    Returns:
        None where all resamples are alike.
    """
    # Images with the same label and predictions are interchangeable, so kinds of images are drawn.
    kinds, repeats = np.unique(np.vstack([labels, predicted]), axis=1, return_counts=True)
    counts = SourceCounts.of(kinds[0], kinds[1:], np.arange(len(repeats)), n_classes)
    weights = np.random.default_rng(2).multinomial(len(labels), repeats / len(labels), draws).astype(float)
    macro = Resamples(counts.f1(weights).mean(axis=0), counts.sources, len(repeats)).macro_f1
    return _between(macro, (1 - LEVEL) / 2)


def leave_one_source_out(counts: SourceCounts, label: int) -> Floats:
    """F1 of a class without each of its sources in turn, mean over fits, shape (n_sources_of_class,).

    NaN where the class has no other source.
    """
    own = np.flatnonzero(counts.support[:, label])
    weights = np.ones((len(own), len(counts.support)))
    weights[np.arange(len(own)), own] = 0
    return np.asarray(counts.f1(weights)[:, :, label].mean(axis=0))


def _between(values: Floats, tail: float) -> Interval | None:
    """What lies between equal tails; None where there is nothing between."""
    if np.ptp(values) < ROUNDING:
        return None
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high))


def _counted(sources: Ints, classes: Ints, size: tuple[int, int]) -> Ints:
    return np.bincount(sources * size[1] + classes, minlength=size[0] * size[1]).reshape(size)


@lru_cache(maxsize=4)
def _drawn(of: int, draws: int, seed: int) -> Floats:
    """How often each of `of` things is drawn in a resample of them, shape (draws, of); the same for all arms."""
    drawn = np.random.default_rng(seed).multinomial(of, np.full(of, 1 / of), draws).astype(float)
    drawn.setflags(write=False)
    return drawn
