"""Writes `hirise_imb/backbones/keras_networks.json`: cuts, layers, sizes and weights files of keras.applications.

    PYTHONPATH=. python tools/describe_keras_networks.py [NAME ...]

builds each network with random weights, without network access, in about three minutes; with names it updates
only those. To be run again for each new release of Keras: the slow test `tests/backbones/test_keras_applications.py`
fails where the table is out of date.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any
from unittest import mock

import keras

from hirise_imb.backbones.cut_points import find_cut_points
from hirise_imb.backbones.keras_applications import TABLE, NetworkFacts, joint_name, make_card
from hirise_imb.data.hirise import HIRISE

MODES = {
    "convnext": "included",
    "efficientnet": "included, twice",
    "efficientnet_v2": "included",
    "mobilenet_v3": "included",
    "densenet": "torch",
    "resnet": "caffe",
    "vgg16": "caffe",
    "vgg19": "caffe",
}
"""Preprocessing by module of keras.applications; `tf` in all others. A test compares it with `preprocess_input`."""
JOINTS = {
    "NASNetMobile": (("normal_concat_9", "reduction_concat_reduce_8"), ("normal_concat_11", "normal_concat_10")),
    "NASNetLarge": (("normal_concat_13", "reduction_concat_reduce_12"), ("normal_concat_17", "normal_concat_16")),
}
"""Each cell of NASNet reads the outputs of the two before it, so that only both together can be a cut."""


class WeightsRequest(Exception):
    """Raised in place of a download; its arguments are those of `get_file`."""


def network_names() -> list[str]:
    """Returns the names of the functions of keras.applications that build a network, in the order of the alphabet."""
    return sorted(name for name, value in vars(keras.applications).items() if inspect.isfunction(value))


def describe(name: str) -> NetworkFacts:
    """Builds a network with random weights and returns the facts about it."""
    build = getattr(keras.applications, name)
    module = inspect.getmodule(build)
    assert module is not None
    module_name = module.__name__.rpartition(".")[2]
    facts = NetworkFacts(
        name=name,
        module=module_name,
        parameters=0,
        feature_width=0,
        preprocessing=MODES.get(module_name, "tf"),
        cuts={},
        cut_shapes={},
        layers={},
        joints=JOINTS.get(name, ()),
        **read_requirements(build),
    )
    network = make_card(facts).build("random", HIRISE.image_shape)
    points = find_cut_points(network)
    joined = {joint_name(late): (late, early) for late, early in facts.joints}
    layers = [layer for point in points.layers for layer in joined.get(point, (point,))]
    return replace(
        facts,
        parameters=network.count_params(),
        feature_width=network.output.shape[-1],
        cuts={cut: each.layer for cut, each in points.cuts.items()},
        cut_shapes={cut: shape for cut, each in points.cuts.items() if (shape := stride_and_channels(each.shape))},
        layers={layer: int(network.get_layer(layer).output.shape[-1]) for layer in layers},
    )


def stride_and_channels(shape: tuple[int, int, int]) -> tuple[int, int] | None:
    """Returns stride and channels; None if the resolution is not the image size over the stride, rounded up."""
    size, rows = HIRISE.image_size, shape[0]
    return next(((stride, shape[2]) for stride in (4, 8, 16, 32) if -(-size // stride) == rows), None)


def read_requirements(build: Callable[..., Any]) -> dict[str, Any]:
    """Returns the smallest image size that Keras accepts, 32 where it does not say, and the weights file it downloads.

    The file is that of the ImageNet weights without the classifier: its name, address and digest.
    """

    def refuse(name: str, origin: str, file_hash: str | None = None, **_: object) -> None:
        raise WeightsRequest(name, origin, file_hash)

    utils = importlib.import_module("keras.src.applications.imagenet_utils")
    with (
        mock.patch("keras.src.utils.file_utils.get_file", refuse),
        mock.patch.object(utils, "obtain_input_shape", wraps=utils.obtain_input_shape) as obtain,
    ):
        try:
            build(include_top=False, weights="imagenet", input_shape=(224, 224, 3))
        except WeightsRequest as request:
            min_size = obtain.call_args.kwargs["min_size"] if obtain.called else 32
            return {"min_size": min_size} | dict(zip(("file_name", "address", "digest"), request.args, strict=True))
    raise RuntimeError("Keras has asked for no weights file.")


def main() -> int:
    """Writes the table; returns 0."""
    table = json.loads(TABLE.read_text("utf-8")) if TABLE.exists() else {}
    for name in sys.argv[1:] or network_names():
        facts = asdict(describe(name))
        table[facts.pop("name")] = facts
        print(name, facts["cuts"], *facts["layers"], flush=True)
        TABLE.write_text(json.dumps(dict(sorted(table.items())), indent=1) + "\n", "utf-8")
        keras.backend.clear_session()
        gc.collect()
    return 0


if __name__ == "__main__":
    sys.exit(main())
