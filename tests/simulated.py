"""Simulated predictions on test splits of real layouts, where the differences between sources are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hirise_imb.metrics.bootstrap import SourceCounts

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

N_CLASSES = 8
CRATER, EJECTA, SPIDER = 1, 5, 7

# Log odds of a correct prediction in an average source: good for some classes, poor for others.
_SKILL = np.array([3.2, 1.2, 1.0, 0.5, 1.0, -1.0, 1.5, 0.5])

# Landmarks of each class by source. Supports, numbers of sources and the shares of the largest ones are those of the
# official test split; which classes share a source is made up, except for the source of the spiders.
_OTHER = (267, 150, 120, 105, 95, 85, 78, 70, 65, 60, 55, 50, 46, 42, 38, 34, 30, 26, 22, 16, 11, 7, 4, 3, 3)
_CRATER = (23, 11, 8, 7, 6, 5, 5, 4, 4, 3, 3, 3, 2, 2, 1, 1, 1)
_PLACES: dict[int, dict[int, int]] = {
    0: dict(enumerate(_OTHER)),
    1: {(5 * place + 1) % 24: count for place, count in enumerate(_CRATER)},
    2: {27: 55, 28: 5, 0: 4, 9: 2},
    3: {2: 17, 7: 15, 12: 11, 17: 4, 22: 2},
    4: {25: 16},
    5: {3: 3, 6: 1, 11: 1, 14: 1, 19: 1},
    6: {26: 42},
    7: {24: 42},
}

_SAMPLE_OTHER = (1, 5, 42, 34, 24, 16, 9, 64, 34, 0, 22, 11, 32, 3, 1, 3, 6, 7, 6, 11, 10, 21, 6, 7, 51, 0, 4, 4, 0, 0)
_SAMPLE_CRATER = (0, 3, 13, 3, 2, 5, 3, 0, 2, 0, 0, 0, 2, 2, 1, 0, 0, 0, 2, 1, 1, 1, 2, 3, 0, 0, 0, 10, 0, 0)
_SAMPLE_PLACES: dict[int, dict[int, int]] = {
    0: dict(enumerate((*_SAMPLE_OTHER, 82, 8, 16))),
    1: dict(enumerate((*_SAMPLE_CRATER, 0, 1, 1))),
    2: {26: 9},
    3: {11: 12, 14: 4, 17: 6},
    4: {9: 69},
    5: {10: 1, 12: 1},
    6: {28: 7, 29: 4},
    7: {25: 7},
}


@dataclass(frozen=True, eq=False)
class Layout:
    """The classes and sources of the landmarks of a test split."""

    labels: Ints
    """True classes, shape (n,)."""
    sources: Ints
    """Index of the source of each landmark, shape (n,)."""

    @classmethod
    def of(cls, places: dict[int, dict[int, int]]) -> Layout:
        """Makes the layout with the given number of landmarks of each class (outer key) in each source (inner key)."""
        cells = [(k, place) for k, row in places.items() for place, count in row.items() for _ in range(count)]
        labels, sources = np.array(cells).T
        return cls(labels, sources)

    @property
    def n_sources(self) -> int:
        """Number of sources."""
        return int(self.sources.max()) + 1

    @property
    def single(self) -> Ints:
        """Classes with one source."""
        return np.array([k for k in range(N_CLASSES) if len(set(self.sources[self.labels == k])) == 1], np.int64)

    def f1(self, predicted: Ints) -> Floats:
        """Returns the F1 of each class, shape (8,)."""
        hits = np.bincount(self.labels[predicted == self.labels], minlength=N_CLASSES)
        both = np.bincount(self.labels, minlength=N_CLASSES) + np.bincount(predicted, minlength=N_CLASSES)
        return np.asarray(2 * hits / both)

    def count(self, predicted: Ints) -> SourceCounts:
        """Counts the hits and predictions of one fit in each source."""
        return SourceCounts.of(self.labels, predicted[None], self.sources, N_CLASSES)


OFFICIAL = Layout.of(_PLACES)
"""1,793 landmarks of 29 sources; bright dune, swiss cheese and spider have one source each."""

SAMPLE = Layout.of(_SAMPLE_PLACES)
"""The test split of the real sample: 718 landmarks of 33 sources; dark dune, bright dune and spider have one source."""

SPREAD = Layout.of(
    {
        k: row if k < 2 else {(3 * k + 3 * step) % 25: sum(row.values()) // 8 + 1 for step in range(8)}
        for k, row in _PLACES.items()
    }
)
"""Supports similar to the official ones, but each class has at least eight sources."""


def with_few_craters(sources: int, *, lopsided: bool = False) -> Layout:
    """Returns the official layout with the craters of their largest sources only.

    Args:
        sources: number of sources that keep craters.
        lopsided: whether all but the largest of these sources keep a single crater.
    """
    places = list(_PLACES[CRATER].items())[:sources]
    craters = {place: 1 if lopsided and rank else count for rank, (place, count) in enumerate(places)}
    return Layout.of(_PLACES | {CRATER: craters})


@dataclass(frozen=True)
class Law:
    """How an arm predicts.

    Effects are normal, one for each class in each source, on the log odds of a correct prediction.
    """

    between: float
    """Standard deviation of the effects that all arms share."""
    own: float = 0.0
    """Standard deviation of the effects of each arm by itself."""
    layout: Layout = OFFICIAL
    """Classes and sources of the landmarks."""
    never: tuple[int, ...] = ()
    """Classes that no arm ever predicts correctly."""

    def effects(self, rng: np.random.Generator) -> Floats:
        """Returns effects that all arms share, for new sources, shape (n_sources, 8)."""
        return rng.normal(0, self.between, (self.layout.n_sources, N_CLASSES))

    def draw(self, rng: np.random.Generator, gains: tuple[float, ...] = (0.0,)) -> Ints:
        """Returns predictions of several arms on a new test set, shape (n_arms, n).

        Args:
            rng: source of randomness.
            gains: what each arm adds to the log odds of the rare classes.
        """
        effects = self.effects(rng)
        return np.stack([self.predict(rng, effects, gain) for gain in gains])

    def predict(self, rng: np.random.Generator, effects: Floats, gain: float = 0.0) -> Ints:
        """Returns the predictions of an arm, shape (n,).

        A mistake on `other` is any rare class; one on a rare class is `other` in 80 % of cases.
        """
        labels, n = self.layout.labels, len(self.layout.labels)
        odds = _SKILL + gain * (np.arange(N_CLASSES) > 0) + effects + rng.normal(0, self.own, effects.shape)
        chances = 1 / (1 + np.exp(-odds[self.layout.sources, labels]))
        right = rng.random(n) < np.where(np.isin(labels, self.never), 0, chances)
        # Any rare class but that of the landmark.
        rare = np.where(labels == 0, rng.integers(1, 8, n), (labels - 1 + rng.integers(1, 7, n)) % 7 + 1)
        missed = (labels > 0) & (rng.random(n) < 0.8)
        return np.where(right, labels, np.where(missed, 0, rare))

    def truth(self, sets: int = 2000, gain: float = 0.0, seed: int = 1, given: Floats | None = None) -> Floats:
        """Returns the expected F1 of each class over test sets of this layout, shape (8,).

        Args:
            sets: number of simulated test sets.
            gain: what the arm adds to the log odds of the rare classes.
            seed: seed of the test sets.
            given: effects that the classes with one source keep in all test sets; other effects are drawn anew.
        """
        rng = np.random.default_rng(seed)
        total = np.zeros(N_CLASSES)
        for _ in range(sets):
            effects = self.effects(rng)
            if given is not None:
                effects[:, self.layout.single] = given[:, self.layout.single]
            total += self.layout.f1(self.predict(rng, effects, gain))
        return total / sets
