"""Scores predictions of a data set against its labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hirise_imb.data.dataset import ClassSet
from hirise_imb.data.manifest import Manifest
from hirise_imb.metrics.classification import Ints, accuracy, confusion_matrix, macro_f1
from hirise_imb.prediction.model_file import SavedModel
from hirise_imb.prediction.records import ConfidenceRecord
from hirise_imb.prediction.scores import count_confident
from hirise_imb.prediction.table import read_predictions
from hirise_imb.utils.errors import UserError


@dataclass(frozen=True)
class Evaluation:
    """Scores of the images that could be used."""

    classes: ClassSet
    confusion: Ints
    """Confusion matrix, shape (n_classes, n_classes)."""
    confidence: ConfidenceRecord
    """Predictions that reach the threshold, at which they are shown."""

    @property
    def macro_f1(self) -> float:
        """Mean F1 over all classes, also those without an image."""
        return macro_f1(self.confusion)

    @property
    def accuracy(self) -> float:
        """Share of correct predictions."""
        return accuracy(self.confusion)


def check_classes(manifest: Manifest, model: SavedModel) -> None:
    """Checks that a data set has the classes of a model.

    Raises:
        UserError: it has others.
    """
    ours, theirs = model.classes.names, manifest.spec.classes.names
    if ours != theirs:
        raise UserError(
            f"{manifest.folder} has the classes {', '.join(theirs)}, but the model {model.name} predicts "
            f"{', '.join(ours)}: leave out --evaluate, or name data with these classes."
        )


def evaluate_predictions(path: Path, manifest: Manifest) -> Evaluation:
    """Scores a file of predictions of a data set.

    Args:
        path: file of predictions.
        manifest: data set that was predicted.

    Raises:
        UserError: the file can't be read, or has predictions of other images.
    """
    facts, table = read_predictions(path, ["id", "class", "shown", "error"])
    used = table[table["error"].isna()]
    label_of = dict(zip(manifest.table["image"], manifest.table["label"], strict=True))
    if not used["id"].isin(label_of.keys()).all() or not used["id"].is_unique:
        raise UserError(
            f"{path} does not have each image of {manifest.folder} once: delete it, and make it again with `hirise-imb "
            "predict`."
        )
    class_of = {name: label for label, name in enumerate(facts.classes)}
    labels = np.array([label_of[image] for image in used["id"]], np.int64)
    predicted = np.array([class_of[name] for name in used["class"]], np.int64)
    shown = used["shown"].to_numpy(bool)
    n_classes = len(facts.classes)
    return Evaluation(
        classes=facts.class_set,
        confusion=confusion_matrix(labels, predicted, n_classes),
        confidence=count_confident(labels, predicted, shown, facts.class_set, facts.threshold),
    )
