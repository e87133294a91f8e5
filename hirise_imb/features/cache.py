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
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.utils.files import ensure_folder, exclusive_lock, write_atomically, write_text
from hirise_imb.utils.progress import say

if TYPE_CHECKING:
    import keras

from hirise_imb.features.arrays import Features

_FORMAT = 1
_RECORD = np.dtype([("digest", "S64"), ("crc", "<u4")])


@contextmanager
def open_store(cache: Path, backbone: Backbone, cut: str, trunk: keras.Model, view: str) -> Iterator[FeatureStore]:
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
    folder = ensure_folder(cache / "features" / "-".join([backbone.card.name, cut, *seen.values(), short]))
    with exclusive_lock(folder / "rows"):
        if not (folder / "key.json").exists():  # for people: nothing reads it
            write_atomically(folder / "key.json", lambda path: write_text(path, f"{text}\n"))
        yield FeatureStore(folder, cut, shape, dtype)


class FeatureStore:
    """The cached features of one cut."""

    def __init__(self, folder: Path, cut: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Open the files of a store, or create them; what an interruption or damage left unusable is dropped."""
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
