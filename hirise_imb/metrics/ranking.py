"""Scores of one fit that look at the order of probabilities: precision-recall and risk-coverage curves.

Labels have shape (n,) and probabilities (n, n_classes). Equal probabilities share one threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Probabilities = NDArray[np.floating]


def precision_at_hits(labels: Ints, probabilities: Probabilities, label: int) -> Floats:
    """Returns the precision-recall curve of a class, one value for each of its landmarks, shape (n_of_class,).

    Landmarks are ranked by the probability of the class. Value i is the precision at the threshold that finds i + 1
    landmarks of the class, at recall (i + 1) / n_of_class; equal probabilities have one threshold.
    """
    positive = labels == label
    last = _ends(probabilities[:, label])
    found = np.cumsum(positive[last.order])
    precision = (found / np.arange(1, len(labels) + 1))[last.ends]
    return np.asarray(precision[positive[last.order]], np.float64)


def average_precision(labels: Ints, probabilities: Probabilities) -> Floats:
    """Returns the area under the precision-recall curve of each class, shape (n_classes,); NaN for an absent class.

    It does not depend on a threshold, and shows what a class could reach if its threshold were chosen well. Guessing
    gives the share of the class.
    """
    curves = [precision_at_hits(labels, probabilities, label) for label in range(probabilities.shape[1])]
    return np.array([curve.mean() if len(curve) else np.nan for curve in curves])


def risk_at_coverage(labels: Ints, probabilities: Probabilities) -> Floats:
    """Returns the share of mistakes among the most confident 1, 2 .. n predictions, shape (n,).

    Equally confident predictions are taken together. The mean is the area under the risk-coverage curve (Geifman and
    El-Yaniv 2017).
    """
    wrong = probabilities.argmax(axis=1) != labels
    last = _ends(probabilities.max(axis=1))
    risk = np.cumsum(wrong[last.order]) / np.arange(1, len(labels) + 1)
    return np.asarray(risk[last.ends], np.float64)


@dataclass(frozen=True)
class _Ends:
    """A ranking in which equal scores form groups."""

    order: Ints
    ends: Ints
    """For each place, the last place of its group of equal scores."""


def _ends(scores: Probabilities) -> _Ends:
    order = np.argsort(-scores, kind="stable")
    changes = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    return _Ends(order, changes[np.searchsorted(changes, np.arange(len(scores)))])
