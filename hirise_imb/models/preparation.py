"""The preparation of features, fitted on training images, before any classifier: standardisation and projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hirise_imb.models.projection import project_out
from hirise_imb.utils.errors import NotFinite

Floats = NDArray[np.float64]
F = TypeVar("F", bound=np.floating)

MIN_SPREAD = 1e-7
"""Least standard deviation of a feature that is scaled to 1, relative to its mean; float32 has seven digits."""


@dataclass(frozen=True, eq=False)
class Standardisation:
    """(h - centre) * gain for features h.

    Raises:
        ValueError: shapes differ.
        NotFinite: a number is not finite.
    """

    centre: Floats
    """Shape (width,)."""
    gain: Floats
    """Shape (width,)."""

    def __post_init__(self) -> None:
        """Checks shapes and values."""
        if self.centre.ndim != 1 or self.centre.shape != self.gain.shape:
            raise ValueError(f"centre and gain must have shape (width,), got {self.centre.shape} and {self.gain.shape}")
        if not (np.isfinite(self.centre).all() and np.isfinite(self.gain).all()):
            raise NotFinite("centre and gain must be finite")

    @classmethod
    def of(cls, features: NDArray[np.floating]) -> Standardisation:
        """Returns the one that gives each feature the mean 0 and the standard deviation 1; constant ones become 0.

        Args:
            features: features of training images, shape (n, width).
        """
        centre = features.mean(axis=0, dtype=np.float64)
        spread = features.std(axis=0, dtype=np.float64)
        # A feature that never varies can have a spread that consists of rounding errors.
        varies = spread > MIN_SPREAD * np.abs(centre)
        return cls(centre, np.where(varies, 1 / np.where(varies, spread, 1), 0))


@dataclass(frozen=True, eq=False)
class Preparation:
    """Features after standardisation, without some directions; by default they stay as they are.

    Raises:
        ValueError: directions are not orthonormal, or shapes do not fit each other.
    """

    standardisation: Standardisation | None = None
    directions: Floats | None = None
    """U, orthonormal columns, shape (width, rank), projected out of the features: h - (h U) U^T."""

    def __post_init__(self) -> None:
        """Checks that the directions are orthonormal and have the width of the standardisation."""
        if self.directions is None:
            return
        if self.directions.ndim != 2 or len(self.directions) != self.width:
            width = "width" if self.standardisation is None else self.width
            raise ValueError(f"directions must have shape ({width}, rank), got {self.directions.shape}")
        products = self.directions.T @ self.directions
        if not np.allclose(products, np.eye(len(products)), atol=1e-6):
            raise ValueError(f"directions must be orthonormal columns, got the products {products}")

    @property
    def width(self) -> int | None:
        """Number of features, if the preparation determines it."""
        if self.standardisation is not None:
            return len(self.standardisation.centre)
        return None if self.directions is None else len(self.directions)

    @property
    def is_identity(self) -> bool:
        """Whether features stay as they are."""
        return self.standardisation is None and self.directions is None

    def apply(self, features: NDArray[F]) -> NDArray[F]:
        """Returns prepared features in the precision of the features, shape (n, width); some may overflow it."""
        if self.standardisation is not None:
            # Whoever fits or predicts with infinite or NaN features refuses them.
            with np.errstate(over="ignore", invalid="ignore"):
                centre, gain = (part.astype(features.dtype) for part in vars(self.standardisation).values())
                features = (features - centre) * gain
        return self.project(features)

    def project(self, rows: NDArray[F]) -> NDArray[F]:
        """Returns features or weights without the directions, shape (n, width)."""
        return rows if self.directions is None else project_out(rows, self.directions)
