"""Folds of source observations: images of one source are never on both sides."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data.hirise import CLASSES

FOLDS = 4
"""The rarest classes have about four sources to learn from, so more folds could not each hold one."""

_TRIES = 64
"""Assignments that are tried for one in which every fold has every class."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class FoldAssignment:
    """The fold of each landmark."""

    folds: Ints
    """Counted from 0, shape (n,)."""
    missing: tuple[str, ...]
    """What could not be: `class (n sources)` of each class that some fold lacks."""


def assign_folds(labels: Ints, sources: Ints, folds: int = FOLDS) -> FoldAssignment:
    """Put whole sources into folds of like classes, so that each fold has each class where its sources suffice.

    scikit-learn's StratifiedGroupKFold is asked with several seeds, and the assignment that leaves the fewest (class,
    fold) pairs empty is taken, the first of equals. The folds depend on the data alone, so all recipes have the same.

    Args:
        labels: class id of each landmark, shape (n,).
        sources: the source of each landmark, as a number, shape (n,).
        folds: asked for; there are fewer where there are fewer sources.

    Raises:
        ValueError: all landmarks are from one source.
    """
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    folds = min(folds, len(np.unique(sources)))
    if folds < 2:
        raise ValueError("landmarks of one source can't be divided into folds")
    present = np.unique(labels)
    most = np.bincount(labels).max()
    best, fewest = np.zeros(len(labels), np.int64), np.inf
    for seed in range(_TRIES):
        found = np.zeros(len(labels), np.int64)
        # Where no class has a landmark for each fold there is nothing to stratify, and it refuses.
        kind = StratifiedGroupKFold if most >= folds else GroupKFold
        splitter = kind(folds, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            # It warns of a class with fewer landmarks than folds; `missing` tells that with names.
            warnings.simplefilter("ignore", UserWarning)
            for fold, (_, held) in enumerate(splitter.split(np.zeros(len(labels)), labels, sources)):
                found[held] = fold
        filled = np.zeros((folds, len(CLASSES)), bool)
        filled[found, labels] = True
        if not filled.any(axis=1).all():  # a fold without a landmark
            continue
        if (empty := int((~filled[:, present]).sum())) < fewest:
            best, fewest = found, empty
    if not np.isfinite(fewest):
        raise ValueError(f"no assignment of {len(np.unique(sources))} sources fills {folds} folds")
    return FoldAssignment(best, _missing(labels, sources, best, folds))


def _missing(labels: Ints, sources: Ints, folds: Ints, count: int) -> tuple[str, ...]:
    lacking = []
    for k in np.unique(labels):
        own = labels == k
        if len(np.unique(folds[own])) < count:
            n = len(np.unique(sources[own]))
            lacking.append(f"{CLASSES[k]} ({n} source{'s' if n > 1 else ''})")
    return tuple(lacking)
