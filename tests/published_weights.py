"""Weights files in the format in which Keras publishes those of its networks."""

from __future__ import annotations

from pathlib import Path

import h5py
import keras


def write_published_format(model: keras.Model, path: Path) -> None:
    """Writes weights as the published files have them: the HDF5 layout of Keras 2."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            group.attrs["weight_names"] = [f"{layer.name}/{weight.path}:0".encode() for weight in layer.weights]
            for weight in layer.weights:
                group[f"{layer.name}/{weight.path}:0"] = weight.numpy()
