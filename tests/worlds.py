"""Small things to run the package on: a backbone of three layers, a data folder, a learning task of numbers."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from hirise_imb.backbones import TOP, Backbone, BackboneCard
from hirise_imb.backbones.base import InputShape
from hirise_imb.data import manifest
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.splits import DataSplits, Fold, ImageTable, Selection
from hirise_imb.features.arrays import Features
from hirise_imb.recipe import Recipe
from hirise_imb.training.epoch_loop import EvaluationSet, FoldData, Job
from hirise_imb.training.outcome import Outcome
from hirise_imb.training.train_step import Network
from hirise_imb.training.trainer import Run, Trainer
from hirise_imb.utils.errors import UserError

if TYPE_CHECKING:
    from hirise_imb.search.database import Storage

SEEDS = {"random": 0, "imagenet": 1}
WIDTH = 16
LATE = (12, 12, 12)
"""Shape of the toy backbone's features at the cut `late`."""

SIZES = np.array([60, 24, 12, 9, 8, 7, 6, 5])
"""Training landmarks of each class of a made task; validation has half of them, test a third."""


def build_toy(weights: str, input_shape: InputShape) -> keras.Model:
    """Three convolutions with batch normalisation between them; every variable is drawn, none has its default."""
    if weights not in SEEDS:
        raise UserError(f"{weights} holds no weights of toy.")
    pixels = keras.Input(input_shape)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    x = keras.layers.Conv2D(6, 9, strides=9, activation="relu", name="early")(x)
    x = keras.layers.Conv2D(12, 3, strides=2, use_bias=False)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Activation("relu", name="late")(x)
    x = keras.layers.Conv2D(WIDTH, 3, strides=2)(x)
    x = keras.layers.BatchNormalization()(x)
    network = keras.Model(pixels, keras.layers.Activation("relu")(x), name="toy")
    rng = np.random.default_rng(SEEDS[weights])
    for layer in network.layers:
        drawn = []
        for weight in layer.get_weights():
            fan_in = max(1, int(np.prod(weight.shape[:-1])))
            drawn.append(rng.normal(0, fan_in**-0.5, weight.shape))
        if isinstance(layer, keras.layers.BatchNormalization):
            drawn = [rng.uniform(0.5, 1.5, values.shape) for values in drawn]
        layer.set_weights(drawn)
    return network


TOY = BackboneCard(
    name="toy",
    summary="three layers, for tests",
    feature_width=WIDTH,
    cuts={"late": "late", "early": "early"},
    preprocessing="x / 127.5 - 1",
    build=build_toy,
)


def small_copy(whole: Path, folder: Path, most: int) -> Path:
    """The official files of `whole` with at most `most` landmarks of each class and split, one source each at least."""
    table = manifest.read_manifest(whole, HIRISE).table
    firsts = table.drop_duplicates("landmark").groupby(["split", "label"]).head(most)["landmark"]
    kept = set(table.loc[table["landmark"].isin(set(firsts)), "image"])
    layout = HIRISE.layout
    (folder / layout.image_folder).mkdir(parents=True)
    for image in kept:
        shutil.copyfile(whole / layout.image_folder / image, folder / layout.image_folder / image)
    for name in (layout.label_file, layout.split_file):
        lines = (whole / name).read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / name).write_text("".join(line for line in lines if line.split()[0] in kept), encoding="utf-8")
    shutil.copyfile(whole / layout.class_file, folder / layout.class_file)
    return folder


