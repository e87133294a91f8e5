"""Cross-validation folds by source: images of one source are never on both sides."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data.dataset import ClassSet

N_FOLDS = 4
"""The rarest classes have about four training sources, so more folds could not contain one each."""

_ATTEMPTS = 64
"""Assignments tried in search of one in which every fold contains every class."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class FoldAssignment:
    """The fold of each landmark."""

    folds: Ints
    """Fold number of each landmark, counted from 0, shape (n,)."""
    incomplete: tuple[str, ...]
    """`class (n sources)` for each class that some fold lacks."""


def assign_folds(
    labels: Ints, sources: Ints, classes: ClassSet, n_folds: int = N_FOLDS, number: int = 0
) -> FoldAssignment:
    """Divides sources into stratified folds, so that each fold contains each class where its sources suffice.

    scikit-learn's StratifiedGroupKFold is run with several seeds, and the assignment with the fewest empty (class,
    fold) pairs is used, the first one in case of ties. The folds depend on the data and the
    number alone: all recipes share them.

    Args:
        labels: class id of each landmark, shape (n,).
        sources: number of the source of each landmark, shape (n,).
        classes: classes of the data set.
        n_folds: requested number; there are fewer folds where there are fewer sources.
        number: of the assignment, from 0; each number is a search among other seeds.

    Raises:
        ValueError: all landmarks are from one source.
    """
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    n_folds = min(n_folds, len(np.unique(sources)))
    if n_folds < 2:
        raise ValueError("landmarks of one source can't be divided into folds")
    present = np.unique(labels)
    # Where no class has a landmark for each fold there is nothing to stratify, and StratifiedGroupKFold refuses.
    splitter_class = StratifiedGroupKFold if np.bincount(labels).max() >= n_folds else GroupKFold
    # No assignment leaves fewer pairs empty than there are folds beyond the sources of a class.
    least_empty = sum(max(0, n_folds - len(np.unique(sources[labels == label]))) for label in present)
    best, fewest_empty = np.zeros(len(labels), np.int64), np.inf
    for seed in range(number * _ATTEMPTS, (number + 1) * _ATTEMPTS):
        folds = np.zeros(len(labels), np.int64)
        splitter = splitter_class(n_folds, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            # It warns of classes with fewer landmarks than folds; `incomplete` reports them by name.
            warnings.simplefilter("ignore", UserWarning)
            for fold, (_, heldout) in enumerate(splitter.split(np.zeros(len(labels)), labels, sources)):
                folds[heldout] = fold
        occupied = np.zeros((n_folds, len(classes)), bool)
        occupied[folds, labels] = True
        if not occupied.any(axis=1).all():  # a fold without a landmark
            continue
        if (empty := int((~occupied[:, present]).sum())) < fewest_empty:
            best, fewest_empty = folds, empty
        if fewest_empty == least_empty:
            break
    if not np.isfinite(fewest_empty):
        raise ValueError(f"no assignment of {len(np.unique(sources))} sources fills {n_folds} folds")
    incomplete = []
    for label in present.tolist():
        of_class = labels == label
        if len(np.unique(best[of_class])) < n_folds:
            n = len(np.unique(sources[of_class]))
            incomplete.append(f"{classes[label]} ({n} source{'s' if n > 1 else ''})")
    return FoldAssignment(best, tuple(incomplete))
