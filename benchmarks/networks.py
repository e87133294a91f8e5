"""Keras models of the benchmarks: the head as most people write it, and a backbone that costs next to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hirise_imb.backbones.base import Backbone, BackboneCard, InputShape
from hirise_imb.data.hirise import HIRISE

if TYPE_CHECKING:
    import keras


def plain_head(width: int, steps_per_execution: int = 1) -> keras.Model:
    """Batch normalisation, dropout 0.2 and a dense layer of 8 classes, compiled with Adam at 1e-4."""
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((width,)),
            layers.BatchNormalization(),
            layers.Dropout(0.2),
            layers.Dense(len(HIRISE.classes), activation="softmax"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(1e-4),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution,
    )
    return model


def one_hot(labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Labels as `plain_head` wants them, shape (n, 8)."""
    return np.eye(len(HIRISE.classes), dtype=np.float32)[labels]


def small(width: int) -> BackboneCard:
    """A backbone of three strided convolutions, so that what surrounds it is what takes the time."""

    def build(_: str, input_shape: InputShape) -> keras.Model:
        import keras

        pixels = keras.Input(input_shape)
        x = keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels)
        x = keras.layers.Conv2D(8, 8, strides=8, activation="relu")(x)
        x = keras.layers.Conv2D(16, 3, strides=3, activation="relu")(x)
        return keras.Model(pixels, keras.layers.Conv2D(width, 3, strides=3, activation="relu")(x))

    return BackboneCard(
        name="small",
        summary="three strided convolutions",
        feature_width=width,
        cuts={},
        layers={},
        preprocessing="x / 127.5 - 1",
        build=build,
    )


def stand_in(width: int) -> Backbone:
    """A backbone for features that were simulated: of it only the width counts."""
    return small(width).load("random", HIRISE.image_shape)
