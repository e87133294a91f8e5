"""Scores of predictions. Classes are fixed: a class that does not occur counts as it is, it is never left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hirise_imb.metrics.calibration import expected_calibration_error, log_loss

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Predictions:
    """Class probabilities of named images."""

    images: tuple[str, ...]
    probabilities: NDArray[np.float32]
    """Shape (n_images, n_classes)."""

    def labels(self) -> Ints:
        """The most probable class of each image, shape (n_images,)."""
        return np.asarray(np.argmax(self.probabilities, axis=1), np.int64)


@dataclass(frozen=True)
class Scores:
    """What one run reached on one split; F1 = 2 TP / (2 TP + FP + FN), and 0 where that is 0 / 0."""

    confusion: Ints
    """Shape (n_classes, n_classes): rows are true classes, columns predicted ones."""
    log_loss: float
    """Mean of -log p(true class), in nats."""
    calibration_error: float
    """Expected calibration error of the top class, 15 equal bins (Guo et al. 2017)."""

    def per_class(self) -> dict[str, Floats]:
        """Precision, recall and F1, shape (n_classes,) each."""
        return per_class_scores(self.confusion)

    def summary(self, rare: Sequence[int]) -> dict[str, float]:
        """The scores that are one number; `rare` as in `summary_scores`."""
        return summary_scores(self.confusion, rare) | {
            "log_loss": self.log_loss,
            "calibration_error": self.calibration_error,
        }


def score_predictions(predictions: Predictions, images: pd.DataFrame) -> Scores:
    """Score predictions against the catalogue rows of the same images.

    Predictions and labels are paired by image name. Predictions in an order of their own (a shuffled generator) or of
    other images are refused, because their scores would describe no classifier.

    Raises:
        ValueError: the images of the predictions are not the images of the labels, in the same order.
    """
    if list(predictions.images) != images["image"].tolist():
        raise ValueError("predictions and labels name different images, or the same in another order")
    labels = images["label"].to_numpy()
    return Scores(
        confusion=confusion_matrix(labels, predictions.labels(), predictions.probabilities.shape[1]),
        log_loss=log_loss(labels, predictions.probabilities),
        calibration_error=expected_calibration_error(labels, predictions.probabilities),
    )


def confusion_matrix(labels: ArrayLike, predicted: ArrayLike, n_classes: int) -> Ints:
    """Counts of (true class, predicted class), shape (n_classes, n_classes)."""
    pairs = np.asarray(labels, np.int64) * n_classes + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def per_class_scores(confusion: Ints) -> dict[str, Floats]:
    """Precision, recall and F1 of each class, shape (n_classes,) each; 0 where undefined."""
    return precision_recall_f1(np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0))


def precision_recall_f1(hits: Ints | Floats, support: ArrayLike, predicted: ArrayLike) -> dict[str, Floats]:
    """Precision, recall and F1 where a class has so many hits, labels and predictions; 0 where undefined.

    Args:
        hits: right predictions, of any shape.
        support: labels, of a shape that broadcasts to that of `hits`.
        predicted: predictions, likewise.
    """
    right = hits.astype(float)
    true, chosen = np.asarray(support), np.asarray(predicted)
    return {
        "precision": _ratio(right, chosen),
        "recall": _ratio(right, true),
        "f1": _ratio(2 * right, true + chosen),
    }


def macro_f1(confusion: Ints) -> float:
    """Mean of F1 over all classes."""
    return float(per_class_scores(confusion)["f1"].mean())


def summary_scores(confusion: Ints, rare: Sequence[int]) -> dict[str, float]:
    """Accuracy, balanced accuracy, macro F1 (of all and of the rare classes), weighted F1, Cohen's kappa (1960).

    Args:
        confusion: counts, shape (n_classes, n_classes); rows are true classes.
        rare: ids of the rare classes.
    """
    scores = per_class_scores(confusion)
    support = confusion.sum(axis=1)
    total = confusion.sum()
    agreement = np.trace(confusion) / total
    chance = float(support @ confusion.sum(axis=0)) / total**2
    return {
        "macro_f1": float(scores["f1"].mean()),
        "macro_f1_rare": float(scores["f1"][list(rare)].mean()),
        "weighted_f1": float(scores["f1"] @ support / total),
        "accuracy": float(agreement),
        "balanced_accuracy": float(scores["recall"][support > 0].mean()),
        "kappa": float((agreement - chance) / (1 - chance)) if chance < 1 else 0.0,
    }


def _ratio(part: Floats, whole: NDArray[np.floating] | Ints) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
