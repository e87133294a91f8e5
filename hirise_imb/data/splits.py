"""What is learnt from and scored on: images and the parts of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hirise_imb.imbalance.sampling import Pool

Ints = NDArray[np.int64]
Selection = Literal["val", "grouped-cv"]


@dataclass(frozen=True)
class ImageTable:
    """What is known of the images of a data set, one entry each."""

    names: tuple[str, ...]
    labels: Ints
    copies: Ints
    """Lines of the split file."""
    sources: Ints
    """As numbers."""
    is_canonical: NDArray[np.bool_]
    """Whether the image stands for its landmark: landmarks are counted and scored by these."""

    def pool(self, rows: Ints) -> Pool:
        """What a sampling chooses from."""
        return Pool(self.labels[rows], self.copies[rows], self.sources[rows])


@dataclass(frozen=True)
class Fold:
    """Rows of images to learn from, and rows that are predicted, one a landmark."""

    train: Ints
    heldout: Ints


@dataclass(frozen=True)
class DataSplits:
    """The parts of a data set, as rows of its images."""

    images: ImageTable
    split: Fold
    """The given one: training images, and validation."""
    val_groups: Ints
    """Fold of each validation landmark, for what is learnt on validation, shape (n_val,)."""
    folds: tuple[Fold, ...]
    """Of a cross-validation over training and validation."""
    test: Ints

    def selection_folds(self, selection: Selection) -> tuple[Fold, ...]:
        """The folds by which recipes are chosen."""
        return (self.split,) if selection == "val" else self.folds
