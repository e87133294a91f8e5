"""The data a study names: where it is, drawn or unpacked at first use."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hirise_imb.data import download, synthetic
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import cache_root, ensure_folder, exclusive_lock
from hirise_imb.utils.progress import say

HIRISE_FOLDER = "hirise"
"""Folder in the cache that `study data fetch` fills."""


def resolve_data(data: str) -> Path:
    """The folder with the official files.

    Args:
        data: `synthetic`, `hirise`, `$VARIABLE` (its value is a path), or the path of a zip or folder.

    Raises:
        UserError: there is no such data.
    """
    if data == "synthetic":
        return _synthetic()
    if data == "hirise":
        return _hirise()
    if data.startswith("$"):
        data = os.environ.get(name := data[1:]) or ""
        if not data:
            raise UserError(f"The environment variable {name} is not set: let it name a zip or folder with landmarks.")
    return download.import_data(Path(data), ensure_folder(cache_root() / "data"))


def _synthetic() -> Path:
    cache = ensure_folder(cache_root())
    folder = cache / f"synthetic-{synthetic.VERSION}"
    with exclusive_lock(folder):
        if not folder.is_dir():
            say("Drawing the synthetic landmarks ...")
            work = Path(tempfile.mkdtemp(prefix=".synthetic-", dir=cache))
            try:
                synthetic.write(work)
                work.replace(folder)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return download.find_data_folder(folder)


def _hirise() -> Path:
    folder = cache_root() / HIRISE_FOLDER
    if not folder.is_dir():
        raise UserError(
            f"The HiRISE archive is not in {folder}: get it with `python -m hirise_imb.study data fetch`, or with "
            f"`data import FILE` if you have it."
        )
    return download.find_data_folder(folder)


def fetch_hirise() -> Path:
    """Download the official archive, unpack it as `hirise`, and return the folder with the official files."""
    zip_path = download.download_archive(download.HIRISE_V3_2, cache_root() / "archives")
    return download.unpack(zip_path, cache_root() / HIRISE_FOLDER)


def import_landmarks(path: Path) -> tuple[str, str]:
    """Import a zip or folder; return the folder with the official files and what `--data` calls it.

    The official archive, known by its size and digest, becomes `hirise`, as if it had been downloaded.
    """
    if download.is_archive(path, download.HIRISE_V3_2):
        return str(download.unpack(path, cache_root() / HIRISE_FOLDER)), "hirise"
    return str(resolve_data(str(path))), str(path)
