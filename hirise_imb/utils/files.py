"""Where the suite keeps its files, and how it writes them: completely or not at all."""

import os
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
        # Tried by writing: permission bits do not show a read-only file system.
        probe = folder / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{folder} can't be written to ({error.strerror}): choose another folder, or make this one writable."
        ) from error
    return folder


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
    """Locks `path` against other processes, waiting while one of them has the lock."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
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
