"""Scores of plain arrays: labels of any type, and probabilities with a column for each class."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from hirise_imb.metrics import classification
from hirise_imb.metrics.calibration import BINS, expected_calibration_error
from hirise_imb.utils.labels import encode_labels


def class_scores(y_true: ArrayLike, y_pred: ArrayLike, *, labels: ArrayLike | None = None) -> pd.DataFrame:
    """Returns precision, recall, F1 and support of each class.

    0 / 0 counts as 0: the F1 of a class is 0 as long as nothing of it was found, whether or not it was predicted.

    Args:
        y_true: true classes, shape (n,).
        y_pred: predicted classes, shape (n,).
        labels: all classes, in the order of the table; None for those that occur, sorted.

    Returns:
        A table with a row for each class and the columns `precision`, `recall`, `f1` and `support`.

    Raises:
        ValueError: the arrays are empty or have other shapes, or a label is not one of the classes.

    Example:
        >>> from hirise_imb.metrics import class_scores
        >>> class_scores(["crater", "other", "other"], ["crater", "crater", "other"])
                precision  recall        f1  support
        crater        0.5     1.0  0.666667        1
        other         1.0     0.5  0.666667        2
    """
    classes, (true, predicted) = encode_labels({"y_true": y_true, "y_pred": y_pred}, labels)
    if true.ndim != 1 or true.shape != predicted.shape or not len(true):
        raise ValueError(f"y_true and y_pred must have one label for each row, got {true.shape} and {predicted.shape}")
    confusion = classification.confusion_matrix(true, predicted, len(classes))
    return pd.DataFrame(classification.per_class_scores(confusion), index=classes).assign(support=confusion.sum(axis=1))


def macro_f1_score(y_true: ArrayLike, y_pred: ArrayLike, *, labels: ArrayLike | None = None) -> float:
    """Returns macro F1: the mean of the F1 of all classes.

    Every class counts the same, however few rows it has. Give all classes as `labels` where some may not occur: they
    count as 0, and scores of different rows stay comparable.

    Source: Opitz and Burst 2019, "Macro F1 and macro F1" (the mean of F1, not the F1 of means).

    Args:
        y_true: true classes, shape (n,).
        y_pred: predicted classes, shape (n,).
        labels: all classes; None for those that occur.

    Raises:
        ValueError: the arrays are empty or have other shapes, or a label is not one of the classes.

    Example:
        >>> from hirise_imb.metrics import macro_f1_score
        >>> round(macro_f1_score([0, 0, 0, 1], [0, 0, 0, 0], labels=[0, 1]), 3)
        0.429
    """
    return float(class_scores(y_true, y_pred, labels=labels)["f1"].mean())


def calibration_error(
    y_true: ArrayLike, probabilities: ArrayLike, *, labels: ArrayLike | None = None, n_bins: int = BINS
) -> float:
    """Returns the expected calibration error: how far confidence is from accuracy, on average over confidence bins.

    The confidence of a prediction is the probability of the predicted class. 0 is perfect.

    Source: Guo et al. 2017, "On calibration of modern neural networks".

    Args:
        y_true: true classes, shape (n,).
        probabilities: predicted probabilities, shape (n, n_classes).
        labels: classes of the columns, in their order; None for those in y_true, sorted.
        n_bins: number of bins of equal width, positive.

    Raises:
        ValueError: a shape does not fit, probabilities are not in [0, 1], or a label is not one of the classes.

    Example:
        >>> from hirise_imb.metrics import calibration_error
        >>> calibration_error([0, 0, 0, 1], [[0.75, 0.25]] * 4)
        0.0
    """
    classes, (true,) = encode_labels({"y_true": y_true}, labels)
    p = np.asarray(probabilities, np.float64)
    if true.ndim != 1 or not len(true) or p.shape != (len(true), len(classes)):
        raise ValueError(
            f"probabilities must have the shape (n, n_classes), here ({true.size}, {len(classes)}), got {p.shape}"
        )
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("probabilities must be in [0, 1]")
    if n_bins < 1:
        raise ValueError(f"n_bins must be positive, got {n_bins}")
    return expected_calibration_error(true, p, n_bins)
