"""Nuisance projection: directions in which sources differ are removed from the features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hirise_imb.features.training_features import TrainingFeatures
from hirise_imb.utils.errors import NotApplicable

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
F = TypeVar("F", bound=np.floating)


def source_means(features: NDArray[np.floating], sources: Ints) -> tuple[Floats, Ints]:
    """Returns the mean of each source's rows, shape (n_sources, width), and their number; sources in sorted order.

    Args:
        features: shape (n, width).
        sources: shape (n,).
    """
    _, source, sizes = np.unique(sources, return_inverse=True, return_counts=True)
    ordered = features[np.argsort(source, kind="stable")].astype(np.float64)
    starts = np.cumsum(sizes) - sizes
    return np.add.reduceat(ordered, starts, axis=0) / sizes[:, None], sizes


def project_out(features: NDArray[F], directions: Floats) -> NDArray[F]:
    """Removes the component of features along the directions, h - (h U) U^T, in the precision of the features.

    Args:
        features: shape (n, width).
        directions: U, orthonormal columns, shape (width, rank).
    """
    basis = directions.astype(features.dtype)
    return features - (features @ basis) @ basis.T


@dataclass(frozen=True)
class NuisanceProjection:
    """Finds the directions in which the sources of the majority class differ most (NAP; Solomonoff et al. 2005).

    They belong to the largest eigenvalues of B = sum_s n_s (m_s - m)(m_s - m)^T, with m_s the mean of the n_s majority
    images of source s, and m the mean of all. Only the majority class is used: a rare class that occurs in a single
    source would be mistaken for the signature of that source and erased.

    The weight n_s is that of the analysis of variance. A mean of n_s images has noise of variance 1 / n_s, so every
    source adds the same noise to B; with equal weights the noise of sources of one image would dominate. Variants of a
    landmark share its noise; where landmarks have the same number of variants, that is a factor of B and changes no
    direction.
    """

    rank: int
    """Number of directions that are removed; positive."""

    def __post_init__(self) -> None:
        """Checks the rank."""
        if not isinstance(self.rank, int) or self.rank < 1:
            raise ValueError(f"rank must be a positive integer, got {self.rank}")

    def directions(self, training: TrainingFeatures) -> Floats:
        """Returns the directions as orthonormal columns, the strongest first, shape (width, rank).

        Raises:
            NotApplicable: the data set has no majority class, or too few sources of it, or their means span fewer
                directions.
        """
        majority = training.classes.majority_id
        if majority is None:
            raise NotApplicable("A nuisance projection needs a majority class, and this data set names none.")
        name = training.classes[majority]
        in_majority = training.labels == majority
        features, sources = training.features[in_majority], training.sources[in_majority]
        n_sources = len(np.unique(sources))
        if n_sources <= self.rank:
            raise NotApplicable(
                f"A projection of rank {self.rank} needs at least {self.rank + 1} sources of {name}; there "
                f"{'is' if n_sources == 1 else 'are'} {n_sources}."
            )
        means, sizes = source_means(features, sources)
        scaled = np.sqrt(sizes)[:, None] * (means - np.average(means, axis=0, weights=sizes))
        _, strengths, rows = np.linalg.svd(scaled, full_matrices=False)
        # A direction in which no source differs would consist of rounding errors.
        noise = np.finfo(np.float64).eps * max(scaled.shape) * float(np.abs(means).max()) * float(np.sqrt(sizes.max()))
        n_directions = int((strengths > noise).sum())
        if n_directions < self.rank:
            raise NotApplicable(
                f"A projection of rank {self.rank} needs as many directions in which sources of {name} differ; there "
                f"{'is' if n_directions == 1 else 'are'} {n_directions}."
            )
        return np.ascontiguousarray(rows[: self.rank].T)
