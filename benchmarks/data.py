"""Landmarks of the benchmarks: simulated features with the official counts, and real or synthetic images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.runner import has_sample
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.splits import DataSplits, Fold, ImageTable, TrainingPool
from hirise_imb.features.arrays import Features
from hirise_imb.features.inputs import TOP_MEAN
from hirise_imb.metrics.classification import confusion_matrix, macro_f1
from hirise_imb.training.trainer import Trainer
from hirise_imb.utils.files import cache_root, ensure_folder, exclusive_lock, write_atomically

if TYPE_CHECKING:
    from hirise_imb.data.manifest import Manifest
    from hirise_imb.recipe import Recipe

TRAIN = (40_019, 3_598, 616, 924, 1_561, 343, 1_281, 637)
"""Unique training images of each class in the official split."""
TRAIN_ROWS = (40_019, 4_333, 644, 938, 1_561, 539, 1_918, 1_106)
"""The same with repeated rows."""
VAL = (11_221, 1_337, 84, 602, 77, 126, 511, 217)
TEST = (1_482, 89, 66, 49, 16, 7, 42, 42)

WIDTH = 2048
VARIANTS = 7
"""Images of a landmark in training and validation; they are stored side by side."""
SOURCE = 50
"""Landmarks of a source."""

_VERSION = 1
_CLUSTERS, _LATENT, _CHUNK = 4, 48, 585 * VARIANTS
_SPREAD, _OWN = 0.9, 0.5
"""Noise of a landmark and of an image around centres at distance 1: they set how hard the classes are."""


@dataclass(frozen=True)
class Part:
    """A split of a data set."""

    features: Features
    pool: TrainingPool

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class of each image."""
        return self.pool.labels


@dataclass(frozen=True)
class Data:
    """A task and its features at the top."""

    task: DataSplits
    features: Features

    def part(self, rows: NDArray[np.int64]) -> Part:
        """Some of the images."""
        return Part(self.features.select(rows), self.task.images.pool(rows))

    @property
    def train(self) -> Part:
        """Every training image."""
        return self.part(self.task.split.train)

    @property
    def val(self) -> Part:
        """Of validation, one image a landmark."""
        return self.part(self.task.split.heldout)

    @property
    def test(self) -> Part:
        """Of the test split, one image a landmark."""
        return self.part(self.task.test)


def simulated(size: float = 1.0, width: int = WIDTH) -> Data:
    """A task on features that were drawn once and are memory-mapped.

    Args:
        size: of the training split in units of the official one; validation and test grow no larger than theirs.
        width: of the features.
    """
    train, val = _labels(TRAIN, size, VARIANTS, 0), _labels(VAL, min(1.0, size), VARIANTS, 1)
    test = _labels(TEST, min(1.0, size), 1, 2)
    labels = np.concatenate([train, val, test])
    landmarks = np.concatenate([np.arange(len(train) + len(val)) // VARIANTS, len(train) + np.arange(len(test))])
    stored = _stored(labels, landmarks, width)

    rows, end = np.arange(len(labels)), len(train) + len(val)
    copies = np.ones(len(labels), np.int64)
    copies[: len(train)] = _copies(train)
    canonical = (rows >= end) | (rows % VARIANTS == 0)
    held_out = rows[len(train) : end : VARIANTS]
    images = ImageTable(tuple(map(str, rows)), labels, copies, landmarks // SOURCE, canonical, HIRISE.classes)
    task = DataSplits(images, Fold(rows[: len(train)], held_out), rows[:end], (_folds(images, rows[:end]),), rows[end:])
    return Data(task, Features.of(stored))


def _folds(images: ImageTable, pool: NDArray[np.int64]) -> tuple[Fold, ...]:
    """Four folds of whole sources."""
    fold = images.sources[pool] % 4
    return tuple(Fold(pool[fold != number], images.canonical(pool[fold == number])) for number in range(4))


def train_heads(data: Data, recipes: Sequence[Recipe], seeds: Sequence[int]) -> float:
    """Trains recipes side by side on the training split, for the epochs of the first and scored after each.

    Returns:
        Macro F1 on validation of the first after the last epoch.
    """
    from hirise_imb.training.epoch_loop import StoppingRule, train_validated
    from hirise_imb.training.learners import EvaluationSet, FoldData, HeadLearner
    from hirise_imb.training.scoring import HeldOut

    counts = data.train.pool.counts()
    val = EvaluationSet(data.val.features, data.val.labels)
    fold = FoldData(data.train.features, data.train.pool, counts, counts, val)
    learners = [[HeadLearner(recipe, seed, fold)] for recipe, seed in zip(recipes, seeds, strict=True)]
    everything = np.arange(len(val.labels))
    epochs = recipes[0].max_epochs
    held_out = HeldOut(val.labels, ((everything,),) * len(learners), len(HIRISE.classes))
    rule = StoppingRule("none", epochs, epochs)
    result = train_validated(learners, [[val]] * len(learners), held_out, rule)
    predicted = result.snapshots[0][0].classifier().logits(in_memory(data.val)).argmax(axis=1)
    return macro_f1(confusion_matrix(val.labels, predicted, len(HIRISE.classes)))


def in_memory(part: Part) -> NDArray[np.float32]:
    """All features of a split, once an image."""
    return part.features.take(np.arange(len(part.labels)))


def trainer(data: Data) -> Trainer:
    """Our trainer on features of no backbone."""
    from benchmarks.networks import stand_in

    return Trainer(stand_in(data.features.shape[0]), data.task, {TOP_MEAN: data.features})


def _labels(counts: tuple[int, ...], size: float, variants: int, seed: int) -> NDArray[np.int64]:
    """Class of each image, in an order that mixes classes and keeps variants together."""
    landmarks = [max(1, round(count * size / variants)) for count in counts]
    order = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), landmarks))
    repeated: NDArray[np.int64] = np.repeat(order, variants)
    return repeated


