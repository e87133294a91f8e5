"""The nuisance projection as a scikit-learn transformer."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from hirise_imb.estimators.base import Floats, Labels, Rows, Tags, number_groups, training_features, value_errors
from hirise_imb.models import projection
from hirise_imb.models.projection import Statistic, project_out


class NuisanceProjection(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Removes the directions of feature space in which the sources of the majority class differ most.

    What differs between sources of one class (light, season, instrument) says nothing about classes. Only the majority
    class is used: a rare class that occurs in a single source would be mistaken for the signature of that source. The
    projection removes directions and keeps the number of features.

    Source: Solomonoff et al. 2005, "Advances in channel compensation for SVM speaker recognition" (means); Sun and
    Saenko 2016, "Deep CORAL: correlation alignment for deep domain adaptation" (covariances).

    Args:
        rank: number of directions that are removed, positive.
        statistic: `means` or `covariances`, the statistic of the sources whose differences are removed.
        majority: class whose rows are used; the most frequent one if None.

    Attributes:
        directions_: orthonormal columns, the strongest first, shape (n_features, rank).
        n_features_in_: number of features.

    Example:
        >>> import numpy as np
        >>> from hirise_imb.estimators import NuisanceProjection
        >>> X = np.array([[0.0, 1.0], [0.0, 2.0], [9.0, 1.0], [9.0, 2.0]])
        >>> NuisanceProjection(rank=1).fit_transform(X, groups=["a", "a", "b", "b"])
        array([[0., 1.],
               [0., 2.],
               [0., 1.],
               [0., 2.]])
    """

    directions_: Floats

    def __init__(self, rank: int = 1, statistic: Statistic = "means", majority: str | float | None = None) -> None:
        """Stores the hyperparameters."""
        self.rank = rank
        self.statistic = statistic
        self.majority = majority

    def fit(self, X: Rows, y: Labels | None = None, groups: ArrayLike | None = None) -> Self:
        """Finds the directions.

        Args:
            X: features, shape (n, n_features).
            y: class of each row, shape (n,); None to use all rows.
            groups: source of each row, shape (n,). If None, each row is a source of its own; the directions of the
                means are then the principal components of the majority class.

        Raises:
            ValueError: the majority class is not in y, or its sources are too few or differ in fewer directions.
        """
        if y is None:
            X, used = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2), slice(None)
        else:
            X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], ensure_min_samples=2)
            classes, counts = np.unique(y, return_counts=True)
            majority = classes[counts.argmax()] if self.majority is None else self.majority
            used = np.asarray(y) == majority
            if not used.any():
                raise ValueError(f"majority must be one of the classes in y, got {majority!r}")
        features, groups = X[used], number_groups(groups, len(X))[used]
        with value_errors():
            name = np.array(["all rows" if y is None else str(majority)])
            training = training_features(features, np.zeros(len(features), np.int64), groups, name)
            self.directions_ = projection.NuisanceProjection(self.rank, self.statistic).directions(training)
        return self

    def transform(self, X: Rows) -> NDArray[np.floating]:
        """Returns the features without the directions, shape (n, n_features)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return project_out(X, self.directions_)

    def __sklearn_tags__(self) -> Tags:
        """Declares that float32 stays float32."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
