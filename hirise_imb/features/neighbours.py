"""Nearest labelled landmarks: what an image looks like to the backbone."""

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
Bools = NDArray[np.bool_]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A labelled landmark that resembles an image."""

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


class LabelledLandmarks:
    """Landmarks of known class with their features, among which the nearest to an image are found."""

    def __init__(self, manifest: Manifest, images: pd.DataFrame, features: Floats) -> None:
        """Takes the landmarks.

        Args:
            manifest: data set.
            images: rows of its table, one image a landmark.
            features: pooled features of these images, shape (n, width).
        """
        self._manifest = manifest
        self.images = images
        self._unit = _normalise(features)

    @classmethod
    def extract(cls, manifest: Manifest, splits: Sequence[str], backbone: Backbone) -> LabelledLandmarks:
        """Returns the landmarks of the rare classes in some splits; features that the cache lacks are computed.

        Raises:
            UserError: an image can't be decoded.
        """
        images = pd.concat([manifest.canonical_images(split) for split in splits])
        images = images[images["label"].isin(manifest.spec.classes.rare_ids)]
        paths = [manifest.path(image) for image in images["image"]]
        features = extract_features(backbone, [TOP_MEAN], paths, cache_root())[TOP_MEAN]
        return cls(manifest, images, features.take(np.arange(len(paths))))

    def features_of(self, image: str) -> Floats:
        """Returns the features of one of the landmarks, scaled to unit length, shape (width,)."""
        row = int(np.flatnonzero(self.images["image"].to_numpy() == image)[0])
        return np.asarray(self._unit[row])

    def nearest(self, features: Floats, label: int, number: int, among: Bools | None = None) -> list[Neighbour]:
        """Returns the landmarks of a class that are nearest to an image.

        Landmarks of one source resemble each other, so the nearest of each source come first, then the second of each.

        Args:
            features: pooled features of the image, shape (width,).
            label: class id.
            number: largest number of landmarks.
            among: which landmarks are considered, shape (n,); None for all.

        Raises:
            UserError: an image can't be decoded.
        """
        of_class = self.images["label"].to_numpy() == label
        rows = np.flatnonzero(of_class if among is None else of_class & among)
        similarities = self._unit[rows] @ _normalise(features)
        ranked = self.images.iloc[rows].assign(similarity=similarities)
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
