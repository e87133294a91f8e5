"""What the stages of a recipe are fitted on: folds, features, training rows and held-out landmarks of a request."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hirise_imb.backbones import TOP
from hirise_imb.data.splits import DataSplits, Fold, TrainingPool
from hirise_imb.features.arrays import Features, concatenate_features
from hirise_imb.features.training_features import TrainingFeatures
from hirise_imb.imbalance.smote import NO_SOURCE
from hirise_imb.models.projection import project_out
from hirise_imb.recipe import Inputs, Recipe
from hirise_imb.training.learners import EvaluationSet, FoldData
from hirise_imb.training.scoring import HeldOut
from hirise_imb.training.stage_fit import FitRequest

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
BySeed = tuple[tuple[FoldData, ...], ...]
"""Data by seed and fold."""


class StageInputs:
    """The data of fits on one data set."""

    def __init__(self, splits: DataSplits, features: Mapping[tuple[str, str], Features]) -> None:
        """Takes the splits, and the features by cut and view."""
        self.splits = splits
        self._features = dict(features)

    def folds(self, request: FitRequest) -> list[tuple[Fold, ...]]:
        """Returns the folds of each seed."""
        if request.protocol == "cross-validation":
            return [self.splits.assignments[number] for number in request.assignments]
        none = np.empty(0, np.int64)
        fold = self.splits.split if request.protocol == "reference" else Fold(self.splits.pool, none)
        return [(fold,)] * len(request.seeds)

    def held_out(self, request: FitRequest) -> HeldOut:
        """Returns the landmarks that the models of a request predict during training."""
        images = self.splits.images
        if request.protocol == "reference":
            rows = self.splits.split.heldout
            return HeldOut(images.labels[rows], ((np.arange(len(rows)),),), len(images.classes))
        rows = self.splits.landmarks
        positions = self.splits.landmark_positions
        parts = tuple(tuple(positions(fold.heldout) for fold in folds) for folds in self.folds(request))
        return HeldOut(images.labels[rows], parts, len(images.classes))

    def features(self, cut: str, inputs: Inputs) -> Features:
        """Returns the features of all images at a cut; those of several views are concatenated."""
        if len(inputs) == 1:
            return self._features[cut, inputs[0]]
        name = "+".join(inputs)
        if (cut, name) not in self._features:
            self._features[cut, name] = concatenate_features([self._features[cut, view] for view in inputs])
        return self._features[cut, name]

    def data(self, request: FitRequest) -> tuple[BySeed, tuple[str, ...]]:
        """Returns the data of each seed and fold, and notes on how it was made."""
        recipe = request.recipe
        found: dict[tuple[int, int | None], tuple[FoldData, tuple[str, ...]]] = {}

        def of_fold(fold: Fold, seed: int) -> FoldData:
            """Returns the data of a fold. Only synthetic rows depend on the seed: members of an ensemble share it."""
            key = id(fold), None if recipe.synthesis is None else seed
            if key not in found:
                found[key] = self._fold_data(recipe, fold, seed)
            return found[key][0]

        pairs = zip(request.seeds, self.folds(request), strict=True)
        by_seed = tuple(tuple(of_fold(fold, seed) for fold in folds) for seed, folds in pairs)
        return by_seed, tuple(dict.fromkeys(note for _, notes in found.values() for note in notes))

    def _fold_data(self, recipe: Recipe, fold: Fold, seed: int) -> tuple[FoldData, tuple[str, ...]]:
        images = self.splits.images
        n_classes = len(images.classes)
        features = self.features(recipe.cut, recipe.inputs)
        directions = self.directions_of(recipe, fold)
        canonical = images.canonical(fold.train)
        pairs = np.unique(np.stack([images.labels[canonical], images.sources[canonical]]), axis=1)
        train, pool = project(features.select(fold.train), directions), images.pool(fold.train)
        notes: tuple[str, ...] = ()
        if recipe.synthesis is not None:
            training, notes = self.training_features(recipe, fold, directions, seed)
            train = Features.of(training.features)
            pool = TrainingPool(training.labels, np.ones_like(training.labels), training.sources, images.classes)
        data = FoldData(
            features=train,
            pool=pool,
            landmarks=np.bincount(images.labels[canonical], minlength=n_classes),
            sources=np.bincount(pairs[0], minlength=n_classes),
            heldout=EvaluationSet(project(features.select(fold.heldout), directions), images.labels[fold.heldout]),
            directions=directions,
            training_views=tuple(self._features[recipe.cut, view].select(fold.train) for view in recipe.training_views)
            if len(recipe.training_views) > 1
            else (),
        )
        return data, notes

    def training_features(
        self, recipe: Recipe, fold: Fold, directions: Floats | None, seed: int
    ) -> tuple[TrainingFeatures, tuple[str, ...]]:
        """Returns the pooled features of a fold's training images, with synthetic rows if the recipe has any."""
        training = self._images_of(recipe, fold.train, directions)
        if recipe.synthesis is None:
            return training, ()
        canonical = self._images_of(recipe, self.splits.images.canonical(fold.train), directions)
        new = recipe.synthesis.resample(canonical, training.counts(), seed)
        extended = TrainingFeatures(
            features=np.concatenate([training.features, new.features]),
            labels=np.concatenate([training.labels, new.labels]),
            sources=np.concatenate([training.sources, np.full(len(new.labels), NO_SOURCE)]),
            classes=training.classes,
        )
        return extended, new.notes

    def _images_of(self, recipe: Recipe, rows: Ints, directions: Floats | None) -> TrainingFeatures:
        images = self.splits.images
        features = project(self.features(TOP, recipe.inputs).select(rows), directions).take(np.arange(len(rows)))
        return TrainingFeatures(features, images.labels[rows], images.sources[rows], images.classes)

    def directions_of(self, recipe: Recipe, fold: Fold) -> Floats | None:
        """Returns the directions that a recipe projects out, fitted on the training images of the fold."""
        if recipe.projection is None:
            return None
        return recipe.projection.directions(self._images_of(recipe, fold.train, None))

    def test_set(self, request: FitRequest) -> EvaluationSet | None:
        """Returns the test split; None for a cross-validation, which must not see it."""
        if request.protocol == "cross-validation":
            return None
        rows, recipe = self.splits.test, request.recipe
        return EvaluationSet(self.features(recipe.cut, recipe.inputs).select(rows), self.splits.images.labels[rows])


def project(features: Features, directions: Floats | None) -> Features:
    """Returns the features without the directions, if there are any."""
    if directions is None:
        return features
    return Features.of(project_out(features.take(np.arange(len(features))), directions))
