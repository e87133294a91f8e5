"""Synthetic features of rare classes, interpolated between those of landmarks: SMOTE and two relatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hirise_imb.features.landmarks import LandmarkFeatures
from hirise_imb.imbalance.sampling import oversampled_counts
from hirise_imb.utils.errors import NotApplicable

Method = Literal["smote", "borderline_smote", "adasyn"]

NO_SOURCE = -1
"""Source number of a synthetic row, which comes from no observation."""

_DANGER_NEIGHBOURS = 10
"""Nearest landmarks of any class by which Borderline-SMOTE judges a landmark; imbalanced-learn's default."""


@dataclass(frozen=True)
class SyntheticOversampling:
    """Adds rows interpolated between a landmark and a near one of its class (imbalanced-learn).

    `smote` (Chawla et al. 2002) starts from all landmarks of a class equally often. `borderline_smote` (Han et al.
    2005, their first variant) starts only from those "in danger": at least half of the nearest 10 landmarks, but not
    all, are of other classes. `adasyn` (He et al. 2008) starts from a landmark in proportion to the share of other
    classes among its nearest `neighbours`; it rounds the number of rows for each landmark, so that a class can miss its
    target by half a row per landmark either way, while the other two meet it.
    """

    method: Method
    ratio: float
    """Each class is over-sampled to round(`ratio` x the largest class); in (0, 1]."""
    neighbours: int
    """Number of nearest landmarks of the class among which the other end is drawn; positive."""

    def __post_init__(self) -> None:
        """Checks the method and the ranges."""
        if self.method not in get_args(Method):
            raise ValueError(f"method must be one of {', '.join(get_args(Method))}, got {self.method!r}")
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio must be in (0, 1], got {self.ratio}")
        if not isinstance(self.neighbours, int) or self.neighbours < 1:
            raise ValueError(f"neighbours must be a positive integer, got {self.neighbours}")

    def resample(self, landmarks: LandmarkFeatures, seed: int) -> LandmarkFeatures:
        """Returns the given rows, unchanged and in order, followed by the synthetic ones, class by class.

        A class that is large enough already, or absent, gets none. Synthetic rows have the source `NO_SOURCE`.

        Args:
            landmarks: landmarks of the training data.
            seed: random seed, below 2^32.

        Raises:
            NotApplicable: a class can't be over-sampled; then no class is.
        """
        features, labels, classes = landmarks.features, landmarks.labels, landmarks.classes
        counts = landmarks.counts()
        targets = oversampled_counts(counts, self.ratio)
        to_oversample = np.flatnonzero(targets > counts).tolist()
        for k in to_oversample:
            self._check_neighbours(classes[k], int(counts[k]))
        # One generator for all classes, so that they do not share their draws.
        state = np.random.RandomState(seed)
        parts = [self._synthesise(features, labels == k, classes[k], int(targets[k]), state) for k in to_oversample]
        new_labels = [np.full(len(rows), k, labels.dtype) for k, rows in zip(to_oversample, parts, strict=True)]
        n_new = sum(map(len, parts))
        return LandmarkFeatures(
            features=np.concatenate([features, *parts]),
            labels=np.concatenate([labels, *new_labels]),
            sources=np.concatenate([landmarks.sources, np.full(n_new, NO_SOURCE)]),
            classes=classes,
        )

    def _check_neighbours(self, name: str, count: int) -> None:
        if count <= self.neighbours:
            raise NotApplicable(
                f"{self.method} needs at least {self.neighbours + 1} landmarks of {name} to interpolate between "
                f"{self.neighbours} neighbour{'s' * (self.neighbours > 1)}; there {'is' if count == 1 else 'are'} "
                f"{count}."
            )

    def _synthesise(
        self,
        features: NDArray[np.floating],
        of_class: NDArray[np.bool_],
        name: str,
        target: int,
        state: np.random.RandomState,
    ) -> NDArray[np.float32]:
        """Returns the synthetic rows of one class.

        Each class is resampled against all others together, as imbalanced-learn does internally. For all classes
        at once, it would report neither which class failed nor that it skipped one.
        """
        try:
            rows, _ = self._sampler(target, state).fit_resample(features, of_class.astype(np.int64))
        except (ValueError, RuntimeError) as error:
            raise NotApplicable(f"{self.method} cannot make landmarks of {name}: {error}") from error
        if len(rows) == len(features):  # imbalanced-learn is silent where no landmark is in danger
            raise NotApplicable(
                f"{self.method} finds no landmark of {name} to start from: none has other classes in at least "
                f"half, but not all, of its nearest {_DANGER_NEIGHBOURS} landmarks."
            )
        return np.asarray(rows[len(features) :], dtype=np.float32)

    def _sampler(self, target: int, state: np.random.RandomState) -> Any:  # noqa: ANN401
        """Returns imbalanced-learn's sampler, for class 1 of two."""
        from imblearn.over_sampling import ADASYN, SMOTE, BorderlineSMOTE

        common = {"sampling_strategy": {1: target}, "random_state": state}
        match self.method:
            case "smote":
                return SMOTE(k_neighbors=self.neighbours, **common)
            case "borderline_smote":
                return BorderlineSMOTE(k_neighbors=self.neighbours, m_neighbors=_DANGER_NEIGHBOURS, **common)
            case "adasyn":
                return ADASYN(n_neighbors=self.neighbours, **common)
