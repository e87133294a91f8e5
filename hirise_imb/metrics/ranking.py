"""Scores of one fit that depend on the ranking of probabilities: precision-recall and risk-coverage curves.

Labels have shape (n,) and probabilities (n, n_classes). Equal probabilities share one threshold: no threshold could
separate them, so a curve that did would depend on the order of the images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Probabilities = NDArray[np.floating]


def precision_at_hits(labels: Ints, probabilities: Probabilities, label: int) -> Floats:
    """Returns the precision-recall curve of a class, with one value for each of its landmarks, shape (n_of_class,).

    Landmarks are ranked by the probability of the class. Value i is the precision at the threshold that finds i + 1
    landmarks of the class, where recall is (i + 1) / n_of_class.
    """
    positive = labels == label
    ranking = _rank(probabilities[:, label])
    hits = np.cumsum(positive[ranking.order])
    precision = (hits / np.arange(1, len(labels) + 1))[ranking.ends]
    return np.asarray(precision[positive[ranking.order]])


def average_precision(labels: Ints, probabilities: Probabilities) -> Floats:
    """Returns the area under the precision-recall curve of each class, shape (n_classes,); NaN for an absent class.

    It does not depend on a threshold, so it shows what a class could reach with a well-chosen one. Random guessing
    scores the share of the class.
    """
    curves = [precision_at_hits(labels, probabilities, label) for label in range(probabilities.shape[1])]
    return np.array([curve.mean() if len(curve) else np.nan for curve in curves])


def mean_average_precision(labels: Ints, probabilities: Probabilities) -> float:
    """Returns the mean of `average_precision` over the classes that have landmarks."""
    return float(np.nanmean(average_precision(labels, probabilities)))


def risk_at_coverage(labels: Ints, probabilities: Probabilities) -> Floats:
    """Returns the share of mistakes among the 1, 2, ..., n most confident predictions, shape (n,).

    Equally confident predictions are counted together. The mean of the values is the area under the risk-coverage curve
    (Geifman and El-Yaniv 2017).
    """
    wrong = probabilities.argmax(axis=1) != labels
    ranking = _rank(probabilities.max(axis=1))
    risk = np.cumsum(wrong[ranking.order]) / np.arange(1, len(labels) + 1)
    return np.asarray(risk[ranking.ends])


@dataclass(frozen=True)
class _Ranking:
    """Scores in descending order, where equal scores form groups."""

    order: Ints
    """Index of the score at each rank, shape (n,)."""
    ends: Ints
    """Last rank of the group of equal scores that each rank belongs to, shape (n,)."""


def _rank(scores: Probabilities) -> _Ranking:
    order = np.argsort(-scores)
    changes = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    return _Ranking(order, changes[np.searchsorted(changes, np.arange(len(scores)))])
