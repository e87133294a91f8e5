"""Cross-validation folds by source: images of one source are never on both sides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data.dataset import ClassSet

N_FOLDS = 4
"""The rarest classes have about four training sources, so more folds could not contain one each."""

_ATTEMPTS = 16
"""Random divisions of which the best is used."""

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
    """Divides sources at random into stratified folds: each fold contains each class where its sources suffice.

    Classes take turns, the one of fewest sources first. Each of its sources, in random order, goes to a fold that lacks
    the class if there is one, and otherwise to the fold with the fewest landmarks of it (iterative stratification;
    Sechidis et al. 2011). Of several such assignments, the one with the fewest empty (class, fold) pairs is used, and
    among those the most even one. scikit-learn's StratifiedGroupKFold is no alternative: its order of groups is fixed
    but for ties, so that assignments of different seeds hardly differ.

    The folds depend on the data and the number alone: all recipes share them.

    Args:
        labels: class id of each landmark, shape (n,).
        sources: number of the source of each landmark, shape (n,).
        classes: classes of the data set.
        n_folds: requested number; there are fewer folds where there are fewer sources.
        number: of the assignment, from 0; another number is another random division.

    Raises:
        ValueError: all landmarks are from one source.
    """
    unique, source = np.unique(sources, return_inverse=True)
    n_folds = min(n_folds, len(unique))
    if n_folds < 2:
        raise ValueError("landmarks of one source can't be divided into folds")
    counts = np.zeros((len(unique), len(classes)), np.int64)
    np.add.at(counts, (source, labels), 1)
    present = np.unique(labels)

    def unevenness(fold_of: Ints) -> tuple[int, float]:
        """Returns the number of empty pairs, and the spread of the classes over the folds."""
        by_fold = np.zeros((n_folds, len(classes)), np.int64)
        np.add.at(by_fold, fold_of, counts)
        shares = by_fold[:, present] / counts.sum(axis=0)[present]
        return int((shares == 0).sum()), float(shares.std(axis=0).sum())

    rng = np.random.default_rng(number)
    fold_of_source = min((_stratify(counts, n_folds, rng) for _ in range(_ATTEMPTS)), key=unevenness)
    best = fold_of_source[source]
    incomplete = []
    for label in present.tolist():
        of_class = labels == label
        if len(np.unique(best[of_class])) < n_folds:
            n = len(np.unique(sources[of_class]))
            incomplete.append(f"{classes[label]} ({n} source{'s' if n > 1 else ''})")
    return FoldAssignment(best, tuple(incomplete))


def _stratify(counts: Ints, n_folds: int, rng: np.random.Generator) -> Ints:
    """Returns the fold of each source, shape (n_sources,).

    Args:
        counts: number of landmarks of each source and class, shape (n_sources, n_classes).
        n_folds: number of folds, at most that of the sources.
        rng: gives the order of sources, and decides ties.
    """
    fold_of = np.full(len(counts), -1)
    by_fold = np.zeros((n_folds, counts.shape[1]), np.int64)
    for k in np.argsort((counts > 0).sum(axis=0), kind="stable"):
        for one in rng.permutation(np.flatnonzero((counts[:, k] > 0) & (fold_of < 0))):
            # An empty fold lacks every class and has the fewest landmarks, so that no fold stays empty.
            fold = int(np.lexsort((rng.random(n_folds), by_fold.sum(axis=1), by_fold[:, k]))[0])
            fold_of[one] = fold
            by_fold[fold] += counts[one]
    return fold_of
