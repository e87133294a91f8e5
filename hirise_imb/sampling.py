"""Which training images an epoch goes through: the samplings a recipe can name."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class Sampling(Protocol):
    """Chooses the rows of an epoch among the training images."""

    def rows(self, labels: Indices, copies: Indices, seed: int) -> Indices:
        """Positions of training images, repeated where one is drawn more than once.

        Args:
            labels: class id of each training image, shape (n_images,).
            copies: lines that the split file gives each image, shape (n_images,).
            seed: of random draws.
        """
        ...


@dataclass(frozen=True)
class EveryImage:
    """Each training image once an epoch."""

    def rows(self, labels: Indices, copies: Indices, seed: int) -> Indices:  # noqa: ARG002
        """All positions, in order."""
        return np.arange(len(labels))


@dataclass(frozen=True)
class SplitFileRows:
    """Each training image as often as the official split file lists it: the data set's own up-sampling."""

    def rows(self, labels: Indices, copies: Indices, seed: int) -> Indices:  # noqa: ARG002
        """Each position repeated by its copies."""
        return np.repeat(np.arange(len(labels)), copies)


@dataclass(frozen=True)
class RandomOversampling:
    """imbalanced-learn's random over-sampling: images of a class are drawn again until it has `ratio` x the largest.

    A class that has that many images already is left as it is. `ratio` lies in (0, 1]; 1 balances all classes.
    """

    ratio: float

    def __post_init__(self) -> None:
        """Refuse a ratio outside (0, 1]."""
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio must be in (0, 1], got {self.ratio}")

    def rows(self, labels: Indices, copies: Indices, seed: int) -> Indices:  # noqa: ARG002
        """All positions, then the repeated ones."""
        from imblearn.over_sampling import RandomOverSampler

        counts = np.bincount(labels)
        if np.count_nonzero(counts) < 2:  # nothing to balance; imbalanced-learn refuses it
            return np.arange(len(labels))
        target = round(self.ratio * counts.max())
        wanted = {k: max(int(n), target) for k, n in enumerate(counts) if n > 0}
        sampler = RandomOverSampler(sampling_strategy=wanted, random_state=seed)
        positions = np.arange(len(labels))
        with warnings.catch_warnings():
            # It warns for each class that passes the largest one, which is no fault at ratio 1 and ties.
            warnings.simplefilter("ignore", UserWarning)
            sampler.fit_resample(positions[:, None], labels)
        return np.asarray(sampler.sample_indices_, dtype=np.int64)
