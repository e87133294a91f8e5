"""Reads the images of shards and decodes them, one batch ahead of the network that uses them."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data.archive import DAMAGE, MAX_MEMBER
from hirise_imb.data.images import UnusableImage, decode_content
from hirise_imb.prediction.image_tables import TableRow, TableRows
from hirise_imb.prediction.inputs import parse_source, to_text
from hirise_imb.prediction.shards import RowRange, Shard
from hirise_imb.utils.errors import UserError

BATCH = 128
"""Images that are decoded together, of which at most two batches are in memory."""


class EncodedImage(NamedTuple):
    """An image whose content has not been decoded."""

    id: str
    source: str | None
    read: Callable[[], bytes]
    """Returns the content of the image file; raises UnusableImage if there is none."""


class DecodedImage(NamedTuple):
    """An image ready for the network, or the reason why it can't be used."""

    id: str
    source: str | None
    pixels: NDArray[np.uint8] | None
    """Shape (rows, columns, channels)."""
    error: str | None
    """A sentence, if there are no pixels."""


class ShardReader:
    """Reads the images of shards; the last zip and the last table stay open, since the next shard mostly uses them."""

    def __init__(self) -> None:
        """Opens nothing yet."""
        self._tables = ExitStack()
        self._table: tuple[str, TableRows] | None = None
        self._zip: tuple[str, zipfile.ZipFile] | None = None

    def __enter__(self) -> Self:
        """Returns the reader."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes what is open."""
        self.close()

    def close(self) -> None:
        """Closes what is open, except a zip of which images are still to be read."""
        self._tables.close()
        self._table = self._zip = None

    def read(self, shard: Shard) -> Iterator[EncodedImage]:
        """Yields the images of a shard.

        Raises:
            UserError: a zip or table is damaged, or has fewer rows than when the shards were planned.
        """
        if isinstance(shard.images, RowRange):
            place = shard.images
            table = self._open_table(place.table.path)
            for number, row in enumerate(table.read(place.start, place.stop), place.start):
                yield _name_row(row, place.table.path, number)
            return
        for image in shard.images:
            if image.member:
                archive = self._open_zip(image.path)
                yield EncodedImage(image.id, image.source, partial(_read_member, archive, image.member))
            else:
                yield EncodedImage(image.id, image.source, partial(_read_file, image.path))

    def _open_table(self, path: str) -> TableRows:
        """Returns the open table at a path, and closes the one before."""
        if self._table is None or self._table[0] != path:
            self._tables.close()
            self._table = path, self._tables.enter_context(TableRows(path))
        return self._table[1]

    def _open_zip(self, path: str) -> zipfile.ZipFile:
        """Returns the open zip at a path.

        The one before is not closed here, since threads may still have to read images of it: it closes itself when the
        last of them is read, so that at most two batches of zips are open.
        """
        if self._zip is None or self._zip[0] != path:
            try:
                self._zip = path, zipfile.ZipFile(path)
            except (OSError, *DAMAGE) as error:
                raise UserError(f"{path} is damaged or not a zip file ({error}): copy or download it again.") from error
        return self._zip[1]


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    member = archive.getinfo(name)
    if member.flag_bits & 0x1:
        raise UnusableImage("is encrypted in its zip")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnusableImage("is neither stored nor deflated in its zip")
    _check_size(member.file_size)
    try:
        return archive.read(member)  # never more than the declared size
    except (OSError, *DAMAGE) as error:
        raise UnusableImage(f"can't be read from its zip ({error})") from error


def _read_file(path: str) -> bytes:
    try:
        facts = Path(path).stat()
        if not stat.S_ISREG(facts.st_mode):  # reading a pipe may never end
            raise UnusableImage("is not a regular file")
        _check_size(facts.st_size)
        return Path(path).read_bytes()
    except OSError as error:
        raise UnusableImage(f"can't be read ({error.strerror or error})") from error


def _check_size(size: int) -> None:
    if size > MAX_MEMBER:
        raise UnusableImage(f"has {size:,} bytes, over the limit of {MAX_MEMBER:,}")


def _name_row(row: TableRow, table: str, number: int) -> EncodedImage:
    """Returns a row of a table as an image; without an id, it is named after its table and its number."""
    name = row.id or f"{to_text(table)}#{number}"
    return EncodedImage(name, row.source or parse_source(name), partial(_check_content, row.content))


def _check_content(content: bytes | None) -> bytes:
    if not content:
        raise UnusableImage("is empty in its table")
    _check_size(len(content))
    return content


def decode_batches(
    images: Iterable[EncodedImage], shape: tuple[int, int, int], pool: Executor
) -> Iterator[list[DecodedImage]]:
    """Yields batches of decoded images; each is decoded while the caller works on the one before.

    Args:
        images: images, whose order is kept.
        shape: rows, columns and channels that an image must have.
        pool: threads that read and decode.
    """
    remaining = iter(images)
    decoding: list[Future[DecodedImage]] = []
    while True:
        following = [pool.submit(decode, image, shape) for image in islice(remaining, BATCH)]
        if decoding:
            yield [future.result() for future in decoding]
        if not following:
            return
        decoding = following


def decode(image: EncodedImage, shape: tuple[int, int, int]) -> DecodedImage:
    """Reads and decodes an image."""
    try:
        return DecodedImage(image.id, image.source, decode_content(image.read(), shape), None)
    except UnusableImage as error:
        return DecodedImage(image.id, image.source, None, f"The image {error}.")
