"""Scores of class decisions, computed from the confusion matrix.

Means over classes include classes that do not occur; only balanced accuracy, where recall is undefined, leaves them
out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Predictions:
    """Class probabilities of named images."""

    images: tuple[str, ...]
    probabilities: NDArray[np.float32]
    """Shape (n_images, n_classes)."""

    def labels(self) -> Ints:
        """Returns the most probable class of each image, shape (n_images,)."""
        return np.asarray(np.argmax(self.probabilities, axis=1))


def confusion_matrix(labels: ArrayLike, predicted: ArrayLike, n_classes: int) -> Ints:
    """Counts each pair of true class (row) and predicted class (column), shape (n_classes, n_classes)."""
    pairs = np.asarray(labels, np.int64) * n_classes + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def per_class_scores(confusion: Ints) -> dict[str, Floats]:
    """Returns the precision, recall and F1 of each class, shape (n_classes,) each; 0 / 0 counts as 0."""
    return precision_recall_f1(np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0))


def precision_recall_f1(hits: ArrayLike, support: ArrayLike, predicted: ArrayLike) -> dict[str, Floats]:
    """Returns precision, recall and F1 = 2 TP / (2 TP + FP + FN); 0 / 0 counts as 0.

    Args:
        hits: number of correct predictions, of any shape.
        support: number of labels, of a shape that broadcasts to that of `hits`.
        predicted: number of predictions, of a shape that broadcasts to that of `hits`.
    """
    true_positives = np.asarray(hits, float)
    n_labels, n_predicted = np.asarray(support), np.asarray(predicted)
    return {
        "precision": _ratio(true_positives, n_predicted),
        "recall": _ratio(true_positives, n_labels),
        "f1": _ratio(2 * true_positives, n_labels + n_predicted),
    }


def macro_f1(confusion: Ints, classes: Sequence[int] | None = None) -> float:
    """Returns the mean F1 over the given classes, by default over all (Opitz and Burst 2019)."""
    f1 = per_class_scores(confusion)["f1"]
    return float(f1.mean() if classes is None else f1[list(classes)].mean())


def macro_f1_with_sources(confusion: Ints, class_sources: Ints, minimum: int) -> float:
    """Returns the mean F1 over the classes with at least `minimum` sources; 0 if there is none.

    Args:
        confusion: confusion matrix, shape (n_classes, n_classes).
        class_sources: number of sources of each class, shape (n_classes,).
        minimum: fewest sources of a class that counts.
    """
    classes = np.flatnonzero(class_sources >= minimum)
    return macro_f1(confusion, classes.tolist()) if len(classes) else 0.0


def weighted_f1(confusion: Ints) -> float:
    """Returns the mean F1 over all classes, weighted by support."""
    return float(per_class_scores(confusion)["f1"] @ confusion.sum(axis=1) / confusion.sum())


def accuracy(confusion: Ints) -> float:
    """Returns the share of correct predictions."""
    return float(np.trace(confusion) / confusion.sum())


def balanced_accuracy(confusion: Ints) -> float:
    """Returns the mean recall of the classes that occur."""
    support = confusion.sum(axis=1)
    return float(per_class_scores(confusion)["recall"][support > 0].mean())


def cohen_kappa(confusion: Ints) -> float:
    """Returns Cohen's kappa (1960); 0 if chance agreement is already perfect."""
    total = confusion.sum()
    agreement = np.trace(confusion) / total
    chance = float(confusion.sum(axis=1) @ confusion.sum(axis=0)) / total**2
    return float((agreement - chance) / (1 - chance)) if chance < 1 else 0.0


def _ratio(numerator: Floats, denominator: NDArray[np.floating] | Ints) -> Floats:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
