"""Small things to run the package on: a backbone of three layers, a data folder, a learning task of numbers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np

from hirise_imb import catalogue
from hirise_imb.backbones import TOP, BackboneCard
from hirise_imb.errors import UserError
from hirise_imb.features import Features
from hirise_imb.landmarks import CLASS_FILE, CLASSES, IMAGE_FOLDER, LABEL_FILE, SPLIT_FILE
from hirise_imb.search import Storage, connect, held
from hirise_imb.training import Examples, Task

SEEDS = {"random": 0, "imagenet": 1}
WIDTH = 16


def build_toy(weights: str) -> keras.Model:
    """Three convolutions with batch normalisation between them; every variable is drawn, none has its default."""
    if weights not in SEEDS:
        raise UserError(f"{weights} holds no weights of toy.")
    pixels = keras.Input((227, 227, 1))
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
    table = catalogue.read(whole).table
    firsts = table.drop_duplicates("landmark").groupby(["split", "label"]).head(most)["landmark"]
    kept = set(table.loc[table["landmark"].isin(set(firsts)), "image"])
    (folder / IMAGE_FOLDER).mkdir(parents=True)
    for image in kept:
        shutil.copyfile(whole / IMAGE_FOLDER / image, folder / IMAGE_FOLDER / image)
    for name in (LABEL_FILE, SPLIT_FILE):
        lines = (whole / name).read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / name).write_text("".join(line for line in lines if line.split()[0] in kept), encoding="utf-8")
    shutil.copyfile(whole / CLASS_FILE, folder / CLASS_FILE)
    return folder


def change_split_file(data: Path, old: str, new: str) -> None:
    """Replace the first `old` of the split file."""
    path = data / SPLIT_FILE
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def examples(values: np.ndarray, labels: np.ndarray, name: str) -> Examples:
    features = Features(values.astype(np.float32), np.arange(len(values)))
    return Examples(tuple(f"{name}{i}" for i in range(len(values))), features, labels, np.ones(len(values), np.int64))


def make_task(cut: str = TOP, *, shape: tuple[int, ...] = (WIDTH,), noise: float = 1.0, seed: int = 0) -> Task:
    """Eight noisy clusters, unequal in size; the features have `shape`."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(len(CLASSES), *shape))
    sizes = np.array([60, 24, 12, 9, 8, 7, 6, 5])

    def split(name: str, counts: np.ndarray) -> Examples:
        labels = rng.permutation(np.repeat(np.arange(len(CLASSES)), counts))
        values = centres[labels] + noise * rng.normal(size=(len(labels), *shape))
        return examples(values if cut == TOP else np.abs(values), labels, name)

    return Task(split("train", sizes), split("val", sizes // 2), split("test", sizes // 3), sizes)


@contextmanager
def storage(path: Path) -> Iterator[Storage]:
    """A study's database, held as a run holds it."""
    with held(path):
        yield connect(path)
