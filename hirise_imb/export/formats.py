"""The formats of exports: how each is written, and how its own runtime runs it."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hirise_imb.utils.errors import UserError

if TYPE_CHECKING:
    from keras import Model

Floats = NDArray[np.float32]

Runtime = Callable[[Floats], Floats]
"""Maps pixels, shape (n, rows, columns, channels), to calibrated probabilities, shape (n, n_classes)."""


@dataclass(frozen=True)
class ExportFormat:
    """A file format, and the runtime that reads it."""

    name: str
    summary: str
    suffix: str
    """End of the file's name; that of a folder may be another one."""
    write: Callable[[Model, Path], None]
    """Writes a network to a path that does not exist yet."""
    load: Callable[[Path], Runtime]
    """Loads what `write` wrote, in the runtime of the format."""
    modules: tuple[str, ...] = ()
    """Modules that writing and running need in addition to the dependencies of this package."""
    packages: tuple[str, ...] = ("tensorflow", "keras")
    """Packages whose versions are recorded."""
    is_folder: bool = False
    other_suffixes: tuple[str, ...] = ()
    """Ends of the names of further files."""

    def check_packages(self) -> None:
        """Raises UserError if an optional package is not installed."""
        if missing := [module for module in self.modules if importlib.util.find_spec(module) is None]:
            raise UserError(
                f"An export to {self.name} needs {' and '.join(missing)}: install the extra with "
                f"`pip install 'hirise-imb[{self.name}]'`."
            )


@contextmanager
def _silence() -> Iterator[None]:
    """Hides warnings of converters, and errors of optimisations that they then leave out: of no use to a user."""
    converter = logging.getLogger("tf2onnx")
    level = converter.level
    converter.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        converter.setLevel(level)


def _write_keras(network: Model, path: Path) -> None:
    network.save(path)


def _load_keras(path: Path) -> Runtime:
    import keras

    network = keras.saving.load_model(path, compile=False, safe_mode=True)
    return lambda pixels: np.asarray(network(pixels, training=False))


def _write_savedmodel(network: Model, path: Path) -> None:
    network.export(str(path), format="tf_saved_model", verbose=False)


def _load_savedmodel(path: Path) -> Runtime:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return lambda pixels: np.asarray(loaded.serve(tf.constant(pixels)))


def _write_litert(network: Model, path: Path) -> None:
    import tensorflow as tf

    # Without TensorFlow's own operations, which the small runtimes of phones do not have.
    options = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    with _silence():
        network.export(str(path), format="litert", verbose=False, target_spec=options)


def _load_litert(path: Path) -> Runtime:
    import tensorflow as tf

    # The interpreter inside TensorFlow announces that it will become a package of its own.
    with _silence():
        interpreter = tf.lite.Interpreter(model_path=str(path))
    [source], [sink] = interpreter.get_input_details(), interpreter.get_output_details()

    def run(pixels: Floats) -> Floats:
        interpreter.resize_tensor_input(source["index"], pixels.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], pixels)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(sink["index"]))

    return run


def _signature(network: Model) -> list[Any]:
    """Returns the type of the pixels, with a number of images that is left open."""
    import tensorflow as tf

    return [tf.TensorSpec(network.input.shape, tf.float32, name="pixels")]


def _write_onnx(network: Model, path: Path) -> None:
    with _silence():
        # Keras demands a signature, or that the network was called before.
        network.export(str(path), format="onnx", verbose=False, input_signature=_signature(network))


def _load_onnx(path: Path) -> Runtime:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda pixels: np.asarray(session.run(None, {"pixels": pixels})[0])


def _write_openvino(network: Model, path: Path) -> None:
    with _silence():
        network.export(str(path), format="openvino", verbose=False)


def _load_openvino(path: Path) -> Runtime:
    import openvino

    # By default it computes in bfloat16 on processors that have it, which changes probabilities by a few percent.
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda pixels: np.asarray(compiled(pixels)[0])


_ALL = (
    ExportFormat(
        name="keras",
        summary="a Keras file, to be loaded in Keras without this package",
        suffix=".keras",
        write=_write_keras,
        load=_load_keras,
    ),
    ExportFormat(
        name="savedmodel",
        summary="a folder for TensorFlow and TensorFlow Serving",
        suffix=".savedmodel",
        write=_write_savedmodel,
        load=_load_savedmodel,
        is_folder=True,
    ),
    ExportFormat(
        name="litert",
        summary="a file for LiteRT (TensorFlow Lite), the runtime of phones and small devices",
        suffix=".tflite",
        write=_write_litert,
        load=_load_litert,
    ),
    ExportFormat(
        name="onnx",
        summary="a file for ONNX Runtime and many others (extra `onnx`)",
        suffix=".onnx",
        write=_write_onnx,
        load=_load_onnx,
        modules=("onnx", "tf2onnx", "onnxruntime"),
        packages=("tensorflow", "keras", "onnx", "tf2onnx", "onnxruntime"),
    ),
    ExportFormat(
        name="openvino",
        summary="two files, .xml and .bin, for OpenVINO (extra `openvino`)",
        suffix=".xml",
        other_suffixes=(".bin",),
        write=_write_openvino,
        load=_load_openvino,
        modules=("openvino",),
        packages=("tensorflow", "keras", "openvino"),
    ),
)

FORMATS: Mapping[str, ExportFormat] = MappingProxyType({entry.name: entry for entry in _ALL})
"""Formats by name."""
