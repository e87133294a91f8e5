"""Which predicted images are worth a person's time: candidates of each rare class, best first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data.dataset import ClassSet

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

NEAR_DUPLICATE = 0.97
"""Least cosine similarity of the pooled features of near-duplicates. Of all pairs of landmarks in the real sample, 38
of one source exceed it with the embedded backbone, and none of two sources."""

RESERVE = 3
"""Candidates that are shortlisted for each that is shown, since near-duplicates among them are left out."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Predicted images, one row each.

    Raises:
        ValueError: the arrays differ in length.
    """

    ids: NDArray[np.str_]
    """Identifier of each image, shape (n,); it decides ties."""
    sources: NDArray[np.str_]
    """Source of each image, shape (n,); where it is unknown, the id, so that each image is a source of its own."""
    landmarks: NDArray[np.str_]
    """Landmark of each image, shape (n,), which variants share; where it is unknown, the id."""
    calibrated: Floats
    """Calibrated probabilities, shape (n, n_classes)."""

    def __post_init__(self) -> None:
        """Checks the lengths."""
        lengths = {len(self.ids), len(self.sources), len(self.landmarks), len(self.calibrated)}
        if len(lengths) > 1 or self.calibrated.ndim != 2:
            raise ValueError(f"a pool needs one entry for each image, got {sorted(lengths)} entries")

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.ids)

    def take(self, rows: Ints) -> Pool:
        """Returns the pool of some of the images."""
        return Pool(self.ids[rows], self.sources[rows], self.landmarks[rows], self.calibrated[rows])


@dataclass(frozen=True)
class Candidate:
    """An image that is proposed for a class."""

    row: int
    """Row of the image in the pool."""
    label: int
    """Class id."""
    value: float
    """Expected value of looking at it."""


Value = Callable[[Floats], Floats]
"""Maps calibrated probabilities, shape (n, n_classes), to the expected value of looking at each image for each class,
of the same shape."""


def probability(calibrated: Floats) -> Floats:
    """Expected number of labels of the class: its probability (most likely positive; Warmuth et al. 2003)."""
    return calibrated


def uncertainty(calibrated: Floats) -> Floats:
    """Variance p (1 - p) of the class's indicator, greatest at a probability of 1/2 (Lewis & Gale 1994)."""
    return np.asarray(calibrated * (1 - calibrated))


def probability_and_entropy(calibrated: Floats) -> Floats:
    """Probability of the class, up to twice as much where the prediction is uncertain: p (1 + H / log n_classes)."""
    p = np.clip(calibrated, 1e-12, 1)
    entropy = -(p * np.log(p)).sum(axis=1, keepdims=True) / np.log(p.shape[1])
    return np.asarray(calibrated * (1 + entropy))


def shortlist(
    pool: Pool, classes: ClassSet, per_class: int, per_source: int, value: Value = probability_and_entropy
) -> Ints:
    """Returns the rows of all images that can become candidates, in ascending order.

    Features are needed for these alone.
    """
    values = value(pool.calibrated)
    rows: set[int] = set()
    for label in classes.rare_ids:
        eligible = _within_sources(pool, _rank(pool, values[:, label]), RESERVE * per_source)
        rows.update(row for row, _ in zip(eligible, range(RESERVE * per_class), strict=False))
    return np.array(sorted(rows), np.int64)


def choose_candidates(
    pool: Pool,
    features: Floats,
    classes: ClassSet,
    per_class: int,
    per_source: int,
    value: Value = probability_and_entropy,
) -> list[Candidate]:
    """Chooses the candidates of each rare class, in the order of the classes and best first.

    The classes take turns, the one with the fewest expected landmarks first, and each takes the remaining image of
    greatest value to it. So an image that several classes want is shown once, for the class where it ranks highest,
    and an image that is merely the second choice of a frequent class is not lost to a rare one.

    Args:
        pool: images, such as those of the shortlist.
        features: pooled features of the images, shape (n, width): an image whose cosine similarity to a chosen one is
            at least `NEAR_DUPLICATE` is left out, and so is another variant of its landmark.
        classes: classes of the model.
        per_class: largest number of candidates of a class.
        per_source: largest number of candidates of a class that are from one source.
        value: expected value of looking at an image for a class.
    """
    values = value(pool.calibrated)
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    available = np.ones(len(pool), np.bool_)
    turns = sorted(classes.rare_ids, key=lambda label: (float(pool.calibrated[:, label].sum()), label))
    remaining = {
        label: _within_sources(pool, _rank(pool, values[:, label]), per_source, available) for label in turns
    }
    chosen: dict[int, list[Candidate]] = {label: [] for label in classes.rare_ids}
    for _ in range(per_class):
        for label in turns:
            if (row := next(remaining[label], None)) is not None:
                chosen[label].append(Candidate(row, label, float(values[row, label])))
                available &= (unit @ unit[row] < NEAR_DUPLICATE) & (pool.landmarks != pool.landmarks[row])
                available[row] = False
    return [candidate for of_class in chosen.values() for candidate in of_class]


def _rank(pool: Pool, values: Floats) -> Ints:
    """Returns the rows by descending value; ids decide ties."""
    return np.lexsort((pool.ids, -values))


def _within_sources(
    pool: Pool, order: Ints, per_source: int, available: NDArray[np.bool_] | None = None
) -> Iterator[int]:
    """Yields rows in their order, at most `per_source` of a source; rows that are not available then are skipped."""
    taken: Counter[str] = Counter()
    for row in order.tolist():
        source = str(pool.sources[row])
        if taken[source] < per_source and (available is None or available[row]):
            taken[source] += 1
            yield row
