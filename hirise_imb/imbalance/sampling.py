"""Which training images an epoch goes through: the samplings a recipe can name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data.hirise import CLASSES
from hirise_imb.utils.errors import NotApplicable

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]

_OTHER = CLASSES.index("other")


@dataclass(frozen=True)
class Pool:
    """The training images a sampling chooses from, shape (n_images,) each."""

    labels: Indices
    """Class id."""
    copies: Indices
    """Lines that the split file gives the image."""
    sources: Indices
    """The observation it comes from, as a number."""

    def __post_init__(self) -> None:
        """Refuse a pool without images, and columns of different lengths."""
        lengths = len(self.labels), len(self.copies), len(self.sources)
        if len(set(lengths)) > 1 or not len(self.labels):
            raise ValueError(f"labels, copies and sources must be as long as each other and not empty, got {lengths}")

    def counts(self) -> Indices:
        """Images of each class, shape (n_classes,)."""
        return np.bincount(self.labels, minlength=len(CLASSES))


def oversampled_counts(counts: Indices, ratio: float) -> Indices:
    """Counts after over-sampling: each class that is there has at least round(`ratio` x the largest), none has fewer.

    Args:
        counts: of each class, shape (n_classes,).
        ratio: in (0, 1].
    """
    return np.where(counts > 0, np.maximum(counts, round(ratio * int(counts.max()))), 0)


class Sampling(Protocol):
    """Chooses the rows of an epoch among the training images."""

    def rows(self, pool: Pool, seed: int, epoch: int, progress: float) -> Indices:
        """Positions of an epoch's images in the pool, repeated where one is drawn more than once.

        Args:
            pool: the images to choose from.
            seed: of random draws.
            epoch: counted from 1; a sampling may draw anew in each.
            progress: 0 in the first epoch, 1 in the last one allowed.
        """
        ...

    def shares(self, pool: Pool) -> Floats:
        """Expected share of each class among the rows of the last epoch, shape (n_classes,), sum 1.

        This is the class prior a classifier learns, which logit adjustments correct for (Menon et al. 2021).
        """
        ...


@dataclass(frozen=True)
class EveryImage:
    """Each training image once an epoch."""

    def rows(self, pool: Pool, seed: int, epoch: int, progress: float) -> Indices:  # noqa: ARG002
        """All positions, in order."""
        return np.arange(len(pool.labels))

    def shares(self, pool: Pool) -> Floats:
        """Natural shares."""
        return _normalised(pool.counts())


@dataclass(frozen=True)
class SplitFileRows:
    """Each training image as often as the official split file lists it: the data set's own up-sampling."""

    def rows(self, pool: Pool, seed: int, epoch: int, progress: float) -> Indices:  # noqa: ARG002
        """Each position repeated by its copies."""
        return np.repeat(np.arange(len(pool.labels)), pool.copies)

    def shares(self, pool: Pool) -> Floats:
        """Shares of the split file's lines."""
        return _normalised(np.bincount(pool.labels, weights=pool.copies, minlength=len(CLASSES)))


@dataclass(frozen=True)
class RandomOversampling:
    """imbalanced-learn's random over-sampling: images of a class are drawn again until it has `ratio` x the largest.

    A class that has that many images already is left as it is. `ratio` lies in (0, 1]; 1 balances all classes. The
    draw is the same in all epochs.
    """

    ratio: float

    def __post_init__(self) -> None:
        """Refuse a ratio outside (0, 1]."""
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio must be in (0, 1], got {self.ratio}")

    def rows(self, pool: Pool, seed: int, epoch: int, progress: float) -> Indices:  # noqa: ARG002
        """All positions, then the repeated ones."""
        from imblearn.over_sampling import RandomOverSampler

        positions = np.arange(len(pool.labels))
        wanted = {k: n for k, n in enumerate(oversampled_counts(pool.counts(), self.ratio).tolist()) if n > 0}
        if len(wanted) < 2:  # nothing to balance; imbalanced-learn refuses it
            return positions
        sampler = RandomOverSampler(sampling_strategy=wanted, random_state=seed)
        sampler.fit_resample(positions[:, None], pool.labels)
        return np.asarray(sampler.sample_indices_, dtype=np.int64)

    def shares(self, pool: Pool) -> Floats:
        """Shares after the lift."""
        return _normalised(oversampled_counts(pool.counts(), self.ratio))


