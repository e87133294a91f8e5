"""Post-hoc adjustments as scikit-learn classifiers: they wrap a classifier, or take the scores of one that exists."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from numbers import Integral
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, check_cv
from sklearn.utils import _safe_indexing, get_tags, indexable
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, has_fit_parameter, validate_data

from hirise_imb.estimators.base import (
    Estimator,
    Floats,
    Ints,
    Labels,
    LogitClassifier,
    Rows,
    Tags,
    check_classes,
    number_groups,
)
from hirise_imb.estimators.heads import ClassWeightedLogisticRegression
from hirise_imb.imbalance.class_bias import ClassBias
from hirise_imb.imbalance.logit_adjustment import Adjustment, Correction, PosthocLogitAdjustment
from hirise_imb.imbalance.temperature import Temperature

Splitter = Any
"""Number of folds, or a splitter of scikit-learn."""

PRECOMPUTED: Literal["precomputed"] = "precomputed"
"""Stands for a classifier that exists elsewhere: X has its logits or log-probabilities."""


class PosthocClassifier(LogitClassifier):
    """Base class: a classifier and the correction of its logits, scale * z + offsets."""

    estimator: Estimator
    prior: ArrayLike | None
    classes: ArrayLike | None
    cv: Splitter = None
    correction_: Correction

    @abstractmethod
    def _adjustment(self) -> Adjustment:
        """Returns the adjustment of the suite with the hyperparameters of this estimator, which it checks."""

    def fit(self, X: Rows, y: Labels, groups: ArrayLike | None = None) -> Self:
        """Fits the classifier, and the correction on rows that it was not fitted on.

        Args:
            X: features, shape (n, n_features); scores, shape (n, n_classes), with `estimator="precomputed"`.
            y: class of each row, shape (n,).
            groups: source of each row, shape (n,), which is never divided by the cross-validation; None if each row is
                a source of its own. They are passed on to an estimator whose `fit` has `groups`.

        Raises:
            ValueError: a hyperparameter is out of range, or the rows allow no solution.
        """
        adjustment = self._adjustment()
        if self._is_precomputed:
            logits, y = validate_data(self, X, y)
            check_classification_targets(y)
            self.classes_ = np.unique(y) if self.classes is None else np.asarray(self.classes)
            if logits.shape[1] != len(self.classes_):
                raise ValueError(
                    f"X must have a column of scores for each of {len(self.classes_)} classes, got {logits.shape[1]} "
                    "columns. Name the classes of the columns with classes=[...]."
                )
        else:
            self.estimator_ = self._fit_estimator(X, y, groups)
            self.classes_ = self.estimator_.classes_
            for name in ("n_features_in_", "feature_names_in_"):
                if hasattr(self.estimator_, name):
                    setattr(self, name, getattr(self.estimator_, name))
            y = column_or_1d(y, warn=True)
        check_classes(self.classes_, type(self).__name__)
        labels = self._number_labels(y)
        prior = self._prior(labels)
        if not self._is_precomputed:
            logits, labels = np.empty((0, len(self.classes_))), labels[:0]
            if adjustment.learns:
                logits, labels = self._predict_heldout(X, y, groups)
        self.correction_ = adjustment.fit(logits, labels, prior)
        return self

    @property
    def _is_precomputed(self) -> bool:
        return isinstance(self.estimator, str) and self.estimator == PRECOMPUTED

    def _base(self) -> Estimator:
        if isinstance(self.estimator, str):
            raise ValueError(f'estimator must be a classifier, None or "{PRECOMPUTED}", got {self.estimator!r}')
        return ClassWeightedLogisticRegression(power=0.0) if self.estimator is None else self.estimator

    def _fit_estimator(self, X: Rows, y: Labels, groups: ArrayLike | None) -> Estimator:
        estimator = clone(self._base())
        if groups is not None and has_fit_parameter(estimator, "groups"):
            return estimator.fit(X, y, groups=groups)
        return estimator.fit(X, y)

    def _predict_heldout(self, X: Rows, y: NDArray[Any], groups: ArrayLike | None) -> tuple[Floats, Ints]:
        """Returns the logits of all rows from classifiers that were fitted without them, and the rows' labels.

        Rows of a class that the other folds lack are left out: no classifier could have learnt it.
        """
        X, labels = indexable(X)[0], self._number_labels(y)
        logits = np.full((len(labels), len(self.classes_)), np.log(np.finfo(np.float64).tiny))
        kept = np.zeros(len(labels), bool)
        for train, heldout in self._folds(labels, groups):
            fold_groups = None if groups is None else _safe_indexing(groups, train)
            estimator = self._fit_estimator(_safe_indexing(X, train), y[train], fold_groups)
            columns = self._number_labels(estimator.classes_)
            logits[np.ix_(heldout, columns)] = _predict_logits(estimator, _safe_indexing(X, heldout))
            kept[heldout] = np.isin(labels[heldout], columns)
        return logits[kept], labels[kept]

    def _folds(self, labels: Ints, groups: ArrayLike | None) -> Iterator[tuple[Ints, Ints]]:
        """Divides the rows, with fewer folds than `cv` where the largest class has fewer rows."""
        numbers = None if groups is None else number_groups(groups, len(labels))
        if not isinstance(self.cv, Integral):
            yield from check_cv(self.cv, labels, classifier=True).split(np.zeros(len(labels)), labels, numbers)
            return
        n_folds = max(2, min(int(self.cv), int(np.bincount(labels).max())))
        splitter = StratifiedKFold(n_folds) if numbers is None else StratifiedGroupKFold(n_folds)
        with warnings.catch_warnings():
            # Rare classes have fewer rows than there are folds; then some folds have none of them.
            warnings.filterwarnings("ignore", "The least populated class", UserWarning)
            yield from splitter.split(np.zeros(len(labels)), labels, numbers)

    def _number_labels(self, y: NDArray[Any]) -> Ints:
        """Returns the position of each label in `classes_`, shape (n,)."""
        numbers = {name: number for number, name in enumerate(self.classes_.tolist())}
        if unknown := sorted({str(name) for name in y.tolist() if name not in numbers}):
            raise ValueError(f"y has a class that the scores lack: {unknown[0]}")
        return np.array([numbers[name] for name in y.tolist()], np.int64)

    def _prior(self, labels: Ints) -> Floats:
        """Returns the class prior, shape (n_classes,)."""
        if self.prior is None:
            return np.bincount(labels, minlength=len(self.classes_)) / len(labels)
        shares = np.asarray(self.prior, np.float64)
        return np.asarray(shares / shares.sum())

    def _logits(self, X: Rows) -> Floats:
        check_is_fitted(self)
        if self._is_precomputed:
            return self.correction_(validate_data(self, X, reset=False))
        return self.correction_(_predict_logits(self.estimator_, X))

    def __sklearn_tags__(self) -> Tags:
        """Declares that sparse features and missing values are accepted where the estimator accepts them."""
        tags = super().__sklearn_tags__()
        if not isinstance(self.estimator, str):
            inner = get_tags(self._base()).input_tags
            tags.input_tags.sparse, tags.input_tags.allow_nan = inner.sparse, inner.allow_nan
        return tags


class LogitAdjustmentClassifier(PosthocClassifier):
    """Post-hoc logit adjustment: tau log prior is subtracted from the logits of a classifier.

    A classifier trained on imbalanced rows predicts frequent classes more often than balanced accuracy or macro F1
    rewards. Dividing its probabilities by the prior undoes that without training: tau 1 targets balanced accuracy
    where probabilities are calibrated, tau 0 changes nothing.

    Source: Menon et al. 2021, "Long-tail learning via logit adjustment".

    Args:
        estimator: classifier that is cloned and fitted; None for plain logistic regression; a
            `sklearn.frozen.FrozenEstimator` to adjust a fitted one; "precomputed" if X has logits or log-probabilities.
        tau: factor of the log prior, not negative.
        prior: share of each class among the rows that the classifier is trained on, or counts, shape (n_classes,);
            None for the shares in y.
        classes: classes of the columns of X, in their order, with "precomputed"; None for those in y, sorted.

    Attributes:
        classes_: the classes, shape (n_classes,).
        estimator_: the fitted classifier, unless scores are precomputed.
        correction_: the correction, with `scale` and `offsets`, shape (n_classes,).

    Example:
        >>> import numpy as np
        >>> from hirise_imb.estimators import LogitAdjustmentClassifier
        >>> log_probabilities = np.log([[0.8, 0.2], [0.95, 0.05]])
        >>> y = ["other", "crater"]
        >>> adjusted = LogitAdjustmentClassifier(
        ...     "precomputed", prior=[0.9, 0.1], classes=["other", "crater"]
        ... ).fit(log_probabilities, y)
        >>> adjusted.predict(log_probabilities)
        array(['crater', 'other'], dtype='<U6')
    """

    def __init__(
        self,
        estimator: Estimator = None,
        tau: float = 1.0,
        prior: ArrayLike | None = None,
        classes: ArrayLike | None = None,
    ) -> None:
        """Stores the hyperparameters."""
        self.estimator = estimator
        self.tau = tau
        self.prior = prior
        self.classes = classes

    def _adjustment(self) -> PosthocLogitAdjustment:
        return PosthocLogitAdjustment(self.tau)


class ClassBiasClassifier(PosthocClassifier):
    """One offset for each class, tuned for macro F1 on held-out predictions and regularised.

    The offsets maximise macro F1 minus strength times the mean squared distance to the best logit adjustment: without
    that anchor, the offset of a class with few rows would be chosen by luck.

    Source: Lipton et al. 2014, "Optimal thresholding of classifiers to maximize F1 measure".

    Args:
        estimator: classifier that is cloned and fitted; None for plain logistic regression; a
            `sklearn.frozen.FrozenEstimator` to adjust a fitted one on rows it was not fitted on; "precomputed" if X has
            logits or log-probabilities of held-out rows.
        strength: strength of the regularisation, in macro F1 per squared nat, positive.
        prior: share of each class among the rows that the classifier is trained on, or counts, shape (n_classes,);
            None for the shares in y.
        classes: classes of the columns of X, in their order, with "precomputed"; None for those in y, sorted.
        cv: number of folds, or a splitter of scikit-learn, of the predictions that offsets are tuned on. Folds keep the
            shares of the classes, and never divide a group.

    Attributes:
        classes_: the classes, shape (n_classes,).
        estimator_: the classifier fitted on all rows, unless scores are precomputed.
        correction_: the correction, with `scale` and `offsets`, shape (n_classes,).

    Example:
        >>> import numpy as np
        >>> from hirise_imb.estimators import ClassBiasClassifier
        >>> heldout = np.log([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
        >>> tuned = ClassBiasClassifier("precomputed").fit(heldout, [0, 0, 1, 1])
        >>> tuned.predict(heldout)
        array([0, 0, 1, 1])
    """

    def __init__(
        self,
        estimator: Estimator = None,
        strength: float = 0.1,
        prior: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        cv: Splitter = 5,
    ) -> None:
        """Stores the hyperparameters."""
        self.estimator = estimator
        self.strength = strength
        self.prior = prior
        self.classes = classes
        self.cv = cv

    def _adjustment(self) -> ClassBias:
        return ClassBias(self.strength)


class TemperatureScalingClassifier(PosthocClassifier):
    """Temperature scaling: probabilities are calibrated by dividing logits by one fitted number.

    Classifiers are often too confident. The temperature with the least log loss on held-out predictions corrects this
    without changing a decision. With `bias`, each class has an offset as well, which can change decisions.

    Source: Guo et al. 2017, "On calibration of modern neural networks"; Alexandari et al. 2020, "Maximum likelihood
    with bias-corrected calibration is hard-to-beat at label shift adaptation".

    Args:
        estimator: classifier that is cloned and fitted; None for plain logistic regression; a
            `sklearn.frozen.FrozenEstimator` to calibrate a fitted one on rows it was not fitted on; "precomputed" if X
            has logits or log-probabilities of held-out rows.
        bias: whether each class has an offset too.
        prior: share of each class among the rows that the classifier is trained on, or counts, shape (n_classes,), of
            which only zeros matter; None for the shares in y.
        classes: classes of the columns of X, in their order, with "precomputed"; None for those in y, sorted.
        cv: number of folds, or a splitter of scikit-learn, of the predictions that the temperature is fitted on. Folds
            keep the shares of the classes, and never divide a group.

    Attributes:
        classes_: the classes, shape (n_classes,).
        estimator_: the classifier fitted on all rows, unless scores are precomputed.
        correction_: the correction, with `scale` and `offsets`, shape (n_classes,).
        temperature_: the temperature, 1 / scale.

    Example:
        >>> from hirise_imb.estimators import TemperatureScalingClassifier
        >>> heldout = [[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]]
        >>> calibrated = TemperatureScalingClassifier("precomputed").fit(heldout, [0, 0, 1, 1])
        >>> calibrated.predict_proba([[4.0, 0.0]]).round(2)  # three of four are right
        array([[0.75, 0.25]])
    """

    def __init__(
        self,
        estimator: Estimator = None,
        bias: bool = False,
        prior: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        cv: Splitter = 5,
    ) -> None:
        """Stores the hyperparameters."""
        self.estimator = estimator
        self.bias = bias
        self.prior = prior
        self.classes = classes
        self.cv = cv

    @property
    def temperature_(self) -> float:
        """The fitted temperature."""
        check_is_fitted(self)
        return 1 / self.correction_.scale

    def _adjustment(self) -> Temperature:
        return Temperature(self.bias)


def _predict_logits(estimator: Estimator, X: Rows) -> Floats:
    """Returns log-probabilities, or the decision values of a classifier without probabilities, shape (n, n_classes)."""
    if hasattr(estimator, "predict_proba"):
        return np.asarray(np.log(np.maximum(estimator.predict_proba(X), np.finfo(np.float64).tiny)))
    values = np.asarray(estimator.decision_function(X), np.float64)
    return np.column_stack([np.zeros(len(values)), values]) if values.ndim == 1 else values
