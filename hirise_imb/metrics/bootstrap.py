"""Confidence intervals of scores: a cluster bootstrap over sources that also resamples the fits.

Landmarks of one source resemble each other, so sources are the independent draws. Resampling images would claim
hundreds of independent draws where there are about thirty, which `image_interval` demonstrates. F1 depends only on the
counts in each source, so ten thousand resamples take a few matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hirise_imb.metrics.classification import precision_recall_f1

LEVEL = 0.95
"""Nominal coverage of an interval."""

N_RESAMPLES = 10_000
"""Default number of resamples."""

MIN_SOURCES = 6
"""Fewest sources for which an interval is given: bootstraps of fewer clusters can't be trusted (Webb 2014).

Six is also the fewest with which a swap test could reach p < .05; see docs/uncertainty.md.
"""

UndrawnClasses = Literal["others_mean", "own_f1"]
"""What a class counts as in a resample that draws none of its sources.

`others_mean`: the mean F1 of the drawn classes, as if differences between classes were luck. The interval is about new
sources of all classes; it is too wide where classes differ for other reasons, such as an F1 of 0.
`own_f1`: its own F1 on the whole split, as if that were known. The interval is about test sets in which a class with
one source keeps this source; it leaves out how another source of the class would do.
"""

UNDRAWN: UndrawnClasses = "others_mean"
"""Rule of the intervals that reports show.

Where three classes have one source, intervals of differences under the other rule exclude 0 for 13 to 27 % of equally
good arms in simulations; under this rule for 4 to 8 % (docs/uncertainty.md).
"""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SourceCounts:
    """Counts of several fits in each source; F1 is computed from them."""

    support: Ints
    """Number of landmarks of each class, shape (n_sources, n_classes)."""
    hits: Ints
    """Number of correct predictions of each class, shape (n_fits, n_sources, n_classes)."""
    predicted: Ints
    """Number of predictions of each class, shape (n_fits, n_sources, n_classes)."""

    @classmethod
    def of(cls, labels: Ints, predicted: Ints, sources: Ints, n_classes: int) -> SourceCounts:
        """Counts the landmarks, hits and predictions of each source.

        Args:
            labels: true classes, shape (n,).
            predicted: predicted classes of each fit, shape (n_fits, n).
            sources: index of the source of each landmark, from 0, shape (n,).
            n_classes: number of classes of the data set.
        """
        size = (int(sources.max()) + 1, n_classes)
        return cls(
            _count_pairs(sources, labels, size),
            np.stack([_count_pairs(sources[fit == labels], labels[fit == labels], size) for fit in predicted]),
            np.stack([_count_pairs(sources, fit, size) for fit in predicted]),
        )

    @property
    def sources(self) -> Ints:
        """Number of sources of each class, shape (n_classes,)."""
        return np.asarray((self.support > 0).sum(axis=0))

    def f1(self, weights: Floats) -> Floats:
        """Returns the F1 of each class with the sources weighted.

        Args:
            weights: how often each source counts in each draw, shape (n_draws, n_sources).

        Returns:
            F1 scores, shape (n_fits, n_draws, n_classes); NaN where a class has no landmark.
        """
        support = weights @ self.support
        f1 = precision_recall_f1(weights @ self.hits, support, weights @ self.predicted)["f1"]
        return np.where(support > 0, f1, np.nan)


ROUNDING = 1e-12
"""Scores closer than this count as equal: a mean over fits that is summed in another order differs in the last bits."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval, or another range of scores."""

    low: float
    high: float


