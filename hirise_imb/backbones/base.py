"""What every backbone offers: from pixels to a named cut, and from there to pooled features."""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hirise_imb.data.hirise import IMAGE_SIZE

if TYPE_CHECKING:
    import keras

TOP = "top"
"""The cut above the whole backbone: nothing of it is trained, and the cached features are the pooled ones."""


PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
"""Arithmetic of a backbone's layers, and Keras' name of it; weights and pooled features are float32 in either."""


def read_weights(network: keras.Model, path: Path) -> None:
    """Give `network` all its weights from a Keras weights file.

    Raises:
        ValueError: the file can't be read, or holds the weights of another network.
    """
    with warnings.catch_warnings():
        # Keras only warns where it leaves layers with the random weights they had.
        warnings.filterwarnings("error", message="Skipping nested container")
        try:
            network.load_weights(path)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, UserWarning) as error:
            raise ValueError(f"{path} holds no weights of {network.name}.") from error


@dataclass(frozen=True)
class BackboneCard:
    """The facts of one backbone, known without building it.

    `build` takes the weights (`imagenet`, `random` or the path of a file) and returns a functional Keras model from
    grey pixels `(n, 227, 227, 1)`, float32 in 0..255, to the last feature map `(n, rows, columns, feature_width)`.
    Preprocessing, and grey to three equal channels, are layers of that model.
    """

    name: str
    summary: str
    feature_width: int
    cuts: Mapping[str, str]
    """Cut name to the layer whose output is cached, the cut that leaves least to train first."""
    preprocessing: str
    """Names what happens to the pixels; part of the feature cache's key, so it changes whenever the numbers do."""
    build: Callable[[str], keras.Model]

    def load(self, weights: str, precision: str = "float32") -> Backbone:
        """Build the network with its weights; `random` ones are always the same, so that a study on them continues.

        Args:
            weights: as for `build`.
            precision: of its arithmetic, one of `PRECISIONS`. bfloat16 is faster on a GPU that has it, and rounds
                every number to 8 bits.

        Raises:
            UserError: the weights can't be had.
        """
        import keras

        if weights == "random":
            keras.utils.set_random_seed(0)
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(PRECISIONS[precision])
        try:
            return Backbone(self, self.build(weights), precision)
        finally:
            keras.config.set_dtype_policy(before)


class Backbone:
    """A built network. Its batch normalisation always stays in inference mode."""

    def __init__(self, card: BackboneCard, network: keras.Model, precision: str = "float32") -> None:
        """Take the network that `card.build` made; every layer of it is frozen here."""
        network.trainable = False
        self.precision = precision
        self.card = card
        self.network = network

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all weights, 64 hexadecimal digits."""
        sha = hashlib.sha256()
        for weight in self.network.get_weights():
            sha.update(str((weight.shape, str(weight.dtype))).encode())
            sha.update(weight.tobytes())
        return sha.hexdigest()

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one input image: rows, columns, one grey channel."""
        return (IMAGE_SIZE, IMAGE_SIZE, 1)

    def trunk(self, cut: str) -> keras.Model:
        """The frozen part: pixels to the activations at `cut`; at `top`, to pooled features `(n, feature_width)`."""
        import keras

        if cut == TOP:
            pooled = _pooling()(self.network.output)
            return keras.Model(self.network.input, pooled)
        return keras.Model(self.network.input, self.network.get_layer(self.card.cuts[cut]).output)

    def tail(self, cut: str) -> keras.Model:
        """The part above `cut`, up to pooled features `(n, feature_width)`; at `top`, the identity.

        The tail has variables of its own, a copy, so that training it leaves the backbone as it was. Its batch
        normalisation is frozen: Keras 3 overrides a `training=False` baked into a functional model (keras issue
        20285), so a trainable one would update its statistics.
        """
        import keras

        if cut == TOP:
            features = keras.Input((self.card.feature_width,))
            return keras.Model(features, keras.layers.Identity()(features))
        start = self.network.get_layer(self.card.cuts[cut]).output
        part = keras.Model(start, _pooling()(self.network.output))
        tail = keras.models.clone_model(part)
        tail.set_weights(part.get_weights())
        for layer in tail.layers:
            layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
        return tail


def _pooling() -> keras.Layer:
    import keras

    return keras.layers.GlobalAveragePooling2D(dtype="float32")
