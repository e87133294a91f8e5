"""Reading of arrays that `numpy.savez` wrote, from files that may have been damaged or made to do harm."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from tokenize import TokenError
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from hirise_imb.utils.errors import first_line

_SUFFIX: Final = ".npy"

_DAMAGES: Final = (
    # By the zip: also of an encrypted entry (RuntimeError) and of an unknown compression (NotImplementedError, a
    # RuntimeError as well).
    *(zipfile.BadZipFile, EOFError, OSError, RuntimeError, struct.error, UnicodeDecodeError),
    # By the header of an array, which numpy parses as a literal of Python: also a shape that no memory can hold.
    *(ValueError, TypeError, KeyError, SyntaxError, TokenError, OverflowError, MemoryError),
)
"""Errors of the libraries on a file that numpy has not written like this."""


def read_arrays(file: BinaryIO) -> dict[str, NDArray[Any]]:
    """Reads all arrays of a file by name. No code from the file runs, and they take no more memory than the file.

    Raises:
        ValueError: it is damaged, or not as `numpy.savez` writes it.
    """
    size = file.seek(0, io.SEEK_END)
    with warnings.catch_warnings():
        # Of headers that were not written by this version of numpy.
        warnings.simplefilter("ignore", UserWarning)
        try:
            with zipfile.ZipFile(file) as archive:
                _check_entries(archive, size)
                return {entry.filename.removesuffix(_SUFFIX): _read(archive, entry) for entry in archive.infolist()}
        except _DAMAGES as error:
            raise ValueError(f"it is not a file of arrays: {first_line(error)}") from error


def _check_entries(archive: zipfile.ZipFile, size: int) -> None:
    """Raises ValueError if entries are not plain arrays, or have together more bytes than the file."""
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("it has compressed entries")
    if sum(entry.file_size for entry in entries) > size:
        raise ValueError("its entries overlap")
    if len({entry.filename for entry in entries}) < len(entries):
        raise ValueError("it has several entries of one name")
    if any(entry.comment for entry in entries):  # numpy writes none: a damaged length hides the entries that follow
        raise ValueError("its entries have comments")
    for entry in entries:
        if not entry.filename.endswith(_SUFFIX):
            raise ValueError(f"{entry.filename} is not an array")


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(entry) as file:
        # Memory that a wrong shape asks for is not used before its bytes are read, of which there are too few.
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):
            raise ValueError(f"{entry.filename} is longer than its array")
        return array
