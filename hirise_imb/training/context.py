"""The training context of a study: its data, features of every cut and view, and the trainer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hirise_imb.backbones import BACKBONES, PRECISIONS, Backbone, BackboneCard
from hirise_imb.config import GIVEN_SPLIT, NESTED_CV, StudyDefinition, check_known
from hirise_imb.data.duplicates import Duplicates, find_duplicates
from hirise_imb.data.load import load_data
from hirise_imb.data.manifest import Manifest
from hirise_imb.data.registry import DATASETS
from hirise_imb.data.splits import make_outer_splits, make_splits
from hirise_imb.features.arrays import Features
from hirise_imb.features.extraction import (
    BATCH,
    data_digest,
    extract_features,
    image_digests,
    median_relative_difference,
)
from hirise_imb.features.inputs import TOP_MEAN, FeatureKey, RequiredFeatures
from hirise_imb.features.table import FeatureTable, read_feature_table
from hirise_imb.metrics.targets import MACRO_F1, find_target
from hirise_imb.recipe import Recipe
from hirise_imb.strategies import Strategy
from hirise_imb.training.epoch_loop import OnEpoch
from hirise_imb.training.trainer import CrossValidation, Trainer
from hirise_imb.utils import environment
from hirise_imb.utils.files import cache_root
from hirise_imb.utils.progress import warn

GIVEN_SPLIT_NAME = "given split"
"""Name of the only division of the given split."""


@dataclass(frozen=True)
class Division:
    """A division of the data with searches and fits of its own: the given split, or an outer fold."""

    name: str
    """Name in reports: `given split`, `fold 2`, or `repeat 1, fold 2` if there are several repeats."""
    key: str
    """Name in the database: `given-split`, or `nested-cv 1.2` for the second outer fold of the first repeat."""
    trainer: Trainer
    facts: Mapping[str, str | int]
    """Everything that the numbers of a run depend on, other than its recipe and seed."""
    trial_seeds: tuple[int, ...]
    """Seeds with which the recipes of a search are scored."""
    refit_seeds: tuple[int, ...]
    """Seeds with which selected recipes are fitted."""

    def score_trial(self, recipe: Recipe, on_epoch: OnEpoch | None = None) -> CrossValidation:
        """Scores a recipe as all trials of searches are scored.

        Raises:
            FitFailed: the recipe can't be fitted.
        """
        return self.trainer.cross_validate(recipe, self.trial_seeds, on_epoch)

    @property
    def score_seeds(self) -> tuple[int, ...]:
        """Seeds with which arms are scored: as many as of trials, and others.

        The best trial of a search is also the luckiest. With other seeds and other folds, its recipe has no more luck
        than that of any other arm.
        """
        return tuple(seed + len(self.trial_seeds) for seed in self.trial_seeds)

    def score_arm(self, recipe: Recipe) -> CrossValidation:
        """Scores a recipe as all arms are scored: with other seeds and other folds than trials.

        Raises:
            FitFailed: the recipe can't be fitted.
        """
        return self.trainer.cross_validate(recipe, self.score_seeds, first_assignment=len(self.trial_seeds))

    def search_step(self, strategy: str) -> str:
        """Returns the name of a strategy's search among the steps of a study: `fold 2 of 5: searching smote`."""
        return f"{self._place}: searching {strategy}"

    def fits_step(self, arm: str) -> str:
        """Returns the name of an arm's fits among the steps of a study: `fold 2 of 5: fitting smote`."""
        return f"{self._place}: fitting {arm}"

    @property
    def _place(self) -> str:
        return self.name if self.key == GIVEN_SPLIT else f"{self.name} of {self.facts['outer_folds']}"


