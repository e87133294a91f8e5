"""Feature extraction: each image goes through the backbone once, and its features are cached."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.data.images import decode_image
from hirise_imb.data.manifest import Manifest
from hirise_imb.features.arrays import Features
from hirise_imb.features.cache import FeatureStore, open_store, stored_dtype
from hirise_imb.features.inputs import GEM_EXPONENT, FeatureKey
from hirise_imb.features.views import VIEWS, Pixels, ViewedPixels
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import digest_of, ensure_folder
from hirise_imb.utils.progress import say, track

if TYPE_CHECKING:
    import keras

BATCH = 32
"""Images in a forward pass; every pass has this many, so that an image's features don't depend on the others."""

GEM_FLOOR = 1e-6
"""Least activation in a generalised mean, as in the paper: its power has a gradient and no sign."""

_MIN_FREE_BYTES = 256 << 20
"""Bytes that an extraction leaves free on the disk."""


def image_digests(paths: Sequence[Path]) -> list[str]:
    """Returns the hexadecimal SHA-256 of each file."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda path: digest_of(path, "sha256"), paths))


def data_digest(manifest: Manifest, digests: Sequence[str] | None = None) -> str:
    """Returns the SHA-256 of a manifest and the content of its images, the first 16 hexadecimal digits.

    Args:
        manifest: data set.
        digests: `image_digests` of all images, if the caller has computed them already; otherwise every file is read.
    """
    if digests is None:
        digests = image_digests([manifest.path(image) for image in manifest.table["image"]])
    return hashlib.sha256("".join([manifest.digest, *digests]).encode()).hexdigest()[:16]


def extract_features(
    backbone: Backbone,
    keys: Sequence[FeatureKey],
    paths: Sequence[Path],
    cache: Path,
    digests: Sequence[str] | None = None,
) -> dict[FeatureKey, Features]:
    """Returns the features of every image; those not cached are computed in one pass for each view.

    Args:
        backbone: backbone; the images must have its input shape.
        keys: views, layers and statistics.
        paths: image files.
        cache: folder of all cached features.
        digests: `image_digests(paths)`, if the caller has computed them already.

    Raises:
        UserError: an image can't be decoded, or there is too little free disk space.
        ValueError: there is no such view, layer or statistic, or a layer has no feature map.
    """
    digests = image_digests(paths) if digests is None else digests
    features: dict[FeatureKey, Features] = {}
    for view in dict.fromkeys(key.view for key in keys):
        if view not in VIEWS:
            raise ValueError(f"view must be one of {', '.join(VIEWS)}, got {view!r}")
        features |= _extract_view(backbone, [key for key in keys if key.view == view], paths, cache, digests)
    return {key: features[key] for key in keys}


def _extract_view(
    backbone: Backbone, keys: list[FeatureKey], paths: Sequence[Path], cache: Path, digests: Sequence[str]
) -> dict[FeatureKey, Features]:
    """Extracts features of one view."""
    trunk = Trunk(backbone, keys)
    with ExitStack() as stack:
        stores = [stack.enter_context(open_store(cache, backbone, key, trunk.shapes[key])) for key in keys]
        cached = set.intersection(*(set(store.row_of) for store in stores))
        missing = {digest: path for digest, path in zip(digests, paths, strict=True) if digest not in cached}
        if missing:
            for store in stores:
                ensure_folder(store.folder)  # a store on a read-only disk is only useful if it is complete
            needed = sum(store.row_bytes * sum(digest not in store.row_of for digest in missing) for store in stores)
            _check_space(cache, needed, len(missing))
            n_cached = len(set(digests)) - len(missing)
            _fill_stores(backbone.input_shape, trunk, stores, missing, keys[0].view, n_cached)
        return {store.key: store.features(digests) for store in stores}


def median_relative_difference(one: Backbone, other: Backbone, paths: Sequence[Path]) -> float:
    """Returns the difference |a - b| / |b| (Euclidean) of the pooled features of two backbones, median over images."""
    pixels = np.stack([decode_image(path, one.input_shape) for path in paths]).astype(np.float32)
    a, b = (np.asarray(backbone.trunk(TOP)(pixels, training=False)) for backbone in (one, other))
    return float(np.median(np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)))


class Trunk:
    """The frozen backbone with an output for each key, so that all of them cost one forward pass."""

    def __init__(self, backbone: Backbone, keys: Sequence[FeatureKey]) -> None:
        """Connects the outputs.

        Args:
            backbone: backbone.
            keys: keys of one view; the view itself is applied to the pixels before.

        Raises:
            ValueError: there is no such layer or statistic, or a layer has no feature map.
        """
        import keras

        maps = [_output(backbone, key) for key in keys]
        self._keys = keys
        # A dict, since Keras unwraps a list of one output.
        self._model = keras.Model(backbone.network.input, {str(n): output for n, output in enumerate(maps)})
        shapes = [tuple(int(size) for size in output.shape[1:]) for output in maps]
        self.shapes = {
            key: shape if key.is_trunk_output else shape[-1:] for key, shape in zip(keys, shapes, strict=True)
        }
        """Shape of one image's features."""

    def compile(self) -> Callable[[Any], dict[FeatureKey, Any]]:
        """Returns a compiled function from pixels to the features of each key, float32."""
        import tensorflow as tf

        def forward(pixels: Any) -> list[Any]:  # noqa: ANN401  (TensorFlow has no types)
            outputs = self._model(pixels, training=False)
            return [
                # As float32, since numpy has no bfloat16.
                _compute_statistic(tf.cast(outputs[str(n)], tf.float32), key)
                for n, key in enumerate(self._keys)
            ]

        compiled = tf.function(forward, reduce_retracing=True, autograph=False)  # there is nothing to convert
        return lambda pixels: dict(zip(self._keys, compiled(pixels), strict=True))


