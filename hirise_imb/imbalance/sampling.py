"""Samplings: which training images an epoch uses, and how often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data.splits import TrainingPool
from hirise_imb.utils.errors import NotApplicable

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def oversampled_counts(counts: Ints, ratio: float) -> Ints:
    """Class counts after over-sampling each present class to at least round(`ratio` x the largest count).

    Args:
        counts: number of rows of each class, shape (n_classes,).
        ratio: target as a share of the largest count, in (0, 1].
    """
    return np.where(counts > 0, np.maximum(counts, round(ratio * int(counts.max()))), 0)


class Sampling(Protocol):
    """Chooses the rows of an epoch among the training images."""

    def rows(self, pool: TrainingPool, seed: int, epoch: int, progress: float) -> Ints:
        """Returns the positions of an epoch's images in the pool, repeated if an image is drawn more than once.

        Args:
            pool: images to draw from.
            seed: random seed.
            epoch: counted from 1; a sampling may draw anew in each epoch.
            progress: 0 in the first epoch, 1 in the last one allowed.
        """
        ...

    def shares(self, pool: TrainingPool) -> Floats:
        """Returns the expected share of each class among the rows of the last epoch, shape (n_classes,), summing to 1.

        This is the class prior that a classifier learns and that logit adjustment corrects for (Menon et al. 2021).
        """
        ...


@dataclass(frozen=True)
class EveryImage:
    """Uses each training image once per epoch."""

    def rows(self, pool: TrainingPool, seed: int, epoch: int, progress: float) -> Ints:  # noqa: ARG002
        """Returns all positions, in order."""
        return np.arange(len(pool.labels))

    def shares(self, pool: TrainingPool) -> Floats:
        """Returns the class frequencies of the pool."""
        return _normalised(pool.counts())


@dataclass(frozen=True)
class SplitFileRows:
    """Uses each training image as often as the split file lists it: the data set's own up-sampling."""

    def rows(self, pool: TrainingPool, seed: int, epoch: int, progress: float) -> Ints:  # noqa: ARG002
        """Returns each position, repeated by its number of copies."""
        return np.repeat(np.arange(len(pool.labels)), pool.copies)

    def shares(self, pool: TrainingPool) -> Floats:
        """Returns the class frequencies of the split file's lines."""
        return _normalised(np.bincount(pool.labels, weights=pool.copies, minlength=len(pool.classes)))


@dataclass(frozen=True)
class RandomOversampling:
    """Repeats random images of each class until it has `ratio` x the largest class (imbalanced-learn).

    A class that has that many images already is left as it is. The draw is the same in all epochs.
    """

    ratio: float
    """Target as a share of the largest class, in (0, 1]; 1 balances all classes."""

    def __post_init__(self) -> None:
        """Checks the range of the ratio."""
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio must be in (0, 1], got {self.ratio}")

    def rows(self, pool: TrainingPool, seed: int, epoch: int, progress: float) -> Ints:  # noqa: ARG002
        """Returns all positions, then the repeated ones."""
        from imblearn.over_sampling import RandomOverSampler

        positions, counts = np.arange(len(pool.labels)), pool.counts()
        wanted = oversampled_counts(counts, self.ratio)
        targets = {k: int(wanted[k]) for k in np.flatnonzero(wanted > counts).tolist()}
        if not targets:  # as with a single class, which imbalanced-learn refuses
            return positions
        sampler = RandomOverSampler(sampling_strategy=targets, random_state=seed)
        sampler.fit_resample(positions[:, None], pool.labels)
        return np.asarray(sampler.sample_indices_)

    def shares(self, pool: TrainingPool) -> Floats:
        """Returns the class frequencies after over-sampling."""
        return _normalised(oversampled_counts(pool.counts(), self.ratio))