@dataclass(frozen=True)
class TrainingContext:
    """Everything that the runs of one study share."""

    definition: StudyDefinition
    manifest: Manifest
    trainer: Trainer
    description: str
    """One sentence about the backbone, its weights and its precision, or about the table of features."""
    table: FeatureTable | None
    """The table that features come from, if they do not come from the backbone."""
    duplicates: Duplicates
    """Groups of landmarks whose image files are identical."""
    facts: dict[str, str | int]
    """Everything that the numbers of all divisions depend on."""
    seconds: float
    """Wall time of feature extraction in this process; cached features take almost none."""

    @property
    def card(self) -> BackboneCard:
        """The facts about the network that features come from."""
        return find_card(self.definition, self.table)

    @property
    def cuts(self) -> tuple[str, ...]:
        """Cut points of the backbone; the one that leaves the fewest weights to train comes first."""
        return tuple(self.card.cuts)

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers of the backbone for representations, the last one first."""
        return tuple(self.card.layers)

    @cached_property
    def given_split(self) -> Division:
        """The given split."""
        definition = self.definition
        return Division(
            name=GIVEN_SPLIT_NAME,
            key=GIVEN_SPLIT,
            trainer=self.trainer,
            facts=self.facts | {"trial_seeds": definition.trial_seeds},
            trial_seeds=_count_from(definition.seed, definition.trial_seeds),
            refit_seeds=_count_from(definition.seed, definition.refits),
        )

    @cached_property
    def outer_folds(self) -> tuple[Division, ...]:
        """The outer folds of all repeats of the nested cross-validation.

        Raises:
            UserError: there are too few sources.
        """
        definition = self.definition
        divisions = []
        for repeat in range(definition.repeats):
            splits = make_outer_splits(self.manifest, definition.outer_folds, repeat, 2 * definition.inner_seeds)
            for fold, split in enumerate(splits, 1):
                number = {"outer_folds": definition.outer_folds, "repeat": repeat + 1, "outer_fold": fold}
                division = Division(
                    name=f"fold {fold}" if definition.repeats == 1 else f"repeat {repeat + 1}, fold {fold}",
                    key=f"{NESTED_CV} {repeat + 1}.{fold}",
                    trainer=self.trainer.with_splits(split),
                    facts=self.facts | {"inner_seeds": definition.inner_seeds} | number,
                    trial_seeds=_count_from(definition.seed, definition.inner_seeds),
                    # Seeds of its own for each repeat, so that repeats differ in all that is random.
                    refit_seeds=_count_from(definition.seed + repeat * definition.refits, definition.refits),
                )
                divisions.append(division)
        return tuple(divisions)

    def divisions(self, design: str) -> tuple[Division, ...]:
        """Returns the divisions of a design of the evaluation."""
        return (self.given_split,) if design == GIVEN_SPLIT else self.outer_folds

    @classmethod
    def prepare(
        cls, definition: StudyDefinition, manifest: Manifest, strategies: Sequence[Strategy]
    ) -> TrainingContext:
        """Makes the features that recipes of the strategies use ready, from the backbone or from a table.

        Raises:
            UserError: the weights are not available, the features can't be computed, or the table has mistakes.
        """
        paths = [manifest.path(image) for image in manifest.table["image"]]
        begin = time.monotonic()
        digests = image_digests(paths)
        duplicates = find_duplicates(manifest, digests)
        if duplicates:
            warn(duplicates.describe())
        target = find_target(definition.metric, definition.costs, manifest.spec.classes.names)
        table = load_table(definition, manifest, digests)  # before TensorFlow, so that mistakes are reported at once
        environment.load_tensorflow()
        splits = make_splits(manifest, 2 * definition.trial_seeds)  # for trials and for arms
        if table is None:
            card = BACKBONES[definition.backbone]
            backbone = card.load(definition.weights, manifest.spec.image_shape, definition.precision)
            required = require_features(strategies, card)
            features = _extract(backbone, required, paths, splits.images.is_canonical, digests)
            trainer = Trainer(backbone, splits, features, target)
            origin = {"backbone": card.name, "weights": backbone.digest[:16], "precision": definition.precision}
            description = _describe_backbone(definition, backbone, paths)
        else:
            trainer = Trainer(None, splits, {TOP_MEAN: Features.of(table.vectors)}, target)
            origin = {"features": table.digest[:16]}
            made = f"made by {table.made_by}" if table.made_by else "the file does not say how they were made"
            description = f"Features: {definition.features} ({made}), {table.width:,} for each image"
        facts: dict[str, str | int] = {"dataset": manifest.spec.name, "data": data_digest(manifest, digests)}
        facts |= {**origin, "seed": definition.seed}
        if target is not MACRO_F1:
            # Left out for macro F1, so that fits from before other targets could be chosen still count.
            facts["metric"] = " | ".join((definition.metric, *definition.costs))
        seconds = round(time.monotonic() - begin, 1)
        return cls(definition, manifest, trainer, description, table, duplicates, facts, seconds)


def _count_from(first: int, count: int) -> tuple[int, ...]:
    return tuple(range(first, first + count))


def find_card(definition: StudyDefinition, table: FeatureTable | None) -> BackboneCard:
    """Returns the facts about the network that features come from: the backbone, or that of a table."""
    return BACKBONES[definition.backbone] if table is None else table.card


def require_features(strategies: Sequence[Strategy], card: BackboneCard) -> RequiredFeatures:
    """Returns the features of a backbone that the published recipe and the strategies use."""
    return RequiredFeatures.union(
        strategy.required_features(tuple(card.layers), tuple(card.cuts)) for strategy in strategies
    )


def load_table(
    definition: StudyDefinition, manifest: Manifest, digests: Sequence[str] | None = None
) -> FeatureTable | None:
    """Reads and checks the table of features that a definition names, without loading TensorFlow; None if it has none.

    Args:
        definition: definition of the study.
        manifest: data of the study.
        digests: `image_digests` of all images, if the caller has computed them already.

    Raises:
        UserError: the table has mistakes.
    """
    if not definition.features:
        return None
    images = list(manifest.table["image"])
    digests = image_digests([manifest.path(image) for image in images]) if digests is None else digests
    return read_feature_table(Path(definition.features), images, digests)


def load_manifest(definition: StudyDefinition) -> Manifest:
    """Reads and checks the data of a definition without loading TensorFlow, so that mistakes are reported at once.

    Raises:
        UserError: the definition names something that does not exist, or the data is not valid.
    """
    check_known("backbone", definition.backbone, BACKBONES)
    check_known("precision", definition.precision, PRECISIONS)
    card = DATASETS[check_known("data set", definition.dataset, DATASETS)]
    manifest = load_data(definition.data, card, definition.images)
    find_target(definition.metric, definition.costs, manifest.spec.classes.names)
    if not definition.features:
        BACKBONES[definition.backbone].check_image_size(manifest.spec.image_shape)
    return manifest


def _describe_backbone(definition: StudyDefinition, backbone: Backbone, paths: Sequence[Path]) -> str:
    """Returns a sentence about the backbone, and how exact its arithmetic is where it has less than float32."""
    description = f"Backbone: {definition.backbone} with weights {definition.weights}"
    if definition.precision == "float32":
        return description
    exact = backbone.card.load(definition.weights, backbone.input_shape)
    difference = median_relative_difference(backbone, exact, paths[:BATCH])
    return (
        f"{description}, in {definition.precision} (its features differ from those in float32 by {difference:.2%}, "
        f"median)"
    )


def _extract(
    backbone: Backbone,
    required: RequiredFeatures,
    paths: Sequence[Path],
    is_canonical: NDArray[np.bool_],
    digests: Sequence[str],
) -> Mapping[FeatureKey, Features]:
    """Extracts the features that recipes use."""
    features = extract_features(backbone, required.images, paths, cache_root(), digests)
    rows: list[int] = np.flatnonzero(is_canonical).tolist()
    canonical_paths, canonical_digests = [paths[row] for row in rows], [digests[row] for row in rows]
    canonical = extract_features(backbone, required.canonical_images, canonical_paths, cache_root(), canonical_digests)
    for key, values in canonical.items():
        # The row of any other image is out of bounds, so that using it raises instead of giving wrong features.
        row_of_image = np.full(len(paths), len(values.stored))
        row_of_image[rows] = values.rows
        features[key] = replace(values, rows=row_of_image)
    return features
