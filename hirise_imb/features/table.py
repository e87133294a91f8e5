"""Tables of features that were made elsewhere: a Parquet file with one vector for each image.

Columns: `image`, the file name as in the data set; `vector`, a list of floats, of the same width in every row; and,
optionally, `digest`, the hexadecimal SHA-256 of the image file. The metadata of the file say how the vectors were made,
under `made_by` and any other keys.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from hirise_imb.backbones import BackboneCard
from hirise_imb.utils.errors import UserError, first_line
from hirise_imb.utils.parquet import parquet_errors
from hirise_imb.utils.progress import warn

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_IMAGE, _VECTOR, _DIGEST = "image", "vector", "digest"
_MADE_BY = "made_by"
_NOT_ABOUT_VECTORS = frozenset({"pandas", "huggingface"})
"""Metadata that libraries write about the columns of any table."""
_N_NAMED = 5
"""Number of images that a message names."""
_BATCH_NUMBERS = 1 << 22
"""Numbers that are decoded at once."""


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """A vector for each image of a data set, from outside this program. It has no backbone, no layers and no views."""

    path: Path
    vectors: Floats
    """Features of the images in the order of the manifest, shape (n_images, width)."""
    metadata: Mapping[str, str]
    """The metadata of the file, which say how the vectors were made."""

    @property
    def width(self) -> int:
        """Number of features of an image."""
        return int(self.vectors.shape[1])

    @property
    def made_by(self) -> str:
        """How the vectors were made, on one line, or an empty string if the file does not say it."""
        return " ".join(self.metadata.get(_MADE_BY, "").split())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the vectors in the order of the manifest, 64 hexadecimal digits."""
        sha = hashlib.sha256(str(self.vectors.shape).encode())
        sha.update(np.ascontiguousarray(self.vectors, "<f4").data)
        return sha.hexdigest()

    @property
    def card(self) -> BackboneCard:
        """The facts about the network that made the vectors, as far as recipes need them: no layer of it is at hand."""

        def refuse(*_: object) -> NoReturn:
            raise UserError(f"{self.path} is a table of features: the network that made it can't be built here.")

        return BackboneCard(
            name=self.path.name,
            summary=self.made_by,
            feature_width=self.width,
            cuts={},
            layers={},
            preprocessing="",
            build=refuse,
        )

    def describe(self) -> dict[str, Any]:
        """Returns file, digest, width and metadata, for the description of a study's environment."""
        facts = {"file": str(self.path), "digest": self.digest, "width": self.width}
        return facts | {"metadata": dict(self.metadata)}


def read_feature_table(path: Path, images: Sequence[str], digests: Sequence[str]) -> FeatureTable:
    """Reads the vectors of the images of a data set. Rows of other images are ignored, and a log line says so.

    Args:
        path: Parquet file.
        images: names of the images, in the order of the manifest.
        digests: hexadecimal SHA-256 of each image file, which those in the table are compared with.

    Raises:
        UserError: the file can't be read, an image is missing or has several rows, or a vector or digest is wrong.
    """
    with _open_table(path) as file:
        _check_columns(path, file.schema_arrow)
        row_of = {name: row for row, name in enumerate(images)}
        names = _read_names(path, file)
        _check_images(path, names, row_of)
        rows = np.array([row_of.get(name, -1) for name in names], np.int64)
        if _DIGEST in file.schema_arrow.names:
            _check_digests(path, _read_strings(file, _DIGEST), rows, images, digests)
        _check_memory(path, file.metadata, len(images))
        vectors = _read_vectors(path, file, rows, images)
        metadata = file.schema_arrow.metadata or {}
    texts = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in metadata.items()}
    return FeatureTable(path, vectors, {key: text for key, text in texts.items() if key not in _NOT_ABOUT_VECTORS})


@contextmanager
def _open_table(path: Path) -> Iterator[Any]:
    """Opens a Parquet file; errors of reading it become messages."""
    import pyarrow.parquet as pq

    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise UserError(f"The table of features {path} {problem}: name a Parquet file.")
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except parquet_errors(OSError, ValueError, MemoryError) as error:
        reason = first_line(error).rstrip(".")
        raise UserError(f"{path} can't be read as a Parquet file ({reason}): write the table again.") from error


def _check_columns(path: Path, schema: Any) -> None:  # noqa: ANN401  (pyarrow has no types)
    """Checks names and types of the columns."""
    import pyarrow as pa

    if missing := [name for name in (_IMAGE, _VECTOR) if name not in schema.names]:
        raise UserError(
            f"{path} has no column {' and no column '.join(missing)}: a table of features has the columns "
            f"{_IMAGE} (file name) and {_VECTOR} (list of floats)."
        )
    for name in (_IMAGE, _VECTOR, _DIGEST):
        if schema.names.count(name) > 1:
            raise UserError(f"{path} has the column {name} twice: leave one of them out.")
        if name not in schema.names:
            continue
        kind = schema.field(name).type
        if name == _VECTOR:
            is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
            if not is_list or not pa.types.is_floating(kind.value_type):
                raise UserError(f"The column {name} of {path} has the type {kind}: write lists of floats.")
            continue
        plain = kind.value_type if pa.types.is_dictionary(kind) else kind
        # A column that has no value at all has no type either.
        empty = name == _DIGEST and pa.types.is_null(plain)
        if not (pa.types.is_string(plain) or pa.types.is_large_string(plain) or empty):
            raise UserError(f"The column {name} of {path} has the type {kind}: write strings.")


