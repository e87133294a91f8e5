"""Checks whether predictions and labels belong together.

The hits of every fit are compared with those of the same predictions paired with shuffled labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hirise_imb.forensics import LEVEL, PermutationNull, Statistic
from hirise_imb.reporting.terms import GIVEN_SPLIT, Terms

DRAWS = 2_000
"""Number of random pairings of each fit: enough to detect p < 0.001, and few because a report may have 100 fits."""

PASSED = "Label-alignment check passed"
"""Start of the result if every fit is better than chance."""

Ints = NDArray[np.int64]


def permutation_null(confusion: Ints) -> PermutationNull:
    """Returns all pairings of the labels and predictions of a confusion matrix, shape (n_classes, n_classes).

    Raises:
        ValueError: there are fewer than two images.
    """
    return PermutationNull(confusion.sum(axis=1), confusion.sum(axis=0))


def compare(confusions: Mapping[str, Sequence[Ints]]) -> dict[str, list[Statistic]]:
    """Compares the hits of each fit with shuffled pairings.

    Args:
        confusions: confusion matrices by arm, one for each seed, shape (n_classes, n_classes) each.

    Returns:
        By arm, one statistic for each seed; none if there are too few images to shuffle.
    """
    return {
        name: [
            permutation_null(confusion).compare(np.diagonal(confusion), draws=DRAWS)
            for confusion in fits
            if confusion.sum() > 1
        ]
        for name, fits in confusions.items()
    }


def describe(statistics: Mapping[str, Sequence[Statistic]], total: int, terms: Terms = GIVEN_SPLIT) -> str:
    """Returns the result of `compare` in sentences, which name every fit that is not clearly better than chance.

    Args:
        statistics: by arm, one for each seed.
        total: number of tested landmarks.
        terms: words of the design.
    """
    if total < 2:
        return f"The test split has {total} landmark, too few to compare with a shuffled pairing."
    better = [fit for fits in statistics.values() for fit in fits if fit.p_above < LEVEL]
    doubtful = {name: [fit for fit in fits if fit.p_above >= LEVEL] for name, fits in statistics.items()}
    doubts = [_describe_doubt(name, fits, len(statistics[name])) for name, fits in doubtful.items() if fits]
    if not doubts:
        return f"{PASSED}: every fit has {_describe_hits(better, total, terms)}."
    text = (
        f"Not clearly better than the same predictions paired with shuffled labels (p >= {LEVEL}): "
        f"{'; '.join(doubts)}. Such a fit has learned nothing, or the {total} {terms.landmark}s are too few to decide, "
        "or its predictions and labels do not belong together."
    )
    return f"{text} Every other fit has {_describe_hits(better, total, terms)}." if better else text


def _describe_hits(fits: Sequence[Statistic], total: int, terms: Terms) -> str:
    means = [_number(bound(fit.mean for fit in fits)) for bound in (min, max)]
    return (
        f"{min(fit.observed for fit in fits):.0f} or more hits among {total} landmarks of {terms.tested}, where a "
        f"shuffled pairing gives {' to '.join(dict.fromkeys(means))} (standard deviation "
        f"{_number(max(fit.deviation for fit in fits))}; p <= {max(fit.p_above for fit in fits):.4f})"
    )


def _describe_doubt(name: str, fits: Sequence[Statistic], n_seeds: int) -> str:
    worst = max(fits, key=lambda fit: fit.p_above)
    seeds = f"{len(fits)} of {n_seeds} seeds, " if n_seeds > 1 else ""
    hits = f"{worst.observed:.0f} hits"
    if worst.deviation == 0:
        return f"{name} ({seeds}{hits}, which no pairing could change, as in a table with only one class)"
    return f"{name} ({seeds}{hits}, shuffled {_number(worst.mean)} with standard deviation {_number(worst.deviation)})"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"
