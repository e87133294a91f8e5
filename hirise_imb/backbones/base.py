"""The interface of backbones: from pixels to a named cut, and from there to pooled features."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from hirise_imb.utils.errors import UserError
from hirise_imb.utils.keras_configuration import configure_keras

if TYPE_CHECKING:
    import keras

TOP = "top"
"""The cut above the whole backbone: no layer of it is trained, and the cached features are the pooled ones."""

Trainable = Literal["all", "norms"]
"""Weights of fine-tuned layers that are trained: all except those of batch normalisation, or only the scales and shifts
of normalisation layers. Moving statistics are frozen in both."""

InputShape = tuple[int, int, int]
"""Rows, columns and channels (1 for grey, 3 for RGB) of an image."""

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
"""Keras' dtype policy for each precision; weights and pooled features are float32 in both."""


@dataclass(frozen=True)
class BackboneCard:
    """The facts about one backbone, available without building it.

    `build` takes the weights (`imagenet`, `random` or the path of a file) and the input shape, and returns a functional
    Keras model from pixels `(n, rows, columns, channels)`, float32 in 0..255, to the last feature map `(n, ..., ...,
    feature_width)`. Preprocessing, and the conversion of grey to three equal channels, are layers of that model.
    """

    name: str
    summary: str
    feature_width: int
    cuts: Mapping[str, str]
    """Layer whose output is cached, by name of the cut; the cut that leaves the fewest weights to train comes first."""
    layers: Mapping[str, int]
    """Keras layers whose pooled outputs serve as representations next to that of the top, with their number of
    channels; the last one comes first."""
    preprocessing: str
    """Describes the preprocessing; part of the feature cache's key, so it must change whenever the numbers do."""
    build: Callable[[str, InputShape], keras.Model]
    cut_shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Stride to the pixels, and number of channels, of the cached output by name of the cut; from them `hirise-imb
    plan` computes the disk that features take, without building the network."""
    min_size: int = 1
    """Smallest number of rows and columns of an image that the network accepts."""
    images_per_second: float | None = None
    """Images of 227 x 227 pixels that are extracted in a second on 2 cores, if measured; `hirise-imb plan` uses it."""

    def width(self, layer: str) -> int:
        """Returns the number of features of each statistic of a layer, one of `layers` or `top`."""
        return self.feature_width if layer == TOP else self.layers[layer]

    def load(self, weights: str, input_shape: InputShape, precision: str = "float32") -> Backbone:
        """Builds the network with its weights; `random` ones are always the same, so that a study on them can continue.

        Args:
            weights: `imagenet`, `random` or the path of a file.
            input_shape: shape of one image.
            precision: number format of its arithmetic, one of `PRECISIONS`. bfloat16, a 16-bit format
                with 8 bits of significand, is faster on a GPU that supports it.

        Raises:
            UserError: the images are too small, or the weights are not available.
        """
        self.check_image_size(input_shape)
        configure_keras()
        import keras

        if weights == "random":
            keras.utils.set_random_seed(0)
        keras.config.set_dtype_policy(PRECISIONS[precision])
        try:
            return Backbone(self, self.build(weights, input_shape), precision)
        finally:
            keras.config.set_dtype_policy(PRECISIONS["float32"])

    def check_image_size(self, input_shape: InputShape) -> None:
        """Raises UserError if images of this shape are smaller than the network accepts."""
        rows, columns, _ = input_shape
        if min(rows, columns) < self.min_size:
            raise UserError(
                f"The backbone {self.name} needs images of at least {self.min_size} x {self.min_size} pixels, and "
                f"these have {rows} x {columns}: use another backbone, such as --backbone efficientnet-lite0."
            )


class Backbone:
    """A built network. Its batch normalisation always stays in inference mode."""

    def __init__(self, card: BackboneCard, network: keras.Model, precision: str = "float32") -> None:
        """Freezes every layer of a network from `card.build`."""
        network.trainable = False
        self.precision = precision
        self.card = card
        self.network = network

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all weights, 64 hexadecimal digits."""
        sha = hashlib.sha256()
        for weight in self.network.get_weights():
            # Shape and type too: the same bytes in another shape are other weights.
            sha.update(str((weight.shape, str(weight.dtype))).encode())
            sha.update(weight.tobytes())
        return sha.hexdigest()

    @property
    def input_shape(self) -> InputShape:
        """Shape of one input image."""
        rows, columns, channels = self.network.input.shape[1:]
        return int(rows), int(columns), int(channels)

    def trunk(self, cut: str) -> keras.Model:
        """Returns the frozen part, from pixels to the activations at `cut`; at `top`, to pooled features."""
        import keras

        if cut == TOP:
            pooled = _pooling()(self.network.output)
            return keras.Model(self.network.input, pooled)
        return keras.Model(self.network.input, self.network.get_layer(self.card.cuts[cut]).output)

    def tail(self, cut: str) -> keras.Model:
        """Returns the part above `cut`, up to pooled features `(n, feature_width)`; at `top` it is the identity.

        The tail has its own copy of the variables, so that training it leaves the backbone unchanged. Its batch
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


def convert_to_rgb(pixels: keras.KerasTensor) -> keras.KerasTensor:
    """Repeats a grey channel three times, since ImageNet weights need three channels; RGB is returned as it is."""
    import keras

    return pixels if pixels.shape[-1] == 3 else keras.layers.Concatenate(name="colour")([pixels, pixels, pixels])


def _pooling() -> keras.Layer:
    import keras

    return keras.layers.GlobalAveragePooling2D(dtype="float32")
