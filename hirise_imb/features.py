"""Backbone outputs, computed once an image, cached on disk and memory-mapped.

A cache folder holds the outputs of one backbone (with its weights), one preprocessing, one input size, one cut and one
view of the images. Inside, images are known by the SHA-256 of their file, so data sets share what they have in common.
Two files grow together: `rows.bin`, one row of numbers an image, and `index.bin`, one record an image, written after
its row: the image's digest and the CRC-32 of digest and row. An interrupted extraction goes on after the last whole
record.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.errors import UserError
from hirise_imb.files import alone, make_folder, write_text, write_whole
from hirise_imb.images import decode
from hirise_imb.landmarks import IMAGE_SIZE
from hirise_imb.progress import say, track
from hirise_imb.views import VIEWS, Seen

if TYPE_CHECKING:
    import keras

BATCH = 32
"""Images a forward pass; every pass has this many, so that an image's numbers don't depend on its neighbours."""

_FORMAT = 1
_RECORD = np.dtype([("digest", "S64"), ("crc", "<u4")])
_MARGIN = 256 << 20
"""Bytes left free on the disk."""


@dataclass(frozen=True)
class Features:
    """Features at one cut, one row an image, in the order in which the images were asked for."""

    stored: NDArray[np.floating]
    """Shape (n_stored, ...). From the cache: memory-mapped, float32 at the cut `top`, float16 at the others."""
    rows: NDArray[np.int64]
    """Where each image is in `stored`, shape (n_images,)."""

    @classmethod
    def of(cls, array: NDArray[np.floating]) -> Features:
        """Those of an array in memory, one row an image, shape (n_images, ...)."""
        return cls(array, np.arange(len(array)))

    def __len__(self) -> int:
        """Number of images."""
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image's features."""
        return self.stored.shape[1:]

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Features of the images at `positions`, shape (n, ...)."""
        return self.stored[self.rows[positions]].astype(np.float32, copy=False)

    def select(self, positions: NDArray[np.int64]) -> Features:
        """The same for some of the images; nothing is read."""
        return Features(self.stored, self.rows[positions])


def joined(parts: Sequence[Features]) -> Features:
    """Pooled features of the same images side by side, in memory, shape (n_images, sum of widths), float32.

    Raises:
        ValueError: there are no parts, they are not pooled, or not of equally many images.
    """
    shapes = [(len(part), *part.shape) for part in parts]
    if not parts or any(len(shape) != 2 or shape[0] != shapes[0][0] for shape in shapes):
        raise ValueError(f"parts must be pooled features of the same images, got shapes {shapes}")
    whole = np.empty((len(parts[0]), sum(width for _, width in shapes)), np.float32)
    start = 0
    for part, (_, width) in zip(parts, shapes, strict=True):
        whole[:, start : start + width] = part.stored[part.rows]
        start += width
    return Features.of(whole)


def image_digests(paths: Sequence[Path]) -> list[str]:
    """SHA-256 of each file, hexadecimal."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda path: hashlib.sha256(path.read_bytes()).hexdigest(), paths))


def extract(
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
        stores = [stack.enter_context(_opened(cache, backbone, cut, trunk, view)) for cut in cuts]
        missing = _missing(stores, digests, paths)
        if missing:
            _check_space(cache, sum(store.row_bytes for store in stores) * len(missing), len(missing))
            _fill(trunk, stores, missing, view)
        return {store.cut: store.features(digests) for store in stores}


def difference(one: Backbone, other: Backbone, paths: Sequence[Path]) -> float:
    """How far pooled features of two backbones are apart: |a - b| / |b|, Euclidean, median over the images."""
    pixels = np.stack([decode(path) for path in paths])[:, :, :, None].astype(np.float32)
    a, b = (np.asarray(backbone.trunk(TOP)(pixels, training=False)) for backbone in (one, other))
    return float(np.median(np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)))


def _trunk(backbone: Backbone, cuts: Sequence[str]) -> keras.Model:
    import keras

    return keras.Model(backbone.network.input, {cut: backbone.trunk(cut).output for cut in cuts})


def _missing(stores: list[_Store], digests: list[str], paths: Sequence[Path]) -> dict[str, Path]:
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


