"""Nearest training landmarks: what a candidate looks like to the backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.backbones import Backbone
from hirise_imb.data.images import decode_image
from hirise_imb.data.manifest import Manifest
from hirise_imb.features.extraction import PixelFeatures, extract_features
from hirise_imb.features.inputs import TOP_MEAN
from hirise_imb.utils.files import cache_root

Floats = NDArray[np.floating]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A training landmark that resembles a candidate."""

    image: str
    source: str
    similarity: float
    """Cosine similarity of the pooled features."""
    pixels: Pixels
    """Shape (rows, columns, channels)."""


def pooled_features(backbone: Backbone, pixels: Sequence[Pixels]) -> Floats:
    """Returns the means of the last feature map, shape (n, width).

    They are computed from pixels, since candidates need not be files, and equal those in the cache.
    """
    features = PixelFeatures(backbone, [TOP_MEAN]).compute(pixels)[TOP_MEAN]
    return features.take(np.arange(len(features)))


class TrainingLandmarks:
    """The landmarks of the rare classes that a model was trained on, with their cached features."""

    def __init__(self, manifest: Manifest, splits: Sequence[str], backbone: Backbone) -> None:
        """Reads the features of canonical images, and computes those that the cache lacks.

        Args:
            manifest: data that the model was trained on.
            splits: splits whose landmarks are used.
            backbone: backbone of the model.

        Raises:
            UserError: an image can't be decoded.
        """
        images = pd.concat([manifest.canonical_images(split) for split in splits])
        self._images = images[images["label"].isin(manifest.spec.classes.rare_ids)]
        self._manifest = manifest
        paths = [manifest.path(image) for image in self._images["image"]]
        features = extract_features(backbone, [TOP_MEAN], paths, cache_root())[TOP_MEAN]
        self._unit = _normalise(features.take(np.arange(len(paths))))

    def nearest(self, features: Floats, label: int, number: int) -> list[Neighbour]:
        """Returns the landmarks of a class that are nearest to an image.

        Landmarks of one source resemble each other, so the nearest of each source come first, then the second of each.

        Args:
            features: pooled features of the image, shape (width,).
            label: class id.
            number: largest number of landmarks.
        """
        rows = np.flatnonzero(self._images["label"].to_numpy() == label)
        similarities = self._unit[rows] @ _normalise(features)
        ranked = self._images.iloc[rows].assign(similarity=similarities)
        ranked = ranked.sort_values("similarity", ascending=False, kind="stable")
        turns = ranked.groupby("source").cumcount().sort_values(kind="stable").index
        columns = ranked.loc[turns, ["image", "source", "similarity"]].head(number)
        return [
            Neighbour(image, source, float(similarity), self._decode(image))
            for image, source, similarity in columns.itertuples(index=False)
        ]

    def _decode(self, image: str) -> Pixels:
        return decode_image(self._manifest.path(image), self._manifest.spec.image_shape)


def _normalise(features: Floats) -> Floats:
    """Scales feature vectors, the last axis, to unit length."""
    lengths = np.linalg.norm(features, axis=-1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, np.finfo(np.float32).tiny))
