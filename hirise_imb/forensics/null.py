"""What a shuffled pairing of predictions and labels gives: the permutation null of a table's hits.

Both margins of the confusion matrix, how often each class occurs and how often it is predicted, stay as they are;
which prediction meets which label is drawn at random. Under this null the hits of one class are hypergeometric, and
the moments of any sum of them are known exactly (Cohen 1960 for kappa; Mielke and Berry 2007 for the permutations).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DRAWS = 9_999
"""Random pairings a Monte-Carlo p is taken from."""

SMALLEST_P = 1 / (1 + DRAWS)
"""No p from so many pairings is smaller."""


@dataclass(frozen=True)
class Statistic:
    """A statistic of a table, and its distribution over all pairings of the same predictions and labels."""

    observed: float
    mean: float
    deviation: float
    """Standard deviation over pairings, exact."""
    p_above: float
    """Monte-Carlo probability of as much or more, (1 + #) / (1 + draws)."""
    p_below: float
    """Monte-Carlo probability of as much or less."""


@dataclass(frozen=True)
class Null:
    """All pairings of predictions and labels that have these margins."""

    support: Ints
    """Labels of each class, shape (k,)."""
    predicted: Ints
    """Predictions of each class, shape (k,), with the same sum."""

    def __post_init__(self) -> None:
        """Refuse margins that belong to no confusion matrix."""
        if self.support.shape != self.predicted.shape or self.support.sum() != self.predicted.sum():
            raise ValueError("labels and predictions must have the same classes and the same number")
        if (self.support < 0).any() or (self.predicted < 0).any() or self.total < 2:
            raise ValueError("margins are counts, of two images or more")

    @property
    def total(self) -> int:
        """Images."""
        return int(self.support.sum())

    @property
    def head(self) -> int:
        """The class with most labels; all others are the rare ones."""
        return int(np.argmax(self.support))

    @property
    def rare(self) -> list[int]:
        """All classes but the one with most labels."""
        return [k for k in range(len(self.support)) if k != self.head]

    def mean(self, classes: Sequence[int] | slice = slice(None)) -> float:
        """Expected hits of these classes together."""
        return float(self._products(classes).sum() / self.total)

    def variance(self, classes: Sequence[int] | slice = slice(None)) -> float:
        """Variance of the hits of these classes together.

        With A the sum of n m over the classes, it is (N^2 A - N sum n m (n + m) + A^2) / (N^2 (N - 1)).
        """
        n = self.total
        products = self._products(classes)
        whole = products.sum()
        sides = (self.support[classes] + self.predicted[classes]).astype(float)
        return float(max(0.0, (n * n * whole - n * (products * sides).sum() + whole**2) / (n * n * (n - 1.0))))

    def kappa(self, hits: float) -> float:
        """Cohen's kappa of a table with so many hits; 0 where chance alone is always right."""
        chance = self.mean()
        return (hits - chance) / (self.total - chance) if chance < self.total else 0.0

    def kappa_deviation(self) -> float:
        """Standard deviation of kappa over pairings; its mean is 0."""
        chance = self.mean()
        return float(np.sqrt(self.variance()) / (self.total - chance)) if chance < self.total else 0.0

    def draw(self, draws: int = DRAWS, seed: int = 0) -> Ints:
        """Hits of each class in random pairings, shape (draws, k)."""
        from scipy.stats import random_table

        tables = random_table(self.support, self.predicted).rvs(draws, random_state=seed)
        return np.asarray(np.diagonal(tables, axis1=1, axis2=2), np.int64)

    def law(self, label: int) -> tuple[Ints, Floats]:
        """The hits that one class can have and their probabilities, which are hypergeometric; shape (n,) each."""
        from scipy.stats import hypergeom

        support, predicted = int(self.support[label]), int(self.predicted[label])
        hits = np.arange(max(0, support + predicted - self.total), min(support, predicted) + 1)
        return hits, hypergeom(self.total, support, predicted).pmf(hits)

    def compare(
        self, hits: ArrayLike, classes: Sequence[int] | slice = slice(None), draws: int = DRAWS, seed: int = 0
    ) -> Statistic:
        """The hits of some classes together, against random pairings.

        Args:
            hits: of each class, shape (k,).
            classes: whose hits are added; all by default.
            draws: random pairings.
            seed: of the random pairings.
        """
        observed = int(np.asarray(hits)[classes].sum())
        drawn = self.draw(draws, seed)[:, classes].sum(axis=1)
        return Statistic(
            observed=observed,
            mean=self.mean(classes),
            deviation=float(np.sqrt(self.variance(classes))),
            p_above=float((1 + np.count_nonzero(drawn >= observed)) / (1 + draws)),
            p_below=float((1 + np.count_nonzero(drawn <= observed)) / (1 + draws)),
        )

    def _products(self, classes: Sequence[int] | slice) -> Floats:
        return self.support[classes].astype(float) * self.predicted[classes]