@dataclass(frozen=True)
class ClassSampling:
    """As many images as the pool has, drawn anew each epoch with replacement, a class k in proportion to n_k^`power`.

    n_k is its number of images in the pool; a class without any is never drawn. power 1 gives natural shares, 0.5
    square-root sampling (Mahajan et al. 2018), 0 all classes alike (Kang et al. 2020, "Decoupling representation and
    classifier for long-tailed recognition").
    """

    power: float
    """In [0, 1]."""
    by_source: bool = False
    """Within a class, draw a source first, all alike, then one of its images; otherwise any image, all alike."""
    progressive: bool = False
    """Move linearly from natural shares at progress 0 to those of `power` at progress 1 (Kang et al. 2020)."""

    def __post_init__(self) -> None:
        """Refuse a power outside [0, 1]."""
        if not 0 <= self.power <= 1:
            raise ValueError(f"power must be in [0, 1], got {self.power}")

    def rows(self, pool: Pool, seed: int, epoch: int, progress: float) -> Indices:
        """Independent draws."""
        shares = self.shares(pool)
        if self.progressive:
            shares = (1 - progress) * _normalised(pool.counts()) + progress * shares
        chances = shares[pool.labels] * self._within_class(pool)
        rng = np.random.default_rng(np.random.SeedSequence((seed, epoch)))
        return rng.choice(len(chances), len(chances), p=_normalised(chances))

    def shares(self, pool: Pool) -> Floats:
        """In proportion to n_k^power."""
        counts = pool.counts()
        return _normalised(np.where(counts > 0, counts.astype(float) ** self.power, 0))

    def _within_class(self, pool: Pool) -> Floats:
        """Chance of each image among those of its class, shape (n_images,)."""
        if not self.by_source:
            return np.asarray(1 / pool.counts()[pool.labels], dtype=np.float64)
        # A pair is a class and a source: one source may hold landmarks of several classes.
        keys = pool.sources * len(CLASSES) + pool.labels
        pairs, pair, images = np.unique(keys, return_inverse=True, return_counts=True)
        sources = np.bincount(pairs % len(CLASSES))
        return np.asarray(1 / (sources[pool.labels] * images[pair]), dtype=np.float64)


@dataclass(frozen=True)
class Undersampling:
    """All images of the rare classes, and at most round(`ratio` x the largest of them) images of `other`.

    Those of `other` are drawn without replacement, once for all epochs: one of the subsets of EasyEnsemble (Liu et al.
    2009, "Exploratory undersampling for class-imbalance learning"). Where there are no more of them, all are kept.
    """

    ratio: float
    """Positive."""

    def __post_init__(self) -> None:
        """Refuse a ratio that is not positive and finite."""
        if not 0 < self.ratio < np.inf:
            raise ValueError(f"ratio must be positive and finite, got {self.ratio}")

    def rows(self, pool: Pool, seed: int, epoch: int, progress: float) -> Indices:  # noqa: ARG002
        """The chosen positions, in order.

        Raises:
            NotApplicable: if no image of `other` would be left, as without any rare class.
        """
        # A spawned seed, because the plain one gives the bits that others may draw from the same seed.
        rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
        others = np.flatnonzero(pool.labels == _OTHER)
        kept = rng.choice(others, self._counts(pool)[_OTHER], replace=False)
        return np.sort(np.concatenate([kept, np.flatnonzero(pool.labels != _OTHER)]))

    def shares(self, pool: Pool) -> Floats:
        """Shares of what is kept.

        Raises:
            NotApplicable: as in `rows`.
        """
        return _normalised(self._counts(pool))

    def _counts(self, pool: Pool) -> Indices:
        """Images of each class that are kept."""
        counts = pool.counts()
        largest = int(np.delete(counts, _OTHER).max())
        most = round(self.ratio * largest)
        if counts[_OTHER] and not most:
            raise NotApplicable(
                f"under-sampling to {self.ratio:g} x the largest rare class, which has {largest} training images, "
                "leaves no image of other."
            )
        counts[_OTHER] = min(int(counts[_OTHER]), most)
        return counts


def _normalised(values: NDArray[np.float64] | Indices) -> Floats:
    """The same proportions with sum 1."""
    return np.asarray(values / values.sum(), dtype=np.float64)
