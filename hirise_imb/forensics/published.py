"""The published table of the HiRISE reference run, and the supports of the official test split."""

from __future__ import annotations

from importlib.resources import as_file, files

from hirise_imb.forensics.table import PublishedTable, read

SUPPORTS = "1482,89,66,49,16,7,42,42"
"""Number of test landmarks of each class in the official split, in the order of the table."""


def read_published() -> PublishedTable:
    """Reads the published table of the HiRISE reference run, with its classes in the order of their ids."""
    with as_file(files("hirise_imb.forensics") / "published.csv") as path:
        return read(path, SUPPORTS)
