"""Finds the data folder that a study names; on first use the sample is drawn, and zips are unpacked."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hirise_imb.data import synthetic
from hirise_imb.data.archive import has_split_file, unpack
from hirise_imb.data.dataset import Archive, DataCard, Layout
from hirise_imb.data.download import download_archive, is_archive
from hirise_imb.data.hirise import HIRISE
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import cache_root, digest_of, ensure_folder, exclusive_lock, file_mask
from hirise_imb.utils.progress import say

SYNTHETIC = "synthetic"
"""Name of the embedded sample in `data`."""

ARCHIVE = "hirise"
"""Name of the downloaded archive in `data`, and of its folder in the cache."""


def resolve_data(data: str, spec: DataCard) -> Path:
    """Returns the data folder, the one with the text files.

    Args:
        data: `synthetic`, `hirise`, `$VARIABLE` (whose value is a path), or the path of a zip or folder.
        spec: specification of the data set that the folder belongs to.

    Raises:
        UserError: there is no such data.
    """
    if data in (SYNTHETIC, ARCHIVE):
        if spec.name != HIRISE.name:
            raise UserError(
                f"The data `{data}` belongs to the data set {HIRISE.name}, not to {spec.name}: "
                "name a zip or folder with --data."
            )
        return _synthetic_folder() if data == SYNTHETIC else _archive_folder()
    return import_data(expand_variable(data), data_cache(), spec.layout)


def expand_variable(data: str) -> Path:
    """Returns a path, which may be given as `$VARIABLE`.

    Raises:
        UserError: the variable is not set.
    """
    if not data.startswith("$"):
        return Path(data)
    value = os.environ.get(name := data[1:]) or ""
    if not value:
        raise UserError(
            f"The environment variable {name} is not set: set it to a zip, a folder or an annotation table."
        )
    return Path(value)


def data_cache() -> Path:
    """Returns the folder for data that is unpacked; it need not exist."""
    return cache_root() / "data"


def find_data_folder(folder: Path, layout: Layout) -> Path:
    """Finds the folder that contains the split file: `folder` itself or one at most two levels below.

    Raises:
        UserError: there is no such folder, or several at the same level.
    """
    split_file = layout.split_file
    next(folder.iterdir(), None)  # raises if the folder can't be read, where glob would only find nothing
    for pattern in (split_file, f"*/{split_file}", f"*/*/{split_file}"):
        matches = sorted(path.parent for path in folder.glob(pattern) if "__MACOSX" not in path.parts)
        if len(matches) > 1:
            raise UserError(f"{folder} contains several data sets ({', '.join(map(str, matches))}): name one of them.")
        if matches:
            return matches[0]
    above = [parent for parent in list(folder.resolve().parents)[:2] if (parent / split_file).is_file()]
    advice = "name a folder in the official layout or in one of the others that docs/data.md describes"
    if above:
        advice = f"name {above[0]} instead, which does"
    raise UserError(f"{folder} does not contain {split_file}, at most two levels down: {advice}.")


def import_data(source: Path, cache: Path, layout: Layout) -> Path:
    """Returns the data folder of `source`: a folder in the layout, used in place, or a zip, unpacked once.

    Raises:
        UserError: `source` is missing or not in the layout, or can't be unpacked below `cache`.
    """
    return find_data_folder(source, layout) if source.is_dir() else _unpack_once(source, cache, layout)


def import_folder(source: Path, cache: Path, layout: Layout) -> Path:
    """Returns the folder `source` in any layout, or the folder that the zip `source` is unpacked to once.

    Raises:
        UserError: `source` is missing, or can't be unpacked below `cache`.
    """
    if source.is_dir():
        return source
    return _unpack_once(source, cache, layout if has_split_file(source, layout) else None)


def _unpack_once(source: Path, cache: Path, layout: Layout | None) -> Path:
    if not source.is_file():
        raise UserError(f"{source} does not exist: name a zip, a folder or an annotation table.")
    try:
        digest = digest_of(source, "sha256")
    except OSError as error:
        raise UserError(f"{source} can't be read ({error.strerror or error}): fix that and try again.") from error
    return unpack(source, cache / f"{source.stem}-{digest[:12]}", layout)


def fetch_archive() -> Path:
    """Downloads the official archive, unpacks it as `hirise`, and returns its data folder."""
    zip_path = download_archive(_official_archive(), cache_root() / "archives")
    return unpack(zip_path, cache_root() / ARCHIVE, HIRISE.layout)


def import_landmarks(path: Path) -> str:
    """Imports a zip or folder; returns its name for `--data`.

    The official archive, recognised by its size and digest, becomes `hirise`, as if it had been downloaded.
    """
    if not is_archive(path, _official_archive()):
        return str(path)
    unpack(path, cache_root() / ARCHIVE, HIRISE.layout)
    return ARCHIVE


def _official_archive() -> Archive:
    assert HIRISE.archive is not None
    return HIRISE.archive


def _synthetic_folder() -> Path:
    folder = cache_root() / f"synthetic-{synthetic.VERSION}"
    if not folder.is_dir():
        ensure_folder(folder.parent)
        with exclusive_lock(folder):
            if not folder.is_dir():  # another process may have drawn it meanwhile
                _write_synthetic(folder, 0)
    return find_data_folder(folder, HIRISE.layout)


def draw_landmarks(folder: Path, seed: int) -> Path:
    """Draws synthetic landmarks into a new folder; returns the data folder in it.

    Args:
        folder: a folder that does not exist.
        seed: random seed, 1 or more: 0 is the embedded sample.

    Raises:
        UserError: the folder exists or can't be written to, or the seed is out of range.
    """
    if seed < 1:
        raise UserError(f"--seed is {seed}: use 1 or more, since 0 draws the landmarks of the demo again.")
    if folder.exists():
        raise UserError(f"{folder} exists: name a new folder with --out.")
    ensure_folder(folder.parent)
    _write_synthetic(folder, seed)
    return find_data_folder(folder, HIRISE.layout)


def _write_synthetic(folder: Path, seed: int) -> None:
    say("Drawing the synthetic landmarks ...")
    # Drawn in a temporary folder and renamed: a folder of that name is always complete.
    work = Path(tempfile.mkdtemp(prefix=".synthetic-", dir=folder.parent))
    try:
        synthetic.write(work, seed)
        work.chmod(0o777 & ~file_mask())
        work.replace(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _archive_folder() -> Path:
    folder = cache_root() / ARCHIVE
    if not folder.is_dir():
        raise UserError(
            f"The HiRISE archive is not in {folder}: get it with `hirise-imb data fetch`, or with "
            f"`hirise-imb data import FILE` if you have it."
        )
    return find_data_folder(folder, HIRISE.layout)
