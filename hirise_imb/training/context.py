"""The training context of a study: its data, features of every cut and view, and the trainer."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hirise_imb.backbones import BACKBONES, PRECISIONS, TOP, Backbone
from hirise_imb.config import StudyDefinition, check_known
from hirise_imb.data.manifest import Manifest, read_manifest
from hirise_imb.data.registry import DATASETS
from hirise_imb.data.resolve import resolve_data
from hirise_imb.data.splits import make_splits
from hirise_imb.features.arrays import Features
from hirise_imb.features.extraction import BATCH, extract_features, image_digests, median_relative_difference
from hirise_imb.recipe import PLAIN
from hirise_imb.strategies import Strategy
from hirise_imb.training.trainer import Trainer
from hirise_imb.utils import environment
from hirise_imb.utils.files import cache_root


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
    """Everything that the numbers of a run depend on, other than its recipe and seed."""
    seconds: float
    """Wall time of feature extraction in this process; cached features take almost none."""

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
        splits = make_splits(manifest, definition.trial_seeds)
        features = _extract(backbone, cuts, strategies, manifest, splits.images.is_canonical, digests)
        content = hashlib.sha256("".join([manifest.digest, *digests]).encode())
        facts: dict[str, str | int] = {
            "dataset": manifest.spec.name,
            "data": content.hexdigest()[:16],
            "backbone": card.name,
            "weights": backbone.digest[:16],
            "precision": definition.precision,
            "seed": definition.seed,
            "trial_seeds": definition.trial_seeds,
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
    return read_manifest(resolve_data(definition.data, spec), spec)


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
