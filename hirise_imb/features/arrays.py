"""Features of images at one cut, in memory or memory-mapped from the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Features:
    """Features at one cut, one row per image, in the order in which the images were requested."""

    stored: NDArray[np.floating]
    """Shape (n_stored, ...). From the cache they are memory-mapped: float32 at the cut `top`, float16 at others."""
    rows: NDArray[np.int64]
    """Row of each image in `stored`, shape (n_images,)."""

    @classmethod
    def of(cls, array: NDArray[np.floating]) -> Features:
        """Wraps an array in memory, one row per image, shape (n_images, ...)."""
        return cls(array, np.arange(len(array)))

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image's features."""
        return self.stored.shape[1:]

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the features of the images at `positions`, shape (n, ...)."""
        return self.stored[self.rows[positions]].astype(np.float32, copy=False)

    def select(self, positions: NDArray[np.int64]) -> Features:
        """Returns the features of some of the images, without reading them."""
        return Features(self.stored, self.rows[positions])


def concatenate_features(parts: Sequence[Features]) -> Features:
    """Joins pooled features of the same images side by side, in memory, shape (n_images, sum of widths), float32.

    Raises:
        ValueError: there are no parts, a part is not pooled, or the parts have different numbers of images.
    """
    shapes = [(len(part), *part.shape) for part in parts]
    if not parts or any(len(shape) != 2 or shape[0] != shapes[0][0] for shape in shapes):
        raise ValueError(f"parts must be pooled features of the same images, got shapes {shapes}")
    joined = np.empty((len(parts[0]), sum(width for _, width in shapes)), np.float32)
    start = 0
    for part, (_, width) in zip(parts, shapes, strict=True):
        joined[:, start : start + width] = part.stored[part.rows]
        start += width
    return Features.of(joined)
