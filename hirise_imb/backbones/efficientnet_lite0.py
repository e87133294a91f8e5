"""EfficientNet-Lite0, the embedded backbone: small, fast on a CPU, no download.

EfficientNet-B0 (Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks") as its
authors reduced it for mobile devices (2020): no squeeze-and-excitation, ReLU6 in place of swish, stem and head not
scaled. Its blocks are the mobile inverted bottlenecks of Sandler et al. 2018 ("MobileNetV2").
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hirise_imb.backbones.base import BackboneCard, InputShape, convert_to_rgb
from hirise_imb.backbones.weights_file import read_weights
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import check_regular_file, digest_of

if TYPE_CHECKING:
    import keras

EMBEDDED_WEIGHTS = Path(__file__).with_name("weights") / "efficientnet-lite0.weights.h5"
"""ImageNet weights without the classifier, kernels rounded; `weights/NOTICE.md` has their origin and licence."""

EMBEDDED_SHA256 = "f28675a483c157c210418f62d21dc3eefdba2e213b51fac58222214c77b478ac"
"""Digest of that file: one changed bit of it would change every feature a little, without any other sign."""

FEATURE_WIDTH = 1280


class Stage(NamedTuple):
    """Bottleneck blocks of one width; the stride is that of the first block, the others have stride 1."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


STAGES = (
    Stage(blocks=1, kernel=3, stride=1, expansion=1, width=16),
    Stage(blocks=2, kernel=3, stride=2, expansion=6, width=24),
    Stage(blocks=2, kernel=5, stride=2, expansion=6, width=40),
    Stage(blocks=3, kernel=3, stride=2, expansion=6, width=80),
    Stage(blocks=3, kernel=5, stride=1, expansion=6, width=112),
    Stage(blocks=4, kernel=5, stride=2, expansion=6, width=192),
    Stage(blocks=1, kernel=3, stride=1, expansion=6, width=320),
)


def build_feature_map(rgb: keras.KerasTensor) -> keras.KerasTensor:
    """Builds the network on three-channel pixels.

    Args:
        rgb: symbolic `(n, rows, columns, 3)`, float32 in 0..255.

    Returns:
        Symbolic `(n, ceil(rows / 32), ceil(columns / 32), 1280)`, after the head's ReLU6.
    """
    import keras

    x = keras.layers.Rescaling(1 / 128, offset=-127 / 128, name="rescaling")(rgb)
    x = _convolution(x, "stem", filters=32, kernel=3, stride=2)
    for number, stage in enumerate(STAGES, start=1):
        for index in range(stage.blocks):
            stride = stage.stride if index == 0 else 1
            x = _bottleneck(x, f"block{number}{'abcd'[index]}", stage._replace(stride=stride))
    return _convolution(x, "head", filters=FEATURE_WIDTH, kernel=1, stride=1)


def _bottleneck(x: keras.KerasTensor, name: str, block: Stage) -> keras.KerasTensor:
    """Expands, convolves each channel separately, projects without activation, and adds the input if shapes agree."""
    import keras

    wide = x
    if block.expansion != 1:
        wide = _convolution(x, f"{name}_expand", filters=x.shape[-1] * block.expansion, kernel=1, stride=1)
    wide = keras.layers.DepthwiseConv2D(
        block.kernel, strides=block.stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv"
    )(wide)
    wide = _norm_relu6(wide, f"{name}_depthwise")
    narrow = keras.layers.Conv2D(block.width, 1, padding="same", use_bias=False, name=f"{name}_project_conv")(wide)
    narrow = keras.layers.BatchNormalization(epsilon=1e-3, name=f"{name}_project_bn")(narrow)
    return keras.layers.Add(name=f"{name}_add")([narrow, x]) if narrow.shape == x.shape else narrow


def _convolution(x: keras.KerasTensor, name: str, *, filters: int, kernel: int, stride: int) -> keras.KerasTensor:
    import keras

    conv = keras.layers.Conv2D(filters, kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_conv")
    return _norm_relu6(conv(x), name)


def _norm_relu6(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    import keras

    x = keras.layers.BatchNormalization(epsilon=1e-3, name=f"{name}_bn")(x)
    return keras.layers.ReLU(max_value=6, name=f"{name}_relu6")(x)


def _build(weights: str, input_shape: InputShape) -> keras.Model:
    import keras

    path = None if weights == "random" else _weights_file(weights)
    pixels = keras.Input(input_shape, name="pixels")
    network = keras.Model(pixels, build_feature_map(convert_to_rgb(pixels)), name="efficientnet-lite0")
    if path is not None:
        try:
            read_weights(network, path)
        except ValueError as error:
            raise UserError(
                f"{path} does not contain weights of EfficientNet-Lite0 without classifier ({error}): {_ADVICE}."
            ) from error
    return network


_ADVICE = "name a Keras weights file of this network, `imagenet` (embedded) or `random`"


def _weights_file(weights: str) -> Path:
    """Returns the path of the weights file.

    Raises:
        UserError: there is no such file, or the embedded one is damaged.
    """
    path = EMBEDDED_WEIGHTS if weights == "imagenet" else Path(weights)
    is_embedded = path == EMBEDDED_WEIGHTS
    check_regular_file(path)
    if not path.is_file():
        advice = "install the package again" if is_embedded else _ADVICE
        raise UserError(f"There is no EfficientNet-Lite0 weights file {path}: {advice}.")
    if is_embedded and (digest := digest_of(path, "sha256")) != EMBEDDED_SHA256:
        raise UserError(
            f"{path} is damaged (its SHA-256 is {digest} instead of {EMBEDDED_SHA256}): install the package again."
        )
    return path


EFFICIENTNET_LITE0 = BackboneCard(
    name="efficientnet-lite0",
    summary="embedded: 3.4 million parameters, ImageNet weights inside the package, a tenth of the arithmetic",
    feature_width=FEATURE_WIDTH,
    cuts={
        "head_conv": "block7a_project_bn",
        "block7": "block6d_add",
        "block6d": "block6c_add",
    },
    layers={"block7a_project_bn": 320, "block6d_add": 192, "block6c_add": 192},
    preprocessing="grey to three equal channels, (x - 127) / 128",
    build=_build,
    cut_shapes={"head_conv": (32, 320), "block7": (32, 192), "block6d": (32, 192)},
    images_per_second=77,  # the 3,616 images of the real sample, AMD EPYC
)
