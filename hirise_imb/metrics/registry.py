"""The registry of single-number scores of a fit.

Each score is registered once, with everything that reports need to show it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.metrics import classification
from hirise_imb.metrics.calibration import apply_temperature, expected_calibration_error, log_loss
from hirise_imb.metrics.classification import Predictions
from hirise_imb.metrics.ranking import risk_at_coverage

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Evaluation:
    """The predictions of one fit and the true classes of the same landmarks, from which every metric is computed."""

    labels: Ints
    """True classes, shape (n,)."""
    probabilities: NDArray[np.float32]
    """Predicted probabilities, shape (n, n_classes)."""
    class_sources: Ints
    """Number of sources of each class among these landmarks, shape (n_classes,)."""
    rare: tuple[int, ...]
    """Ids of the rare classes."""
    temperature: float | NDArray[np.float64]
    """Temperature of all landmarks or of each, shape (n,), fitted without them, for metrics of calibrated
    probabilities."""

    @classmethod
    def of(
        cls,
        predictions: Predictions,
        images: pd.DataFrame,
        rare: Sequence[int],
        temperature: float | NDArray[np.float64] = 1.0,
    ) -> Evaluation:
        """Pairs predictions with the labels of the same images, checked by image name.

        Predictions in another order (from a shuffled generator, say) or of other images are refused, because their
        scores would not describe any classifier.

        Args:
            predictions: predictions of one fit.
            images: the landmarks, one row each, with the columns `image`, `label` and `source`.
            rare: ids of the rare classes.
            temperature: temperature of all landmarks or of each, shape (n,), fitted without them.

        Raises:
            ValueError: the predictions are not of the labelled images in the same order.
        """
        if list(predictions.images) != images["image"].tolist():
            raise ValueError("predictions and labels name different images, or the same in another order")
        n_classes = predictions.probabilities.shape[1]
        pairs = images.drop_duplicates(["source", "label"])["label"]
        return cls(
            labels=images["label"].to_numpy(np.int64),
            probabilities=predictions.probabilities,
            class_sources=np.bincount(pairs, minlength=n_classes),
            rare=tuple(rare),
            temperature=temperature,
        )

    @cached_property
    def confusion(self) -> Ints:
        """Confusion matrix, shape (n_classes, n_classes); rows are true classes, columns are predicted classes."""
        predicted = self.probabilities.argmax(axis=1)
        return classification.confusion_matrix(self.labels, predicted, self.probabilities.shape[1])


@dataclass(frozen=True)
class Metric:
    """A single-number score.

    Raises:
        ValueError: the name can't be a key of `summary.json`.
    """

    name: str
    """Key in `summary.json`, such as `macro_f1`."""
    label: str
    """Name in the headings of pages."""
    short: str
    """Name in the narrow columns of the terminal."""
    compute: Callable[[Evaluation], float]
    """Function that returns the score of one fit; NaN where it is undefined, which reports show as missing."""
    higher_is_better: bool = True
    low: float | None = 0.0
    """Smallest possible value, if there is one."""
    high: float | None = 1.0
    """Largest possible value, if there is one."""

    def __post_init__(self) -> None:
        """Checks the name."""
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ValueError(f"name must be lower-case letters, digits and underscores, got {self.name!r}")


METRICS: dict[str, Metric] = {}
"""All registered metrics by name, in the order in which tables list them."""

CLASS_METRICS = {"precision": "precision", "recall": "recall", "f1": "F1"}
"""Labels of the per-class scores, by name."""


def register(metric: Metric) -> Metric:
    """Adds a metric to summaries, pages and the terminal's tables.

    Raises:
        ValueError: the name is taken.
    """
    if metric.name in METRICS or metric.name in CLASS_METRICS:
        raise ValueError(f"there is already a metric {metric.name!r}")
    METRICS[metric.name] = metric
    return metric


def label_of(name: str) -> str:
    """Returns the label of an overall or per-class metric; the name itself if the metric is unknown."""
    return CLASS_METRICS.get(name) or (METRICS[name].label if name in METRICS else name)


def evaluate(evaluation: Evaluation) -> dict[str, float]:
    """Returns the registered scores of one fit by name, without those that are undefined."""
    scores = {name: float(metric.compute(evaluation)) for name, metric in METRICS.items()}
    return {name: score for name, score in scores.items() if not math.isnan(score)}


def _calibrated_error(evaluation: Evaluation) -> float:
    """Returns the calibration error after temperature scaling."""
    probabilities = apply_temperature(evaluation.probabilities, evaluation.temperature)
    return expected_calibration_error(evaluation.labels, probabilities)


for _metric in (
    Metric("macro_f1", "macro F1", "macro F1", lambda e: classification.macro_f1(e.confusion)),
    Metric(
        "macro_f1_rare", "macro F1, rare classes", "rare F1", lambda e: classification.macro_f1(e.confusion, e.rare)
    ),
    Metric(
        "macro_f1_several",
        "macro F1, classes of several sources",
        "several sources",
        lambda e: classification.macro_f1_with_sources(e.confusion, e.class_sources, 2),
    ),
    Metric("weighted_f1", "weighted F1", "weighted F1", lambda e: classification.weighted_f1(e.confusion)),
    Metric("accuracy", "accuracy", "acc.", lambda e: classification.accuracy(e.confusion)),
    Metric(
        "balanced_accuracy", "balanced accuracy", "bal. acc.", lambda e: classification.balanced_accuracy(e.confusion)
    ),
    Metric("kappa", "kappa", "kappa", lambda e: classification.cohen_kappa(e.confusion), low=-1.0),
    Metric(
        "log_loss",
        "log loss (nats)",
        "log loss",
        lambda e: log_loss(e.labels, e.probabilities),
        higher_is_better=False,
        high=None,
    ),
    Metric(
        "calibration_error",
        "calibration error",
        "ECE",
        lambda e: expected_calibration_error(e.labels, e.probabilities),
        higher_is_better=False,
    ),
    Metric(
        "calibration_error_tempered",
        "calibration error, with temperature",
        "temp. ECE",
        _calibrated_error,
        higher_is_better=False,
    ),
    Metric(
        "risk_coverage_area",
        "area under the risk-coverage curve",
        "AURC",
        lambda e: float(risk_at_coverage(e.labels, e.probabilities).mean()),
        higher_is_better=False,
    ),
):
    register(_metric)