def _fill(trunk: keras.Model, stores: list[_Store], missing: dict[str, Path], view: str) -> None:
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
        return VIEWS[view](decode(path))

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


@contextmanager
def _opened(cache: Path, backbone: Backbone, cut: str, trunk: keras.Model, view: str) -> Iterator[_Store]:
    """The store of a cut, held by this process alone."""
    shape = tuple(int(size) for size in trunk.output[cut].shape[1:])
    # Half precision halves what is read in training from a cut; pooled features are small and stay exact.
    dtype = np.dtype(np.float32 if cut == TOP else np.float16)
    key = {
        "format": _FORMAT,
        "backbone": backbone.card.name,
        "weights": backbone.digest,
        "precision": backbone.precision,
        "preprocessing": backbone.card.preprocessing,
        "input": backbone.input_shape,
        "cut": cut,
        "dtype": dtype.name,
    }
    # Plain pixels are not named: caches from before there were views stay valid.
    seen = {} if view == "plain" else {"view": view}
    text = json.dumps(key | seen, indent=1)
    short = hashlib.sha256(text.encode()).hexdigest()[:12]
    folder = make_folder(cache / "features" / "-".join([backbone.card.name, cut, *seen.values(), short]))
    with alone(folder / "rows"):
        if not (folder / "key.json").exists():  # for people: nothing reads it
            write_whole(folder / "key.json", lambda path: write_text(path, f"{text}\n"))
        yield _Store(folder, cut, shape, dtype)


class _Store:
    """The cached features of one cut."""

    def __init__(self, folder: Path, cut: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.cut = cut
        self.shape = shape
        self.dtype = dtype
        self.row_bytes = int(np.prod(shape)) * dtype.itemsize
        self.data = folder / "rows.bin"
        self.index = folder / "index.bin"
        self.data.touch()
        self.index.touch()
        records = self._records()
        if not self._whole(records):
            say(f"The cached features in {folder} are damaged; they are computed again.")
            records = records[:0]
        self._cut_to(len(records))
        self.row_of = {str(record["digest"], "ascii"): row for row, record in enumerate(records)}

    def _records(self) -> NDArray[np.void]:
        content = self.index.read_bytes()
        return np.frombuffer(content[: len(content) // _RECORD.itemsize * _RECORD.itemsize], _RECORD)

    def _whole(self, records: NDArray[np.void]) -> bool:
        """Whether every record has the checksum of its digest and row."""
        with self.data.open("rb") as data:
            return all(_checksum(record["digest"], data.read(self.row_bytes)) == record["crc"] for record in records)

    def _cut_to(self, rows: int) -> None:
        """Drop what an interruption left behind the last whole record."""
        with self.data.open("r+b") as data:
            data.truncate(rows * self.row_bytes)
        with self.index.open("r+b") as index:
            index.truncate(rows * _RECORD.itemsize)

    def append(self, digests: list[str], values: NDArray[np.float32]) -> None:
        """Add a row for each digest that is not there yet; `values` may hold further rows, which are padding."""
        with np.errstate(over="ignore"):
            stored = values.astype(self.dtype)
        if not np.isfinite(stored).all():
            raise FloatingPointError(f"features at cut {self.cut} don't fit {self.dtype}")
        new = [(digest, row) for digest, row in zip(digests, stored, strict=False) if digest not in self.row_of]
        rows = [row.tobytes() for _, row in new]
        checked = [(d, _checksum(d.encode(), row)) for (d, _), row in zip(new, rows, strict=True)]
        with self.data.open("ab") as data:
            data.write(b"".join(rows))
        with self.index.open("ab") as index:
            index.write(np.array(checked, _RECORD).tobytes())
        for digest, _ in new:
            self.row_of[digest] = len(self.row_of)

    def features(self, digests: list[str]) -> Features:
        """The rows of these images."""
        stored = np.memmap(self.data, self.dtype, mode="r", shape=(len(self.row_of), *self.shape))
        return Features(stored, np.array([self.row_of[digest] for digest in digests]))


def _checksum(digest: bytes, row: bytes) -> int:
    return zlib.crc32(row, zlib.crc32(digest))
