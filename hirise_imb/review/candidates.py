"""Which predicted images are worth a person's time: candidates of each rare class, best first."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data.dataset import ClassSet

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]

NEAR_DUPLICATE = 0.07
"""Largest distance of near-duplicates, as a share of the median distance of images of different sources, which differs
between backbones. With the embedded one, 38 pairs of landmarks in the real sample are that close, all of one source."""

_ROUNDING = 1e-6
"""Cosine distance that equal images can have."""

_MEDIAN_ROWS = 1000
"""Images whose distances the median is taken of, roughly."""

_RESERVE = 3
"""Images that are shortlisted for each that is shown, since near-duplicates among them are left out."""


@dataclass(frozen=True)
class Candidate:
    """An image that is proposed for a class."""

    row: int
    """Row of the image."""
    label: int
    """Class id."""
    value: float
    """Expected value of looking at it."""


def expected_value(calibrated: Floats) -> Floats:
    """Returns the expected value of looking at each image for each class, shape (n, n_classes).

    It is p (1 + H / log n_classes), with p the calibrated probability of the class and H the entropy of the prediction
    in nats. The first factor is the expected number of labels of the class (most likely positive; Warmuth et al. 2003);
    the second prefers, among images that are equally likely to belong to it, those that the model is uncertain of, from
    which it learns more (Lewis & Gale 1994). docs/review.md has measurements of this and other rankings.

    Args:
        calibrated: calibrated probabilities, shape (n, n_classes).
    """
    p = np.asarray(calibrated, np.float64)
    entropy = -(p * np.log(np.maximum(p, np.finfo(float).tiny))).sum(axis=1, keepdims=True)
    return np.asarray(p * (1 + entropy / np.log(p.shape[1])))


def shortlist(values: Floats, sources: Ints, classes: ClassSet, per_class: int, per_source: int) -> Ints:
    """Returns the rows of the images among which candidates are chosen, in ascending order.

    Args:
        values: expected value of each image for each class, shape (n, n_classes).
        sources: number of the source of each image, shape (n,).
        classes: classes of the model.
        per_class: largest number of candidates of a class.
        per_source: largest number of candidates of a class that are from one source.
    """
    limits = _Limits(_RESERVE * per_class, _RESERVE * per_source)
    rows: set[int] = set()
    for label in classes.rare_ids:
        for row in np.argsort(-values[:, label], kind="stable"):
            if limits.is_full(label):
                break
            if limits.admit(label, int(sources[row])):
                rows.add(int(row))
    return np.array(sorted(rows), np.int64)


def choose_candidates(
    values: Floats,
    sources: Ints,
    landmarks: Ints,
    features: Floats,
    classes: ClassSet,
    per_class: int,
    per_source: int,
) -> list[Candidate]:
    """Chooses the candidates of each rare class, in the order of the classes and best first.

    Pairs of image and class are considered by descending value, and a pair becomes a candidate if the image is still
    available and the class has room for it and its source. So an image is shown once, for the class that it has the
    greatest value for; if that class is full, for the next one, so that the hundredth crater is not lost to the
    spiders. Of equal pairs, that of the first image and class is taken.

    Args:
        values: expected value of each image for each class, shape (n, n_classes).
        sources: number of the source of each image, shape (n,).
        landmarks: number of the landmark of each image, which its variants share, shape (n,).
        features: pooled features, shape (n, width). Once an image is chosen, its near-duplicates are left out, and so
            are other variants of its landmark.
        classes: classes of the model.
        per_class: largest number of candidates of a class.
        per_source: largest number of candidates of a class that are from one source.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.maximum(lengths, np.finfo(np.float32).tiny)
    limit = NEAR_DUPLICATE * _median_distance(unit, sources) + _ROUNDING
    rare = np.array(classes.rare_ids)
    pairs = np.argsort(-values[:, rare], axis=None, kind="stable")
    available = np.ones(len(values), np.bool_)
    limits = _Limits(per_class, per_source)
    candidates = []
    for row, place in zip(*(axis.tolist() for axis in np.divmod(pairs, len(rare))), strict=True):
        label = int(rare[place])
        if available[row] and limits.admit(label, int(sources[row])):
            candidates.append(Candidate(row, label, float(values[row, label])))
            available &= (1 - unit @ unit[row] > limit) & (landmarks != landmarks[row])
            available[row] = False  # also where its features are all 0
    return sorted(candidates, key=lambda one: one.label)  # a stable sort: best first within a class


def _median_distance(unit: Floats, sources: Ints) -> float:
    """Returns the median cosine distance of images of different sources; 0 if all are of one source.

    Args:
        unit: features of length 1, shape (n, width).
        sources: number of the source of each image, shape (n,).
    """
    some = slice(None, None, max(1, len(unit) // _MEDIAN_ROWS))
    differ = sources[some, None] != sources[None, some]
    return float(np.median(1 - (unit[some] @ unit[some].T)[differ])) if differ.any() else 0.0


class _Limits:
    """Counts candidates of classes, and of sources within them."""

    def __init__(self, per_class: int, per_source: int) -> None:
        self._per_class, self._per_source = per_class, per_source
        self._of_class: Counter[int] = Counter()
        self._of_source: Counter[tuple[int, int]] = Counter()

    def is_full(self, label: int) -> bool:
        """Returns whether a class has no room for any image."""
        return self._of_class[label] == self._per_class

    def admit(self, label: int, source: int) -> bool:
        """Returns whether there is room for an image of a source in a class, and counts it if so."""
        if self.is_full(label) or self._of_source[label, source] == self._per_source:
            return False
        self._of_class[label] += 1
        self._of_source[label, source] += 1
        return True
