"""Samplers with imbalanced-learn's interface: `fit_resample`, alone or as a step of an imbalanced-learn pipeline.

They choose or make training rows only: resample after the data is split, never before, as a pipeline does by itself.
Names of the sources that rows were cut from go to `fit_resample` as `groups`. A pipeline passes them on by metadata
routing alone: `sklearn.set_config(enable_metadata_routing=True)`, `sampler.set_fit_resample_request(groups=True)`, and
`pipeline.fit(X, y, groups=groups)`.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from imblearn.base import BaseSampler
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, issparse, vstack
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils.validation import check_consistent_length, column_or_1d

from hirise_imb.data.dataset import ClassSet
from hirise_imb.data.splits import TrainingPool
from hirise_imb.features.training_features import TrainingFeatures
from hirise_imb.imbalance.sampling import ClassSampling, RandomOversampling, Sampling, Undersampling
from hirise_imb.imbalance.smote import Method, SyntheticOversampling
from hirise_imb.utils.errors import NotApplicable

__all__ = ["ClassPowerSampler", "MajorityUndersampler", "RatioOversampler", "SyntheticOversampler"]

Ints = NDArray[np.int64]
# imbalanced-learn and scikit-learn ship no types.
Rows = Any
"""Features: an array, a data frame, a sparse matrix or a list of rows."""
Labels = Any
"""Classes of rows, of any type."""
Tags = Any
ClassName = str | float
RandomState = int | np.random.RandomState | None


class _Sampler(BaseSampler):
    """Base class: imbalanced-learn validates, labels become class ids, and a random state becomes a seed."""

    # What is sampled follows from the hyperparameters, so imbalanced-learn's sampling_strategy has no meaning here.
    _sampling_type = "bypass"
    # The suite's own dataclasses check hyperparameters when they are used.
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {}

    random_state: RandomState

    def _seed(self) -> int:
        if isinstance(self.random_state, Integral):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31))


class _RowSampler(_Sampler):
    """Base class of the samplers that choose rows; `sample_indices_` has their positions."""

    sample_indices_: Ints

    def _choose(
        self, sampling: Sampling, X: Rows, y: NDArray[Any], groups: ArrayLike | None
    ) -> tuple[Rows, NDArray[Any]]:
        """Returns the rows that a sampling of the suite chooses, with their labels."""
        classes, labels = np.unique(y, return_inverse=True)
        sources = np.arange(len(y)) if groups is None else np.unique(column_or_1d(groups), return_inverse=True)[1]
        check_consistent_length(y, sources)
        pool = TrainingPool(labels, np.ones(len(y), np.int64), sources, self._class_set(classes, labels))
        try:
            self.sample_indices_ = sampling.rows(pool, self._seed(), 1, 1.0)
        except NotApplicable as error:
            raise ValueError(str(error)) from error
        return _safe_indexing(X, self.sample_indices_), _safe_indexing(y, self.sample_indices_)

    def _class_set(self, classes: NDArray[Any], labels: Ints) -> ClassSet:
        names = tuple(map(str, classes))
        return ClassSet(names, names[int(np.bincount(labels).argmax())])

    def __sklearn_tags__(self) -> Tags:
        """Declares that `sample_indices_` has the positions of the rows."""
        tags = super().__sklearn_tags__()
        tags.sampler_tags.sample_indices = True
        return tags


class ClassPowerSampler(_RowSampler):
    """Draws as many rows as there are, with replacement, where class k with n_k rows has the weight n_k^power.

    Power 1 keeps the frequencies, 0 draws all classes equally often, one half is square-root sampling. With groups, a
    source of the class is drawn first and then one of its rows, so that a large source does not stand for its class.

    Source: Kang et al. 2020, "Decoupling representation and classifier for long-tailed recognition".

    Args:
        power: exponent of the class counts, in [0, 1].
        random_state: seed or generator of the draws.

    Attributes:
        sample_indices_: positions of the drawn rows, shape (n,).

    Example:
        >>> import numpy as np
        >>> from hirise_imb.samplers import ClassPowerSampler
        >>> X, y = np.arange(1000)[:, None], np.repeat(["other", "crater"], [900, 100])
        >>> _, drawn = ClassPowerSampler(power=0.0, random_state=0).fit_resample(X, y)
        >>> bool(450 < np.sum(drawn == "crater") < 550)
        True
    """

    def __init__(self, power: float = 0.5, random_state: RandomState = None) -> None:
        """Stores the hyperparameters."""
        super().__init__()
        self.power = power
        self.random_state = random_state

    def fit_resample(self, X: Rows, y: Labels, groups: ArrayLike | None = None) -> tuple[Rows, Labels]:
        """Draws rows.

        Args:
            X: features, shape (n, n_features).
            y: class of each row, shape (n,).
            groups: source of each row, shape (n,), which is drawn first; None to draw the rows of a class equally.

        Returns:
            Features and labels of the drawn rows, in the types that were given.

        Raises:
            ValueError: the power is out of range, or there are fewer than two classes.
        """
        resampled: tuple[Rows, Labels] = super().fit_resample(X, y, groups=groups)
        return resampled

    def _fit_resample(self, X: Rows, y: NDArray[Any], groups: ArrayLike | None = None) -> tuple[Rows, NDArray[Any]]:
        return self._choose(ClassSampling(self.power, by_source=groups is not None), X, y, groups)


class RatioOversampler(_RowSampler):
    """Repeats random rows of each class until it has `ratio` times the rows of the largest class.

    imbalanced-learn's RandomOverSampler takes such a ratio for two classes only. Classes that are large enough stay as
    they are, and all rows are kept.

    Source: Buda et al. 2018, "A systematic study of the class imbalance problem in convolutional neural networks".

    Args:
        ratio: target as a share of the largest class, in (0, 1]; 1 balances all classes.
        random_state: seed or generator of the draws.

    Attributes:
        sample_indices_: positions of the rows, first all rows in order, then the repeated ones.

    Example:
        >>> import numpy as np
        >>> from hirise_imb.samplers import RatioOversampler
        >>> X, y = np.zeros((16, 1)), np.repeat([0, 1, 2], [10, 5, 1])
        >>> _, resampled = RatioOversampler(ratio=0.5, random_state=0).fit_resample(X, y)
        >>> np.bincount(resampled)
        array([10,  5,  5])
    """

    def __init__(self, ratio: float = 1.0, random_state: RandomState = None) -> None:
        """Stores the hyperparameters."""
        super().__init__()
        self.ratio = ratio
        self.random_state = random_state

    def fit_resample(self, X: Rows, y: Labels) -> tuple[Rows, Labels]:
        """Repeats rows.

        Args:
            X: features, shape (n, n_features).
            y: class of each row, shape (n,).

        Returns:
            Features and labels, in the types that were given.

        Raises:
            ValueError: the ratio is out of range, or there are fewer than two classes.
        """
        resampled: tuple[Rows, Labels] = super().fit_resample(X, y)
        return resampled

    def _fit_resample(self, X: Rows, y: NDArray[Any]) -> tuple[Rows, NDArray[Any]]:
        return self._choose(RandomOversampling(self.ratio), X, y, None)


class MajorityUndersampler(_RowSampler):
    """Keeps all rows of the rare classes, and of the majority class at most `ratio` times the largest rare class.

    Where one class dominates, its rows are drawn without replacement and all others stay, while under-sampling every
    class to the smallest would leave a handful of rows.

    Source: Liu et al. 2009, "Exploratory undersampling for class-imbalance learning".

    Args:
        ratio: limit of the majority class as a multiple of the largest rare class, positive.
        majority: the class that is under-sampled; the most frequent one if None.
        random_state: seed or generator of the draws.

    Attributes:
        sample_indices_: positions of the kept rows, in order.

    Example:
        >>> import numpy as np
        >>> from hirise_imb.samplers import MajorityUndersampler
        >>> X, y = np.zeros((115, 1)), np.repeat([0, 1, 2], [100, 10, 5])
        >>> _, resampled = MajorityUndersampler(ratio=2.0, random_state=0).fit_resample(X, y)
        >>> np.bincount(resampled)
        array([20, 10,  5])
    """

    def __init__(self, ratio: float = 1.0, majority: ClassName | None = None, random_state: RandomState = None) -> None:
        """Stores the hyperparameters."""
        super().__init__()
        self.ratio = ratio
        self.majority = majority
        self.random_state = random_state

    def fit_resample(self, X: Rows, y: Labels) -> tuple[Rows, Labels]:
        """Drops rows of the majority class.

        Args:
            X: features, shape (n, n_features).
            y: class of each row, shape (n,).

        Returns:
            Features and labels of the kept rows, in the types that were given.

        Raises:
            ValueError: the ratio is out of range, there are fewer than two classes, or no row of the majority class
                would be left.
        """
        resampled: tuple[Rows, Labels] = super().fit_resample(X, y)
        return resampled

    def _fit_resample(self, X: Rows, y: NDArray[Any]) -> tuple[Rows, NDArray[Any]]:
        return self._choose(Undersampling(self.ratio), X, y, None)

    def _class_set(self, classes: NDArray[Any], labels: Ints) -> ClassSet:
        if self.majority is None:
            return super()._class_set(classes, labels)
        if self.majority not in classes.tolist():
            raise ValueError(f"majority must be one of the classes in y, got {self.majority!r}")
        return ClassSet(tuple(map(str, classes)), str(self.majority))


class SyntheticOversampler(_Sampler):
    """SMOTE and two relatives for classes of any size, interpolating between canonical rows only.

    Augmented copies of a row are its nearest neighbours, and interpolating between them makes another copy. So the
    ends are canonical rows, one for each original, and the counts that are topped up are those of all rows. A class
    with no more canonical rows than `neighbours`, which imbalanced-learn refuses, is interpolated between all it has; a
    single one is copied. `notes_` says for which classes this was done.

    Source: Chawla et al. 2002 (`smote`); Han et al. 2005 (`borderline_smote`); He et al. 2008 (`adasyn`).

    Args:
        method: `smote`, `borderline_smote` or `adasyn`.
        ratio: each class is over-sampled to this share of the largest class, in (0, 1].
        neighbours: number of nearest canonical rows of the class among which the other end is drawn, positive.
        random_state: seed or generator of the draws.

    Attributes:
        notes_: what was done otherwise than the method says, a string for each such class.

    Example:
        >>> import numpy as np
        >>> from hirise_imb.samplers import SyntheticOversampler
        >>> X, y = np.arange(12.0)[:, None], np.repeat([0, 1, 2], [8, 3, 1])
        >>> sampler = SyntheticOversampler(ratio=0.5, random_state=0)
        >>> _, resampled = sampler.fit_resample(X, y)
        >>> np.bincount(resampled)
        array([8, 4, 4])
        >>> sampler.notes_
        ('1: 2 neighbours instead of 5, it has 3 landmarks', '2: copies of its only landmark, which has no neighbour')
    """

    notes_: tuple[str, ...]

    def __init__(
        self, method: Method = "smote", ratio: float = 1.0, neighbours: int = 5, random_state: RandomState = None
    ) -> None:
        """Stores the hyperparameters."""
        super().__init__()
        self.method = method
        self.ratio = ratio
        self.neighbours = neighbours
        self.random_state = random_state

    def fit_resample(self, X: Rows, y: Labels, canonical: ArrayLike | None = None) -> tuple[Rows, Labels]:
        """Adds synthetic rows after those given.

        Args:
            X: features, shape (n, n_features).
            y: class of each row, shape (n,).
            canonical: whether each row is the canonical one of its original, shape (n,); None if all are. Every class
                needs one.

        Returns:
            Features and labels, in the types that were given.

        Raises:
            ValueError: a hyperparameter is out of range, there are fewer than two classes, or a class has no canonical
                row.
        """
        resampled: tuple[Rows, Labels] = super().fit_resample(X, y, canonical=canonical)
        return resampled

    def _fit_resample(self, X: Rows, y: NDArray[Any], canonical: ArrayLike | None = None) -> tuple[Rows, NDArray[Any]]:
        oversampling = SyntheticOversampling(self.method, self.ratio, self.neighbours)
        classes, labels = np.unique(y, return_inverse=True)
        used = np.ones(len(y), bool) if canonical is None else column_or_1d(canonical).astype(bool)
        check_consistent_length(y, used)
        counts = np.bincount(labels)
        if missing := np.flatnonzero(np.bincount(labels[used], minlength=len(classes)) == 0).tolist():
            raise ValueError(f"canonical must mark a row of every class; the class {classes[missing[0]]} has none")
        features = X[used].toarray() if issparse(X) else X[used]
        canonical_rows = TrainingFeatures(
            features, labels[used], np.arange(used.sum()), ClassSet(tuple(map(str, classes)))
        )
        synthetic = oversampling.resample(canonical_rows, counts, self._seed())
        self.notes_ = synthetic.notes
        added = synthetic.features.astype(X.dtype)
        rows = vstack([X, csr_array(added)], format=X.format) if issparse(X) else np.concatenate([X, added])
        return rows, np.concatenate([y, classes[synthetic.labels]])