@dataclass(frozen=True)
class Resamples:
    """The scores of one arm in each resample.

    Resample i consists of the same sources for every arm, and of the same fits for arms with equal numbers of fits, so
    that differences between arms are paired.
    """

    f1: Floats
    """Mean F1 over the resampled fits, shape (draws, n_classes); NaN where no source of a class was drawn."""
    split_f1: Floats
    """Mean F1 over the same fits on the whole split, shape (draws, n_classes); 0 for a class without a landmark."""
    sources: Ints
    """Number of sources of each class, shape (n_classes,)."""
    total: int
    """Number of sources in the split."""

    def macro_f1(self, undrawn: UndrawnClasses = UNDRAWN) -> Floats:
        """Returns the macro F1 of each resample, shape (draws,).

        A class without a landmark in the split counts as 0, as in every macro F1. An undrawn class doesn't, because 0
        would be a score that nobody measured.

        Args:
            undrawn: what a class counts as if none of its sources was drawn.
        """
        if undrawn == "own_f1":
            return np.asarray(np.where(np.isnan(self.f1), self.split_f1, self.f1).mean(axis=1))
        present_share = np.count_nonzero(self.sources) / len(self.sources)
        return np.asarray(present_share * np.nanmean(self.f1, axis=1))

    @property
    def complete_share(self) -> float:
        """Share of the resamples that draw all classes of the split."""
        return float(np.isfinite(self.f1[:, self.sources > 0]).all(axis=1).mean())

    def interval(self, undrawn: UndrawnClasses = UNDRAWN) -> Interval | None:
        """Returns the confidence interval of macro F1; None if none can be given."""
        return expanded_percentile_interval(self.macro_f1(undrawn), self.total)

    def gain_over(self, other: Resamples, undrawn: UndrawnClasses = UNDRAWN) -> Floats:
        """Returns the macro F1 of this arm minus that of another in each resample, shape (draws,)."""
        return self.macro_f1(undrawn) - other.macro_f1(undrawn)

    def class_interval(self, label: int) -> Interval | None:
        """Returns the confidence interval of the F1 of a class; None if none can be given."""
        values = self.f1[:, label]
        return expanded_percentile_interval(values[np.isfinite(values)], int(self.sources[label]))


def bootstrap_sources(counts: SourceCounts, draws: int = N_RESAMPLES, seed: int = 0) -> Resamples:
    """Resamples sources and fits with replacement, crossed (Owen 2007).

    Every resample of sources is combined with a resample of fits, so intervals include the randomness of training. The
    draws depend only on the seed and the numbers of sources and fits, so that differences between arms are paired.
    """
    weights, shares = draw_resamples(len(counts.support), len(counts.hits), draws, seed)
    return _resample(counts, weights, np.ones(len(counts.support)), shares)


