"""What every backbone offers: from pixels to a named cut, and from there to pooled features."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from hirise_imb.landmarks import IMAGE_SIZE

if TYPE_CHECKING:
    import keras

TOP = "top"
"""The cut above the whole backbone: nothing of it is trained, and the cached features are the pooled ones."""


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

    def load(self, weights: str) -> Backbone:
        """Build the network with its weights.

        Raises:
            UserError: the weights can't be had.
        """
        return Backbone(self, weights, self.build(weights))


class Backbone:
    """A built network. Its batch normalisation always stays in inference mode."""

    def __init__(self, card: BackboneCard, weights: str, network: keras.Model) -> None:
        """Take the network that `card.build` made; every layer of it is frozen here."""
        network.trainable = False
        self.card = card
        self.weights = weights
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
            pooled = keras.layers.GlobalAveragePooling2D()(self.network.output)
            return keras.Model(self.network.input, pooled)
        return keras.Model(self.network.input, self.network.get_layer(self.card.cuts[cut]).output)

    def tail(self, cut: str) -> keras.Model:
        """The part above `cut`, up to pooled features `(n, feature_width)`; at `top`, the identity.

        The tail shares its variables with the network: whoever trains it puts the pretrained values back afterwards.
        Its batch normalisation is frozen, since Keras 3 ignores `training=False` baked into a functional model
        (keras issue 20285): with `trainable` set it would update its statistics during training.
        """
        import keras

        if cut == TOP:
            features = keras.Input((self.card.feature_width,))
            return keras.Model(features, keras.layers.Identity()(features))
        start = self.network.get_layer(self.card.cuts[cut]).output
        tail = keras.Model(start, keras.layers.GlobalAveragePooling2D()(self.network.output))
        for layer in tail.layers:
            layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
        return tail
