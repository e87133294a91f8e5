"""Joint solutions: a pair (hits, predictions) for each class, with predictions that add up to the test size.

There are far too many to enumerate; `sums` finds the best of them without doing so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hirise_imb.forensics.margins import ClassMargins
from hirise_imb.forensics.null import PermutationNull
from hirise_imb.forensics.sums import Choices, Floats, Ints, find_reachable, maximise_sum

Value = Callable[[int, Ints, Ints], Floats]
"""What each pair adds to a score, given the class, its hits and its predictions, shape (n,); linear in the hits."""


@dataclass(frozen=True)
class Solution:
    """Hits and predictions of each class, shape (n_classes,) each."""

    hits: Ints
    predicted: Ints


@dataclass(frozen=True)
class JointSolutions:
    """The set of all joint solutions."""

    margins: tuple[ClassMargins, ...]
    """Pairs of each class that are part of some joint solution."""
    total: int
    """Number of images in the test set, which equals the number of predictions."""

    @classmethod
    def of(cls, margins: Sequence[ClassMargins], total: int) -> JointSolutions | None:
        """Returns the joint solutions of what each class allows by itself; None if there is none."""
        # A number of predictions is part of a joint solution if the other classes can make up the rest of the total.
        others = find_reachable([entry.predicted for entry in margins], total)
        margins_left = [
            entry.keep(flags[total - entry.predicted]) for entry, flags in zip(margins, others, strict=True)
        ]
        return cls(tuple(margins_left), total) if all(len(entry.predicted) for entry in margins_left) else None

    def highest(self, value: Value) -> tuple[float, Solution]:
        """Returns the largest sum of `value` over the classes, and a solution that attains it."""
        choices, hits = [], []
        for k, entry in enumerate(self.margins):
            # A value that is linear in the hits is largest at an end of their range. So each number of predictions has
            # one best value, and the search is over predictions alone.
            low, high = value(k, entry.fewest, entry.predicted), value(k, entry.most, entry.predicted)
            first, last = entry.predictions
            values = np.full(last - first + 1, -np.inf)
            values[entry.predicted - first] = np.maximum(low, high)
            choices.append(Choices(first, values))
            hits.append(np.where(high >= low, entry.most, entry.fewest))
        largest, numbers = maximise_sum(choices, self.total)
        predicted = np.array(numbers)
        places = [np.searchsorted(entry.predicted, m) for entry, m in zip(self.margins, numbers, strict=True)]
        return largest, Solution(np.array([t[place] for t, place in zip(hits, places, strict=True)]), predicted)

    def span(self, value: Value) -> tuple[float, float]:
        """Returns the smallest and the largest sum of `value`."""
        return -self.highest(lambda k, t, m: -value(k, t, m))[0], self.highest(value)[0]

    def highest_kappa(self, sign: int) -> Solution:
        """Returns the solution with the largest kappa (`sign` 1) or the smallest (-1).

        Kappa is a ratio of sums, (N T - A) / (N^2 - A), where T is the number of hits and A the sum of support times
        predictions. It exceeds c if the sum of N t - (1 - c) n m exceeds c N^2. So each iteration finds the solution
        that maximises this sum and takes its kappa as the next c, until kappa stops growing (Dinkelbach 1967).
        """
        extreme = self.highest(lambda _, t, __: sign * t.astype(float))[1]
        while True:
            kappa = self.kappa(extreme)
            solution = self.highest(self._above(kappa, sign))[1]
            # Smaller gains are rounding errors.
            if sign * (self.kappa(solution) - kappa) <= 1e-12:
                return extreme
            extreme = solution

    def within(self, solution: Solution, low: int, high: int) -> Solution:
        """Returns a solution with its hits changed as little as possible so that their sum is between `low` and `high`.

        If the ranges of the classes do not allow that, the sum comes as close as they do.
        """
        hits = solution.hits.copy()
        for k, entry in enumerate(self.margins):
            place = int(np.searchsorted(entry.predicted, solution.predicted[k]))
            target = hits[k] + min(high, max(low, hits.sum())) - hits.sum()
            hits[k] = min(entry.most[place], max(entry.fewest[place], target))
        return Solution(hits, solution.predicted)

    def null(self, solution: Solution) -> PermutationNull:
        """Returns the random pairings with the margins of a solution."""
        return PermutationNull(np.array([entry.support for entry in self.margins]), solution.predicted)

    def kappa(self, solution: Solution) -> float:
        """Returns Cohen's kappa of a solution."""
        return self.null(solution).kappa(float(solution.hits.sum()))

    def _above(self, kappa: float, sign: int) -> Value:
        """Returns the value whose sum says how far a solution lies above (`sign` 1) or below (-1) a kappa."""

        def value(k: int, hits: Ints, predicted: Ints) -> Floats:
            score: Floats = self.total * hits.astype(float) - (1 - kappa) * self.margins[k].support * predicted
            return sign * score

        return value
