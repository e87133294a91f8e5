"""Predictions on test sets like the official one, where it is known how much sources differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hirise_imb.metrics.bootstrap import SourceCounts

SOURCES = 29

# Landmarks of each class by source. Supports, numbers of sources and the shares of the largest ones are those of the
# official test split; which classes share a source is made up, but for the one of the spiders.
_OTHER = (267, 150, 120, 105, 95, 85, 78, 70, 65, 60, 55, 50, 46, 42, 38, 34, 30, 26, 22, 16, 11, 7, 4, 3, 3)
_CRATER = (23, 11, 8, 7, 6, 5, 5, 4, 4, 3, 3, 3, 2, 2, 1, 1, 1)
PLACES: dict[int, dict[int, int]] = {
    0: dict(enumerate(_OTHER)),
    1: {(5 * place + 1) % 24: count for place, count in enumerate(_CRATER)},
    2: {27: 55, 28: 5, 0: 4, 9: 2},
    3: {2: 17, 7: 15, 12: 11, 17: 4, 22: 2},
    4: {25: 16},
    5: {3: 3, 6: 1, 11: 1, 14: 1, 19: 1},
    6: {26: 42},
    7: {24: 42},
}
"""Landmarks by class and number of the source."""

# Log odds of a right prediction in a source like any other: good for some classes, poor for others.
_SKILL = np.array([3.2, 1.2, 1.0, 0.5, 1.0, -1.0, 1.5, 0.5])

LABELS = np.array([label for label, row in PLACES.items() for count in row.values() for _ in range(count)])
"""Shape (1793,)."""
WHERE = np.array([place for row in PLACES.values() for place, count in row.items() for _ in range(count)])
"""Number of the source of each landmark."""

ALL = np.ones(len(LABELS), bool)
CRATER = 1


def fewer(sources: int, *, lopsided: bool = False) -> np.ndarray:
    """Which landmarks there are where craters have only their largest sources, so many of them; shape (1793,).

    Lopsided: all craters of the largest, and one of each of the others.
    """
    there: np.ndarray = LABELS != CRATER
    for place, source in enumerate(list(PLACES[CRATER])[:sources]):
        own = np.flatnonzero((LABELS == CRATER) & (source == WHERE))
        there[own[:1] if lopsided and place else own] = True
    return there


@dataclass(frozen=True)
class Law:
    """How an arm predicts. Effects are normal, one for each class in each source, on the log odds of being right."""

    between: float
    """Standard deviation of the effects that all arms share."""
    own: float = 0.0
    """Standard deviation of the effects of each arm by itself."""

    def draw(self, rng: np.random.Generator, gains: tuple[float, ...] = (0.0,)) -> np.ndarray:
        """Predictions of arms on a new test set, shape (n_arms, 1793).

        A mistake of `other` is any rare class; one of a rare class is `other` in 80 % of cases.

        Args:
            rng: what to draw from.
            gains: added to the log odds of the rare classes, by arm.
        """
        shared = rng.normal(0, self.between, (SOURCES, 8))
        return np.stack([self._arm(rng, shared, gain) for gain in gains])

    def _arm(self, rng: np.random.Generator, shared: np.ndarray, gain: float) -> np.ndarray:
        odds = _SKILL + gain * (np.arange(8) > 0) + shared + rng.normal(0, self.own, (SOURCES, 8))
        right = rng.random(len(LABELS)) < 1 / (1 + np.exp(-odds[WHERE, LABELS]))
        # Any class but the own one and `other`, by a step from class to class.
        rare = np.where(
            LABELS == 0, rng.integers(1, 8, len(LABELS)), (LABELS - 1 + rng.integers(1, 7, len(LABELS))) % 7 + 1
        )
        missed = (LABELS > 0) & (rng.random(len(LABELS)) < 0.8)
        return np.where(right, LABELS, np.where(missed, 0, rare))

    def truth(self, sets: int = 2000, gain: float = 0.0, seed: int = 1, there: np.ndarray = ALL) -> np.ndarray:
        """Expected F1 of each class over test sets of this layout, shape (8,)."""
        rng = np.random.default_rng(seed)
        return np.asarray(np.mean([f1(self.draw(rng, (gain,))[0], there) for _ in range(sets)], axis=0))


def f1(predicted: np.ndarray, there: np.ndarray = ALL) -> np.ndarray:
    """Of each class, on those landmarks that are there; shape (8,)."""
    labels, predicted = LABELS[there], predicted[there]
    hits = np.bincount(labels[predicted == labels], minlength=8)
    return np.asarray(2 * hits / (np.bincount(labels, minlength=8) + np.bincount(predicted, minlength=8)))


def count_sources(predicted: np.ndarray, there: np.ndarray = ALL) -> SourceCounts:
    """What one fit with these predictions made of each source, of those landmarks that are there."""
    return SourceCounts.of(LABELS[there], predicted[None, there], WHERE[there], 8)
