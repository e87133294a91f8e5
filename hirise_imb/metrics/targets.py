"""Target metrics: the scores that a study can optimise, choose by, and test.

Macro F1 is the default. A study has one target: searches maximise it on validation, the choice follows it, and
confidence intervals and tests are of it. All are computed from what can be added over sources, so that resampling
sources, or exchanging the predictions of two arms on a source, is exact: confusion matrices for metrics of decisions,
and weights of landmarks for metrics of rankings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hirise_imb.metrics.classification import confusion_matrix, precision_recall_f1
from hirise_imb.utils.errors import UserError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Target(ABC):
    """A score of one fit; higher is better."""

    key: str
    """Key among the scores of a report, such as `g_mean`."""
    name: str
    """Value of the key `metric` of a definition, such as `recall_at_precision:0.9`."""
    label: str
    """Name in headings and sentences, such as `macro F1`."""

    @abstractmethod
    def score(self, labels: Ints, scores: NDArray[np.floating]) -> float:
        """Returns the score of one fit.

        Args:
            labels: true classes, shape (n,).
            scores: probabilities or log probabilities, shape (n, n_classes).
        """


@dataclass(frozen=True)
class DecisionTarget(Target):
    """A score of the predicted classes, computed from the confusion matrix."""

    def score(self, labels: Ints, scores: NDArray[np.floating]) -> float:
        """Returns the score of one fit."""
        return float(self.of_confusion(confusion_matrix(labels, scores.argmax(axis=1), scores.shape[1])))

    @abstractmethod
    def of_confusion(self, confusion: Floats | Ints) -> Floats:
        """Returns the score of each confusion matrix, shape (...), from shape (..., n_classes, n_classes).

        Rows are true classes. Classes without a landmark are left out of means over classes, except that macro F1
        counts a class that the data never has as 0.
        """


@dataclass(frozen=True)
class MacroF1(DecisionTarget):
    """Mean F1 over all classes (Opitz and Burst 2019)."""

    key: str = "macro_f1"
    name: str = "macro_f1"
    label: str = "macro F1"

    def of_confusion(self, confusion: Floats | Ints) -> Floats:
        """Returns the macro F1 of each confusion matrix."""
        hits = np.diagonal(confusion, axis1=-2, axis2=-1)
        return np.asarray(precision_recall_f1(hits, confusion.sum(axis=-1), confusion.sum(axis=-2))["f1"].mean(axis=-1))


@dataclass(frozen=True)
class BalancedAccuracy(DecisionTarget):
    """Mean recall of the classes that occur (Brodersen et al. 2010)."""

    key: str = "balanced_accuracy"
    name: str = "balanced_accuracy"
    label: str = "balanced accuracy"

    def of_confusion(self, confusion: Floats | Ints) -> Floats:
        """Returns the mean recall of each confusion matrix."""
        return np.asarray(np.nanmean(_recall(confusion), axis=-1))


@dataclass(frozen=True)
class GMean(DecisionTarget):
    """Geometric mean of the recall of the classes that occur (Kubat and Matwin 1997); 0 if any class is never found."""

    key: str = "g_mean"
    name: str = "g_mean"
    label: str = "G-mean"

    def of_confusion(self, confusion: Floats | Ints) -> Floats:
        """Returns the geometric mean of the recalls of each confusion matrix."""
        with np.errstate(divide="ignore"):  # log of 0 is minus infinity, whose exponential is 0
            return np.asarray(np.exp(np.nanmean(np.log(_recall(confusion)), axis=-1)))


@dataclass(frozen=True)
class CostSavings(DecisionTarget):
    """Savings over the best constant prediction, by a matrix of costs.

    1 minus the cost of all predictions, divided by the cost of predicting for every landmark the one class for which
    this is cheapest: 1 without a mistake, 0 for a classifier that is no better than that, below 0 for a worse one. The
    quotient is a normalised expected cost (Drummond and Holte 2006), with the best constant prediction as reference.
    """

    key: str = "cost_savings"
    name: str = "cost"
    label: str = "cost savings"
    costs: tuple[tuple[float, ...], ...] = ()
    """Cost of each pair of true class (row) and predicted class (column)."""

    def of_confusion(self, confusion: Floats | Ints) -> Floats:
        """Returns the savings of each confusion matrix; NaN where even the best constant prediction costs nothing."""
        costs = np.array(self.costs)
        total = (confusion * costs).sum(axis=(-1, -2))
        constant = (confusion.sum(axis=-1) @ costs).min(axis=-1)
        return np.asarray(1 - np.divide(total, constant, out=np.full_like(total, np.nan, float), where=constant > 0))


@dataclass(frozen=True)
class RankingTarget(Target):
    """A mean over the classes that occur of a score of the ranking of landmarks by the probability of the class."""

    precision: float = 0.0
    """Precision at which recall is scored; 0 for the area under the precision-recall curve."""

    def score(self, labels: Ints, scores: NDArray[np.floating]) -> float:
        """Returns the score of one fit."""
        return float(self.of_weights(labels, scores, np.zeros(len(labels), np.int64), np.ones((1, 1)))[0])

    def of_weights(self, labels: Ints, scores: NDArray[np.floating], groups: Ints, weights: Floats) -> Floats:
        """Returns the score with groups of landmarks weighted, shape (n_draws,); NaN where no landmark is drawn.

        Args:
            labels: true classes, shape (n,).
            scores: probabilities or log probabilities, shape (n, n_classes).
            groups: index of the group of each landmark, such as its source, shape (n,).
            weights: how often each group counts in each draw, shape (n_draws, n_groups).
        """
        from hirise_imb.metrics.ranking_kernel import score_curves  # numba takes a while to import

        totals, counts = np.zeros(len(weights)), np.zeros(len(weights))
        for label in np.unique(labels).tolist():
            order = np.argsort(-scores[:, label])
            # Equal scores share a threshold, so only the last of each group of them is one.
            is_threshold = np.append(np.diff(scores[order, label]) != 0, True)
            curves = score_curves((labels == label)[order], is_threshold, groups[order], weights, self.precision)
            occurs = ~np.isnan(curves)
            totals[occurs] += curves[occurs]
            counts += occurs
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
            return totals / counts


@dataclass(frozen=True)
class MeanAveragePrecision(RankingTarget):
    """Mean over classes of the average precision: the sum over thresholds of precision times the gain in recall."""

    key: str = "mean_average_precision"
    name: str = "mean_average_precision"
    label: str = "mean average precision"


@dataclass(frozen=True)
class RecallAtPrecision(RankingTarget):
    """Mean over classes of the highest recall at a threshold with at least the stated precision; 0 if none has it."""

    key: str = "recall_at_precision"
    name: str = "recall_at_precision"
    label: str = "recall at precision"


MACRO_F1 = MacroF1()
"""The default."""

_PLAIN: dict[str, Target] = {
    target.name: target for target in (MACRO_F1, BalancedAccuracy(), GMean(), MeanAveragePrecision())
}
_RECALL, _COST = "recall_at_precision", "cost"

TARGETS = (*_PLAIN, f"{_RECALL}:P", _COST)
"""Values of the key `metric` of a definition; P is a precision such as 0.9, and `cost` needs the key `costs`."""


def find_target(name: str, costs: Sequence[str], classes: Sequence[str]) -> Target:
    """Returns a target metric by the keys of a definition.

    Args:
        name: value of `metric`, one of `TARGETS`.
        costs: lines of the form `true class, predicted class, cost`. `*` stands for every class, and a later line takes
            precedence. A mistake without a line costs 1, a correct prediction nothing.
        classes: names of the classes of the data.

    Raises:
        UserError: there is no such metric, or the costs do not fit the classes.
    """
    if name == _COST:
        if not costs:
            raise UserError("metric is cost, but costs is empty: list them as 'true class, predicted class, cost'.")
        return CostSavings(costs=_read_costs(costs, classes))
    if costs:
        raise UserError(f"costs are given, but metric is {name}: set metric to {_COST}, or leave out costs.")
    if name in _PLAIN:
        return _PLAIN[name]
    precision = _find_precision(name)
    return RecallAtPrecision(name=name, label=f"recall at precision {precision:g}", precision=precision)


def _find_precision(name: str) -> float:
    kind, _, number = name.partition(":")
    try:
        precision = float(number)
    except ValueError:
        precision = 0.0
    if kind != _RECALL or not 0 < precision <= 1:
        raise UserError(
            f"There is no metric {name!r}: use {', '.join(_PLAIN)}, {_RECALL}:P with a precision P above 0 and up to "
            f"1, or {_COST}."
        )
    return precision


def _read_costs(lines: Sequence[str], classes: Sequence[str]) -> tuple[tuple[float, ...], ...]:
    costs = 1 - np.eye(len(classes))
    for line in lines:
        true_class, predicted_class, cost = _split_cost(line)
        places = [list(_find_classes(name, classes, line)) for name in (true_class, predicted_class)]
        for row in places[0]:
            for column in places[1]:
                if row != column:
                    costs[row, column] = cost
                elif cost and true_class == predicted_class != "*":
                    raise UserError(f"costs contains {line!r}: a correct prediction costs nothing.")
    if not costs.any():
        raise UserError("costs gives every mistake the cost 0: at least one must cost something.")
    return tuple(tuple(map(float, row)) for row in costs)


def _find_classes(name: str, classes: Sequence[str], line: str) -> Iterator[int]:
    if name != "*" and name not in classes:
        raise UserError(f"costs contains {line!r}, but there is no class {name!r}; there are {', '.join(classes)}.")
    return (place for place, known in enumerate(classes) if name in ("*", known))


def _split_cost(line: str) -> tuple[str, str, float]:
    parts = [part.strip() for part in line.rsplit(",", 2)]
    try:
        true_class, predicted_class, cost = parts[0], parts[1], float(parts[2])
    except (IndexError, ValueError):
        cost = np.nan
    if not 0 <= cost < np.inf:
        raise UserError(
            f"costs contains {line!r}: write 'true class, predicted class, cost' with a cost of 0 or more, such as "
            "'impact ejecta, other, 10'."
        )
    return true_class, predicted_class, cost


def _recall(confusion: Floats | Ints) -> Floats:
    """Returns the recall of each class; NaN for one without landmarks."""
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        return np.asarray(np.diagonal(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=-1))
