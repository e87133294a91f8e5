"""The permutation null of a table: the hits of predictions that are paired with shuffled labels.

Both margins of the confusion matrix, how often each class occurs and how often it is predicted, are fixed; which
prediction is paired with which label is random. Under this null the hits of one class are hypergeometric, and the
moments of any sum of them are known exactly (Cohen 1960 for kappa; Mielke and Berry 2007 for the permutations).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DRAWS = 9_999
"""Default number of random pairings for a Monte Carlo p value."""

_ENTRIES = 4_000_000
"""Entries of the random pairings that are in memory at once."""

SMALLEST_P = 1 / (1 + DRAWS)
"""Smallest p value that `DRAWS` random pairings can give."""


@dataclass(frozen=True)
class Statistic:
    """The hits of some classes in a table, and their distribution over all pairings of its predictions and labels."""

    observed: float
    mean: float
    deviation: float
    """Exact standard deviation over all pairings."""
    p_above: float
    """Monte Carlo probability of as many hits or more, (1 + count) / (1 + draws)."""
    p_below: float
    """Monte Carlo probability of as many hits or fewer, (1 + count) / (1 + draws)."""


@dataclass(frozen=True)
class PermutationNull:
    """All pairings of predictions and labels with given margins.

    Raises:
        ValueError: the margins do not belong to a confusion matrix of two images or more.
    """

    support: Ints
    """Number of labels of each class, shape (n_classes,)."""
    predicted: Ints
    """Number of predictions of each class, shape (n_classes,), with the same sum."""

    def __post_init__(self) -> None:
        """Checks that the margins belong to a confusion matrix."""
        if self.support.shape != self.predicted.shape or self.support.sum() != self.predicted.sum():
            raise ValueError("labels and predictions must have the same classes and the same number")
        if (self.support < 0).any() or (self.predicted < 0).any() or self.total < 2:
            raise ValueError("margins are counts, of two images or more")

    @property
    def total(self) -> int:
        """Number of images."""
        return int(self.support.sum())

    @property
    def largest_class(self) -> int:
        """Id of the class with most labels; all other classes are the rare ones."""
        return int(np.argmax(self.support))

    @property
    def rare(self) -> list[int]:
        """Ids of all classes but the one with most labels."""
        return [k for k in range(len(self.support)) if k != self.largest_class]

    def mean(self, classes: Sequence[int] | slice = slice(None)) -> float:
        """Returns the expected number of hits of some classes together, by default of all."""
        return float(self._products(classes).sum() / self.total)

    def variance(self, classes: Sequence[int] | slice = slice(None)) -> float:
        """Returns the variance of the number of hits of some classes together, by default of all.

        It is (N^2 A - N sum n m (n + m) + A^2) / (N^2 (N - 1)), where N is the number of images, n and m are the labels
        and predictions of each class, and A is the sum of n m over the classes.
        """
        n = self.total
        products = self._products(classes)
        total = products.sum()
        sides = (self.support[classes] + self.predicted[classes]).astype(float)
        # Rounding can take a variance of 0 below 0.
        return float(max(0.0, (n * n * total - n * (products * sides).sum() + total**2) / (n * n * (n - 1.0))))

    def kappa(self, hits: float) -> float:
        """Returns Cohen's kappa of a table with this number of hits; 0 if chance alone is always right."""
        chance = self.mean()
        return (hits - chance) / (self.total - chance) if chance < self.total else 0.0

    def kappa_deviation(self) -> float:
        """Returns the standard deviation of kappa over all pairings; its mean is 0."""
        chance = self.mean()
        return float(np.sqrt(self.variance()) / (self.total - chance)) if chance < self.total else 0.0

    def draw(self, draws: int = DRAWS, seed: int = 0) -> Ints:
        """Draws random pairings; returns the hits of each class, shape (draws, n_classes)."""
        from scipy.stats import random_table

        # Whole tables take gigabytes if there are many classes, so they are drawn in parts that take up to some 32 MB.
        part = max(1, _ENTRIES // len(self.support) ** 2)
        tables, state = random_table(self.support, self.predicted), np.random.RandomState(seed)
        parts = [
            np.diagonal(tables.rvs(min(part, draws - done), random_state=state), axis1=1, axis2=2).astype(np.int64)
            for done in range(0, draws, part)
        ]
        return np.concatenate(parts)

    def hit_distribution(self, label: int) -> tuple[Ints, Floats]:
        """Returns the possible numbers of hits of a class and their hypergeometric probabilities, shape (n,) each."""
        from scipy.stats import hypergeom

        support, predicted = int(self.support[label]), int(self.predicted[label])
        hits = np.arange(max(0, support + predicted - self.total), min(support, predicted) + 1)
        return hits, hypergeom(self.total, support, predicted).pmf(hits)

    def compare(
        self, hits: ArrayLike, classes: Sequence[int] | slice = slice(None), draws: int = DRAWS, seed: int = 0
    ) -> Statistic:
        """Compares the hits of some classes together with random pairings.

        Args:
            hits: hits of each class, shape (n_classes,).
            classes: classes whose hits are added; all by default.
            draws: number of random pairings.
            seed: seed of the random pairings.
        """
        observed = int(np.asarray(hits)[classes].sum())
        random_hits = self.draw(draws, seed)[:, classes].sum(axis=1)
        return Statistic(
            observed=observed,
            mean=self.mean(classes),
            deviation=float(np.sqrt(self.variance(classes))),
            p_above=float((1 + np.count_nonzero(random_hits >= observed)) / (1 + draws)),
            p_below=float((1 + np.count_nonzero(random_hits <= observed)) / (1 + draws)),
        )

    def _products(self, classes: Sequence[int] | slice) -> Floats:
        return self.support[classes].astype(float) * self.predicted[classes]
