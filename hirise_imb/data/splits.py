"""Training, validation, test and cross-validation folds, as row numbers of one table of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data.dataset import SPLITS, ClassSet
from hirise_imb.data.folds import assign_folds
from hirise_imb.data.manifest import Manifest
from hirise_imb.utils.progress import say

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TrainingPool:
    """The images that training rows are drawn from, arrays of shape (n_images,).

    Raises:
        ValueError: there are no images, or the arrays differ in length.
    """

    labels: Ints
    """Class id of each image."""
    copies: Ints
    """Number of lines of each image in the split file."""
    sources: Ints
    """Number of the source of each image."""
    classes: ClassSet

    def __post_init__(self) -> None:
        """Checks the lengths."""
        lengths = len(self.labels), len(self.copies), len(self.sources)
        if len(set(lengths)) > 1 or not len(self.labels):
            raise ValueError(f"labels, copies and sources must have the same length and not be empty, got {lengths}")

    def counts(self) -> Ints:
        """Returns the number of images of each class, shape (n_classes,)."""
        return np.bincount(self.labels, minlength=len(self.classes))


@dataclass(frozen=True)
class ImageTable:
    """Facts about all images of a data set; arrays have shape (n_images,)."""

    names: tuple[str, ...]
    labels: Ints
    """Class id of each image."""
    copies: Ints
    """Number of lines of each image in the split file."""
    sources: Ints
    """Number of the source of each image."""
    is_canonical: NDArray[np.bool_]
    """Whether each image is the canonical one of its landmark: landmarks are counted and scored by these."""
    classes: ClassSet

    def pool(self, rows: Ints) -> TrainingPool:
        """Returns the images in these rows as a training pool."""
        return TrainingPool(self.labels[rows], self.copies[rows], self.sources[rows], self.classes)

    def canonical(self, rows: Ints) -> Ints:
        """Returns those rows whose image is canonical."""
        return rows[self.is_canonical[rows]]


@dataclass(frozen=True)
class Fold:
    """Row numbers of training images, and of the held-out canonical images that are predicted."""

    train: Ints
    heldout: Ints


@dataclass(frozen=True)
class DataSplits:
    """The given split and the cross-validation folds of a data set, as row numbers of its images."""

    images: ImageTable
    split: Fold
    """The given split: training images and validation landmarks."""
    pool: Ints
    """All images of training and validation."""
    assignments: tuple[tuple[Fold, ...], ...]
    """Cross-validations over the sources of the pool, each with another assignment of sources to folds."""
    test: Ints
    """Canonical images of the test split."""

    @property
    def landmarks(self) -> Ints:
        """Canonical images of the pool: what the folds of each assignment hold out once."""
        return self.images.canonical(self.pool)

    def landmark_positions(self, rows: Ints) -> Ints:
        """Returns the positions in `landmarks` of some of them, given as row numbers."""
        positions = np.full(len(self.images.labels), -1)
        positions[self.landmarks] = np.arange(len(self.landmarks))
        return positions[rows]


def make_splits(manifest: Manifest, n_assignments: int) -> DataSplits:
    """Builds the splits and folds of a data set, and logs which classes are missing from a fold."""
    table = manifest.table
    canonical_rows = {split: manifest.canonical_images(split).index.to_numpy() for split in SPLITS}
    is_canonical = np.zeros(len(table), bool)
    is_canonical[np.concatenate(list(canonical_rows.values()))] = True
    images = ImageTable(
        names=tuple(table["image"]),
        labels=table["label"].to_numpy(),
        copies=table["copies"].to_numpy(),
        sources=np.unique(table["source"].to_numpy(str), return_inverse=True)[1],
        is_canonical=is_canonical,
        classes=manifest.spec.classes,
    )
    train = manifest.split("train").index.to_numpy()
    pool = np.sort(np.concatenate([train, manifest.split("val").index.to_numpy()]))
    return DataSplits(
        images=images,
        split=Fold(train, canonical_rows["val"]),
        pool=pool,
        assignments=tuple(_cross_validation_folds(images, pool, number) for number in range(n_assignments)),
        test=canonical_rows["test"],
    )


def _cross_validation_folds(images: ImageTable, pool: Ints, number: int) -> tuple[Fold, ...]:
    """Returns folds over the sources of the pool; the variants of a landmark are in the fold of its source."""
    landmarks = images.canonical(pool)
    assignment = assign_folds(images.labels[landmarks], images.sources[landmarks], images.classes, number=number)
    if assignment.incomplete and number == 0:  # the classes and their sources are the same for all
        say(
            f"Not every fold of the cross-validation contains {', '.join(assignment.incomplete)}: "
            "these classes have too few sources to divide."
        )
    fold_of_source = dict(zip(images.sources[landmarks].tolist(), assignment.folds.tolist(), strict=True))
    fold_of_image = np.array([fold_of_source[source] for source in images.sources[pool].tolist()])
    n_folds = int(assignment.folds.max()) + 1
    return tuple(Fold(pool[fold_of_image != fold], landmarks[assignment.folds == fold]) for fold in range(n_folds))
