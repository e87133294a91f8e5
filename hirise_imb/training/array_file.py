"""Files of named arrays that carry their own digest, so that damage is noticed before a number of theirs is used."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hirise_imb.utils.arrays import read_arrays
from hirise_imb.utils.files import write_atomically

_DIGITS = 64
"""Length of a hexadecimal SHA-256."""
_END_OF_ZIP = 22
"""Bytes of the record at the end of a zip file without a comment."""
_SIGNATURE = b"PK\5\6"
"""First bytes of that record."""
_NO_COMMENT = b"\0\0"
"""Last bytes of that record, the length of a comment, where there is none."""


class DamagedFile(Exception):
    """A file of arrays is not as it was written."""


def write_verified(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes arrays, none of them of objects, into one file; it appears complete or not at all."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    # The digest is the comment at the end of the zip, so that numpy reads the file as any other.
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = bytes(_DIGITS)
    content = buffer.getvalue()[:-_DIGITS]

    def write(part: Path) -> None:
        part.write_bytes(content + _digest(path, content))

    write_atomically(path, write)


def read_verified(path: Path) -> dict[str, NDArray[Any]]:
    """Reads the arrays of a file.

    Raises:
        FileNotFoundError: there is no file.
        DamagedFile: it is damaged, was written under another name, or is something else.
    """
    with path.open("rb") as file:
        content = file.read()
    # Earlier versions wrote no digest: their files end with the zip, which has checksums of its own.
    end = content[-_END_OF_ZIP:]
    has_digest = not (end.startswith(_SIGNATURE) and end.endswith(_NO_COMMENT))
    if has_digest and content[-_DIGITS:] != _digest(path, content[:-_DIGITS]):
        raise DamagedFile("its digest is another one")
    try:
        return read_arrays(io.BytesIO(content))
    except ValueError as error:
        raise DamagedFile(str(error)) from error


def _digest(path: Path, content: bytes) -> bytes:
    # The name is part of it: it says which fit a file belongs to.
    return hashlib.sha256(path.stem.encode() + content).hexdigest().encode()
