"""Parquet tables of encoded images: how they are recognised and read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from hirise_imb.utils.errors import UserError, first_line
from hirise_imb.utils.files import check_regular_file
from hirise_imb.utils.parquet import parquet_errors

if TYPE_CHECKING:
    import pyarrow as pa

ID, IMAGE, SOURCE = "id", "image", "source"
"""Columns of a table of encoded images; only `image` is required."""

_BATCH = 64
"""Rows of a table that are read at a time."""
_BUFFER = 1 << 20
"""Bytes of a column that are read at a time. By default, all row groups that have been read stay in memory."""


def read_footer(path: str | Path) -> tuple[pa.Schema, int]:
    """Returns the schema and the number of rows of a Parquet file.

    Raises:
        UserError: the file can't be read.
    """
    import pyarrow.parquet as pq

    check_regular_file(Path(path))
    try:
        with pq.ParquetFile(path) as file:
            return file.schema_arrow, file.metadata.num_rows
    except parquet_errors(OSError) as error:
        raise unreadable_table(path, error) from error


def unreadable_table(path: str | Path, error: Exception) -> UserError:
    """Returns the error that says that a Parquet file can't be read."""
    return UserError(f"{path} is damaged or not a Parquet file ({first_line(error)}): copy or download it again.")


def check_table(path: str | Path) -> None:
    """Checks that a Parquet file is a table of encoded images.

    Raises:
        UserError: it can't be read, or has other columns.
    """
    schema, _ = read_footer(path)
    if not _has_images(schema):
        raise UserError(
            f"{path} is not a table of images: it needs one column {IMAGE} with the content of image files, as binary "
            "values or as structs with `bytes`."
        )


def is_image_table(path: str) -> bool:
    """Returns whether a Parquet file that was found in a folder is a table of images; False if it can't be read."""
    try:
        return _has_images(read_footer(path)[0])
    except UserError:
        return False


def _has_images(schema: pa.Schema) -> bool:
    import pyarrow as pa

    # Parquet allows several columns with one name, of which none could be selected.
    if IMAGE not in schema.names or any(schema.names.count(name) > 1 for name in (ID, IMAGE, SOURCE)):
        return False
    kind = schema.field(IMAGE).type
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        if "bytes" not in names:
            return False
        kind = kind.field("bytes").type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


class TableRow(NamedTuple):
    """A row of a table."""

    id: str
    """Id or, without one, the path that the image had; empty without both."""
    source: str
    """Empty if the table does not give it."""
    content: bytes | None
    """Content of the image file."""


class TableRows:
    """The rows of a table of images, which are read in their order as long as each range follows the one before."""

    def __init__(self, path: str) -> None:
        """Opens the table.

        Raises:
            UserError: it can't be read.
        """
        import pyarrow.parquet as pq

        self._path = path
        try:
            self._file = pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
        except parquet_errors(OSError) as error:
            raise unreadable_table(path, error) from error
        self._columns = [name for name in (ID, IMAGE, SOURCE) if name in self._file.schema_arrow.names]
        self._position = 0
        self._rows = self._rows_from(0)

    def __enter__(self) -> Self:
        """Returns the reader."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the table."""
        self._rows.close()
        self._file.close()

    def read(self, start: int, stop: int) -> Iterator[TableRow]:
        """Yields a range of rows.

        Raises:
            UserError: the table is damaged or has fewer rows.
        """
        if start != self._position:
            self._position, self._rows = start, self._rows_from(start)
        try:
            for row in islice(self._rows, stop - start):
                self._position += 1
                yield _convert(row)
        except parquet_errors(OSError) as error:
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
        for batch in self._file.iter_batches(_BATCH, groups, self._columns, use_threads=False):
            yield from batch.slice(skipped).to_pylist()
            skipped = max(skipped - batch.num_rows, 0)


def _convert(row: dict[str, Any]) -> TableRow:
    image = row[IMAGE]
    # Structs are the layout of Hugging Face, which has no ids, but the path that an image had.
    fields = image if isinstance(image, dict) else {"bytes": image}
    id_ = row.get(ID) if row.get(ID) is not None else fields.get("path")
    return TableRow(_to_string(id_), _to_string(row.get(SOURCE)), fields.get("bytes"))


def _to_string(value: object) -> str:
    if value is None:
        return ""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
