"""Whether predictions and labels belong together: the hits of every fit against shuffled pairings of the same two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hirise_imb.forensics import LEVEL, PermutationNull, Statistic

DRAWS = 2_000
"""Random pairings of each fit: enough to tell p < 0.001, and a report has a hundred fits."""

Ints = NDArray[np.int64]


def permutation_null(confusion: Ints) -> PermutationNull:
    """Returns all pairings of the labels and predictions of a confusion matrix, shape (n_classes, n_classes).

    Raises:
        ValueError: there are fewer than two images.
    """
    return PermutationNull(confusion.sum(axis=1), confusion.sum(axis=0))


def compare(confusions: Mapping[str, Sequence[Ints]]) -> dict[str, list[Statistic]]:
    """Compares the hits of each fit with shuffled pairings; no statistic where there are too few images to shuffle.

    Args:
        confusions: by arm, one for each seed, shape (n_classes, n_classes) each.
    """
    return {
        name: [
            permutation_null(confusion).compare(np.diagonal(confusion), draws=DRAWS)
            for confusion in fits
            if confusion.sum() > 1
        ]
        for name, fits in confusions.items()
    }


def sentence(compared: Mapping[str, Sequence[Statistic]], total: int) -> str:
    """What `compare` found, in words; a fit that does not stand out is named and vouched for by none.

    Args:
        compared: by arm, one a seed.
        total: images of the split.
    """
    if total < 2:
        return f"The test split has {total} landmark, too few to compare with a shuffled pairing."
    stands = [found for fits in compared.values() for found in fits if found.p_above < LEVEL]
    falls = {name: [found for found in fits if found.p_above >= LEVEL] for name, fits in compared.items()}
    doubtful = [_doubt(name, fits, len(compared[name])) for name, fits in falls.items() if fits]
    if not doubtful:
        return f"Predictions and labels belong together: every fit has {_standing(stands, total)}."
    text = (
        f"Not clearly better than the same predictions paired with shuffled labels (p >= {LEVEL}): "
        f"{'; '.join(doubtful)}. Such a fit has learned nothing, or the {total} test landmarks are too few to tell, or "
        "its predictions and labels do not belong together."
    )
    return f"{text} Every other fit has {_standing(stands, total)}." if stands else text


def _standing(fits: Sequence[Statistic], total: int) -> str:
    means = [_number(bound(found.mean for found in fits)) for bound in (min, max)]
    return (
        f"{min(found.observed for found in fits):.0f} hits or more of {total} on the test split, where a shuffled "
        f"pairing gives {' to '.join(dict.fromkeys(means))} (standard deviation "
        f"{_number(max(found.deviation for found in fits))}; p <= {max(found.p_above for found in fits):.4f})"
    )


def _doubt(name: str, fits: Sequence[Statistic], of: int) -> str:
    worst = max(fits, key=lambda found: found.p_above)
    seeds = f"{len(fits)} of {of} seeds, " if of > 1 else ""
    hits = f"{worst.observed:.0f} hits"
    if worst.deviation == 0:
        return f"{name} ({seeds}{hits}, which no pairing could change, as in a table with one class only)"
    return f"{name} ({seeds}{hits}, shuffled {_number(worst.mean)} with standard deviation {_number(worst.deviation)})"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"
