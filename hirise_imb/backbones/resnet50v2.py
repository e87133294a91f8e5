"""ResNet50V2, the reference backbone (He et al. 2016, "Identity mappings in deep residual networks")."""

from __future__ import annotations

import hashlib
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

from hirise_imb.backbones.base import BackboneCard, InputShape, convert_to_rgb, read_weights
from hirise_imb.utils.errors import UserError

if TYPE_CHECKING:
    import keras

WEIGHTS_FILE = "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5"
WEIGHTS_ADDRESS = f"https://storage.googleapis.com/tensorflow/keras-applications/resnet/{WEIGHTS_FILE}"
WEIGHTS_MD5 = "fac2f116257151a9d068a22e544a4917"


def _build(weights: str, input_shape: InputShape) -> keras.Model:
    import keras

    pixels = keras.Input(input_shape, name="pixels")
    # ImageNet weights need values in -1..1 (`resnet_v2.preprocess_input`, here as a layer).
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(pixels)
    base = keras.applications.ResNet50V2(include_top=False, weights=None, input_tensor=convert_to_rgb(scaled))
    network = keras.Model(pixels, base.output, name="resnet50v2")
    if weights != "random":
        _load(network, _weights_file(weights))
    return network


def _weights_file(weights: str) -> Path:
    import keras

    if weights != "imagenet":
        return Path(weights)
    try:
        return Path(keras.utils.get_file(WEIGHTS_FILE, WEIGHTS_ADDRESS, cache_subdir="models", file_hash=WEIGHTS_MD5))
    except Exception as error:
        # Keras wraps every cause in a bare Exception or ValueError; a NameError or the like is not a download failure.
        if not isinstance(error, OSError | ValueError | HTTPException) and type(error) is not Exception:
            raise
        raise UserError(
            f"The ImageNet weights of resnet50v2 can't be downloaded: fetch {WEIGHTS_ADDRESS} (md5 {WEIGHTS_MD5}) on a "
            f"machine with network and name the file with --weights, or use --backbone efficientnet-lite0, which "
            f"needs no download."
        ) from error


def _load(network: keras.Model, path: Path) -> None:
    if not path.is_file():
        raise UserError(
            f"There is no weights file {path}: name a ResNet50V2 weights file without top, `imagenet` or `random`."
        )
    try:
        read_weights(network, path)
    except ValueError as error:
        digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        raise UserError(
            f"{path} (md5 {digest}) does not contain ResNet50V2 weights without top: use {WEIGHTS_FILE} "
            f"(md5 {WEIGHTS_MD5})."
        ) from error


RESNET50V2 = BackboneCard(
    name="resnet50v2",
    summary="the reference: 23.6 million parameters, ImageNet weights downloaded by Keras",
    feature_width=2048,
    cuts={
        "conv5_block3": "conv5_block2_out",
        "conv5": "conv4_block6_out",
    },
    layers={"conv5_block3_out": 2048, "conv5_block2_out": 2048, "conv4_block6_out": 1024},
    preprocessing="grey to three equal channels, x / 127.5 - 1",
    build=_build,
    cut_shapes={"conv5_block3": (32, 2048), "conv5": (32, 1024)},
    images_per_second=38,  # benchmarks/results.md, AMD EPYC
)
