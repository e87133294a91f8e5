"""Writes a table of features for `hirise-imb run --features FILE`, with Keras alone.

    python examples/extract_features.py IMAGES ConvNeXtTiny features.parquet

IMAGES is a folder of images, the second argument the name of a network in `keras.applications`. The script does not
import `hirise_imb`: it shows what any other framework has to write, too.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff"}
BATCH = 32


def main(arguments: list[str] | None = None) -> None:
    """Extracts the features of every image in a folder, and writes the table."""
    parser = argparse.ArgumentParser(description="Write a table of features of all images in a folder.")
    parser.add_argument("images", type=Path, help="folder of images, at any depth")
    parser.add_argument("network", help="network of keras.applications, such as ConvNeXtTiny")
    parser.add_argument("output", type=Path, help="Parquet file to write")
    parser.add_argument("--weights", default="imagenet", help="imagenet (downloaded by Keras), random, or a file")
    parser.add_argument("--size", type=int, default=224, help="images are resized to this many rows and columns")
    options = parser.parse_args(arguments)

    paths = sorted(path for path in options.images.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        sys.exit(f"There is no image in {options.images}.")
    vectors = extract(paths, options.network, options.weights, options.size)
    table = pa.table(
        {
            "image": [path.relative_to(options.images).as_posix() for path in paths],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
            "digest": [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths],
        }
    )
    made_by = f"keras.applications.{options.network}, weights {options.weights}, mean over the last feature map"
    about = {"made_by": made_by, "keras": keras.version(), "image_size": str(options.size)}
    pq.write_table(table.replace_schema_metadata(about), options.output)
    print(f"{options.output}: {len(paths)} images, {vectors.shape[1]} numbers for each")


def extract(paths: list[Path], network: str, weights: str, size: int) -> np.ndarray:
    """Returns the mean over the last feature map of each image, shape (n_images, width), float32."""
    build = getattr(keras.applications, network, None)
    if not callable(build):
        sys.exit(f"keras.applications has no network {network}.")
    # Each network expects its own range of pixels; the function that makes it is in the network's module.
    preprocess = sys.modules[build.__module__].preprocess_input
    if weights == "random":
        keras.utils.set_random_seed(0)
    model: Any = build(
        include_top=False,
        weights=None if weights == "random" else weights,
        input_shape=(size, size, 3),
        pooling="avg",
    )
    parts = []
    for start in range(0, len(paths), BATCH):
        images = [read_image(path, size) for path in paths[start : start + BATCH]]
        parts.append(np.asarray(model(preprocess(np.stack(images)), training=False), np.float32))
    return np.concatenate(parts)


def read_image(path: Path, size: int) -> np.ndarray:
    """Reads an image as RGB, shape (size, size, 3), float32 in 0..255."""
    with Image.open(path) as image:
        resized = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(resized, np.float32)


if __name__ == "__main__":
    main()