class PixelFeatures:
    """Computes features of images in memory, as they are cached, without a cache."""

    def __init__(self, backbone: Backbone, keys: Sequence[FeatureKey]) -> None:
        """Compiles the trunk for each set of outputs.

        Args:
            backbone: backbone.
            keys: views, layers and statistics.

        Raises:
            KeyError: there is no such cut.
            ValueError: there is no such layer or statistic, or a layer has no feature map.
        """
        self._shape = backbone.input_shape
        self._by_view = {
            view: [key for key in keys if key.view == view] for view in dict.fromkeys(key.view for key in keys)
        }
        self._trunks: dict[tuple[tuple[str, str], ...], Callable[[Any], dict[FeatureKey, Any]]] = {}
        for of_view in self._by_view.values():
            # Views share a trunk, which does not depend on them, and would otherwise be compiled for each.
            if (outputs := _outputs(of_view)) not in self._trunks:
                self._trunks[outputs] = Trunk(backbone, of_view).compile()

    def compute(self, pixels: Sequence[Pixels] | Pixels) -> dict[FeatureKey, Features]:
        """Returns the features of one or more images for each key, in the types in which they are cached.

        Args:
            pixels: images of shape (rows, columns, channels).
        """
        parts = [self._compute_batch(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
        return {key: Features.of(np.concatenate([part[key] for part in parts])) for key in parts[0]}

    def _compute_batch(self, pixels: Sequence[Pixels] | Pixels) -> dict[FeatureKey, NDArray[np.floating]]:
        import tensorflow as tf

        features: dict[FeatureKey, NDArray[np.floating]] = {}
        for view, keys in self._by_view.items():
            # Every pass has as many images as in training, so that features do not depend on the number of images.
            batch = np.zeros((BATCH, *self._shape), np.float32)
            for row, image in enumerate(pixels):
                batch[row] = VIEWS[view](image)
            outputs = self._trunks[_outputs(keys)](tf.constant(batch))
            by_output = {(key.layer, key.statistic): values for key, values in outputs.items()}
            for key in keys:
                values = by_output[key.layer, key.statistic].numpy()[: len(pixels)]
                features[key] = values.astype(stored_dtype(key.statistic), copy=False)
        return features


def _outputs(keys: Sequence[FeatureKey]) -> tuple[tuple[str, str], ...]:
    """Returns the layer and statistic of each key, which the view does not change."""
    return tuple((key.layer, key.statistic) for key in keys)


def _output(backbone: Backbone, key: FeatureKey) -> keras.KerasTensor:
    """Returns the symbolic output that features are, or from which they are pooled."""
    if key.is_trunk_output:
        return backbone.trunk(key.layer).output
    output = backbone.network.output if key.layer == TOP else backbone.network.get_layer(key.layer).output
    if len(output.shape) != 4:
        raise ValueError(f"the layer {key.layer} has no feature map, but outputs of shape {tuple(output.shape[1:])}")
    return output


def _compute_statistic(output: Any, key: FeatureKey) -> Any:  # noqa: ANN401  (TensorFlow has no types)
    """Pools a feature map (n, rows, columns, channels) to (n, channels), unless there is nothing left to pool."""
    import tensorflow as tf

    if key.is_trunk_output:
        return output
    match key.statistic:
        case "mean":
            return tf.reduce_mean(output, axis=(1, 2))
        case "std":
            return tf.math.reduce_std(output, axis=(1, 2))
        case "max":
            return tf.reduce_max(output, axis=(1, 2))
        case "gem":
            powers = tf.maximum(output, GEM_FLOOR) ** GEM_EXPONENT
            return tf.reduce_mean(powers, axis=(1, 2)) ** (1 / GEM_EXPONENT)
    raise ValueError(f"there is no statistic {key.statistic!r}")


def name_extraction(view: str) -> str:
    """Returns the name under which the progress of a view is shown."""
    return "features" if view == "plain" else f"features ({view})"


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
    trunk: Trunk,
    stores: list[FeatureStore],
    missing: dict[str, Path],
    view: str,
    n_cached: int,
) -> None:
    import tensorflow as tf

    compiled = trunk.compile()
    remaining = list(missing.items())
    done = n_cached
    with track(name_extraction(view), n_cached + len(remaining), "images", already=n_cached) as show:
        for batch, pixels in _decode_batches(remaining, shape, view):
            outputs = compiled(tf.constant(pixels, tf.float32))
            for store in stores:
                store.append([digest for digest, _ in batch], outputs[store.key].numpy())
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
