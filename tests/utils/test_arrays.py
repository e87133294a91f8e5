"""Files of arrays: what `numpy.savez` writes is read, and what it never writes is refused with the reason."""

from __future__ import annotations

import copy
import io
import re
import warnings
import zipfile
from collections.abc import Callable

import numpy as np
import pytest

from hirise_imb.utils.arrays import read_arrays

Change = Callable[[zipfile.ZipFile], None]


def encode(values: object, *, allow_pickle: bool = False) -> bytes:
    """The content of an entry."""
    with io.BytesIO() as file:
        np.lib.format.write_array(file, np.asanyarray(values), allow_pickle=allow_pickle)
        return file.getvalue()


WEIGHTS = encode(np.arange(1000.0))


def make_file(change: Change) -> io.BytesIO:
    """A file of one array, and what `change` adds to it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile warns of a name that occurs twice
        archive.writestr("weights.npy", WEIGHTS)
        change(archive)
    return file


def list_twice(archive: zipfile.ZipFile) -> None:
    """Adds an entry to the list alone: its bytes are those of the first one."""
    other = copy.copy(archive.infolist()[0])
    other.filename = "other.npy"
    archive.filelist.append(other)


def add_comment(archive: zipfile.ZipFile) -> None:
    """Adds a comment to an entry: one in which other entries are hidden reads like this."""
    archive.infolist()[0].comment = b"PK"


def test_arrays_are_read_by_name() -> None:
    file = io.BytesIO()
    np.savez(file, weights=np.array([[0.5, 2.0]]), classes=np.array(["crater", "spider"]))
    found = read_arrays(file)
    assert list(found) == ["weights", "classes"]
    assert found["weights"].tolist() == [[0.5, 2.0]]
    assert found["classes"].tolist() == ["crater", "spider"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda archive: archive.writestr("more.npy", WEIGHTS, zipfile.ZIP_DEFLATED), "it has compressed entries"),
        (list_twice, "its entries overlap"),
        (lambda archive: archive.writestr("weights.npy", WEIGHTS), "it has several entries of one name"),
        (add_comment, "its entries have comments"),
        (lambda archive: archive.writestr("readme.txt", "hello"), "readme.txt is not an array"),
        (lambda archive: archive.writestr("more.npy", WEIGHTS + b"\0"), "more.npy is longer than its array"),
        (
            lambda archive: archive.writestr("more.npy", encode([None], allow_pickle=True)),
            "Object arrays cannot be loaded when allow_pickle=False",
        ),
    ],
    ids=["compressed", "overlapping", "same name", "comment", "no array", "longer", "code"],
)
def test_entries_that_numpy_does_not_write_are_refused(change: Change, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^it is not a file of arrays: {re.escape(reason)}$"):
        read_arrays(make_file(change))


def test_what_is_no_zip_is_refused() -> None:
    with pytest.raises(ValueError, match="it is not a file of arrays: File is not a zip file"):
        read_arrays(io.BytesIO(WEIGHTS))
