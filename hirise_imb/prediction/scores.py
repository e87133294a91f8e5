"""Scores of a model's predictions of labelled landmarks, and how many of them are confident."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.data.dataset import ClassSet
from hirise_imb.metrics.bootstrap import Interval, SourceCounts, bootstrap_sources
from hirise_imb.metrics.classification import confusion_matrix, macro_f1, per_class_scores
from hirise_imb.metrics.operating_point import CONFIDENCE_THRESHOLD, OperatingPoint
from hirise_imb.prediction.records import ClassScoreRecord, ConfidenceRecord, ScoresRecord

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def score_predictions(
    labels: Ints,
    sources: pd.Series[str],
    probabilities: Floats,
    classes: ClassSet,
    *,
    has_sources: bool,
    nested_macro_f1: float | None,
) -> ScoresRecord:
    """Returns the scores of a model's predictions, with confidence intervals over sources.

    Args:
        labels: true classes, shape (n,).
        sources: names of the sources, shape (n,).
        probabilities: probabilities as trained, which give the class, shape (n, n_classes).
        classes: classes of the data set.
        has_sources: whether the data set names its sources; otherwise each image is its own.
        nested_macro_f1: macro F1 of the arm in the nested cross-validation, if there is one.
    """
    predicted = probabilities.argmax(axis=1)
    numbers = pd.factorize(sources)[0].astype(np.int64)
    resamples = bootstrap_sources(SourceCounts.of(labels, predicted[None], numbers, len(classes)))
    confusion = confusion_matrix(labels, predicted, len(classes))
    scores = per_class_scores(confusion)
    return {
        "macro_f1": macro_f1(confusion),
        "macro_f1_interval": _ends(resamples.interval()),
        "nested_macro_f1": nested_macro_f1,
        "classes": {
            name: ClassScoreRecord(
                landmarks=int(confusion[k].sum()),
                sources=int(resamples.sources[k]) if has_sources else None,
                precision=float(scores["precision"][k]),
                recall=float(scores["recall"][k]),
                f1=float(scores["f1"][k]),
                f1_interval=_ends(resamples.class_interval(k)),
            )
            for k, name in enumerate(classes)
        },
    }


def describe_confidence(
    labels: Ints, probabilities: Floats, calibrated: Floats, classes: ClassSet, threshold: float = CONFIDENCE_THRESHOLD
) -> ConfidenceRecord:
    """Counts confident predictions: those whose class has a calibrated probability of the threshold or more.

    Args:
        labels: true classes, shape (n,).
        probabilities: probabilities as trained, which give the class, shape (n, n_classes).
        calibrated: calibrated probabilities, shape (n, n_classes).
        classes: classes of the data set.
        threshold: least calibrated probability.
    """
    predicted = probabilities.argmax(axis=1)
    confidence = np.take_along_axis(calibrated, predicted[:, None], axis=1)[:, 0]
    return count_confident(labels, predicted, confidence >= threshold, classes, threshold)


def count_confident(
    labels: Ints, predicted: Ints, confident: NDArray[np.bool_], classes: ClassSet, threshold: float
) -> ConfidenceRecord:
    """Counts predicted classes, of which some are confident.

    Args:
        labels: true classes, shape (n,).
        predicted: predicted classes, shape (n,).
        confident: which predictions reach the threshold, shape (n,).
        classes: classes of the data set.
        threshold: least calibrated probability.
    """
    point = OperatingPoint.count(labels, predicted, confident, len(classes))
    shown = int(point.shown.sum())
    return {
        "threshold": threshold,
        "coverage": int(point.decided.sum()) / max(len(labels), 1),
        "precision": int(point.right.sum()) / shown if shown else None,
        "classes": {
            name: {
                "landmarks": int(point.support[k]),
                "decided": int(point.decided[k]),
                "shown": int(point.shown[k]),
                "right": int(point.right[k]),
            }
            for k, name in enumerate(classes)
        },
    }


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]
