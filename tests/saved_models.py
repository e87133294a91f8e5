"""A saved model on the toy backbone, with weights that were drawn and not trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.data.dataset import ClassSet
from hirise_imb.data.hirise import HIRISE
from hirise_imb.imbalance.logit_adjustment import Correction
from hirise_imb.models.linear import LinearClassifier
from hirise_imb.prediction.model_file import SavedModel, read_model, write_model
from hirise_imb.prediction.records import ModelRecord
from hirise_imb.training.fitted import FittedHead, FittedModel

SEEDS = (0, 1)
POINT = {"threshold": 0.9, "coverage": 0.5, "precision": 0.75}


def write_toy_model(
    folder: Path,
    backbone: Backbone,
    classes: ClassSet = HIRISE.classes,
    dataset: str = HIRISE.name,
    sharpness: float = 3,
) -> SavedModel:
    """Writes a model of two seeds that sees the plain features and those of flipped images; returns it as read.

    Args:
        folder: folder of the model.
        backbone: backbone with its weights.
        classes: classes of the model.
        dataset: name of its data set.
        sharpness: factor of its weights: the higher, the more confident are its predictions.
    """
    rng = np.random.default_rng(0)
    names = list(classes)
    shape = (32, *backbone.input_shape)
    # Pixels of many brightnesses, whose features give the classifier its scale.
    pixels = (
        rng.uniform(0, 255, shape).astype(np.float32) * np.linspace(0.2, 1, 32, dtype=np.float32)[:, None, None, None]
    )
    features = np.asarray(backbone.trunk(TOP)(pixels, training=False), np.float64)
    centre, gain = features.mean(axis=0), 1 / np.maximum(features.std(axis=0), 1e-6)

    def fit() -> FittedModel:
        kernel = rng.normal(size=(len(names), len(centre))) * sharpness / len(centre) ** 0.5
        classifier = LinearClassifier(kernel, np.zeros(len(names)), centre, gain)
        correction = Correction(1.0, rng.normal(size=len(names)))
        return FittedModel(((FittedHead(classifier),),), (1.0,), correction, temperature=0.8)

    confident = {"landmarks": 2, "decided": 1, "shown": 4, "right": 3}
    score = {"landmarks": 2, "sources": 1, "precision": 0.5, "recall": 0.5, "f1": 0.5, "f1_interval": None}
    facts: Mapping[str, Any] = {
        "format": 1,
        "dataset": dataset,
        "classes": names,
        "majority": classes.majority,
        "image_shape": list(backbone.input_shape),
        "backbone": {
            "name": backbone.card.name,
            "weights": "random",
            "digest": backbone.digest,
            "precision": backbone.precision,
            "preprocessing": backbone.card.preprocessing,
        },
        "features": {
            "inputs": [{"view": "plain", "layer": TOP, "pooling": "mean"}],
            "views": ["plain", "fh"],
            "cut": TOP,
            "trainable": "all",
        },
        "seeds": list(SEEDS),
        "recipe": {},
        "settings": {},
        "origin": {
            "study": "demo",
            "arm": "drawn",
            "summary": "Weights that were drawn",
            "predictions": "predictions/drawn.parquet",
            "digest": "0" * 64,
        },
        "training_data": {
            "data": "synthetic",
            "digest": "0" * 64,
            "splits": ["train", "val"],
            "landmarks": dict.fromkeys(names, 2),
            "sources": ["ESP_000001_1000"],
        },
        "scores": {"macro_f1": 0.5, "macro_f1_interval": None, "classes": dict.fromkeys(names, score)},
        "operating_point": {**POINT, "classes": dict.fromkeys(names, confident)},
        "packages": {},
    }
    write_model(folder, cast("ModelRecord", facts), {seed: fit() for seed in SEEDS}, "# A model\n")
    return read_model(folder)
