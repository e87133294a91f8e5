"""Pooled features of training images with their labels and sources: the input of everything fitted in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data.dataset import ClassSet
from hirise_imb.utils.errors import NotFinite

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TrainingFeatures:
    """Features of training images, one row per image.

    Heads and projections are fitted on all training images, variants of a landmark included and each image once: the
    images that trained heads are fitted on. SMOTE is given canonical images only, since the variants of a landmark
    would be each other's nearest neighbours.

    Raises:
        ValueError: the arrays differ in length, a label is not a class id, or a feature is not finite.
    """

    features: NDArray[np.floating]
    """Pooled features, shape (n, width)."""
    labels: Ints
    """Class id of each image, shape (n,)."""
    sources: Ints
    """Number of the source of each image, shape (n,)."""
    classes: ClassSet

    def __post_init__(self) -> None:
        """Checks shapes and values."""
        if self.features.ndim != 2 or not len(self.features) == len(self.labels) == len(self.sources):
            raise ValueError(
                f"features, labels and sources must have one entry for each image, got shapes "
                f"{self.features.shape}, {self.labels.shape} and {self.sources.shape}"
            )
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise ValueError(
                f"labels must be from 0 to {len(self.classes) - 1}, got {self.labels.min()} to {self.labels.max()}"
            )
        if not np.isfinite(self.features).all():
            raise NotFinite("features must be finite")

    def counts(self) -> Ints:
        """Returns the number of images of each class, shape (n_classes,)."""
        return np.bincount(self.labels, minlength=len(self.classes))
