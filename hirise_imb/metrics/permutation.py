"""Whether two arms differ: the source-level swap test, and the correction for several tests at once.

If two classifiers are equally good, then it is chance which of them made which predictions of a source. The test
exchanges the predictions source by source and counts how often the difference in macro F1 becomes at least as large as
the observed one (approximate randomisation, Yeh 2000, with sources instead of sentences). Unlike in a bootstrap, no
class is ever lost.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """Macro F1 of the first arm minus that of the second, means over fits."""
    p: float
    """Two-sided p value: the share of exchanges with a difference at least as large as the observed one, and
    (1 + count) / (1 + draws) where exchanges are random."""
    min_detectable_difference: float | None
    """The smallest difference with p <= `ALPHA` among those that exchanges give; None where there is none."""
    informative_sources: int
    """Number of sources in which hits or predictions of the two arms differ; no other source can matter."""
    exact: bool
    """Whether the p value is of all exchanges, and not of random ones."""


def swap_test(one: SourceCounts, other: SourceCounts, draws: int = N_RESAMPLES, seed: int = 0) -> SwapTest:
    """Compares two arms on the same sources.

    Fits are exchanged in pairs, first with first. Where one arm has more fits, both are repeated until their numbers
    are equal, which changes no mean. If there are at most `draws` exchanges, the test uses all of them, and `draws`
    random ones otherwise.

    Args:
        one: counts of the first arm.
        other: counts of the second arm.
        draws: number of random exchanges.
        seed: of the random exchanges.

    Raises:
        ValueError: the arms were not tested on the same landmarks.
    """
    if not np.array_equal(one.support, other.support):
        raise ValueError("the arms were not tested on the same landmarks")
    mine, theirs = _paired(one, other)
    # Exchanging a source with equal counts changes nothing, so that only the others double the number of exchanges.
    differ = np.flatnonzero((mine != theirs).any(axis=(0, 2, 3)))
    exact = len(differ) < 63 and 2 ** len(differ) <= draws
    if exact:
        swaps = np.array(list(product((0.0, 1.0), repeat=len(differ))))
    else:
        swaps = np.random.default_rng(seed).integers(0, 2, (draws, len(differ))).astype(float)
    support = one.support.sum(axis=0)
    moved = np.einsum("dg,fgcn->dfcn", swaps, (theirs - mine)[:, differ])
    mine, theirs = mine.sum(axis=1), theirs.sum(axis=1)
    chance = _macro(mine + moved, support) - _macro(theirs - moved, support)
    observed = float(_macro(mine, support) - _macro(theirs, support))
    sizes = np.abs(chance)
    # Sums in another order differ in the last digits; a difference that is equal must count as one as large.
    as_large = int(np.count_nonzero(sizes >= abs(observed) - ROUNDING))
    p = as_large / len(swaps) if exact else (1 + as_large) / (1 + draws)
    return SwapTest(observed, p, _min_detectable(sizes, exact), len(differ), exact)


def holm(p: Sequence[float]) -> list[float]:
    """Returns p values, in the given order, adjusted to control the family-wise error rate (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    steps = np.asarray(p, np.float64)[order] * (len(p) - np.arange(len(p)))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return [float(value) for value in adjusted]


def _paired(one: SourceCounts, other: SourceCounts) -> tuple[Floats, Floats]:
    """Returns hits and predictions of both arms, for equally many fits, shape (n_fits, n_sources, 2, n_classes)."""
    fits = lcm(len(one.hits), len(other.hits))
    stacked = [np.stack([arm.hits, arm.predicted], axis=2).astype(float) for arm in (one, other)]
    mine, theirs = (np.tile(counts, (fits // len(counts), 1, 1, 1)) for counts in stacked)
    return mine, theirs


def _macro(counts: Floats, support: NDArray[np.int64]) -> Floats:
    """Returns macro F1, mean over fits, from hits and predictions of shape (..., n_fits, 2, n_classes)."""
    f1 = precision_recall_f1(counts[..., 0, :], support, counts[..., 1, :])["f1"]
    return np.asarray(f1.mean(axis=(-1, -2)))


def _min_detectable(sizes: Floats, exact: bool) -> float | None:
    """Returns the smallest size that at most a share `ALPHA` of all sizes reaches."""
    ascending = np.sort(sizes)
    values = np.unique(ascending)
    reached = len(ascending) - np.searchsorted(ascending, values - ROUNDING)
    p = reached / len(ascending) if exact else (1 + reached) / (1 + len(ascending))
    enough = values[p <= ALPHA]
    return float(enough[0]) if len(enough) else None
