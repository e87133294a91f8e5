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
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hirise_imb.backbones import Backbone, BackboneCard
from hirise_imb.features.arrays import Features
from hirise_imb.features.inputs import MAP, FeatureKey
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import ensure_folder, exclusive_lock, is_writable, write_atomically, write_text
from hirise_imb.utils.progress import warn

_FORMAT = 1
"""Version of the two files; it is part of the key, so that another version starts new stores."""
_RECORD = np.dtype([("digest", "S64"), ("crc", "<u4")])
"""A record of the index: hexadecimal SHA-256 of the image file, and the checksum."""
_KEY_FILE = "key.json"
"""File of a store that says what its numbers depend on."""
_WEIGHTS = re.compile('"weights": "([0-9a-f]{64})"')


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
    text = _identify(backbone.card, backbone.digest, backbone.precision, backbone.input_shape, key)
    folder = cache / "features" / _name_folder(backbone.card, key, text)
    if not (folder / _KEY_FILE).exists():
        ensure_folder(folder)
    with _open_folder(folder, key, shape) as store:
        if not (folder / _KEY_FILE).exists():
            write_atomically(folder / _KEY_FILE, lambda path: write_text(path, f"{text}\n"))
        yield store


@contextmanager
def _open_folder(folder: Path, key: FeatureKey, shape: tuple[int, ...]) -> Iterator[FeatureStore]:
    """Opens the store in a folder, locked against other processes where it can be written to."""
    if not is_writable(folder):
        # On a read-only disk, whose features may be all that is needed. Whoever may write there only appends.
        yield FeatureStore(folder, key, shape, read_only=True)
        return
    with exclusive_lock(folder / "rows"):
        yield FeatureStore(folder, key, shape)


def read_cached_features(
    cache: Path,
    card: BackboneCard,
    weights: str,
    precision: str,
    input_shape: tuple[int, int, int],
    key: FeatureKey,
    digests: Sequence[str],
) -> Features | None:
    """Returns cached pooled features without building the backbone; None if the cache lacks those of an image.

    Args:
        cache: folder of all cached features.
        card: facts about the backbone.
        weights: first digits of the digest of its weights.
        precision: number format of its arithmetic.
        input_shape: shape of one image.
        key: view, layer and statistic.
        digests: hexadecimal SHA-256 of each image file.
    """
    for path in sorted((cache / "features").glob(f"*/{_KEY_FILE}")):
        text = path.read_text(encoding="utf-8", errors="replace").rstrip()
        # The name of the folder ends with the digest of the text, so that an edited file is not mistaken for a key.
        if (found := _WEIGHTS.search(text)) is None or path.parent.name != _name_folder(card, key, text):
            continue
        if found[1].startswith(weights) and text == _identify(card, found[1], precision, input_shape, key):
            with _open_folder(path.parent, key, (card.width(key.layer),)) as store:
                return store.features(digests) if store.row_of.keys() >= set(digests) else None
    return None


def _identify(
    card: BackboneCard, weights: str, precision: str, input_shape: tuple[int, int, int], key: FeatureKey
) -> str:
    """Returns everything that the numbers of a store depend on, as JSON."""
    identity = {
        "format": _FORMAT,
        "backbone": card.name,
        "weights": weights,
        "precision": precision,
        "preprocessing": card.preprocessing,
        "input": input_shape,
        "cut": key.layer,
        "dtype": stored_dtype(key.statistic).name,
    }
    return json.dumps(identity | _name_variant(key), indent=1)


def _name_variant(key: FeatureKey) -> dict[str, str]:
    """Returns statistic and view, where they are named."""
    # What is not named: plain pixels, means of the top, and maps of cuts, so that older caches stay valid.
    variant = {} if key.is_trunk_output else {"statistic": key.statistic}
    return variant if key.view == "plain" else variant | {"view": key.view}


def _name_folder(card: BackboneCard, key: FeatureKey, identity: str) -> str:
    short = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return "-".join([card.name, key.layer, *_name_variant(key).values(), short])


class FeatureStore:
    """The cached features of one key."""

    def __init__(self, folder: Path, key: FeatureKey, shape: tuple[int, ...], *, read_only: bool = False) -> None:
        """Opens or creates the files of a store; rows that an interruption or damage left unusable are dropped.

        Args:
            folder: folder of the store.
            key: view, layer and statistic.
            shape: shape of one image's features.
            read_only: leaves the files as they are; unusable rows are only ignored.
        """
        self.folder = folder
        self.key = key
        self.shape = shape
        self.dtype = stored_dtype(key.statistic)
        self.row_bytes = row_bytes(shape, key.statistic)
        self.data = folder / "rows.bin"
        self.index = folder / "index.bin"
        if not read_only:
            self.data.touch()
            self.index.touch()
        records = self._records()
        if not self._is_intact(records):
            warn(f"The cached features in {folder} are damaged; they are computed again.")
            records = records[:0]
        if not read_only:
            self._truncate(len(records))
        self.row_of = {str(record["digest"], "ascii"): row for row, record in enumerate(records)}

    def _records(self) -> NDArray[np.void]:
        content = self.index.read_bytes() if self.index.exists() else b""
        return np.frombuffer(content[: len(content) // _RECORD.itemsize * _RECORD.itemsize], _RECORD)

    def _is_intact(self, records: NDArray[np.void]) -> bool:
        """Returns whether every record has the checksum of its digest and row."""
        if not self.data.exists():
            return not len(records)
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
