"""What the estimators share: labels and groups as numbers, and predictions from logits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_array, check_consistent_length, column_or_1d

from hirise_imb.data.dataset import ClassSet
from hirise_imb.features.training_features import TrainingFeatures
from hirise_imb.imbalance.logit_adjustment import log_softmax
from hirise_imb.utils.errors import NotApplicable

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# scikit-learn ships no types.
Rows = Any
"""Features: an array, a data frame, or whatever else an estimator accepts."""
Labels = Any
"""Classes of rows, of any type."""
Estimator = Any
Tags = Any


class LogitClassifier(ClassifierMixin, BaseEstimator):
    """Base class of the classifiers: predictions of logits that a subclass computes."""

    classes_: NDArray[Any]

    @abstractmethod
    def _logits(self, X: Rows) -> Floats:
        """Returns a logit for each row and class, shape (n, n_classes), after checking that the estimator is fitted."""

    def decision_function(self, X: Rows) -> Floats:
        """Returns logits, shape (n, n_classes); with two classes that of the second minus that of the first, (n,)."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_log_proba(self, X: Rows) -> Floats:
        """Returns the logarithms of the class probabilities, shape (n, n_classes)."""
        return log_softmax(self._logits(X))

    def predict_proba(self, X: Rows) -> Floats:
        """Returns the class probabilities in the order of `classes_`, shape (n, n_classes)."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Rows) -> NDArray[Any]:
        """Returns the most probable class of each row, shape (n,)."""
        best = self._logits(X).argmax(axis=1)
        return np.asarray(self.classes_[best])


def number_groups(groups: ArrayLike | None, n_rows: int) -> Ints:
    """Returns the number of the group of each row, shape (n,); each row is a group of its own without groups.

    Raises:
        ValueError: there is not one group for each row.
    """
    if groups is None:
        return np.arange(n_rows)
    names = check_array(column_or_1d(groups), ensure_2d=False, dtype=None)
    check_consistent_length(names, np.empty(n_rows))
    return np.asarray(np.unique(names, return_inverse=True)[1], np.int64)


def check_classes(classes: NDArray[Any], name: str) -> None:
    """Checks that there are at least two classes to tell apart."""
    if len(classes) < 2:
        raise ValueError(f"{name} needs at least two classes in y, got one class: {classes[0]}.")


def training_features(X: NDArray[np.floating], labels: Ints, groups: Ints, classes: NDArray[Any]) -> TrainingFeatures:
    """Returns checked arrays as the input of the closed-form heads."""
    names = tuple(map(str, classes)) if len(classes) > 1 else (str(classes[0]), "")
    return TrainingFeatures(X, labels, groups, ClassSet(names, names[int(np.bincount(labels).argmax())]))


@contextmanager
def value_errors() -> Iterator[None]:
    """Raises the suite's own error of data that a method can't be fitted to as a ValueError."""
    try:
        yield
    except NotApplicable as error:
        raise ValueError(str(error)) from error
