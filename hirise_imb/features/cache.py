"""The feature cache: backbone outputs, computed once per image, stored on disk and memory-mapped.

A store is a folder with the outputs of one backbone (with its weights), one preprocessing, one input shape, and one
`FeatureKey`: view, layer and statistic. Within it, images are identified by the SHA-256 of their file, so that data
sets share the images they have in common. Two files grow together: `rows.bin` with one row of numbers per image, and
`index.bin` with one record per image: its digest and the CRC-32 of digest and row. A record is written after its row,
so that an interrupted extraction continues after the last complete record.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hirise_imb.backbones import Backbone
from hirise_imb.features.arrays import Features
from hirise_imb.features.inputs import MAP, FeatureKey
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import ensure_folder, exclusive_lock, write_atomically, write_text
from hirise_imb.utils.progress import warn

_FORMAT = 1
"""Version of the two files; it is part of the key, so that another version starts new stores."""
_RECORD = np.dtype([("digest", "S64"), ("crc", "<u4")])
"""A record of the index: hexadecimal SHA-256 of the image file, and the checksum."""


def stored_dtype(statistic: str) -> np.dtype[np.floating]:
    """Returns the type in which features are stored."""
    # Half precision halves the reading when training from a cut; pooled features are small and stay exact.
    return np.dtype(np.float16 if statistic == MAP else np.float32)


def row_bytes(shape: tuple[int, ...], statistic: str) -> int:
    """Returns the bytes of the features of one image, of this shape."""
    return math.prod(shape) * stored_dtype(statistic).itemsize


@contextmanager
def open_store(cache: Path, backbone: Backbone, key: FeatureKey, shape: tuple[int, ...]) -> Iterator[FeatureStore]:
    """Opens the store of some features, locked against other processes.

    Args:
        cache: folder of all cached features.
        backbone: backbone with its weights.
        key: view, layer and statistic.
        shape: shape of one image's features.
    """
    identity = {
        "format": _FORMAT,
        "backbone": backbone.card.name,
        "weights": backbone.digest,
        "precision": backbone.precision,
        "preprocessing": backbone.card.preprocessing,
        "input": backbone.input_shape,
        "cut": key.layer,
        "dtype": stored_dtype(key.statistic).name,
    }
    # What is not named: plain pixels, means of the top, and maps of cuts, so that older caches stay valid.
    if not key.is_trunk_output:
        identity["statistic"] = key.statistic
    if key.view != "plain":
        identity["view"] = key.view
    text = json.dumps(identity, indent=1)
    short = hashlib.sha256(text.encode()).hexdigest()[:12]
    names = [backbone.card.name, key.layer, *(identity[name] for name in ("statistic", "view") if name in identity)]
    folder = ensure_folder(cache / "features" / "-".join([*map(str, names), short]))
    with exclusive_lock(folder / "rows"):
        if not (folder / "key.json").exists():  # for people: the program does not read it
            write_atomically(folder / "key.json", lambda path: write_text(path, f"{text}\n"))
        yield FeatureStore(folder, key, shape)


class FeatureStore:
    """The cached features of one key."""

    def __init__(self, folder: Path, key: FeatureKey, shape: tuple[int, ...]) -> None:
        """Opens or creates the files of a store; rows that an interruption or damage left unusable are dropped.

        Args:
            folder: folder of the store.
            key: view, layer and statistic.
            shape: shape of one image's features.
        """
        self.key = key
        self.shape = shape
        self.dtype = stored_dtype(key.statistic)
        self.row_bytes = row_bytes(shape, key.statistic)
        self.data = folder / "rows.bin"
        self.index = folder / "index.bin"
        self.data.touch()
        self.index.touch()
        records = self._records()
        if not self._is_intact(records):
            warn(f"The cached features in {folder} are damaged; they are computed again.")
            records = records[:0]
        self._truncate(len(records))
        self.row_of = {str(record["digest"], "ascii"): row for row, record in enumerate(records)}

    def _records(self) -> NDArray[np.void]:
        content = self.index.read_bytes()
        return np.frombuffer(content[: len(content) // _RECORD.itemsize * _RECORD.itemsize], _RECORD)

    def _is_intact(self, records: NDArray[np.void]) -> bool:
        """Returns whether every record has the checksum of its digest and row."""
        with self.data.open("rb") as data:
            return all(_checksum(record["digest"], data.read(self.row_bytes)) == record["crc"] for record in records)

    def _truncate(self, rows: int) -> None:
        """Drops bytes that an interruption left after the last complete record."""
        with self.data.open("r+b") as data:
            data.truncate(rows * self.row_bytes)
        with self.index.open("r+b") as index:
            index.truncate(rows * _RECORD.itemsize)

    def append(self, digests: list[str], values: NDArray[np.float32]) -> None:
        """Adds a row for each digest that is missing; `values` may have further rows, which are padding."""
        with np.errstate(over="ignore"):  # what overflows float16 is refused below
            stored = values.astype(self.dtype)
        if not np.isfinite(stored).all():
            raise UserError(
                f"Features of an image ({self.key.statistic} at {self.key.layer}) are not finite in {self.dtype}: "
                f"check the weights of the backbone, or leave out strategies that use this layer."
            )
        new = [(digest, row) for digest, row in zip(digests, stored, strict=False) if digest not in self.row_of]
        rows = [row.tobytes() for _, row in new]
        records = [(d, _checksum(d.encode(), row)) for (d, _), row in zip(new, rows, strict=True)]
        with self.data.open("ab") as data:
            data.write(b"".join(rows))
        with self.index.open("ab") as index:
            index.write(np.array(records, _RECORD).tobytes())
        for digest, _ in new:
            self.row_of[digest] = len(self.row_of)

    def features(self, digests: Sequence[str]) -> Features:
        """Returns the features of these images, memory-mapped."""
        stored = np.memmap(self.data, self.dtype, mode="r", shape=(len(self.row_of), *self.shape))
        return Features(stored, np.array([self.row_of[digest] for digest in digests]))


def _checksum(digest: bytes, row: bytes) -> int:
    return zlib.crc32(row, zlib.crc32(digest))