def _read_strings(file: Any, column: str) -> list[str | None]:  # noqa: ANN401
    strings: list[str | None] = file.read(columns=[column]).column(column).to_pylist()
    return strings


def _read_names(path: Path, file: Any) -> list[str]:  # noqa: ANN401
    """Returns the names of the images, which none of the rows may lack."""
    names = _read_strings(file, _IMAGE)
    if None in names:
        raise UserError(f"Row {names.index(None) + 1} of {path} names no image: write its file name or drop the row.")
    return [str(name) for name in names]


def _check_images(path: Path, names: Sequence[str], row_of: Mapping[str, int]) -> None:
    """Checks that each image of the data set has one row, and logs how many other images there are."""
    present = set(names)
    if missing := [name for name in row_of if name not in present]:
        raise UserError(
            f"{path} lacks {len(missing)} of the {len(row_of)} images of the data set ({_name_some(missing)}): compute "
            f"their features too, under the file names of the data set."
        )
    if len(present) < len(names):
        repeated = next(name for name, count in Counter(names).items() if count > 1)
        raise UserError(f"{path} has several rows for {repeated}: leave one row for each image.")
    if others := [name for name in names if name not in row_of]:
        warn(f"{path} has {len(others)} images that the data set lacks ({_name_some(others)}): they are ignored.")


def _check_digests(
    path: Path, given: Sequence[str | None], rows: Ints, images: Sequence[str], digests: Sequence[str]
) -> None:
    """Checks the digests that are given."""
    for digest, row in zip(given, rows.tolist(), strict=True):
        if digest is None or row < 0:
            continue
        if not re.fullmatch("[0-9a-fA-F]{64}", digest):
            raise UserError(
                f"The digest of {images[row]} in {path} is not a SHA-256: write 64 hexadecimal digits, or nothing."
            )
        if digest.lower() != digests[row]:
            raise UserError(
                f"The digest of {images[row]} in {path} is that of another file: compute the features of the images "
                f"of this data set."
            )


def _check_memory(path: Path, metadata: Any, n_images: int) -> None:  # noqa: ANN401
    """Checks, before vectors are read, that the array of all of them fits into memory."""
    needed = 4 * n_images * _estimate_width(metadata)
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not every system tells
        return
    if needed > memory:
        raise UserError(
            f"The vectors in {path} need {needed / 1e9:,.0f} GB of memory, and this machine has {memory / 1e9:,.0f}: "
            f"write narrower vectors, or use another machine."
        )


def _estimate_width(metadata: Any) -> int:  # noqa: ANN401
    """Returns the mean width of the vectors, rounded up, from the counts in the file's metadata."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    count = sum(int(column.num_values) for column in columns if column.path_in_schema.split(".")[0] == _VECTOR)
    return -(-count // max(int(metadata.num_rows), 1))


def _read_vectors(path: Path, file: Any, rows: Ints, images: Sequence[str]) -> Floats:  # noqa: ANN401
    """Reads the vectors into the rows of their images; a row below 0 is of an image that the data set lacks."""
    import pyarrow as pa
    import pyarrow.compute as pc

    vectors: Floats | None = None
    start = 0
    batch_size = max(1, _BATCH_NUMBERS // max(1, _estimate_width(file.metadata)))
    for batch in file.iter_batches(batch_size, columns=[_VECTOR]):
        targets = rows[start : start + len(batch)]
        start += len(batch)
        is_used = targets >= 0
        column, targets = batch.column(0).filter(pa.array(is_used)), targets[is_used]
        if not len(targets):
            continue
        widths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        if not widths.all():
            raise UserError(f"The vector of {images[targets[widths.argmin()]]} in {path} is empty: compute it again.")
        if vectors is None:
            vectors, first = np.empty((len(images), int(widths[0])), np.float32), images[targets[0]]
        width = vectors.shape[1]
        if (widths != width).any():
            odd = int((widths != width).argmax())
            raise UserError(
                f"The vectors in {path} have unequal widths: {width} for {first}, but {widths[odd]} for "
                f"{images[targets[odd]]}; compute all of them with the same network."
            )
        with np.errstate(over="ignore"):  # what overflows float32 is refused below
            values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, width)
        if not (finite := np.isfinite(values).all(axis=1)).all():
            raise UserError(
                f"The vector of {images[targets[finite.argmin()]]} in {path} has a number that is missing, NaN, "
                f"infinite or too large for float32: compute it again."
            )
        vectors[targets] = values
    assert vectors is not None  # a data set has images, and each of them a row
    return vectors


def _name_some(names: Sequence[str]) -> str:
    return ", ".join(names[:_N_NAMED]) + (", ..." if len(names) > _N_NAMED else "")
