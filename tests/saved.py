"""Saved models to test with: their facts, and small ones that need no study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hirise_imb.backbones import Backbone
from hirise_imb.data.dataset import ClassSet
from hirise_imb.data.hirise import HIRISE
from hirise_imb.features.inputs import FeatureSpec
from hirise_imb.prediction.model_file import write_model
from hirise_imb.prediction.records import FORMAT, ModelRecord
from hirise_imb.prediction.scores import describe_confidence
from hirise_imb.recipe import Recipe
from hirise_imb.training.fitted import FittedModel

DIGEST = "0" * 64


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
        "backbone": {
            "name": backbone.card.name,
            "weights": "random",
            "digest": backbone.digest,
            "precision": backbone.precision,
            "preprocessing": backbone.card.preprocessing,
        },
        "features": {
            "inputs": [{"view": entry.view, "layer": entry.layer, "pooling": entry.pooling} for entry in spec.inputs],
            "views": list(spec.views),
            "cut": spec.cut,
            "trainable": spec.trainable,
        },
        "seeds": list(seeds),
        "recipe": Recipe().to_dict(),
        "settings": {},
        "origin": {"study": "t", "arm": name, "summary": "a test", "predictions": "p.parquet", "digest": DIGEST},
        "training_data": {"data": "none", "digest": "0", "splits": ["train"], "landmarks": {}, "sources": []},
        "scores": {
            "macro_f1": 0.0,
            "macro_f1_interval": None,
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
