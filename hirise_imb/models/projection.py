"""Nuisance projection: directions in which sources differ are removed from the features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from hirise_imb.features.training_features import TrainingFeatures
from hirise_imb.utils.errors import NotApplicable

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
F = TypeVar("F", bound=np.floating)
Statistic = Literal["means", "covariances"]


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

    Some numbers may overflow it.

    Args:
        features: shape (n, width).
        directions: U, orthonormal columns, shape (width, rank).
    """
    basis = directions.astype(features.dtype)
    # Whoever fits or predicts with infinite or NaN features refuses them.
    with np.errstate(over="ignore", invalid="ignore"):
        return features - (features @ basis) @ basis.T


@dataclass(frozen=True)
class NuisanceProjection:
    """Finds the directions in which the sources of the majority class differ most, in their means or covariances.

    Only the majority class is used: a rare class that occurs in a single source would be mistaken for the signature of
    that source and erased.

    Means (NAP; Solomonoff et al. 2005): the directions belong to the largest eigenvalues of
    B = sum_s n_s (m_s - m)(m_s - m)^T, with m_s the mean of the n_s majority images of source s, and m the mean of all.
    The weight n_s is that of the analysis of variance. A mean of n_s images has noise of variance 1 / n_s, so every
    source adds the same noise to B; with equal weights the noise of sources of one image would dominate. Variants of a
    landmark share its noise; where landmarks have the same number of variants, that is a factor of B and changes no
    direction.

    Covariances (CORAL; Sun and Saenko 2016): with D_s = C_s - C, where C_s is the covariance of the majority images of
    source s and C the mean of all, both weighted by the degrees of freedom v_s = n_s - 1, the directions U belong to
    the largest eigenvalues of sum_s v_s D_s^2. The loss of Deep CORAL, the squared Frobenius norm of the difference,
    summed over pairs of sources by v_s v_t, is proportional to sum_s v_s |D_s|^2. What is left of it after the
    projection P = I - U U^T is sum_s v_s |P D_s P|^2, at most sum_s v_s |D_s P|^2, which no other directions make
    smaller. Sources of one image have no covariance and are not used.
    """

    rank: int
    """Number of directions that are removed; positive."""
    statistic: Statistic = "means"
    """The statistic of the sources whose differences are removed."""

    def __post_init__(self) -> None:
        """Checks the rank and the statistic."""
        if not isinstance(self.rank, int) or self.rank < 1:
            raise ValueError(f"rank must be a positive integer, got {self.rank}")
        if self.statistic not in get_args(Statistic):
            raise ValueError(f"statistic must be one of {', '.join(get_args(Statistic))}, got {self.statistic!r}")

    def directions(self, training: TrainingFeatures) -> Floats:
        """Returns the directions as orthonormal columns, the strongest first, shape (width, rank).

        Raises:
            NotApplicable: the data set has no majority class, or too few sources of it, or these differ in fewer
                directions.
        """
        majority = training.classes.majority_id
        if majority is None:
            raise NotApplicable("A nuisance projection needs a majority class, and this data set names none.")
        name = training.classes[majority]
        in_majority = training.labels == majority
        features, sources = training.features[in_majority], training.sources[in_majority]
        if self.statistic == "means":
            self._check_count(len(np.unique(sources)), self.rank + 1, f"sources of {name}")
            strengths, rows, noise = _differences_of_means(features, sources)
        else:
            names, sizes = np.unique(sources, return_counts=True)
            self._check_count(int((sizes > 1).sum()), 2, f"sources with two or more images of {name}")
            used = np.isin(sources, names[sizes > 1])
            strengths, rows, noise = _differences_of_covariances(features[used], sources[used])
        # A direction in which no source differs would consist of rounding errors.
        n_directions = int((strengths > noise).sum())
        if n_directions < self.rank:
            raise NotApplicable(
                f"A projection of rank {self.rank} needs as many directions in which sources of {name} differ; there "
                f"{'is' if n_directions == 1 else 'are'} {n_directions}."
            )
        return np.ascontiguousarray(rows[: self.rank].T)

    def _check_count(self, count: int, least: int, what: str) -> None:
        if count < least:
            raise NotApplicable(
                f"A projection of rank {self.rank} needs at least {least} {what}; there "
                f"{'is' if count == 1 else 'are'} {count}."
            )


def _differences_of_means(features: NDArray[np.floating], sources: Ints) -> tuple[Floats, Floats, float]:
    """Returns the square roots of the eigenvalues of B, descending, their directions as rows, and the rounding error.

    Args:
        features: shape (n, width).
        sources: shape (n,).
    """
    means, sizes = source_means(features, sources)
    scaled = np.sqrt(sizes)[:, None] * (means - np.average(means, axis=0, weights=sizes))
    _, strengths, rows = np.linalg.svd(scaled, full_matrices=False)
    noise = np.finfo(np.float64).eps * max(scaled.shape) * float(np.abs(means).max()) * float(np.sqrt(sizes.max()))
    return strengths, rows, noise


def _differences_of_covariances(features: NDArray[np.floating], sources: Ints) -> tuple[Floats, Floats, float]:
    """Returns the eigenvalues of sum_s v_s D_s^2, descending, their directions as rows, and the rounding error.

    Args:
        features: shape (n, width).
        sources: shape (n,), each at least twice.
    """
    from scipy.linalg import eigh

    means, sizes = source_means(features, sources)
    width = features.shape[1]
    total, squares = np.zeros((width, width)), np.zeros((width, width))
    for source, mean, freedom in zip(np.unique(sources), means, (sizes - 1).tolist(), strict=True):
        x = features[sources == source] - mean
        total += x.T @ x
        # v C^2 = X^T (X X^T) X / v, without a product of two matrices of the full width.
        squares += x.T @ ((x @ x.T) @ x) / freedom
    # sum_s v_s (C_s - C)^2 = sum_s v_s C_s^2 - (sum_s v_s) C^2
    strengths, columns = eigh(squares - total @ total / float((sizes - 1).sum()))
    noise = np.finfo(np.float64).eps * width * float(np.trace(squares))
    return strengths[::-1], columns[:, ::-1].T, noise
