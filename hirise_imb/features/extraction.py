"""Feature extraction: each image goes through the backbone once, and its features are cached."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.data.images import decode_image
from hirise_imb.features.arrays import Features
from hirise_imb.features.cache import FeatureStore, open_store
from hirise_imb.features.views import VIEWS, ViewedPixels
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.progress import say, track

if TYPE_CHECKING:
    import keras

BATCH = 32
"""Images in a forward pass; every pass has this many, so that an image's features don't depend on the others."""

_MIN_FREE_BYTES = 256 << 20
"""Bytes that an extraction leaves free on the disk."""


def image_digests(paths: Sequence[Path]) -> list[str]:
    """Returns the hexadecimal SHA-256 of each file."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda path: hashlib.sha256(path.read_bytes()).hexdigest(), paths))


def extract_features(
    backbone: Backbone,
    cuts: Sequence[str],
    paths: Sequence[Path],
    cache: Path,
    digests: list[str] | None = None,
    view: str = "plain",
) -> dict[str, Features]:
    """Returns the features of every image at every cut; those not cached are computed in one pass for all cuts.

    Args:
        backbone: backbone; the images must have its input shape.
        cuts: names of its cut points.
        paths: image files.
        cache: folder of all cached features.
        digests: `image_digests(paths)`, if the caller has computed them already.
        view: one of `VIEWS`, applied to the pixels first.

    Raises:
        UserError: an image can't be decoded, or there is too little free disk space.
        ValueError: there is no such view.
    """
    if view not in VIEWS:
        raise ValueError(f"view must be one of {', '.join(VIEWS)}, got {view!r}")
    digests = image_digests(paths) if digests is None else digests
    trunk = _build_trunk(backbone, cuts)
    with ExitStack() as stack:
        stores = [stack.enter_context(open_store(cache, backbone, cut, trunk, view)) for cut in cuts]
        cached = set.intersection(*(set(store.row_of) for store in stores))
        missing = {digest: path for digest, path in zip(digests, paths, strict=True) if digest not in cached}
        if missing:
            _check_space(cache, sum(store.row_bytes for store in stores) * len(missing), len(missing))
            _fill_stores(backbone.input_shape, trunk, stores, missing, view)
        return {store.cut: store.features(digests) for store in stores}


def median_relative_difference(one: Backbone, other: Backbone, paths: Sequence[Path]) -> float:
    """Returns the difference |a - b| / |b| (Euclidean) of the pooled features of two backbones, median over images."""
    pixels = np.stack([decode_image(path, one.input_shape) for path in paths]).astype(np.float32)
    a, b = (np.asarray(backbone.trunk(TOP)(pixels, training=False)) for backbone in (one, other))
    return float(np.median(np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)))


def _build_trunk(backbone: Backbone, cuts: Sequence[str]) -> keras.Model:
    """Builds one model with an output for each cut, so that several cuts cost one forward pass."""
    import keras

    return keras.Model(backbone.network.input, {cut: backbone.trunk(cut).output for cut in cuts})


def _check_space(cache: Path, needed: int, images: int) -> None:
    """Logs how much will be written, or refuses if there is too little space."""
    free = shutil.disk_usage(cache).free
    if needed + _MIN_FREE_BYTES > free:
        raise UserError(
            f"The features need {needed / 1e9:.1f} GB under {cache}, where {free / 1e9:.1f} GB are free: free some, or "
            f"set HIRISE_IMB_CACHE to a folder on another disk."
        )
    say(f"The features of {images:,} images take {needed / 1e6:,.0f} MB under {cache}.")


def _fill_stores(
    shape: tuple[int, int, int],
    trunk: keras.Model,
    stores: list[FeatureStore],
    missing: dict[str, Path],
    view: str,
) -> None:
    import tensorflow as tf

    # As float32, since numpy has no bfloat16.
    def forward(pixels: Any) -> dict[str, Any]:  # noqa: ANN401
        return {cut: tf.cast(output, tf.float32) for cut, output in trunk(pixels, training=False).items()}

    compiled = tf.function(forward, reduce_retracing=True)
    remaining = list(missing.items())
    done = 0
    with track("features" if view == "plain" else f"features ({view})", len(remaining), "images") as show:
        for batch, pixels in _decode_batches(remaining, shape, view):
            outputs = compiled(tf.constant(pixels, tf.float32))
            for store in stores:
                store.append([digest for digest, _ in batch], outputs[store.cut].numpy())
            show(done := done + len(batch))


def _decode_batches(
    images: list[tuple[str, Path]], shape: tuple[int, int, int], view: str
) -> Iterator[tuple[list[tuple[str, Path]], ViewedPixels]]:
    """Yields batches with their pixels, shape (BATCH, *shape); each is decoded while the one before is in use."""

    def decode(path: Path) -> ViewedPixels:
        return VIEWS[view](decode_image(path, shape))

    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    with ThreadPoolExecutor() as pool:
        prefetched: list[Future[ViewedPixels]] = []
        for number, batch in enumerate(batches):
            futures = prefetched or [pool.submit(decode, path) for _, path in batch]
            following = batches[number + 1] if number + 1 < len(batches) else []
            prefetched = [pool.submit(decode, path) for _, path in following]
            pixels: ViewedPixels = np.zeros((BATCH, *shape), futures[0].result().dtype)
            for row, future in enumerate(futures):
                pixels[row] = future.result()
            yield batch, pixels
