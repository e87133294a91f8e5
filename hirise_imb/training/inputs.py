"""What the stages of a recipe are fitted on: folds, features, training rows and held-out landmarks of a request."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hirise_imb.backbones import TOP
from hirise_imb.data.splits import DataSplits, Fold, TrainingPool
from hirise_imb.features.arrays import Features, concatenate_features
from hirise_imb.features.inputs import MAP, FeatureKey, Inputs, feature_keys, have_one_scale
from hirise_imb.features.training_features import TrainingFeatures
from hirise_imb.imbalance.smote import NO_SOURCE
from hirise_imb.models.preparation import Preparation, Standardisation
from hirise_imb.recipe import Recipe
from hirise_imb.training.learners import EvaluationSet, FoldData
from hirise_imb.training.scoring import HeldOut
from hirise_imb.training.stage_fit import FitRequest

Ints = NDArray[np.int64]

_N_CONCATENATIONS = 4
"""Number of concatenations in memory: those of the latest searches."""

BySeed = tuple[tuple[FoldData, ...], ...]
"""Data by seed and fold."""


class StageInputs:
    """The data of fits on one data set."""

    def __init__(self, splits: DataSplits, features: Mapping[FeatureKey, Features]) -> None:
        """Takes the splits, and the features of all images by key."""
        self.splits = splits
        self._features = features
        self.concatenations: OrderedDict[Inputs, Features] = OrderedDict()
        """The features of the latest inputs that consist of several parts."""

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
        """Returns the features of all images: those of the inputs, or the feature maps at a cut below the top."""
        if cut != TOP:
            return self.feature_maps(cut)
        keys = feature_keys(inputs)
        if len(keys) == 1:
            return self._features[keys[0]]
        if inputs not in self.concatenations:
            self.concatenations[inputs] = concatenate_features([self._features[key] for key in keys])
            if len(self.concatenations) > _N_CONCATENATIONS:
                self.concatenations.popitem(last=False)
        self.concatenations.move_to_end(inputs)
        return self.concatenations[inputs]

    def feature_maps(self, cut: str, view: str = "plain") -> Features:
        """Returns the feature maps of all images at a cut below the top."""
        return self._features[FeatureKey(view, cut, MAP)]

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
        preparation = self.preparation(recipe, fold)
        canonical = images.canonical(fold.train)
        pairs = np.unique(np.stack([images.labels[canonical], images.sources[canonical]]), axis=1)
        train, pool = prepare(features.select(fold.train), preparation), images.pool(fold.train)
        notes: tuple[str, ...] = ()
        if recipe.synthesis is not None:
            training, notes = self.training_features(recipe, fold, preparation, seed)
            train = Features.of(training.features)
            pool = TrainingPool(training.labels, np.ones_like(training.labels), training.sources, images.classes)
        data = FoldData(
            features=train,
            pool=pool,
            landmarks=np.bincount(images.labels[canonical], minlength=n_classes),
            sources=np.bincount(pairs[0], minlength=n_classes),
            heldout=EvaluationSet(prepare(features.select(fold.heldout), preparation), images.labels[fold.heldout]),
            preparation=preparation,
            training_views=tuple(
                self.feature_maps(recipe.cut, view).select(fold.train) for view in recipe.training_views
            )
            if len(recipe.training_views) > 1
            else (),
        )
        return data, notes

    def training_features(
        self, recipe: Recipe, fold: Fold, preparation: Preparation, seed: int
    ) -> tuple[TrainingFeatures, tuple[str, ...]]:
        """Returns the pooled features of a fold's training images, with synthetic rows if the recipe has any."""
        training = self._images_of(recipe, fold.train, preparation)
        if recipe.synthesis is None:
            return training, ()
        canonical = self._images_of(recipe, self.splits.images.canonical(fold.train), preparation)
        new = recipe.synthesis.resample(canonical, training.counts(), seed)
        extended = TrainingFeatures(
            features=np.concatenate([training.features, new.features]),
            labels=np.concatenate([training.labels, new.labels]),
            sources=np.concatenate([training.sources, np.full(len(new.labels), NO_SOURCE)]),
            classes=training.classes,
        )
        return extended, new.notes

    def _images_of(self, recipe: Recipe, rows: Ints, preparation: Preparation) -> TrainingFeatures:
        images = self.splits.images
        features = prepare(self.features(TOP, recipe.inputs).select(rows), preparation).take(np.arange(len(rows)))
        return TrainingFeatures(features, images.labels[rows], images.sources[rows], images.classes)

    def preparation(self, recipe: Recipe, fold: Fold) -> Preparation:
        """Fits the preparation of a recipe's features on the training images of the fold."""
        if have_one_scale(recipe.inputs) and recipe.projection is None:
            return Preparation()
        training = self._images_of(recipe, fold.train, Preparation())
        standardised = Preparation()
        if not have_one_scale(recipe.inputs):
            standardised = Preparation(Standardisation.of(training.features))
            training = replace(training, features=standardised.apply(training.features))
        if recipe.projection is None:
            return standardised
        return replace(standardised, directions=recipe.projection.directions(training))

    def test_set(self, request: FitRequest) -> EvaluationSet | None:
        """Returns the test split; None for a cross-validation, which must not see it."""
        if request.protocol == "cross-validation":
            return None
        rows, recipe = self.splits.test, request.recipe
        return EvaluationSet(self.features(recipe.cut, recipe.inputs).select(rows), self.splits.images.labels[rows])


def prepare(features: Features, preparation: Preparation) -> Features:
    """Returns the features after their preparation, in memory unless they stay as they are."""
    if preparation.is_identity:
        return features
    return Features.of(preparation.apply(features.take(np.arange(len(features)))))