def _copies(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of each training image, in the official proportion of each class."""
    copies = np.ones(len(labels), np.int64)
    for label, (unique, rows) in enumerate(zip(TRAIN, TRAIN_ROWS, strict=True)):
        own = np.flatnonzero(labels == label)
        copies[own[: round(len(own) * (rows - unique) / unique)]] += 1
    return copies


def _stored(labels: NDArray[np.int64], landmarks: NDArray[np.int64], width: int) -> NDArray[np.float32]:
    """Features shaped (n, width), like pooled ones not negative; drawn in chunks, so that memory stays small."""
    folder = ensure_folder(cache_root() / "benchmarks")
    path = folder / f"simulated-{_VERSION}-{len(labels)}x{width}.npy"

    def draw(part: Path) -> None:
        rng = np.random.default_rng(0)
        centres = rng.standard_normal((len(HIRISE.classes), _CLUSTERS, _LATENT)) / np.sqrt(2 * _LATENT)
        lift = rng.standard_normal((_LATENT, width)).astype(np.float32)
        rows = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=(len(labels), width))
        for start in range(0, len(labels), _CHUNK):
            label, landmark = labels[start : start + _CHUNK], landmarks[start : start + _CHUNK]
            which, place = np.unique(landmark, return_inverse=True)
            cluster = np.random.default_rng((1, start)).integers(_CLUSTERS, size=len(which))[place]
            shared = rng.standard_normal((len(which), _LATENT))[place] * _SPREAD
            own = rng.standard_normal((len(label), _LATENT)) * _OWN
            latent = centres[label, cluster] + (shared + own) / np.sqrt(_LATENT)
            noise = 0.5 * rng.standard_normal((len(label), width), dtype=np.float32)
            rows[start : start + _CHUNK] = np.maximum(latent.astype(np.float32) @ lift + noise, 0)
        rows.flush()

    with exclusive_lock(path):
        if not path.exists():
            write_atomically(path, draw)
    stored: NDArray[np.float32] = np.load(path, mmap_mode="r")
    return stored


def images() -> Manifest:
    """The landmarks that $HIRISE_SAMPLE names, else the synthetic ones."""
    from hirise_imb.data import manifest, resolve

    return manifest.read_manifest(
        resolve.resolve_data("$HIRISE_SAMPLE" if has_sample() else "synthetic", HIRISE), HIRISE
    )


def landmarks(count: int) -> tuple[list[Path], NDArray[np.int64]]:
    """Files and classes of so many images of the training split, spread over it."""
    found = images()
    table = found.split("train")
    table = table.iloc[np.linspace(0, len(table) - 1, min(count, len(table))).astype(int)]
    return [found.path(image) for image in table["image"]], table["label"].to_numpy()
