"""Tau-normalisation of a linear classifier."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data

from hirise_imb.data.dataset import ClassSet
from hirise_imb.estimators.base import Estimator, Floats, Labels, LogitClassifier, Rows, check_classes, value_errors
from hirise_imb.estimators.heads import ClassWeightedLogisticRegression
from hirise_imb.models.linear import LinearClassifier


class TauNormalisedClassifier(LogitClassifier):
    """A linear classifier whose weights are divided by their length to the power tau.

    Training on imbalanced rows makes the weights of frequent classes longer, which favours these classes. Tau 1 makes
    all lengths equal, tau 0 changes nothing (with `keep_bias`).

    Source: Kang et al. 2020, "Decoupling representation and classifier for long-tailed recognition".

    Args:
        estimator: linear classifier that is cloned and fitted: a head of this package, or a classifier with `coef_` and
            `intercept_`; a `sklearn.frozen.FrozenEstimator` to normalise a fitted one; None for plain logistic
            regression.
        tau: exponent of the length, not negative.
        keep_bias: whether biases are divided by the same power; else they are set to 0, as in the paper.

    Attributes:
        classes_: the classes, sorted, shape (n_classes,).
        estimator_: the fitted classifier before normalisation.
        classifier_: the normalised linear classifier (`hirise_imb.models.LinearClassifier`).
        n_features_in_: number of features.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from hirise_imb.estimators import TauNormalisedClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> normalised = TauNormalisedClassifier(tau=0.5).fit(X, y)
        >>> round(normalised.score(X, y), 2)
        0.93
    """

    def __init__(self, estimator: Estimator = None, tau: float = 1.0, keep_bias: bool = True) -> None:
        """Stores the hyperparameters."""
        self.estimator = estimator
        self.tau = tau
        self.keep_bias = keep_bias

    def fit(self, X: Rows, y: Labels, groups: ArrayLike | None = None) -> Self:
        """Fits the classifier and normalises its weights.

        Args:
            X: features, shape (n, n_features).
            y: class of each row, shape (n,).
            groups: source of each row, shape (n,), passed on to an estimator whose `fit` has `groups`.

        Raises:
            ValueError: tau is out of range, the classifier is not linear, or a class has weights of length 0.
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        estimator = clone(ClassWeightedLogisticRegression(power=0.0) if self.estimator is None else self.estimator)
        has_groups = groups is not None and has_fit_parameter(estimator, "groups")
        self.estimator_ = estimator.fit(X, y, groups=groups) if has_groups else estimator.fit(X, y)
        self.classes_ = self.estimator_.classes_
        check_classes(self.classes_, type(self).__name__)
        classes = ClassSet(tuple(map(str, self.classes_)))
        with value_errors():
            self.classifier_ = _linear(self.estimator_).normalise_weights(self.tau, classes, keep_bias=self.keep_bias)
        return self

    def _logits(self, X: Rows) -> Floats:
        check_is_fitted(self)
        return self.classifier_.logits(validate_data(self, X, reset=False, dtype=[np.float64, np.float32]))


def _linear(estimator: Estimator) -> LinearClassifier:
    """Returns a fitted classifier of this package or of scikit-learn as a linear classifier of the suite."""
    if isinstance(classifier := getattr(estimator, "classifier_", None), LinearClassifier):
        return classifier
    if not hasattr(estimator, "coef_"):
        raise ValueError(f"estimator must be a linear classifier with coef_ and intercept_, got {estimator}")
    kernel = np.asarray(estimator.coef_, np.float64)
    bias = np.broadcast_to(np.asarray(estimator.intercept_, np.float64), len(kernel))
    if len(kernel) == 1:  # two classes share one row of weights
        kernel, bias = np.vstack([-kernel, kernel]) / 2, np.concatenate([-bias, bias]) / 2
    width = kernel.shape[1]
    return LinearClassifier(kernel, np.array(bias), np.zeros(width), np.ones(width))
