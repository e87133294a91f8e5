"""Reads the images of shards and decodes them, one batch ahead of the network that uses them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data.archive import DAMAGE, MAX_MEMBER
from hirise_imb.data.images import UnusableImage, decode_content
from hirise_imb.prediction.inputs import ID, IMAGE, SOURCE, parse_source, to_text, unreadable_table
from hirise_imb.prediction.shards import RowRange, Shard
from hirise_imb.utils.errors import UserError

BATCH = 128
"""Images that are decoded together, of which at most two batches are in memory."""

_TABLE_ROWS = 64
"""Rows of a table that are read at a time."""
_BUFFER = 1 << 20
"""Bytes of a column that are read at a time: without it, a whole row group of images would be in memory."""


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
    """Reads the images of shards; the zip or table of the last shard stays open, since the next one mostly uses it."""

    def __init__(self) -> None:
        """Opens nothing yet."""
        self._stack = ExitStack()
        self._path = ""
        self._open: Any = None

    def __enter__(self) -> Self:
        """Returns the reader."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file that is open."""
        self.close()

    def close(self) -> None:
        """Closes the file that is open."""
        self._stack.close()
        self._path = ""

    def read(self, shard: Shard) -> Iterator[EncodedImage]:
        """Yields the images of a shard.

        Raises:
            UserError: a zip or table is damaged, or has fewer rows than when the shards were planned.
        """
        if isinstance(shard.images, RowRange):
            place = shard.images
            table = self._use(place.table.path, _TableRows)
            yield from table.read(place.start, place.stop)
            return
        for image in shard.images:
            if image.member:
                archive = self._use(image.path, _open_zip)
                yield EncodedImage(image.id, image.source, partial(_read_member, archive, image.member))
            else:
                yield EncodedImage(image.id, image.source, partial(_read_file, image.path))

    def _use(self, path: str, open_file: Callable[[str], Any]) -> Any:  # noqa: ANN401
        """Returns the open zip or table at a path."""
        if path != self._path:
            self.close()
            self._open = self._stack.enter_context(open_file(path))
            self._path = path
        return self._open


def _open_zip(path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, *DAMAGE) as error:
        raise UserError(f"{path} is damaged or not a zip file ({error}): copy or download it again.") from error


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
        _check_size(Path(path).stat().st_size)
        return Path(path).read_bytes()
    except OSError as error:
        raise UnusableImage(f"can't be read ({error.strerror or error})") from error


def _check_size(size: int) -> None:
    if size > MAX_MEMBER:
        raise UnusableImage(f"has {size:,} bytes, over the limit of {MAX_MEMBER:,}")


class _TableRows:
    """The rows of a table of images, which are read in their order as long as each range follows the one before."""

    def __init__(self, path: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._path = path
        try:
            self._file = pq.ParquetFile(path, buffer_size=_BUFFER)
        except (OSError, pa.ArrowException) as error:
            raise unreadable_table(path, error) from error
        self._columns = [name for name in (ID, IMAGE, SOURCE) if name in self._file.schema_arrow.names]
        self._position = 0
        self._rows = self._rows_from(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.close()
        self._file.close()

    def read(self, start: int, stop: int) -> Iterator[EncodedImage]:
        """Yields the images of a range of rows."""
        import pyarrow as pa

        if start != self._position:
            self._position, self._rows = start, self._rows_from(start)
        try:
            for row in islice(self._rows, stop - start):
                yield self._encoded_image(row, self._position)
                self._position += 1
        except (OSError, pa.ArrowException) as error:
            raise unreadable_table(self._path, error) from error
        if self._position != stop:
            raise UserError(f"{self._path} has fewer rows than at the start of this prediction: leave it unchanged.")

    def _rows_from(self, start: int) -> Any:  # noqa: ANN401  (a generator of rows)
        """Yields the rows from a number on; earlier row groups are not read, and earlier rows not converted."""
        metadata = self._file.metadata
        skipped, first = start, 0
        while first < metadata.num_row_groups and skipped >= (rows := metadata.row_group(first).num_rows):
            skipped, first = skipped - rows, first + 1
        groups = list(range(first, metadata.num_row_groups))
        # One thread: several would read ahead.
        for batch in self._file.iter_batches(_TABLE_ROWS, groups, self._columns, use_threads=False):
            yield from batch.slice(skipped).to_pylist()
            skipped = max(skipped - batch.num_rows, 0)

    def _encoded_image(self, row: dict[str, Any], number: int) -> EncodedImage:
        image = row[IMAGE]
        is_struct = isinstance(image, dict)
        # The layout of Hugging Face has no ids, but the path that an image had.
        id_ = row.get(ID) if row.get(ID) is not None else image.get("path") if is_struct else None
        name = f"{to_text(self._path)}#{number}" if id_ is None or id_ == "" else _to_string(id_)
        content = image.get("bytes") if is_struct else image
        source = row.get(SOURCE)
        known = parse_source(name) if source is None or source == "" else _to_string(source)
        return EncodedImage(name, known, partial(_check_content, content))


def _to_string(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


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