@dataclass(frozen=True)
class ClassSampling:
    """Draws as many images as the pool has, with replacement and anew each epoch, class k with weight n_k^`power`.

    n_k is the number of images of class k in the pool; a class without images is never drawn. Power 1 gives the
    pool's class frequencies, 0.5 square-root sampling (Mahajan et al. 2018), 0 class-balanced sampling (Kang et al.
    2020, "Decoupling representation and classifier for long-tailed recognition").
    """

    power: float
    """Exponent of the class counts, in [0, 1]."""
    by_source: bool = False
    """Whether a source is drawn first within a class, uniformly, and then one of its images; else images uniformly."""
    progressive: bool = False
    """Whether weights move linearly from the pool's frequencies to n_k^`power` over training (Kang et al. 2020)."""

    def __post_init__(self) -> None:
        """Checks the range of the power."""
        if not 0 <= self.power <= 1:
            raise ValueError(f"power must be in [0, 1], got {self.power}")

    def rows(self, pool: TrainingPool, seed: int, epoch: int, progress: float) -> Ints:
        """Returns independent draws."""
        shares = self.shares(pool)
        if self.progressive:
            shares = (1 - progress) * _normalised(pool.counts()) + progress * shares
        probabilities = shares[pool.labels] / self._choices(pool)
        rng = np.random.default_rng(np.random.SeedSequence((seed, epoch)))
        return rng.choice(len(probabilities), len(probabilities), p=_normalised(probabilities))

    def shares(self, pool: TrainingPool) -> Floats:
        """Returns the class weights n_k^power, normalised."""
        counts = pool.counts()
        return _normalised(np.where(counts > 0, counts**self.power, 0))

    def _choices(self, pool: TrainingPool) -> Ints:
        """Returns among how many equal choices each image is drawn within its class, shape (n_images,)."""
        if not self.by_source:
            return pool.counts()[pool.labels]
        # Sources are counted within a class, since one source may contain landmarks of several classes.
        n_classes = len(pool.classes)
        pairs, pair, images = np.unique(pool.sources * n_classes + pool.labels, return_inverse=True, return_counts=True)
        sources = np.bincount(pairs % n_classes)
        return np.asarray(sources[pool.labels] * images[pair])


@dataclass(frozen=True)
class Undersampling:
    """Uses all images of the rare classes, and at most round(`ratio` x the largest rare class) of the majority class.

    Images of the majority class are drawn without replacement, once for all epochs: one of the subsets of EasyEnsemble
    (Liu et al. 2009, "Exploratory undersampling for class-imbalance learning").
    """

    ratio: float
    """Limit of the majority class as a multiple of the largest rare class; positive."""

    def __post_init__(self) -> None:
        """Checks the range of the ratio."""
        if not 0 < self.ratio < np.inf:
            raise ValueError(f"ratio must be positive and finite, got {self.ratio}")

    def rows(self, pool: TrainingPool, seed: int, epoch: int, progress: float) -> Ints:  # noqa: ARG002
        """Returns the positions of the images used, in order.

        Raises:
            NotApplicable: the data set has no majority class, or no image of it would be left.
        """
        # A spawned seed, since other parts of a run draw from the plain seed: the same stream would correlate the
        # draws.
        rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
        majority = self._majority(pool)
        is_majority = pool.labels == majority
        majority_rows = rng.choice(np.flatnonzero(is_majority), self._counts(pool)[majority], replace=False)
        return np.sort(np.concatenate([majority_rows, np.flatnonzero(~is_majority)]))

    def shares(self, pool: TrainingPool) -> Floats:
        """Returns the class frequencies after under-sampling.

        Raises:
            NotApplicable: the data set has no majority class, or no image of it would be left.
        """
        return _normalised(self._counts(pool))

    def _majority(self, pool: TrainingPool) -> int:
        if (majority := pool.classes.majority_id) is None:
            raise NotApplicable("Under-sampling needs a majority class, and this data set names none.")
        return majority

    def _counts(self, pool: TrainingPool) -> Ints:
        """Returns the number of images of each class that are used, shape (n_classes,)."""
        majority = self._majority(pool)
        counts = pool.counts()
        largest = int(np.delete(counts, majority).max())
        limit = round(self.ratio * largest)
        if counts[majority] and not limit:
            raise NotApplicable(
                f"Under-sampling to {self.ratio:g} x the largest rare class, which has {largest} training images, "
                f"leaves no image of {pool.classes[majority]}."
            )
        counts[majority] = min(int(counts[majority]), limit)
        return counts


def _normalised(values: Floats | Ints) -> Floats:
    """Scales non-negative values to sum to 1."""
    return np.asarray(values / values.sum())
