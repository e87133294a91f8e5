"""Whether two arms differ: the source-level swap test, and what several tests at once are worth.

If two classifiers are equally good, then it is chance which of them made which predictions of a source. The test
exchanges them, source by source, and asks how often the difference in macro F1 becomes as large as it is (approximate
randomisation, Yeh 2000, with whole sources in the place of sentences). No class is ever lost, as it is in a bootstrap.
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
"""Chance of a false alarm that is accepted."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SwapTest:
    """What exchanging predictions shows."""

    difference: float
    """Macro F1 of the first arm minus that of the second, means over fits."""
    p: float
    """Two-sided: share of exchanges with a difference as large; of random ones (1 + count) / (1 + draws)."""
    resolvable: float | None
    """The smallest difference with p <= `ALPHA`, of the differences that exchanges give; None where none can be."""
    informative: int
    """Sources that the two arms count differently; no other source can change the difference."""
    exact: bool
    """Whether every exchange was looked at, and not some at random."""


def swap_test(one: SourceCounts, other: SourceCounts, draws: int = N_RESAMPLES, seed: int = 0) -> SwapTest:
    """Compare two arms on the same sources.

    Fits are exchanged in pairs, first with first; where one arm has more, both are repeated until they are as many,
    which changes no mean. With few informative sources all exchanges are looked at, else `draws` random ones.

    Raises:
        ValueError: the arms are not of the same landmarks.
    """
    if not np.array_equal(one.support, other.support):
        raise ValueError("the arms were not tested on the same landmarks")
    mine, theirs = _paired(one, other)
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
    as_large = int(np.count_nonzero(sizes >= abs(observed) - ROUNDING))
    p = as_large / len(swaps) if exact else (1 + as_large) / (1 + draws)
    return SwapTest(observed, p, _resolvable(sizes, exact), len(differ), exact)


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p values, in the given order, that keep the chance of any false alarm among them (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    steps = np.asarray(p, np.float64)[order] * (len(p) - np.arange(len(p)))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return [float(value) for value in adjusted]


def _paired(one: SourceCounts, other: SourceCounts) -> tuple[Floats, Floats]:
    """Hits and predictions of both, shape (n_fits, n_sources, 2, n_classes)."""
    fits = lcm(len(one.hits), len(other.hits))
    stacked = [np.stack([arm.hits, arm.predicted], axis=2).astype(float) for arm in (one, other)]
    mine, theirs = (np.tile(counts, (fits // len(counts), 1, 1, 1)) for counts in stacked)
    return mine, theirs


def _macro(counts: Floats, support: NDArray[np.int64]) -> Floats:
    """Macro F1, mean over fits, of counts of shape (..., n_fits, 2, n_classes)."""
    f1 = precision_recall_f1(counts[..., 0, :], support, counts[..., 1, :])["f1"]
    return np.asarray(f1.mean(axis=(-1, -2)))


def _resolvable(sizes: Floats, exact: bool) -> float | None:
    """The least of the sizes that at most a share `ALPHA` of them reaches."""
    ascending = np.sort(sizes)
    values = np.unique(ascending)
    reached = len(ascending) - np.searchsorted(ascending, values - ROUNDING)
    p = reached / len(ascending) if exact else (1 + reached) / (1 + len(ascending))
    enough = values[p <= ALPHA]
    return float(enough[0]) if len(enough) else None