def draw_resamples(n_sources: int, n_fits: int, draws: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Draws sources and fits with replacement.

    Returns:
        How often each source counts in each resample, shape (draws, n_sources), and the share of each fit, shape
        (draws, n_fits).
    """
    return _draw_counts(n_sources, draws, seed), _draw_fits(n_fits, draws, seed)


def expanded_percentile_interval(values: Floats, clusters: int, level: float = LEVEL) -> Interval | None:
    """Returns the percentile interval, widened for small numbers of clusters (Hesterberg 2015, "expanded percentile").

    A bootstrap interval of n clusters is too narrow by a factor of sqrt((n - 1) / n), and it uses normal quantiles
    where those of the t distribution would be right. With 29 sources, the ends are the quantiles .0185 and .9815.

    Args:
        values: scores of the resamples, shape (draws,).
        clusters: number of sources that were resampled.
        level: nominal coverage.

    Returns:
        The interval; None for fewer than `MIN_SOURCES` clusters, and also if all resamples are equal, because an
        interval without width would present a classifier that made no mistake here as certain.
    """
    from scipy.special import ndtr, stdtrit  # scipy.stats takes a second to import

    if clusters < MIN_SOURCES:
        return None
    tail = ndtr(np.sqrt(clusters / (clusters - 1)) * stdtrit(clusters - 1, (1 - level) / 2))
    if np.ptp(values) < ROUNDING:
        return None
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high))


def image_interval(
    labels: Ints, predicted: Ints, n_classes: int, draws: int = N_RESAMPLES, undrawn: UndrawnClasses = UNDRAWN
) -> Interval | None:
    """Returns the interval of macro F1 from a bootstrap that resamples images instead of sources.

    It differs from the interval over sources in nothing but the unit that is resampled: fits are resampled as well, and
    undrawn classes count the same. It ignores that images of one source are not independent.

    Args:
        labels: true classes, shape (n,).
        predicted: predicted classes of each fit, shape (n_fits, n).
        n_classes: number of classes of the data set.
        draws: number of resamples.
        undrawn: what a class counts as if none of its images was drawn.

    Returns:
        The interval; None if all resamples are equal.
    """
    # Images with the same label and the same predictions are interchangeable, so the counts of each kind are drawn
    # instead of single images. That makes each resample a multinomial draw over few kinds.
    kinds, repeats = np.unique(np.vstack([labels, predicted]), axis=1, return_counts=True)
    counts = SourceCounts.of(kinds[0], kinds[1:], np.arange(len(repeats)), n_classes)
    weights = np.random.default_rng(2).multinomial(len(labels), repeats / len(labels), draws).astype(float)
    return _resample(counts, weights, repeats.astype(float), _draw_fits(len(predicted), draws, 0)).interval(undrawn)


def macro_f1_bound(
    counts: SourceCounts, quantile: float, draws: int = 1000, undrawn: UndrawnClasses = UNDRAWN
) -> float:
    """Returns a quantile of macro F1 over resamples of the sources.

    With a low quantile it is a score for choosing between settings that prefers one that does not depend on few
    sources. Macro F1 is the mean over all fits in each resample: fits are not resampled.

    Args:
        counts: counts of all fits of one setting.
        quantile: share of the resamples below the bound, between 0 and 1.
        draws: number of resamples.
        undrawn: what a class counts as if none of its sources was drawn.
    """
    fits, sources = len(counts.hits), len(counts.support)
    shares = np.full((draws, fits), 1 / fits)
    resamples = _resample(counts, _draw_counts(sources, draws, 0), np.ones(sources), shares)
    return float(np.quantile(resamples.macro_f1(undrawn), quantile))


def leave_one_source_out(counts: SourceCounts, label: int) -> Floats:
    """Returns the F1 of a class when each of its sources in turn is left out.

    The result is the mean over fits, shape (n_sources_of_class,); NaN where the class has no other source.
    """
    class_sources = np.flatnonzero(counts.support[:, label])
    weights = np.ones((len(class_sources), len(counts.support)))
    weights[np.arange(len(class_sources)), class_sources] = 0
    return np.asarray(counts.f1(weights)[:, :, label].mean(axis=0))


def _resample(counts: SourceCounts, weights: Floats, split: Floats, shares: Floats) -> Resamples:
    """Combines each draw of sources with a draw of fits.

    Args:
        counts: counts of the arm.
        weights: how often each source counts in each resample, shape (draws, n_sources).
        split: how often each source counts in the split, shape (n_sources,).
        shares: weight of each fit in each resample, shape (draws, n_fits).
    """
    return Resamples(
        np.einsum("fdk,df->dk", counts.f1(weights), shares),
        shares @ np.nan_to_num(counts.f1(split[None])[:, 0]),
        counts.sources,
        int(split.sum()),
    )


def _draw_fits(n_fits: int, draws: int, seed: int) -> Floats:
    """Returns the share of each fit in each resample, shape (draws, n_fits)."""
    # Not the seed of the sources, so that an arm with as many fits as sources does not get the same draws twice.
    return _draw_counts(n_fits, draws, seed + 1) / n_fits


def count_confusions(labels: Ints, predicted: Ints, sources: Ints, n_classes: int) -> Ints:
    """Returns the confusion matrix of each fit in each source, shape (n_fits, n_sources, n_classes, n_classes).

    Args:
        labels: true classes, shape (n,).
        predicted: predicted classes of each fit, shape (n_fits, n).
        sources: index of the source of each landmark, from 0, shape (n,).
        n_classes: number of classes of the data set.
    """
    shape = (int(sources.max()) + 1, n_classes, n_classes)
    cells = (sources * n_classes + labels) * n_classes + predicted
    return np.stack([np.bincount(fit, minlength=prod(shape)).reshape(shape) for fit in cells])


def _count_pairs(sources: Ints, classes: Ints, size: tuple[int, int]) -> Ints:
    """Counts the landmarks of each source and class, shape `size`."""
    return np.bincount(sources * size[1] + classes, minlength=size[0] * size[1]).reshape(size)


@lru_cache(maxsize=4)
def _draw_counts(size: int, draws: int, seed: int) -> Floats:
    """Returns how often each of `size` items is drawn in each resample, shape (draws, size).

    All arms share the cached array, so it is made read-only.
    """
    counts = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), draws).astype(float)
    counts.setflags(write=False)
    return counts
