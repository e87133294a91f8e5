"""Uncertainty over sources, for plain arrays: confidence intervals, a test of two classifiers, and its power.

Rows of one source (an observation, a patient, a site) resemble each other, so sources are the independent draws. All
functions resample or exchange whole sources; see `bootstrap` and `permutation` for the methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hirise_imb.metrics import classification
from hirise_imb.metrics.bootstrap import (
    LEVEL,
    N_RESAMPLES,
    SourceCounts,
    bootstrap_sources,
    count_confusions,
    draw_resamples,
    expanded_percentile_interval,
)
from hirise_imb.metrics.detectable import N_FITS, DetectableDifference, simulate_detectable_difference
from hirise_imb.metrics.permutation import SwapTest, swap_test
from hirise_imb.utils.labels import encode_labels

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
ConfusionMetric = Callable[[Ints], float]
"""Computes a score from a confusion matrix, shape (n_classes, n_classes), rows true and columns predicted classes."""

CONFUSION_METRICS: Mapping[str, ConfusionMetric] = {
    "macro_f1": classification.macro_f1,
    "weighted_f1": classification.weighted_f1,
    "accuracy": classification.accuracy,
    "balanced_accuracy": classification.balanced_accuracy,
    "kappa": classification.cohen_kappa,
}
"""Scores that can be named."""

_CHUNK = 500
"""Resamples whose confusion matrices are in memory at once."""


@dataclass(frozen=True)
class SourceInterval:
    """An estimate and its confidence interval over sources."""

    estimate: float
    """The score, or the difference of two scores, on all rows; the mean over fits."""
    low: float
    """Lower end of the interval; NaN if none can be given: there are fewer than six sources, or no variation."""
    high: float
    """Upper end of the interval; NaN if none can be given."""
    n_sources: int
    """Number of sources."""


def source_bootstrap(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    sources: ArrayLike,
    *,
    metric: str | ConfusionMetric = "macro_f1",
    labels: ArrayLike | None = None,
    level: float = LEVEL,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> SourceInterval:
    """Returns a score with its confidence interval from a bootstrap over sources.

    Each resample draws as many sources as there are, with replacement. If there are several fits (random seeds of one
    classifier), they are drawn too, so that the interval includes the randomness of training. It is the expanded
    percentile interval, which is wide enough for few sources. Macro F1 of a resample is the mean over the classes that
    were drawn; other scores see the confusion matrix as drawn, and resamples where they are NaN are left out.

    Source: Owen 2007, "The pigeonhole bootstrap"; Hesterberg 2015, "What teachers should know about the bootstrap".

    Args:
        y_true: true classes, shape (n,).
        y_pred: predicted classes, shape (n,), or of several fits, shape (n_fits, n).
        sources: source of each row, shape (n,), of any type.
        metric: name in `CONFUSION_METRICS`, or a function of a confusion matrix, shape (n_classes, n_classes), rows
            true classes in the order of `labels`.
        labels: all classes; None for those that occur, sorted.
        level: nominal coverage, between 0 and 1.
        n_resamples: number of resamples, positive.
        seed: seed of the resamples. The same seed draws the same sources for every classifier.

    Raises:
        ValueError: shapes do not fit, a label is not one of the classes, or the metric is unknown.

    Example:
        >>> import numpy as np
        >>> from hirise_imb.metrics import source_bootstrap
        >>> rng = np.random.default_rng(0)
        >>> sources = np.repeat(np.arange(20), 10)
        >>> y_true = rng.integers(0, 2, 200)
        >>> y_pred = np.where(rng.random(200) < 0.9, y_true, 1 - y_true)
        >>> interval = source_bootstrap(y_true, y_pred, sources)
        >>> interval.low < interval.estimate < interval.high
        True
    """
    rows = _Rows(y_true, sources, {"y_pred": y_pred}, labels)
    predicted = rows.predicted["y_pred"]
    values = rows.resample(predicted, metric, n_resamples, seed)
    return _interval(rows.estimate(predicted, metric), values, rows.n_sources, level)


def paired_source_bootstrap(
    y_true: ArrayLike,
    y_pred_a: ArrayLike,
    y_pred_b: ArrayLike,
    sources: ArrayLike,
    *,
    metric: str | ConfusionMetric = "macro_f1",
    labels: ArrayLike | None = None,
    level: float = LEVEL,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> SourceInterval:
    """Returns the score of classifier a minus that of b, with its confidence interval from a bootstrap over sources.

    Both are scored on the same resampled sources, so what makes a source hard for both does not widen the interval. Two
    intervals that overlap say little about a difference; this one does.

    Source: as for `source_bootstrap`.

    Args:
        y_true: true classes, shape (n,).
        y_pred_a: classes that a predicts, shape (n,), or of several fits, shape (n_fits, n).
        y_pred_b: classes that b predicts, likewise.
        sources: source of each row, shape (n,), of any type.
        metric: as for `source_bootstrap`.
        labels: all classes; None for those that occur, sorted.
        level: nominal coverage, between 0 and 1.
        n_resamples: number of resamples, positive.
        seed: seed of the resamples.

    Raises:
        ValueError: shapes do not fit, a label is not one of the classes, or the metric is unknown.

    Example:
        >>> import numpy as np
        >>> from hirise_imb.metrics import paired_source_bootstrap
        >>> rng = np.random.default_rng(0)
        >>> sources = np.repeat(np.arange(20), 10)
        >>> y_true = rng.integers(0, 2, 200)
        >>> a, b = (np.where(rng.random(200) < right, y_true, 1 - y_true) for right in (0.9, 0.6))
        >>> paired_source_bootstrap(y_true, a, b, sources).low > 0
        True
    """
    rows = _Rows(y_true, sources, {"y_pred_a": y_pred_a, "y_pred_b": y_pred_b}, labels)
    a, b = rows.predicted.values()
    values = rows.resample(a, metric, n_resamples, seed) - rows.resample(b, metric, n_resamples, seed)
    return _interval(rows.estimate(a, metric) - rows.estimate(b, metric), values, rows.n_sources, level)


def source_swap_test(
    y_true: ArrayLike,
    y_pred_a: ArrayLike,
    y_pred_b: ArrayLike,
    sources: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    n_permutations: int = N_RESAMPLES,
    seed: int = 0,
) -> SwapTest:
    """Tests whether two classifiers differ in macro F1, by exchanging their predictions source by source.

    If they are equally good, it is a matter of chance which of them made which predictions on a source. The p value is
    the share of exchanges with a difference at least as large as the observed one. Few sources can be enough for a
    small p value only if there are at least six in which the classifiers differ.

    Source: Yeh 2000, "More accurate tests for the statistical significance of result differences".

    Args:
        y_true: true classes, shape (n,).
        y_pred_a: classes that a predicts, shape (n,), or of several fits, shape (n_fits, n).
        y_pred_b: classes that b predicts, likewise.
        sources: source of each row, shape (n,), of any type.
        labels: all classes; None for those that occur, sorted.
        n_permutations: number of random exchanges; all are used if there are no more.
        seed: seed of the random exchanges.

    Returns:
        The difference a minus b, its two-sided p value, and the smallest difference that this test can detect.

    Raises:
        ValueError: shapes do not fit, or a label is not one of the classes.

    Example:
        >>> import numpy as np
        >>> from hirise_imb.metrics import source_swap_test
        >>> rng = np.random.default_rng(0)
        >>> sources = np.repeat(np.arange(20), 10)
        >>> y_true = rng.integers(0, 2, 200)
        >>> a, b = (np.where(rng.random(200) < right, y_true, 1 - y_true) for right in (0.9, 0.6))
        >>> test = source_swap_test(y_true, a, b, sources)
        >>> test.p < 0.001 and test.difference > test.min_detectable_difference
        True
    """
    rows = _Rows(y_true, sources, {"y_pred_a": y_pred_a, "y_pred_b": y_pred_b}, labels)
    one, other = (rows.count(predicted) for predicted in rows.predicted.values())
    return swap_test(one, other, n_permutations, seed)


def minimum_detectable_difference(
    y_true: ArrayLike,
    sources: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    majority: str | float | None = None,
    n_fits: int = N_FITS,
) -> DetectableDifference:
    """Simulates how small a difference in macro F1 the swap test can detect on these rows, before anything is fitted.

    It depends mostly on the sources: how many there are, and how many have each class. Two equally good classifiers are
    simulated on the very same counts and tested. Takes a few seconds.

    Source: the median over simulated pairs of the smallest difference with p <= 0.05; assumptions in
    `docs/uncertainty.md`.

    Args:
        y_true: true classes of the test rows, shape (n,).
        sources: source of each row, shape (n,), of any type.
        labels: all classes; None for those that occur, sorted.
        majority: class that most mistakes are predictions of, if one dominates; None without one.
        n_fits: number of fits (random seeds) of each classifier, over which scores are averaged, positive.

    Returns:
        The minimum detectable difference over all classes and over those with six sources or more.

    Raises:
        ValueError: shapes do not fit, or a label or the majority class is not one of the classes.

    Example:
        >>> import numpy as np
        >>> from hirise_imb.metrics import minimum_detectable_difference
        >>> sources, y_true = np.repeat(np.arange(12), 10), np.tile([0, 0, 0, 1], 30)
        >>> 0.01 < minimum_detectable_difference(y_true, sources, majority=0, n_fits=1).all_classes < 0.2
        True
    """
    rows = _Rows(y_true, sources, {}, labels)
    if majority is not None and majority not in rows.classes:
        raise ValueError(f"majority must be one of the classes, got {majority!r}")
    if n_fits < 1:
        raise ValueError(f"n_fits must be positive, got {n_fits}")
    support = rows.count(rows.true[None]).support
    return simulate_detectable_difference(support, None if majority is None else rows.classes.index(majority), n_fits)


class _Rows:
    """Checked rows: classes and sources as numbers, and the predictions of several classifiers."""

    def __init__(
        self, y_true: ArrayLike, sources: ArrayLike, predictions: Mapping[str, ArrayLike], labels: ArrayLike | None
    ) -> None:
        self.classes: list[Any]
        self.classes, (self.true, *predicted) = encode_labels({"y_true": y_true, **predictions}, labels)
        if self.true.ndim != 1 or not len(self.true):
            raise ValueError(f"y_true must be one class for each row, got shape {self.true.shape}")
        self.predicted = {name: np.atleast_2d(fits) for name, fits in zip(predictions, predicted, strict=True)}
        for name, fits in self.predicted.items():
            if fits.ndim != 2 or not len(fits) or fits.shape[1] != len(self.true):
                raise ValueError(
                    f"{name} must have the shape ({len(self.true)},), or (n_fits, {len(self.true)}), got {fits.shape}"
                )
        # In the order of appearance, as in reports, so that the same seed draws the same sources.
        numbers, names = pd.factorize(np.asarray(sources))
        if numbers.shape != self.true.shape or (numbers < 0).any():
            raise ValueError(f"sources must be one source for each of {len(self.true)} rows, none of them missing")
        self.sources, self.n_sources = numbers.astype(np.int64), len(names)

    def count(self, predicted: Ints) -> SourceCounts:
        """Returns the counts of a classifier's fits, shape (n_fits, n), in each source."""
        return SourceCounts.of(self.true, predicted, self.sources, len(self.classes))

    def estimate(self, predicted: Ints, metric: str | ConfusionMetric) -> float:
        """Returns the mean score over fits on all rows."""
        compute, n_classes = _metric(metric), len(self.classes)
        return float(
            np.mean([compute(classification.confusion_matrix(self.true, fit, n_classes)) for fit in predicted])
        )

    def resample(self, predicted: Ints, metric: str | ConfusionMetric, n_resamples: int, seed: int) -> Floats:
        """Returns the mean score over the drawn fits in each resample, shape (n_resamples,)."""
        compute, n_classes = _metric(metric), len(self.classes)
        if metric == "macro_f1":
            return bootstrap_sources(self.count(predicted), n_resamples, seed).macro_f1()
        weights, shares = draw_resamples(self.n_sources, len(predicted), n_resamples, seed)
        confusions = count_confusions(self.true, predicted, self.sources, n_classes)
        by_source = confusions.reshape(len(predicted), self.n_sources, -1)
        scores = np.empty((n_resamples, len(predicted)))
        for start in range(0, n_resamples, _CHUNK):
            drawn = np.rint(weights[start : start + _CHUNK] @ by_source).astype(np.int64)
            for fit, matrices in enumerate(drawn.reshape(len(predicted), -1, n_classes, n_classes)):
                scores[start : start + _CHUNK, fit] = [compute(matrix) for matrix in matrices]
        # A fit that was not drawn must not make the mean NaN.
        return np.asarray(np.where(shares > 0, scores * shares, 0).sum(axis=1))


def _metric(metric: str | ConfusionMetric) -> ConfusionMetric:
    if callable(metric):
        return metric
    if metric not in CONFUSION_METRICS:
        raise ValueError(f"metric must be a function or one of {', '.join(CONFUSION_METRICS)}, got {metric!r}")
    return CONFUSION_METRICS[metric]


def _interval(estimate: float, values: Floats, n_sources: int, level: float) -> SourceInterval:
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    defined = values[np.isfinite(values)]
    interval = expanded_percentile_interval(defined, n_sources, level) if len(defined) else None
    low, high = (np.nan, np.nan) if interval is None else (interval.low, interval.high)
    return SourceInterval(estimate, low, high, n_sources)
