"""Training, validation, test and cross-validation folds, as row numbers of one table of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data.dataset import SPLITS, ClassSet
from hirise_imb.data.folds import assign_folds
from hirise_imb.data.manifest import Manifest
from hirise_imb.utils.errors import UserError
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
    """A division of a data set into a pool, in which everything is selected and fitted, and landmarks that are only
    predicted, as row numbers of its images: the given split, or an outer fold of a nested cross-validation."""

    images: ImageTable
    split: Fold
    """Division of the pool for the reference run, which is stopped early: training images and validation landmarks."""
    pool: Ints
    """All images of training and validation."""
    assignments: tuple[tuple[Fold, ...], ...]
    """Cross-validations over the sources of the pool, each with another assignment of sources to folds."""
    test: Ints
    """Canonical images of the test split, or of the outer fold."""

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
    """Builds the given split and its cross-validation folds, and logs which classes are missing from a fold."""
    images, canonical_rows = _image_table(manifest)
    train = manifest.split("train").index.to_numpy()
    pool = np.sort(np.concatenate([train, manifest.split("val").index.to_numpy()]))
    assignments, incomplete = _inner_folds(images, pool, n_assignments)
    if incomplete:
        say(
            f"Not every fold of the cross-validation contains {', '.join(incomplete)}: these classes have too few "
            "sources to divide."
        )
    return DataSplits(images, Fold(train, canonical_rows["val"]), pool, assignments, canonical_rows["test"])


def make_outer_splits(manifest: Manifest, n_folds: int, repeat: int, n_assignments: int) -> tuple[DataSplits, ...]:
    """Builds the outer folds of a nested cross-validation over the sources of all splits.

    Each landmark is in one outer fold, with all its variants and all other landmarks of its source. Each outer fold has
    each class whose sources suffice. The reference run is stopped on the first inner fold: what the given validation
    split is to it, since most of that split would also be in outer folds.

    Args:
        manifest: data set.
        n_folds: number of outer folds.
        repeat: number of the nested cross-validation, from 0; another number divides the sources otherwise.
        n_assignments: number of cross-validations inside each outer fold.

    Raises:
        UserError: there are too few sources.
    """
    images, canonical_rows = _image_table(manifest)
    landmarks = np.sort(np.concatenate(list(canonical_rows.values())))
    labels, sources = images.labels[landmarks], images.sources[landmarks]
    n_sources = len(np.unique(sources))
    too_few = UserError(
        f"The landmarks have {n_sources} sources, too few for {n_folds} outer folds: choose a lower --outer-folds, or "
        "--evaluation given-split."
    )
    if n_sources < n_folds:
        raise too_few
    assignment = assign_folds(labels, sources, images.classes, n_folds=n_folds, number=repeat)
    # Inside each outer fold, one source must be left for training and one for validation.
    if min(len(np.unique(sources[assignment.folds != fold])) for fold in range(n_folds)) < 2:
        raise too_few
    if assignment.incomplete and repeat == 0:
        say(
            f"Not every outer fold contains {', '.join(assignment.incomplete)}: these classes have too few sources to "
            "divide."
        )
    return tuple(
        make_outer_split(images, landmarks[assignment.folds == fold], n_assignments) for fold in range(n_folds)
    )


def make_outer_split(images: ImageTable, test: Ints, n_assignments: int) -> DataSplits:
    """Returns an outer fold: its landmarks are tested, and images of all other sources are the pool.

    Args:
        images: all images.
        test: canonical images of all landmarks of the sources that are tested.
        n_assignments: number of cross-validations inside the pool.
    """
    pool = np.flatnonzero(~np.isin(images.sources, images.sources[test]))
    assignments, _ = _inner_folds(images, pool, n_assignments)
    return DataSplits(images, assignments[0][0], pool, assignments, test)


def _image_table(manifest: Manifest) -> tuple[ImageTable, dict[str, Ints]]:
    """Returns the images of a data set, and the rows of the canonical images of each split."""
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
    return images, canonical_rows


def _inner_folds(images: ImageTable, pool: Ints, count: int) -> tuple[tuple[tuple[Fold, ...], ...], tuple[str, ...]]:
    """Returns cross-validations over the sources of the pool, and the classes that some fold lacks.

    The variants of a landmark are in the fold of its source.
    """
    landmarks = images.canonical(pool)
    labels, sources = images.labels[landmarks], images.sources[landmarks]
    cross_validations: list[tuple[Fold, ...]] = []
    incomplete: tuple[str, ...] = ()
    for number in range(count):
        assignment = assign_folds(labels, sources, images.classes, number=number)
        incomplete = assignment.incomplete  # the classes and their sources are the same for all numbers
        fold_of_source = dict(zip(sources.tolist(), assignment.folds.tolist(), strict=True))
        fold_of_image = np.array([fold_of_source[source] for source in images.sources[pool].tolist()])
        n_folds = int(assignment.folds.max()) + 1
        cross_validations.append(
            tuple(Fold(pool[fold_of_image != fold], landmarks[assignment.folds == fold]) for fold in range(n_folds))
        )
    return tuple(cross_validations), incomplete
