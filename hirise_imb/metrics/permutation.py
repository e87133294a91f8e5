"""Tests of whether two arms differ: the source-level swap test, and the correction for multiple comparisons.

If two classifiers are equally good, it is a matter of chance which of them made which predictions on a source. The
test exchanges their predictions source by source and counts how often the difference in macro F1 becomes at least as
large as the observed one (approximate randomisation, Yeh 2000, with sources instead of sentences). Whole sources are
exchanged because predictions on landmarks of one source are not independent; exchanging single images would call
equally good arms different far too often (docs/uncertainty.md). Unlike a bootstrap, the test never loses a class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import lcm

import numpy as np
from numpy.typing import NDArray

from hirise_imb.metrics.bootstrap import N_RESAMPLES, ROUNDING, SourceCounts
from hirise_imb.metrics.classification import precision_recall_f1

ALPHA = 0.05
"""Significance level."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SwapTest:
    """Result of a swap test."""

    difference: float
    """Score of the first arm minus that of the second, each the mean over fits: of macro F1, if no other is named."""
    p: float
    """Two-sided p value: the share of exchanges with a difference at least as large as the observed one if all
    exchanges are counted, or (1 + count) / (1 + draws) if they are random."""
    min_detectable_difference: float | None
    """Smallest difference with p <= `ALPHA` among those that exchanges produce; None if no difference reaches it."""
    informative_sources: int
    """Number of sources in which the hits or predictions of the two arms differ; no other source affects the test."""
    exact: bool
    """Whether the p value counts all exchanges instead of random ones."""


def swap_test(one: SourceCounts, other: SourceCounts, draws: int = N_RESAMPLES, seed: int = 0) -> SwapTest:
    """Compares two arms on the same sources.

    Fits are exchanged in pairs, the first of one arm with the first of the other. If one arm has more fits, both are
    repeated until they have equal numbers, which leaves all means unchanged. The test uses all exchanges if there are
    at most `draws` of them, and `draws` random ones otherwise.

    Args:
        one: counts of the first arm.
        other: counts of the second arm.
        draws: number of random exchanges.
        seed: seed of the random exchanges.

    Raises:
        ValueError: the arms were not tested on the same landmarks.
    """
    if not np.array_equal(one.support, other.support):
        raise ValueError("the arms were not tested on the same landmarks")
    first, second = _pair_fits(one, other)
    # Exchanging a source with equal counts changes nothing, so only the informative sources multiply the exchanges.
    informative = np.flatnonzero((first != second).any(axis=(0, 2, 3)))
    support = one.support.sum(axis=0)
    changes = (second - first)[:, informative]
    first, second = first.sum(axis=1), second.sum(axis=1)

    def exchange(swaps: Floats) -> Floats:
        # What each exchange adds to the totals of the first arm and takes from those of the second.
        shifts = np.einsum("dg,fgcn->dfcn", swaps, changes)
        return _mean_macro_f1(first + shifts, support) - _mean_macro_f1(second - shifts, support)

    observed = float(_mean_macro_f1(first, support) - _mean_macro_f1(second, support))
    return judge_exchanges(observed, exchange, len(informative), draws, seed)


def judge_exchanges(
    observed: float, exchange: Callable[[Floats], Floats], n_informative: int, draws: int, seed: int
) -> SwapTest:
    """Compares an observed difference with those that exchanges of the predictions of two arms produce.

    Args:
        observed: score of the first arm minus that of the second.
        exchange: returns the difference after each exchange, shape (n_exchanges,), from what is exchanged: 1 for each
            informative source whose predictions are, 0 for the others, shape (n_exchanges, n_informative).
        n_informative: number of sources in which the arms differ.
        draws: number of random exchanges; all exchanges are used if there are no more.
        seed: seed of the random exchanges.
    """
    exact = 2**n_informative <= draws
    if exact:
        swaps = np.array(list(product((0.0, 1.0), repeat=n_informative)))
    else:
        swaps = np.random.default_rng(seed).integers(0, 2, (draws, n_informative)).astype(float)
    sizes = np.abs(exchange(swaps))
    # Sums in another order differ in the last bits; an equal difference must count as one that is as large.
    n_as_large = int(np.count_nonzero(sizes >= abs(observed) - ROUNDING))
    # The observed assignment is one of all exchanges, but not of the random ones; counting it keeps the test valid.
    p = n_as_large / len(swaps) if exact else (1 + n_as_large) / (1 + draws)
    return SwapTest(observed, p, _min_detectable(sizes, exact), n_informative, exact)


def holm(p: Sequence[float]) -> list[float]:
    """Returns p values, in the given order, adjusted to control the family-wise error rate (Holm 1979)."""
    order = np.argsort(p)
    steps = np.asarray(p)[order] * (len(p) - np.arange(len(p)))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return [float(value) for value in adjusted]


def _pair_fits(one: SourceCounts, other: SourceCounts) -> tuple[Floats, Floats]:
    """Returns hits and predictions of both arms for equal numbers of fits, shape (n_fits, n_sources, 2, n_classes)."""
    fits = lcm(len(one.hits), len(other.hits))
    stacked = [np.stack([arm.hits, arm.predicted], axis=2).astype(float) for arm in (one, other)]
    first, second = (np.tile(counts, (fits // len(counts), 1, 1, 1)) for counts in stacked)
    return first, second


def _mean_macro_f1(counts: Floats, support: NDArray[np.int64]) -> Floats:
    """Returns the mean macro F1 over fits, from hits and predictions of shape (..., n_fits, 2, n_classes)."""
    f1 = precision_recall_f1(counts[..., 0, :], support, counts[..., 1, :])["f1"]
    return np.asarray(f1.mean(axis=(-1, -2)))


def _min_detectable(sizes: Floats, exact: bool) -> float | None:
    """Returns the smallest size with p <= `ALPHA`: one that few enough exchanges reach or exceed."""
    ascending = np.sort(sizes)
    values = np.unique(ascending)
    n_as_large = len(ascending) - np.searchsorted(ascending, values - ROUNDING)
    p = n_as_large / len(ascending) if exact else (1 + n_as_large) / (1 + len(ascending))
    significant = values[p <= ALPHA]
    return float(significant[0]) if len(significant) else None
