"""Predictions by hand, and the review of them, on a small data set."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from hirise_imb.backbones import Backbone
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.manifest import read_manifest
from hirise_imb.prediction.table import PredictedImages, PredictionFacts, open_writer, prediction_table
from hirise_imb.review import Review, build_review
from hirise_imb.review.queue import TrainingData

CLASSES = HIRISE.classes
N_IMAGES = 12


def encode_noise(seed: int, size: int = 227) -> bytes:
    """The content of a grey image file; images of different seeds have little in common."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (7, 7), np.uint8)
    with io.BytesIO() as buffer:
        Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).save(buffer, "JPEG")
        return buffer.getvalue()


def image_names(number: int = N_IMAGES) -> list[str]:
    """Names of new landmarks, two of each source."""
    return [f"ESP_9{k // 2:05}_1000_RED-{k:04}.jpg" for k in range(number)]


def write_images(folder: Path, names: Sequence[str]) -> Path:
    folder.mkdir(parents=True)
    for seed, name in enumerate(names):
        (folder / name).write_bytes(encode_noise(seed))
    return folder


def make_facts(model: str = "a" * 64) -> PredictionFacts:
    return PredictionFacts(
        model=model,
        model_name="logistic",
        classes=CLASSES.names,
        majority=CLASSES.majority,
        threshold=0.9,
        input=("new",),
        split=None,
        image_shape=HIRISE.image_shape,
        dataset=HIRISE.name,
        fingerprint="b" * 64,
    )


def write_predictions(
    path: Path,
    ids: Sequence[str],
    probabilities: np.ndarray | None = None,
    *,
    sources: Sequence[str | None] | None = None,
    errors: Sequence[str | None] | None = None,
    model: str = "a" * 64,
) -> Path:
    """A file of predictions; unless given, image k is most likely of rare class k modulo 7, less and less surely."""
    errors = [None] * len(ids) if errors is None else errors
    if probabilities is None:
        probabilities = np.full((len(ids), len(CLASSES)), 0.01)
        for k in range(len(ids)):
            probabilities[k, 1 + k % 7] = 0.9 - 0.02 * k
            probabilities[k, 0] = 1 - probabilities[k, 1:].sum()
    usable = probabilities[[error is None for error in errors]]
    sources = [name.rsplit("/", 1)[-1][:15] for name in ids] if sources is None else sources
    facts = make_facts(model)
    table = prediction_table(PredictedImages(ids, sources, errors, usable, usable), facts)
    with open_writer(path, facts) as writer:
        writer.write_table(table)
    return path


def make_review(
    folder: Path, backbone: Backbone, data: Path | None = None, *, per_class: int = 40, per_source: int = 3
) -> Review:
    """The review of `N_IMAGES` new landmarks in the folder `new`."""
    images = write_images(folder / "new", image_names())
    predictions = write_predictions(folder / "p.parquet", [f"{images}/{name}" for name in image_names()])
    training = (
        None if data is None else TrainingData("base", read_manifest(data, HIRISE), ("train", "val"), is_of_model=True)
    )
    return build_review(predictions, [str(images)], backbone, training, per_class, per_source)
