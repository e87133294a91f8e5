"""Prediction with a saved model, from pixels or from features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hirise_imb.backbones import BACKBONES, TOP, Backbone
from hirise_imb.features.arrays import Features, concatenate_features
from hirise_imb.features.extraction import PixelFeatures
from hirise_imb.features.inputs import FeatureKey
from hirise_imb.imbalance.logit_adjustment import copy_logits, softmax
from hirise_imb.prediction.model_file import SavedModel
from hirise_imb.training.tail_network import Network
from hirise_imb.utils.errors import NotFinite, UserError

Floats = NDArray[np.float64]


class ModelOutput(NamedTuple):
    """Probabilities of some images, means over the fits of a model."""

    probabilities: Floats
    """Probabilities as trained, shape (n, n_classes); the class is the most probable one."""
    calibrated: Floats
    """Probabilities after temperature scaling, shape (n, n_classes)."""


class Predictor:
    """A saved model with its backbone."""

    def __init__(self, model: SavedModel, backbone: Backbone) -> None:
        """Combines a model with its backbone.

        Args:
            model: saved model.
            backbone: backbone with the weights that the model was trained on.

        Raises:
            UserError: the backbone has other weights or other layers.
        """
        _check_backbone(model, backbone)
        self.model, self.backbone = model, backbone
        spec = model.features
        try:
            self._network = None if spec.cut == TOP else Network(backbone, spec.cut, spec.trainable)
            self._pixel_features = PixelFeatures(backbone, spec.keys)
        except (KeyError, ValueError) as error:
            raise UserError(
                f"The model {model.name} needs layers that the backbone {backbone.card.name} does not have ({error}): "
                f"use the version of this program that wrote the model."
            ) from error
        self._check_shapes()

    @classmethod
    def load(cls, model: SavedModel, weights: str | None = None) -> Predictor:
        """Builds the backbone of a model, and combines them.

        Args:
            model: saved model.
            weights: `imagenet`, `random` or the path of a file; None for what the study named.

        Raises:
            UserError: the backbone is not known or not available, or has other weights.
        """
        facts = model.backbone
        card = BACKBONES.get(facts["name"])
        if card is None:
            raise UserError(
                f"The model {model.name} needs the backbone {facts['name']}, which this version of the program does "
                f"not have: use the version that wrote the model."
            )
        return cls(model, card.load(weights or facts["weights"], model.image_shape, facts["precision"]))

    def predict(self, pixels: NDArray[np.uint8]) -> ModelOutput:
        """Predicts images, in batches.

        Args:
            pixels: shape (n, rows, columns, channels).
        """
        if not len(pixels):
            empty = np.empty((0, len(self.model.classes)))
            return ModelOutput(empty, empty)
        return self.predict_features(self._pixel_features.compute(pixels))

    def predict_features(self, features: Mapping[FeatureKey, Features]) -> ModelOutput:
        """Predicts images from their features.

        Args:
            features: features of the same images for each key of the model.

        Raises:
            UserError: the weights of the model are so large that numbers are not finite.
        """
        spec = self.model.features
        views = []
        for view in spec.views:
            keys = spec.keys_of(view)
            parts = [features[key] for key in keys]
            views.append(parts[0] if len(parts) == 1 else concatenate_features(parts))
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                by_fit = [fit.log_probabilities(views, self._network) for fit in self.model.fits]
                scaled = [copy_logits(z / fit.temperature) for z, fit in zip(by_fit, self.model.fits, strict=True)]
        except NotFinite as error:
            raise UserError(
                f"The model {self.model.name} can't predict these images ({error}): its weights are damaged, or do "
                f"not belong to its backbone; restore it, or run the study again."
            ) from error
        return ModelOutput(
            probabilities=np.mean([np.exp(logits) for logits in by_fit], axis=0),
            calibrated=np.mean([softmax(logits) for logits in scaled], axis=0),
        )

    def _check_shapes(self) -> None:
        """Checks that the fits belong to features of this backbone.

        Raises:
            UserError: they do not.
        """
        spec, card = self.model.features, self.backbone.card
        if self._network is None:
            width = sum(card.width(key.layer) for key in spec.keys_of(spec.views[0]))
            shapes: tuple[tuple[int, ...], ...] | None = None
        else:
            width, shapes = self._network.width, self._network.weight_shapes
        for head in (head for fit in self.model.fits for kind in fit.heads for head in kind):
            tail = None if head.tail is None else tuple(weights.shape for weights in head.tail)
            if head.classifier.kernel.shape[1] != width or tail != shapes:
                raise UserError(
                    f"The weights of the model {self.model.name} do not fit its backbone {card.name}: use the version "
                    f"of this program that wrote the model."
                )


def _check_backbone(model: SavedModel, backbone: Backbone) -> None:
    facts, card = model.backbone, backbone.card
    if (facts["name"], facts["precision"], facts["preprocessing"]) != (
        card.name,
        backbone.precision,
        card.preprocessing,
    ):
        raise UserError(
            f"The model {model.name} was trained on another preprocessing or precision of the backbone {card.name}: "
            f"use the version of this program that wrote the model."
        )
    if facts["digest"] != backbone.digest:
        raise UserError(
            f"The backbone {card.name} has other weights than those on which the model {model.name} was trained "
            f"({facts['weights']}, SHA-256 {facts['digest'][:16]}...): name the right file with --weights."
        )
