"""What all runs of one study share: checked data, features of every cut and view, a trainer."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hirise_imb.backbones import BACKBONES, PRECISIONS, TOP, Backbone
from hirise_imb.config import StudyDefinition, check_known
from hirise_imb.data import folds, manifest, resolve
from hirise_imb.data.manifest import Manifest
from hirise_imb.data.splits import DataSplits, Fold, ImageTable
from hirise_imb.features.arrays import Features
from hirise_imb.features.extraction import BATCH, extract_features, image_digests, median_relative_difference
from hirise_imb.recipe import PLAIN
from hirise_imb.strategies import Strategy
from hirise_imb.training.trainer import Trainer
from hirise_imb.utils import environment
from hirise_imb.utils.files import cache_root
from hirise_imb.utils.progress import say


@dataclass(frozen=True)
class TrainingContext:
    """Everything that runs of one study share."""

    definition: StudyDefinition
    images: Manifest
    trainer: Trainer
    about: str
    """The backbone and the folds, in words."""
    cuts: tuple[str, ...]
    facts: dict[str, str | int]
    """What every number depends on beside the recipe."""
    seconds: float
    """Wall time of the features in this process; what was cached takes hardly any."""

    @classmethod
    def of(cls, definition: StudyDefinition, images: Manifest, strategies: Sequence[Strategy]) -> TrainingContext:
        """Load the backbone, and make ready what the strategies' recipes name.

        Raises:
            UserError: the weights or features can't be had.
        """
        card = BACKBONES[definition.backbone]
        environment.load_tensorflow()
        backbone = card.load(definition.weights, definition.precision)
        cuts = tuple(card.cuts)
        paths = [images.path(image) for image in images.table["image"]]
        begin = time.monotonic()
        digests = image_digests(paths)
        task = make_splits(images)
        features = _features(backbone, cuts, strategies, images, task.images.is_canonical, digests)
        content = hashlib.sha256("".join([images.digest, *digests]).encode())
        facts: dict[str, str | int] = {
            "data": content.hexdigest()[:16],
            "backbone": card.name,
            "weights": backbone.digest[:16],
            "precision": definition.precision,
            "selection": definition.selection,
            "seed": definition.seed,
        }
        about = f"Backbone: {definition.backbone} with weights {definition.weights}"
        if definition.precision != "float32":
            apart = median_relative_difference(backbone, card.load(definition.weights), paths[:BATCH])
            about += f", in {definition.precision} (its features are {apart:.2%} from those in float32, median)"
        seconds = round(time.monotonic() - begin, 1)
        return cls(definition, images, Trainer(backbone, task, features), about, cuts, facts, seconds)


def load_manifest(definition: StudyDefinition) -> Manifest:
    """The checked data of a definition; nothing heavy is loaded, so mistakes are told at once.

    Raises:
        UserError: the definition names something that is not there, or the data breaks a rule.
    """
    check_known("backbone", definition.backbone, BACKBONES)
    check_known("precision", definition.precision, PRECISIONS)
    return manifest.read_manifest(resolve.resolve_data(definition.data))


def make_splits(images: Manifest) -> DataSplits:
    """The parts of a data set, with the folds over its sources; what no fold assignment could give is printed."""
    table = images.table
    rows = {split: images.canonical_images(split).index.to_numpy() for split in ("train", "val", "test")}
    canonical = np.zeros(len(table), bool)
    canonical[np.concatenate(list(rows.values()))] = True
    known_images = ImageTable(
        names=tuple(table["image"]),
        labels=table["label"].to_numpy(),
        copies=table["copies"].to_numpy(),
        sources=np.unique(table["source"].to_numpy(str), return_inverse=True)[1],
        is_canonical=canonical,
    )
    train = images.split("train").index.to_numpy()
    pool = np.sort(np.concatenate([train, images.split("val").index.to_numpy()]))
    return DataSplits(
        images=known_images,
        split=Fold(train, rows["val"]),
        val_groups=_groups(known_images, rows["val"]),
        folds=_folds(known_images, pool),
        test=rows["test"],
    )


def _groups(images: ImageTable, rows: np.ndarray) -> np.ndarray:
    """Folds of validation landmarks; a single one where all are from one source."""
    if len(np.unique(images.sources[rows])) < 2:
        return np.zeros(len(rows), np.int64)
    return folds.assign_folds(images.labels[rows], images.sources[rows]).folds


def _folds(images: ImageTable, pool: np.ndarray) -> tuple[Fold, ...]:
    """A cross-validation over the pool, by source."""
    landmarks = pool[images.is_canonical[pool]]
    found = folds.assign_folds(images.labels[landmarks], images.sources[landmarks])
    if found.missing:
        say(f"Some fold of the cross-validation lacks {', '.join(found.missing)}: too few sources to divide.")
    fold_of = dict(zip(images.sources[landmarks].tolist(), found.folds.tolist(), strict=True))
    own = np.array([fold_of[source] for source in images.sources[pool].tolist()])
    return tuple(Fold(pool[own != fold], landmarks[found.folds == fold]) for fold in range(int(found.folds.max()) + 1))


def _features(
    backbone: Backbone,
    cuts: Sequence[str],
    strategies: Sequence[Strategy],
    images: Manifest,
    canonical: np.ndarray,
    digests: list[str],
) -> Mapping[tuple[str, str], Features]:
    """By cut and view, what the strategies' recipes take, of all images."""
    paths = [images.path(image) for image in images.table["image"]]
    deep = [TOP, *(cuts if any(strategy.trains_backbone for strategy in strategies) else ())]
    cached = extract_features(backbone, deep, paths, cache_root(), digests)
    features = {(cut, "plain"): found for cut, found in cached.items()}
    whole = dict.fromkeys(view for strategy in strategies for view in strategy.inputs if view not in PLAIN)
    for view in whole:
        features[TOP, view] = extract_features(backbone, [TOP], paths, cache_root(), digests, view)[TOP]
    turned = dict.fromkeys(view for strategy in strategies for view in strategy.views if view not in (*PLAIN, *whole))
    rows = np.flatnonzero(canonical)
    for view in turned:
        some = [paths[row] for row in rows], [digests[row] for row in rows]
        found = extract_features(backbone, [TOP], some[0], cache_root(), some[1], view)[TOP]
        # A row that stands for no landmark points behind the end: whoever asks for it is told.
        spread = np.full(len(paths), len(found.stored))
        spread[rows] = found.rows
        features[TOP, view] = replace(found, rows=spread)
    return features
