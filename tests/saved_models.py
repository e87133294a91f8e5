"""Saved models to test with: their facts, and small ones that need no study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.data.dataset import ClassSet
from hirise_imb.data.hirise import HIRISE
from hirise_imb.features.inputs import FeatureSpec, Input
from hirise_imb.imbalance.logit_adjustment import Correction
from hirise_imb.models.linear import LinearClassifier
from hirise_imb.prediction.model_file import (
    SavedModel,
    describe_backbone,
    describe_features,
    read_model,
    write_model,
)
from hirise_imb.prediction.records import FORMAT, ModelRecord
from hirise_imb.prediction.scores import describe_confidence
from hirise_imb.recipe import Recipe
from hirise_imb.training.fitted import FittedHead, FittedModel

DIGEST = "0" * 64
SEEDS = (0, 1)
POINT = {"threshold": 0.9, "coverage": 0.5, "precision": 0.75}


def describe_model(
    backbone: Backbone,
    spec: FeatureSpec | None = None,
    seeds: Sequence[int] = (0,),
    classes: ClassSet = HIRISE.classes,
    name: str = "arm",
) -> ModelRecord:
    """Facts of a model that no study has made; its scores are those of a single landmark."""
    spec = Recipe().feature_spec if spec is None else spec
    certain = np.eye(len(classes))[:1]
    return {
        "format": FORMAT,
        "dataset": HIRISE.name,
        "classes": list(classes),
        "majority": classes.majority,
        "image_shape": list(backbone.input_shape),
        "backbone": describe_backbone(backbone, "random"),
        "features": describe_features(spec),
        "seeds": list(seeds),
        "recipe": Recipe().to_dict(),
        "settings": {},
        "origin": {
            "study": "t",
            "arm": name,
            "summary": "a test",
            "predictions": "predictions/p.parquet",
            "digest": DIGEST,
        },
        "training_data": {"data": "none", "digest": "0", "splits": ["train"], "landmarks": {}, "sources": []},
        "scores": {
            "macro_f1": 0.0,
            "macro_f1_interval": None,
            "nested_macro_f1": None,
            "classes": {
                label: {
                    "landmarks": 0,
                    "sources": 0,
                    "precision": 0.0,
                    "recall": 0.0,
                    "f1": 0.0,
                    "f1_interval": None,
                }
                for label in classes
            },
        },
        "operating_point": describe_confidence(np.zeros(1, np.int64), certain, certain, classes),
        "packages": {},
    }


def save_fits(
    folder: Path, backbone: Backbone, fits: Sequence[FittedModel], spec: FeatureSpec | None = None
) -> ModelRecord:
    """Writes a model of these fits, and returns its facts."""
    facts = describe_model(backbone, spec, tuple(range(len(fits))))
    write_model(folder, facts, dict(enumerate(fits)), "# a card\n")
    return facts


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

    spec = FeatureSpec((Input(),), ("plain", "fh"), TOP, "all")
    facts = describe_model(backbone, spec, SEEDS, classes, "drawn")
    facts["dataset"] = dataset
    facts["training_data"]["data"] = "synthetic"
    facts["operating_point"] = {
        "threshold": 0.9,
        "coverage": POINT["coverage"],
        "precision": POINT["precision"],
        "classes": {name: {"landmarks": 2, "decided": 1, "shown": 4, "right": 3} for name in classes},
    }
    write_model(folder, facts, {seed: fit() for seed in SEEDS}, "# A model\n")
    return read_model(folder)
