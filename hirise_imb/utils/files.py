"""Where the suite keeps its files, and how it writes them: completely or not at all."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pooch
from filelock import FileLock, Timeout

from hirise_imb.utils.errors import UserError
from hirise_imb.utils.progress import log

CACHE_VARIABLE = "HIRISE_IMB_CACHE"


def cache_root() -> Path:
    """Returns the folder for everything that can be recomputed: `$HIRISE_IMB_CACHE` or the user's cache folder."""
    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("hirise_imb"))


def ensure_folder(folder: Path) -> Path:
    """Creates `folder` with its parents and checks that it can be written to.

    Raises:
        UserError: the folder can't be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _try_to_write(folder)
    except OSError as error:
        raise UserError(
            f"{folder} can't be written to ({error.strerror}): choose another folder, or make this one writable."
        ) from error
    return folder


def is_writable(folder: Path) -> bool:
    """Returns whether files can be written into a folder."""
    try:
        _try_to_write(folder)
    except OSError:
        return False
    return True


def _try_to_write(folder: Path) -> None:
    # Permission bits do not show a read-only file system.
    probe = folder / f".write-{os.getpid()}"
    probe.touch()
    probe.unlink()


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a temporary file next to `path` and renames it, so that no process ever reads half a file.

    The temporary file keeps the suffix of `path`, because some writers choose the format by it.

    Args:
        path: final path of the file.
        write: function that writes the content to the path it receives.
    """
    # The process id keeps apart two processes that write the same file at once.
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def is_file(path: Path) -> bool:
    """Returns whether there is a file; False for a path that the file system can't have."""
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long
        return False


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files of `write_atomically` that killed processes left in a folder.

    No other process may be writing there.
    """
    for path in folder.glob(".*.[0-9]*.part*"):
        path.unlink(missing_ok=True)


def check_regular_file(path: Path) -> None:
    """Checks that reading a path ends: a pipe, a socket or a device may have no end, or wait for a writer.

    A path that does not exist, or is a folder, is left to its reader, which knows what is missing.

    Raises:
        UserError: there is something else than a file or a folder.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"{path} is a pipe, a socket or a device: name a regular file.")


def digest_of(path: Path, algorithm: str) -> str:
    """Returns the hexadecimal digest of a file."""
    check_regular_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def file_mask() -> int:
    """Returns the mask of permissions of new files: temporary folders are made so that nobody else can read them."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text with the same line endings on every system."""
    path.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Locks `path` against other processes and threads, waiting while one of them has the lock.

    A thread that has the lock may take it again.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"), is_singleton=True)
    # The first attempt does not wait, so that the user learns why the second one does.
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("%s: waiting for another process that is working on it.", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
