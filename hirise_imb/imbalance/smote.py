"""New rows of features for rare classes, between rows that are there: SMOTE and two relatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data.hirise import CLASSES
from hirise_imb.imbalance.sampling import Indices, oversampled_counts
from hirise_imb.utils.errors import NotApplicable

Rows = NDArray[np.float32]
Method = Literal["smote", "borderline_smote", "adasyn"]

_VICINITY = 10
"""Nearest landmarks of any class by which Borderline-SMOTE judges a landmark; imbalanced-learn's default."""


@dataclass(frozen=True)
class SyntheticOversampling:
    """imbalanced-learn's interpolation between a landmark's features and those of a near one of its class.

    `smote` (Chawla et al. 2002) starts from each landmark of a class alike. `borderline_smote` (Han et al. 2005, the
    first of its two) starts from those "in danger" only: at least half of their nearest 10 landmarks, but not all, are
    of other classes. `adasyn` (He et al. 2008) starts from a landmark in proportion to the share of other classes among
    its nearest `neighbours`. It rounds the number of rows for each landmark, so a class can miss its target by half a
    row for each of its landmarks, either way; the other two meet it.
    """

    method: Method
    ratio: float
    """Each class is lifted to round(`ratio` x the largest class); in (0, 1]."""
    neighbours: int
    """Nearest landmarks of the class of which one is the other end; positive."""

    def __post_init__(self) -> None:
        """Refuse an unknown method, a ratio outside (0, 1], and neighbours that are not a positive whole number."""
        if self.method not in get_args(Method):
            raise ValueError(f"method must be one of {', '.join(get_args(Method))}, got {self.method!r}")
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio must be in (0, 1], got {self.ratio}")
        if not isinstance(self.neighbours, int) or self.neighbours < 1:
            raise ValueError(f"neighbours must be a positive whole number, got {self.neighbours}")

    def resample(self, features: Rows, labels: Indices, seed: int) -> tuple[Rows, Indices]:
        """The given rows, unchanged and in order, then the synthetic ones, class by class.

        A class that is large enough already, or not there, gets none.

        Args:
            features: pooled features of the training split, one row a landmark: among variants of a landmark the
                nearest neighbours would be its own. Shape (n_landmarks, width), finite.
            labels: class ids, shape (n_landmarks,).
            seed: of the draws, below 2^32.

        Returns:
            Features, shape (n_rows, width), and class ids, shape (n_rows,).

        Raises:
            NotApplicable: if a class cannot be lifted. Nothing is made then, of no class.
            ValueError: if there are not as many labels as rows, or a feature is not finite.
        """
        if len(features) != len(labels):
            raise ValueError(f"features and labels must be as long as each other, got {len(features)}, {len(labels)}")
        if not np.isfinite(features).all():
            raise ValueError("features must be finite")
        counts = np.bincount(labels, minlength=len(CLASSES))
        targets = oversampled_counts(counts, self.ratio)
        wanting = np.flatnonzero(targets > counts).tolist()
        for k in wanting:
            self._check_neighbours(CLASSES[k], int(counts[k]))
        state = np.random.RandomState(seed)  # one for all classes, so that each has its own draws
        made = [self._made(features, labels == k, CLASSES[k], int(targets[k]), state) for k in wanting]
        classes = [np.full(len(rows), k, labels.dtype) for k, rows in zip(wanting, made, strict=True)]
        return np.concatenate([features, *made]), np.concatenate([labels, *classes])

    def _check_neighbours(self, name: str, count: int) -> None:
        if count <= self.neighbours:
            raise NotApplicable(
                f"{self.method} needs at least {self.neighbours + 1} landmarks of {name} to interpolate between "
                f"{self.neighbours} neighbour{'s' * (self.neighbours > 1)}; there {'is' if count == 1 else 'are'} "
                f"{count}."
            )

    def _made(
        self, features: Rows, mine: NDArray[np.bool_], name: str, target: int, state: np.random.RandomState
    ) -> Rows:
        """Synthetic rows of one class.

        Each class is held against all others together, as imbalanced-learn itself does. Asked for all classes at once
        it would neither say which one failed nor that it passed over one.
        """
        try:
            rows, _ = self._sampler(target, state).fit_resample(features, mine.astype(np.int64))
        except (ValueError, RuntimeError) as error:
            raise NotApplicable(f"{self.method} cannot make landmarks of {name}: {error}") from error
        if len(rows) == len(features):  # it says nothing where no landmark is in danger
            raise NotApplicable(
                f"{self.method} finds no landmark of {name} to start from: there is none of whose nearest {_VICINITY} "
                "landmarks at least half, but not all, are of other classes."
            )
        return np.asarray(rows[len(features) :], dtype=np.float32)

    def _sampler(self, target: int, state: np.random.RandomState) -> Any:  # noqa: ANN401
        """imbalanced-learn's, for class 1 of two."""
        from imblearn.over_sampling import ADASYN, SMOTE, BorderlineSMOTE

        common = {"sampling_strategy": {1: target}, "random_state": state}
        match self.method:
            case "smote":
                return SMOTE(k_neighbors=self.neighbours, **common)
            case "borderline_smote":
                return BorderlineSMOTE(k_neighbors=self.neighbours, m_neighbors=_VICINITY, **common)
            case "adasyn":
                return ADASYN(n_neighbors=self.neighbours, **common)
