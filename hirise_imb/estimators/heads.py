"""Closed-form heads as scikit-learn classifiers: no epochs, no random seeds, one solution for the same rows."""

from __future__ import annotations

from abc import abstractmethod
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from hirise_imb.estimators.base import (
    Floats,
    Labels,
    LogitClassifier,
    Rows,
    check_classes,
    number_groups,
    training_features,
    value_errors,
)
from hirise_imb.models.closed_form import Discriminant, Logistic, NearestMean, Normalisation
from hirise_imb.models.linear import LinearClassifier
from hirise_imb.models.reweighting import DeepFeatureReweighting


class LinearHead(LogitClassifier):
    """Base class of the heads: each fits a linear classifier of the suite."""

    classifier_: LinearClassifier

    @abstractmethod
    def _head(self) -> NearestMean | Discriminant | Logistic | DeepFeatureReweighting:
        """Returns the head of the suite with the hyperparameters of this estimator, which it checks."""

    def fit(self, X: Rows, y: Labels, groups: ArrayLike | None = None) -> Self:
        """Fits the classifier.

        Args:
            X: features, shape (n, n_features).
            y: class of each row, shape (n,).
            groups: source of each row, shape (n,); None if each row is a source of its own.

        Raises:
            ValueError: a hyperparameter is out of range, there are fewer than two classes, or the rows allow no
                solution.
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        check_classes(self.classes_, type(self).__name__)
        with value_errors():
            training = training_features(X, labels, number_groups(groups, len(labels)), self.classes_)
            self.classifier_ = self._head().fit(training)
        return self

    def _logits(self, X: Rows) -> Floats:
        check_is_fitted(self)
        return self.classifier_.logits(validate_data(self, X, reset=False, dtype=[np.float64, np.float32]))


class NearestMeanClassifier(LinearHead):
    """Nearest class mean, where the mean of a class is the mean of its sources' means.

    A source with many rows does not dominate the mean of its class, and a class with few rows has a mean as good as any
    other: with few parameters there is little to overfit. Probabilities come from squared distances, divided by the
    variance within classes and a temperature fitted to the training rows, and from the class prior.

    Source: Wang et al. 2019, "SimpleShot: revisiting nearest-neighbor classification for few-shot learning"; Kang et
    al. 2020, "Decoupling representation and classifier for long-tailed recognition".

    Args:
        normalise: `none`, `unit` (rows are scaled to length 1) or `centred_unit` (their mean is subtracted first).
        prior_power: exponent of the class prior, in [0, 2]; 0 treats all classes as equally frequent.

    Attributes:
        classes_: the classes, sorted, shape (n_classes,).
        classifier_: the fitted linear classifier (`hirise_imb.models.LinearClassifier`).
        n_features_in_: number of features.

    Example:
        >>> from hirise_imb.estimators import NearestMeanClassifier
        >>> X = [[0.0], [0.2], [1.0], [5.0], [5.4]]
        >>> y = ["other", "other", "other", "crater", "crater"]
        >>> head = NearestMeanClassifier().fit(X, y, groups=["a", "a", "b", "c", "d"])
        >>> head.predict([[0.5], [4.0]])
        array(['other', 'crater'], dtype='<U6')
    """

    def __init__(self, normalise: Normalisation = "none", prior_power: float = 1.0) -> None:
        """Stores the hyperparameters."""
        self.normalise = normalise
        self.prior_power = prior_power

    def _head(self) -> NearestMean:
        return NearestMean(self.normalise, self.prior_power)


class ShrunkDiscriminantClassifier(LinearHead):
    """Linear discriminant analysis with a covariance shrunk towards equal variances, and a power of the class prior.

    All classes share one covariance, so that a rare class borrows the shape of the frequent ones. Shrinkage makes the
    covariance of many features invertible. With `prior_power=1` it equals scikit-learn's LinearDiscriminantAnalysis
    (solver "lsqr") with the same shrinkage.

    Source: Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices"; Hayes and
    Kanan 2020, "Lifelong machine learning with deep streaming linear discriminant analysis".

    Args:
        shrinkage: weight of the mean variance, in (0, 1].
        prior_power: exponent of the class prior, in [0, 2]; 0 treats all classes as equally frequent, in the
            covariance too.

    Attributes:
        classes_: the classes, sorted, shape (n_classes,).
        classifier_: the fitted linear classifier (`hirise_imb.models.LinearClassifier`).
        n_features_in_: number of features.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from hirise_imb.estimators import ShrunkDiscriminantClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> round(ShrunkDiscriminantClassifier(shrinkage=0.1).fit(X, y).score(X, y), 2)
        0.98
    """

    def __init__(self, shrinkage: float = 0.1, prior_power: float = 1.0) -> None:
        """Stores the hyperparameters."""
        self.shrinkage = shrinkage
        self.prior_power = prior_power

    def _head(self) -> Discriminant:
        return Discriminant(self.shrinkage, self.prior_power)


class ClassWeightedLogisticRegression(LinearHead):
    """Multinomial logistic regression on standardised features with class weights n_k^-power, solved to convergence.

    Newton's method solves the convex problem that scikit-learn's LogisticRegression defines, in seconds for thousands
    of features. Power 1 gives all classes the same total weight (`class_weight="balanced"`), power 0 all rows, and
    values between give rare classes more weight without letting a handful of rows decide.

    Source: King and Zeng 2001, "Logistic regression in rare events data".

    Args:
        C: inverse strength of the squared penalty, positive; a factor of the summed loss, as in scikit-learn.
        power: exponent of the class weights, in [0, 2].

    Attributes:
        classes_: the classes, sorted, shape (n_classes,).
        classifier_: the fitted linear classifier (`hirise_imb.models.LinearClassifier`).
        n_features_in_: number of features.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from hirise_imb.estimators import ClassWeightedLogisticRegression
        >>> X, y = load_iris(return_X_y=True)
        >>> round(ClassWeightedLogisticRegression(power=0.5).fit(X, y).score(X, y), 2)
        0.97
    """

    def __init__(self, C: float = 1.0, power: float = 1.0) -> None:
        """Stores the hyperparameters."""
        self.C = C
        self.power = power

    def _head(self) -> Logistic:
        return Logistic(self.C, self.power)


class FeatureReweightingClassifier(LinearHead):
    """Deep feature reweighting: the mean of logistic regressions on subsets balanced over classes and sources.

    A classifier fitted on all rows uses features that hold for most of them, such as the look of a frequent source.
    Subsets in which classes have equal numbers of rows, spread over as many sources as possible, take that shortcut
    away. The classifiers of several random subsets are averaged; draws are the same for the same rows.

    Source: Kirichenko et al. 2023, "Last layer re-training is sufficient for robustness to spurious correlations".

    Args:
        C: inverse strength of the squared penalty, positive; a factor of the summed loss of a subset.
        subset_size: s in [0, 1]; a subset has n_min^(1 - s) n_max^s rows of each class, with n_min and n_max the
            number of rows of the smallest and the largest class.
        n_subsets: number of subsets, positive.

    Attributes:
        classes_: the classes, sorted, shape (n_classes,).
        classifier_: the fitted linear classifier (`hirise_imb.models.LinearClassifier`).
        n_features_in_: number of features.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from hirise_imb.estimators import FeatureReweightingClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> sources = [row % 7 for row in range(len(y))]
        >>> round(FeatureReweightingClassifier().fit(X, y, groups=sources).score(X, y), 2)
        0.97
    """

    def __init__(self, C: float = 1.0, subset_size: float = 0.0, n_subsets: int = 10) -> None:
        """Stores the hyperparameters."""
        self.C = C
        self.subset_size = subset_size
        self.n_subsets = n_subsets

    def _head(self) -> DeepFeatureReweighting:
        return DeepFeatureReweighting(self.C, self.subset_size, self.n_subsets)
