"""Joint solutions: one (hits, predictions) a class, with predictions that add up to the test size.

Their number is astronomical; `sums` finds the best of them without going through them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hirise_imb.forensics.margins import ClassMargins
from hirise_imb.forensics.null import Null
from hirise_imb.forensics.sums import Choices, Floats, Ints, best, reachable

Value = Callable[[int, Ints, Ints], Floats]
"""Class, hits and predictions, shape (n,), to what each pair adds to a score; in hits it must be linear."""


@dataclass(frozen=True)
class Solution:
    """Hits and predictions of each class, shape (k,)."""

    hits: Ints
    predicted: Ints


@dataclass(frozen=True)
class Joint:
    """All joint solutions."""

    margins: tuple[ClassMargins, ...]
    """Of each class, what takes part in some joint solution."""
    total: int
    """Images of the test set, which is the sum of all predictions."""

    @classmethod
    def of(cls, margins: Sequence[ClassMargins], total: int) -> Joint | None:
        """The joint solutions of what each class allows by itself; None where there is none."""
        # A number of predictions takes part in a joint solution if the other classes can make up the rest of the total.
        others = reachable([entry.predicted for entry in margins], total)
        kept = [entry.keep(flags[total - entry.predicted]) for entry, flags in zip(margins, others, strict=True)]
        return cls(tuple(kept), total) if all(len(entry.predicted) for entry in kept) else None

    def highest(self, value: Value) -> tuple[float, Solution]:
        """The largest sum of `value` over the classes, and a solution that has it."""
        choices, hits = [], []
        for k, entry in enumerate(self.margins):
            # A value that is linear in the hits is largest at one of the ends of their range, so that each number of
            # predictions has one value and the search is over predictions alone.
            low, high = value(k, entry.fewest, entry.predicted), value(k, entry.most, entry.predicted)
            first, last = entry.predictions
            values = np.full(last - first + 1, -np.inf)
            values[entry.predicted - first] = np.maximum(low, high)
            choices.append(Choices(first, values))
            hits.append(np.where(high >= low, entry.most, entry.fewest))
        reached, numbers = best(choices, self.total)
        predicted = np.array(numbers)
        places = [np.searchsorted(entry.predicted, m) for entry, m in zip(self.margins, numbers, strict=True)]
        return reached, Solution(np.array([t[place] for t, place in zip(hits, places, strict=True)]), predicted)

    def span(self, value: Value) -> tuple[float, float]:
        """The smallest and the largest sum of `value`."""
        return -self.highest(lambda k, t, m: -value(k, t, m))[0], self.highest(value)[0]

    def highest_kappa(self, sign: int) -> Solution:
        """The solution with the largest kappa (`sign` 1) or the smallest (-1).

        Kappa is a ratio of sums, (N T - A) / (N^2 - A) with T the hits and A the sum of support x predictions. It is
        above c where the sum of N t - (1 - c) n m is above c N^2, so each round asks for the solution where that sum is
        best and takes its kappa for the next c, until it no longer grows (Dinkelbach 1967).
        """
        found = self.highest(lambda _, t, __: sign * t.astype(float))[1]
        while True:
            reached = self.kappa(found)
            solution = self.highest(self._above(reached, sign))[1]
            if sign * (self.kappa(solution) - reached) <= 1e-12:
                return found
            found = solution

    def within(self, solution: Solution, low: int, high: int) -> Solution:
        """Returns the predictions with hits changed as little as brings their sum between `low` and `high`.

        Where the ranges of the classes do not allow that, the sum comes as near as they do.
        """
        hits = solution.hits.copy()
        for k, entry in enumerate(self.margins):
            place = int(np.searchsorted(entry.predicted, solution.predicted[k]))
            wanted = hits[k] + min(high, max(low, hits.sum())) - hits.sum()
            hits[k] = min(entry.most[place], max(entry.fewest[place], wanted))
        return Solution(hits, solution.predicted)

    def null(self, solution: Solution) -> Null:
        """Random pairings with the margins of a solution."""
        return Null(np.array([entry.support for entry in self.margins]), solution.predicted)

    def kappa(self, solution: Solution) -> float:
        """Cohen's kappa of a solution."""
        return self.null(solution).kappa(float(solution.hits.sum()))

    def _above(self, kappa: float, sign: int) -> Value:
        def value(k: int, hits: Ints, predicted: Ints) -> Floats:
            score: Floats = self.total * hits.astype(float) - (1 - kappa) * self.margins[k].support * predicted
            return sign * score

        return value
