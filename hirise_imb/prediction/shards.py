"""Divides the images that are to be predicted into numbered shards, which any process can predict by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from hirise_imb.prediction.inputs import ImageFile, ImageTable

SHARD_ROWS = 1024
"""Largest number of images of a shard: little is lost by an interruption, and a table of predictions is small."""


class RowRange(NamedTuple):
    """Consecutive rows of a table of images."""

    table: ImageTable
    start: int
    """First row."""
    stop: int
    """Row after the last one."""


@dataclass(frozen=True)
class Shard:
    """Images that are predicted and stored together."""

    number: int
    """Position of the shard, from 0; predictions are joined in this order."""
    images: tuple[ImageFile, ...] | RowRange
    """Image files and members of zips, or rows of a table."""

    def __len__(self) -> int:
        """Returns the number of images."""
        return self.images.stop - self.images.start if isinstance(self.images, RowRange) else len(self.images)


def plan_shards(listing: Iterable[ImageFile | ImageTable], rows: int = SHARD_ROWS) -> Iterator[Shard]:
    """Yields the shards of a listing, in its order; a table begins a new shard.

    Args:
        listing: images and tables of images.
        rows: largest number of images of a shard.
    """
    number = 0
    files: list[ImageFile] = []
    for entry in listing:
        if isinstance(entry, ImageFile):
            files.append(entry)
        if files and (len(files) == rows or isinstance(entry, ImageTable)):
            yield Shard(number, tuple(files))
            number, files = number + 1, []
        if isinstance(entry, ImageTable):
            for start in range(0, entry.rows, rows):
                yield Shard(number, RowRange(entry, start, min(start + rows, entry.rows)))
                number += 1
    if files:
        yield Shard(number, tuple(files))


class Survey(NamedTuple):
    """The extent of a prediction."""

    images: int
    """Number of images."""
    shards: int
    """Number of shards."""
    fingerprint: str
    """SHA-256 of names, places, sizes and times of all images, hexadecimal."""


def survey_shards(shards: Iterable[Shard]) -> Survey:
    """Counts the images of shards and computes their fingerprint, without reading an image."""
    images = count = 0
    digest = hashlib.sha256()
    for shard in shards:
        images += len(shard)
        count += 1
        digest.update(repr((shard.number, shard.images)).encode())
    return Survey(images, count, digest.hexdigest())
