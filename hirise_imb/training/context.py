"""The training context of a study: its data, features of every cut and view, and the trainer."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hirise_imb.backbones import BACKBONES, PRECISIONS, TOP, Backbone
from hirise_imb.config import GIVEN_SPLIT, NESTED_CV, StudyDefinition, check_known
from hirise_imb.data.manifest import Manifest, read_manifest
from hirise_imb.data.registry import DATASETS
from hirise_imb.data.resolve import resolve_data
from hirise_imb.data.splits import make_outer_splits, make_splits
from hirise_imb.features.arrays import Features
from hirise_imb.features.extraction import BATCH, extract_features, image_digests, median_relative_difference
from hirise_imb.recipe import PLAIN, Recipe
from hirise_imb.strategies import Strategy
from hirise_imb.training.epoch_loop import OnEpoch
from hirise_imb.training.trainer import CrossValidation, Trainer
from hirise_imb.utils import environment
from hirise_imb.utils.files import cache_root

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
        """Returns the name of a strategy's search among the steps of a study, such as `fold 2: smote`."""
        return strategy if self.key == GIVEN_SPLIT else f"{self.name}: {strategy}"

    def fits_step(self, arm: str) -> str:
        """Returns the name of an arm's fits among the steps of a study, such as `fold 2: smote fits`."""
        return f"{self.search_step(arm)} fits"


@dataclass(frozen=True)
class TrainingContext:
    """Everything that the runs of one study share."""

    definition: StudyDefinition
    manifest: Manifest
    trainer: Trainer
    description: str
    """One sentence about the backbone, its weights and its precision."""
    cuts: tuple[str, ...]
    """Cut points of the backbone; the one that leaves the fewest weights to train comes first."""
    facts: dict[str, str | int]
    """Everything that the numbers of all divisions depend on."""
    seconds: float
    """Wall time of feature extraction in this process; cached features take almost none."""

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
        """Loads the backbone, and extracts the features that recipes of the strategies use.

        Raises:
            UserError: the weights are not available, or the features can't be computed.
        """
        card = BACKBONES[definition.backbone]
        environment.load_tensorflow()
        input_shape = manifest.spec.image_shape
        backbone = card.load(definition.weights, input_shape, definition.precision)
        cuts = tuple(card.cuts)
        paths = [manifest.path(image) for image in manifest.table["image"]]
        begin = time.monotonic()
        digests = image_digests(paths)
        splits = make_splits(manifest, 2 * definition.trial_seeds)  # for trials and for arms
        features = _extract(backbone, cuts, strategies, manifest, splits.images.is_canonical, digests)
        content = hashlib.sha256("".join([manifest.digest, *digests]).encode())
        facts: dict[str, str | int] = {
            "dataset": manifest.spec.name,
            "data": content.hexdigest()[:16],
            "backbone": card.name,
            "weights": backbone.digest[:16],
            "precision": definition.precision,
            "seed": definition.seed,
        }
        description = f"Backbone: {definition.backbone} with weights {definition.weights}"
        if definition.precision != "float32":
            exact = card.load(definition.weights, input_shape)
            difference = median_relative_difference(backbone, exact, paths[:BATCH])
            description += (
                f", in {definition.precision} (its features differ from those in float32 by {difference:.2%}, median)"
            )
        seconds = round(time.monotonic() - begin, 1)
        return cls(definition, manifest, Trainer(backbone, splits, features), description, cuts, facts, seconds)


def _count_from(first: int, count: int) -> tuple[int, ...]:
    return tuple(range(first, first + count))


@dataclass(frozen=True)
class RequiredFeatures:
    """The features that recipes of some strategies use."""

    cuts: tuple[str, ...]
    """Cut points whose features are extracted from plain images, `top` first."""
    inputs: tuple[str, ...]
    """Further views of all images, at the cut `top`."""
    views: tuple[str, ...]
    """Further views of canonical images, at the cut `top`. They serve for prediction alone, and canonical images are a
    seventh of the official archive."""

    @classmethod
    def of(cls, strategies: Sequence[Strategy], cuts: Sequence[str]) -> RequiredFeatures:
        """Returns what the strategies use of a backbone with these cut points."""
        inputs = dict.fromkeys(view for strategy in strategies for view in strategy.inputs if view not in PLAIN)
        known = (*PLAIN, *inputs)
        views = dict.fromkeys(view for strategy in strategies for view in strategy.views if view not in known)
        needed_cuts = cuts if any(strategy.trains_backbone for strategy in strategies) else ()
        return cls((TOP, *needed_cuts), tuple(inputs), tuple(views))


def load_manifest(definition: StudyDefinition) -> Manifest:
    """Reads and checks the data of a definition without loading TensorFlow, so that mistakes are reported at once.

    Raises:
        UserError: the definition names something that does not exist, or the data is not valid.
    """
    check_known("backbone", definition.backbone, BACKBONES)
    check_known("precision", definition.precision, PRECISIONS)
    spec = DATASETS[check_known("data set", definition.dataset, DATASETS)]
    manifest = read_manifest(resolve_data(definition.data, spec), spec)
    BACKBONES[definition.backbone].check_image_size(manifest.spec.image_shape)
    return manifest


def _extract(
    backbone: Backbone,
    cuts: Sequence[str],
    strategies: Sequence[Strategy],
    manifest: Manifest,
    is_canonical: NDArray[np.bool_],
    digests: list[str],
) -> Mapping[tuple[str, str], Features]:
    """Extracts the features of all images, for every cut and view that recipes of the strategies use."""
    paths = [manifest.path(image) for image in manifest.table["image"]]
    required = RequiredFeatures.of(strategies, cuts)
    by_cut = extract_features(backbone, required.cuts, paths, cache_root(), digests)
    features = {(cut, "plain"): values for cut, values in by_cut.items()}
    for view in required.inputs:
        features[TOP, view] = extract_features(backbone, [TOP], paths, cache_root(), digests, view)[TOP]
    rows = np.flatnonzero(is_canonical)
    canonical_paths, canonical_digests = [paths[row] for row in rows], [digests[row] for row in rows]
    for view in required.views:
        extracted = extract_features(backbone, [TOP], canonical_paths, cache_root(), canonical_digests, view)[TOP]
        # The row of any other image is out of bounds, so that using it raises instead of giving wrong features.
        row_of_image = np.full(len(paths), len(extracted.stored))
        row_of_image[rows] = extracted.rows
        features[TOP, view] = replace(extracted, rows=row_of_image)
    return features