def change_split_file(data: Path, old: str, new: str) -> None:
    """Replace the first `old` of the split file."""
    path = data / HIRISE.layout.split_file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def make_task(*, variants: int = 1, seed: int = 0) -> DataSplits:
    """Images of eight classes, unequal in size, those of a split in random order; each has sources of its own.

    Args:
        variants: images of a landmark; they stand side by side, and the first stands for the landmark.
        seed: of the order.
    """
    rng = np.random.default_rng(seed)
    labels, sources, rows, begin = [], [], {}, 0
    for split, counts, first, observations in (
        ("train", SIZES, 0, 12),
        ("val", SIZES // 2, 12, 6),
        ("test", SIZES // 3, 18, 3),
    ):
        own = rng.permutation(np.repeat(np.arange(len(HIRISE.classes)), counts))
        place = np.array([np.sum(own[:i] == own[i]) for i in range(len(own))])  # among those of its class
        labels.append(np.repeat(own, variants))
        sources.append(np.repeat(first + place % observations, variants))
        rows[split] = begin + np.arange(len(own) * variants)
        begin += len(own) * variants
    label, source = np.concatenate(labels), np.concatenate(sources)
    firsts = np.arange(len(label)) % variants == 0
    names = tuple(f"image{i}" for i in range(len(label)))
    images = ImageTable(names, label, np.ones_like(label), source, firsts, HIRISE.classes)
    pool = np.concatenate([rows["train"], rows["val"]])
    val, test = (rows[split][firsts[rows[split]]] for split in ("val", "test"))
    fold_of = source[pool] % 4
    folds = tuple(Fold(pool[fold_of != k], pool[(fold_of == k) & firsts[pool]]) for k in range(4))
    return DataSplits(images, Fold(rows["train"], val), source[val] % 3, folds, test)


def make_features(task: DataSplits, cut: str = TOP, *, noise: float = 1.0, seed: int = 0) -> Features:
    """Of all images of a task: eight noisy clusters, in the shape that the toy backbone has at the cut."""
    rng = np.random.default_rng(seed)
    shape = {TOP: (WIDTH,), "late": LATE}[cut]
    centres = rng.normal(size=(len(HIRISE.classes), *shape))
    values = centres[task.images.labels] + noise * rng.normal(size=(len(task.images.labels), *shape))
    return Features.of((values if cut == TOP else np.abs(values)).astype(np.float32))


_NETWORKS: dict[int, tuple[Backbone, dict[tuple[str, int], Network]]] = {}


def make_trainer(backbone: Backbone, task: DataSplits, *cuts: str, fresh: bool = False) -> Trainer:
    """A trainer on the plain features at these cuts, `top` among them.

    What networks have compiled is shared by all trainers that are not `fresh`: it takes most of a test's time.
    """
    return quick_start(
        Trainer(backbone, task, {(cut, "plain"): make_features(task, cut) for cut in (TOP, *cuts)}), fresh
    )


def quick_start(trainer: Trainer, fresh: bool = False) -> Trainer:
    """The trainer, with the networks that others have compiled."""
    if not fresh:
        backbone = trainer._stages._backbone
        trainer._stages.networks = _NETWORKS.setdefault(id(backbone), (backbone, {}))[1]
    return trainer


def make_fold_data(task: DataSplits, fold: Fold, features: Features | None = None) -> FoldData:
    """Training and held-out data of a fold; features at the cut `top` unless others are given."""
    features = make_features(task) if features is None else features
    labels, sources = task.images.labels[fold.train], task.images.sources[fold.train]
    pairs = {(int(y), int(s)) for y, s in zip(labels, sources, strict=True)}
    return FoldData(
        features.select(fold.train),
        task.images.pool(fold.train),
        np.array([(labels == k).sum() for k in range(len(task.images.classes))]),
        np.array([sum(y == k for y, _ in pairs) for k in range(len(task.images.classes))]),
        EvaluationSet(features.select(fold.heldout), task.images.labels[fold.heldout]),
    )


def done(outcome: Outcome[Run]) -> Run:
    """The run, which must not have failed."""
    return outcome.get()


def select_one(trainer: Trainer, recipe: Recipe, seed: int = 0, selection: Selection = "val") -> Run:
    """One run on the folds on which recipes are selected."""
    return done(trainer.select([Job(recipe, seed)], selection)[0])


def refit(trainer: Trainer, recipe: Recipe, seed: int = 0) -> Run:
    """One run that predicts the test split."""
    return trainer.refit(recipe, seed)


def probabilities_of(run: Run) -> np.ndarray:
    """Probabilities of the test split, shape (n_test, n_classes)."""
    assert run.test is not None
    return run.test.probabilities


def replace_labels(task: DataSplits, rows: np.ndarray, labels: np.ndarray) -> DataSplits:
    """The same task with other labels in some rows."""
    new = task.images.labels.copy()
    new[rows] = labels
    return dataclasses.replace(task, images=dataclasses.replace(task.images, labels=new))


def shift_validation_labels(task: DataSplits) -> DataSplits:
    """Validation labels are those of the next class: the better the fit, the worse the validation loss."""
    return replace_labels(task, task.split.heldout, (task.images.labels[task.split.heldout] + 1) % len(HIRISE.classes))


@contextmanager
def storage(path: Path) -> Iterator[Storage]:
    """A study's database, held as a run holds it."""
    from hirise_imb.search.database import connect
    from hirise_imb.search.search import lock_study

    with lock_study(path):
        yield connect(path)
