"""Directions in which sources differ, taken out of features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data.hirise import CLASSES
from hirise_imb.utils.errors import NotApplicable

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
F = TypeVar("F", bound=np.floating)

_OTHER = CLASSES.index("other")


def source_means(features: NDArray[np.floating], sources: NDArray[Any]) -> tuple[Floats, Ints]:
    """Mean of each source's rows, shape (n_sources, width), and how many these are; sources in sorted order.

    Args:
        features: shape (n, width).
        sources: names or numbers, shape (n,).
    """
    _, source, sizes = np.unique(sources, return_inverse=True, return_counts=True)
    ordered = features[np.argsort(source, kind="stable")].astype(np.float64)
    starts = np.cumsum(sizes) - sizes
    return np.add.reduceat(ordered, starts, axis=0) / sizes[:, None], sizes


def without(features: NDArray[F], directions: Floats) -> NDArray[F]:
    """Features less what they have of the directions, h - (h U) U^T, in the precision of the features.

    Args:
        features: shape (n, width).
        directions: U, orthonormal columns, shape (width, r).
    """
    basis = directions.astype(features.dtype)
    return features - (features @ basis) @ basis.T


@dataclass(frozen=True)
class NuisanceProjection:
    """Finds the directions in which the sources of `other` differ most (NAP; Solomonoff et al. 2005).

    They are those of the largest eigenvalues of B = sum_s n_s (m_s - m)(m_s - m)^T, with m_s the mean of the n_s
    landmarks of `other` in source s and m that of all. Only this class is looked at: a rare class that lives in one
    source would be taken for the mark of that source and erased.

    The weight n_s is that of the analysis of variance. A mean of n_s landmarks carries noise of variance 1 / n_s, so
    every source adds the same noise to B, whereas with equal weights the noise of sources of one landmark would rule.
    """

    rank: int
    """How many directions; positive."""

    def __post_init__(self) -> None:
        """Refuse a rank that is not a positive whole number."""
        if not isinstance(self.rank, int) or self.rank < 1:
            raise ValueError(f"rank must be a positive whole number, got {self.rank}")

    def directions(self, features: NDArray[np.floating], labels: Ints, sources: NDArray[Any]) -> Floats:
        """The directions, orthonormal columns, the strongest first, shape (width, rank).

        Args:
            features: pooled features of the training split, one row a landmark, shape (n, width).
            labels: class ids, shape (n,).
            sources: names or numbers, shape (n,).

        Raises:
            NotApplicable: `other` has too few sources, or their means span fewer directions.
            ValueError: features, labels and sources are not equally many, or a feature is not finite.
        """
        checked(features, labels, sources)
        mine = labels == _OTHER
        found = len(np.unique(sources[mine]))
        if found <= self.rank:
            raise NotApplicable(
                f"A projection of rank {self.rank} needs at least {self.rank + 1} sources of other; there "
                f"{'is' if found == 1 else 'are'} {found}."
            )
        means, sizes = source_means(features[mine], sources[mine])
        scaled = np.sqrt(sizes)[:, None] * (means - np.average(means, axis=0, weights=sizes))
        _, strengths, rows = np.linalg.svd(scaled, full_matrices=False)
        # Directions in which nothing differs would be whatever rounding left.
        noise = np.finfo(np.float64).eps * max(scaled.shape) * float(np.abs(means).max()) * float(np.sqrt(sizes.max()))
        spanned = int((strengths > noise).sum())
        if spanned < self.rank:
            raise NotApplicable(
                f"A projection of rank {self.rank} needs as many directions in which sources of other differ; there "
                f"{'is' if spanned == 1 else 'are'} {spanned}."
            )
        return np.ascontiguousarray(rows[: self.rank].T)


def checked(features: NDArray[np.floating], labels: Ints, sources: NDArray[Any]) -> None:
    """Refuse what is no set of landmarks.

    Raises:
        ValueError: features, labels and sources are not equally many, a label is no class, a feature is not finite.
    """
    if features.ndim != 2 or not len(features) == len(labels) == len(sources):
        raise ValueError(
            f"features, labels and sources must have a row, a class and a source each landmark, got shapes "
            f"{features.shape}, {labels.shape} and {sources.shape}"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(CLASSES):
        raise ValueError(f"labels must be below {len(CLASSES)}, got {labels.min()} to {labels.max()}")
    if not np.isfinite(features).all():
        raise ValueError("features must be finite")
