"""Images go through the backbone once; what comes out is cached."""

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
from hirise_imb.data.hirise import IMAGE_SIZE
from hirise_imb.data.images import decode_image
from hirise_imb.features.views import VIEWS, Seen
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.progress import say, track

if TYPE_CHECKING:
    import keras

from hirise_imb.features.arrays import Features
from hirise_imb.features.cache import FeatureStore, open_store

BATCH = 32
"""Images a forward pass; every pass has this many, so that an image's numbers don't depend on its neighbours."""

_MARGIN = 256 << 20
"""Bytes left free on the disk."""


def image_digests(paths: Sequence[Path]) -> list[str]:
    """SHA-256 of each file, hexadecimal."""
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
    """Features of every image at every cut; what the cache lacks goes through the backbone once, for all cuts.

    Args:
        backbone: the network.
        cuts: names of its cut points.
        paths: image files.
        cache: folder of all cached features.
        digests: `image_digests(paths)`, where the caller has them already.
        view: one of `VIEWS`: what is done to the pixels first.

    Raises:
        UserError: an image can't be decoded, or the disk can't hold the features.
        ValueError: there is no such view.
    """
    if view not in VIEWS:
        raise ValueError(f"view must be one of {', '.join(VIEWS)}, got {view!r}")
    digests = image_digests(paths) if digests is None else digests
    trunk = _trunk(backbone, cuts)
    with ExitStack() as stack:
        stores = [stack.enter_context(open_store(cache, backbone, cut, trunk, view)) for cut in cuts]
        missing = _missing(stores, digests, paths)
        if missing:
            _check_space(cache, sum(store.row_bytes for store in stores) * len(missing), len(missing))
            _fill(trunk, stores, missing, view)
        return {store.cut: store.features(digests) for store in stores}


def median_relative_difference(one: Backbone, other: Backbone, paths: Sequence[Path]) -> float:
    """How far pooled features of two backbones are apart: |a - b| / |b|, Euclidean, median over the images."""
    pixels = np.stack([decode_image(path) for path in paths])[:, :, :, None].astype(np.float32)
    a, b = (np.asarray(backbone.trunk(TOP)(pixels, training=False)) for backbone in (one, other))
    return float(np.median(np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)))


def _trunk(backbone: Backbone, cuts: Sequence[str]) -> keras.Model:
    import keras

    return keras.Model(backbone.network.input, {cut: backbone.trunk(cut).output for cut in cuts})


def _missing(stores: list[FeatureStore], digests: list[str], paths: Sequence[Path]) -> dict[str, Path]:
    """Digest and path of each distinct image that some store lacks, in the order of the paths."""
    there = set.intersection(*(set(store.row_of) for store in stores))
    return {digest: path for digest, path in zip(digests, paths, strict=True) if digest not in there}


def _check_space(cache: Path, needed: int, images: int) -> None:
    """Tell what will be written, or refuse it."""
    free = shutil.disk_usage(cache).free
    if needed + _MARGIN > free:
        raise UserError(
            f"The features need {needed / 1e9:.1f} GB under {cache}, where {free / 1e9:.1f} GB are free: free some, or "
            f"set HIRISE_IMB_CACHE to a folder on another disk."
        )
    say(f"The features of {images:,} images take {needed / 1e6:,.0f} MB under {cache}.")


def _fill(trunk: keras.Model, stores: list[FeatureStore], missing: dict[str, Path], view: str) -> None:
    import tensorflow as tf

    def outputs_of(pixels: Any) -> dict[str, Any]:  # noqa: ANN401
        return {cut: tf.cast(output, tf.float32) for cut, output in trunk(pixels, training=False).items()}

    forward = tf.function(outputs_of, reduce_retracing=True)
    todo = list(missing.items())
    done = 0
    with track("features" if view == "plain" else f"features ({view})", len(todo), "images") as show:
        for batch, pixels in _decoded(todo, view):
            outputs = forward(tf.constant(pixels, tf.float32))
            for store in stores:
                store.append([digest for digest, _ in batch], outputs[store.cut].numpy())
            show(done := done + len(batch))


def _decoded(todo: list[tuple[str, Path]], view: str) -> Iterator[tuple[list[tuple[str, Path]], Seen]]:
    """Batches of images with their pixels (BATCH, 227, 227, 1); the next one is decoded while this one is used."""

    def seen(path: Path) -> Seen:
        return VIEWS[view](decode_image(path))

    batches = [todo[start : start + BATCH] for start in range(0, len(todo), BATCH)]
    with ThreadPoolExecutor() as pool:
        ahead: list[Future[Seen]] = []
        for number, batch in enumerate(batches):
            futures = ahead or [pool.submit(seen, path) for _, path in batch]
            ahead = [pool.submit(seen, path) for _, path in batches[number + 1]] if number + 1 < len(batches) else []
            pixels: Seen = np.zeros((BATCH, IMAGE_SIZE, IMAGE_SIZE, 1), futures[0].result().dtype)
            for row, future in enumerate(futures):
                pixels[row, :, :, 0] = future.result()
            yield batch, pixels
