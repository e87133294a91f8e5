"""Synthetic features of rare classes, interpolated between those of landmarks: SMOTE and two relatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hirise_imb.features.training_features import TrainingFeatures
from hirise_imb.imbalance.sampling import oversampled_counts

Ints = NDArray[np.int64]
Method = Literal["smote", "borderline_smote", "adasyn"]

NO_SOURCE = -1
"""Source number of a synthetic row, which comes from no observation."""

_DANGER_NEIGHBOURS = 10
"""Nearest landmarks of any class by which Borderline-SMOTE judges a landmark; imbalanced-learn's default."""


@dataclass(frozen=True, eq=False)
class SyntheticRows:
    """Rows to add to the training images, class by class."""

    features: NDArray[np.float32]
    """Synthetic features, shape (n, width)."""
    labels: Ints
    """Class id of each row, shape (n,)."""
    notes: tuple[str, ...]
    """What was done otherwise than the method says, a phrase for each such class: where it had too few landmarks for
    the number of neighbours, or none to start from."""


@dataclass(frozen=True)
class SyntheticOversampling:
    """Makes rows between a landmark and a near one of its class (imbalanced-learn).

    `smote` (Chawla et al. 2002) starts from all landmarks of a class equally often. `borderline_smote` (Han et al.
    2005, their first variant) starts only from those "in danger": at least half of the nearest 10 landmarks, but not
    all, are of other classes. `adasyn` (He et al. 2008) starts from a landmark in proportion to the share of other
    classes among its nearest `neighbours`; it rounds the number of rows for each landmark, so that a class can miss its
    target by half a row per landmark either way, while the other two meet it.

    Small classes are over-sampled too: one with no more landmarks than `neighbours` is interpolated between all it has,
    and a single landmark is copied. Where `borderline_smote` or `adasyn` have no landmark of a class to start from, or
    no 10 others to judge it by, that class is over-sampled by `smote`. Both are noted.
    """

    method: Method
    ratio: float
    """Each class is over-sampled to round(`ratio` x the training images of the largest class); in (0, 1]."""
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

    def resample(self, canonical: TrainingFeatures, counts: Ints, seed: int) -> SyntheticRows:
        """Returns the synthetic rows alone; a class that is large enough already, or absent, gets none.

        Args:
            canonical: canonical training images, which the rows are interpolated between.
            counts: number of all training images of each class, shape (n_classes,): what the rows are added to.
            seed: random seed, below 2^32.

        Raises:
            ValueError: the counts don't have the classes of the canonical images.
        """
        landmarks = canonical.counts()
        if not np.array_equal(landmarks > 0, counts > 0):
            raise ValueError("counts must be positive for exactly the classes of the canonical images")
        missing = oversampled_counts(counts, self.ratio) - counts
        # One generator for all classes, so that they do not share their draws.
        state = np.random.RandomState(seed)
        parts, labels, notes = [], [], []
        for k in np.flatnonzero(missing).tolist():
            rows, class_notes = self._synthesise(canonical, k, int(missing[k]), state)
            parts.append(rows)
            labels.append(np.full(len(rows), k))
            notes += [f"{canonical.classes[k]}: {note}" for note in class_notes]
        if not parts:
            return SyntheticRows(np.zeros((0, canonical.features.shape[1]), np.float32), np.zeros(0, np.int64), ())
        return SyntheticRows(np.concatenate(parts), np.concatenate(labels), tuple(notes))

    def _synthesise(
        self, canonical: TrainingFeatures, k: int, n_rows: int, state: np.random.RandomState
    ) -> tuple[NDArray[np.float32], list[str]]:
        """Returns synthetic rows of class k, and the notes on it."""
        of_class = canonical.labels == k
        n_landmarks = int(of_class.sum())
        if n_landmarks == 1:
            only = canonical.features[of_class].astype(np.float32)
            return only.repeat(n_rows, axis=0), ["copies of its only landmark, which has no neighbour"]
        notes = []
        neighbours = min(self.neighbours, n_landmarks - 1)
        if neighbours < self.neighbours:
            plural = "s" if neighbours > 1 else ""
            notes.append(f"{neighbours} neighbour{plural} instead of {self.neighbours}, it has {n_landmarks} landmarks")
        rows = _interpolate(self.method, canonical.features, of_class, n_rows, neighbours, state)
        if not len(rows):
            rows = _interpolate("smote", canonical.features, of_class, n_rows, neighbours, state)
            notes.append(f"smote instead of {self.method}, which finds no landmark to start from")
        return rows, notes


def _interpolate(
    method: Method,
    features: NDArray[np.floating],
    of_class: NDArray[np.bool_],
    n_rows: int,
    neighbours: int,
    state: np.random.RandomState,
) -> NDArray[np.float32]:
    """Returns synthetic rows of one class; none where the method finds no landmark to start from.

    The class is resampled against all others together, as imbalanced-learn does internally. For all classes at once,
    it would not report which of them it could not over-sample.
    """
    from imblearn.over_sampling import ADASYN, SMOTE, BorderlineSMOTE

    strategy = {1: int(of_class.sum()) + n_rows}
    match method:
        case "smote":
            sampler = SMOTE(sampling_strategy=strategy, k_neighbors=neighbours, random_state=state)
        case "borderline_smote":
            if len(features) <= _DANGER_NEIGHBOURS:
                return np.zeros((0, features.shape[1]), np.float32)
            sampler = BorderlineSMOTE(
                sampling_strategy=strategy,
                k_neighbors=neighbours,
                m_neighbors=_DANGER_NEIGHBOURS,
                random_state=state,
            )
        case "adasyn":
            sampler = ADASYN(sampling_strategy=strategy, n_neighbors=neighbours, random_state=state)
    try:
        rows, _ = sampler.fit_resample(features, np.where(of_class, 1, 0))
    except (ValueError, RuntimeError) as error:
        # ADASYN's errors where no landmark has a neighbour of another class, or each one's share rounds to 0 rows.
        if not str(error).startswith(("Not any neigbours belong", "No samples will be generated")):
            raise
        return np.zeros((0, features.shape[1]), np.float32)
    return np.asarray(rows[len(features) :], dtype=np.float32)
