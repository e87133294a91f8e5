"""Where the suite keeps its files, and how it writes them: whole or not at all."""

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
    """The folder of all that can be had again: `$HIRISE_IMB_CACHE`, else one in the user's cache folder."""
    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("hirise_imb"))


def ensure_folder(folder: Path) -> Path:
    """Create `folder` with its parents and see that it can be written to.

    Raises:
        UserError: the folder can't be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{folder} can't be written to ({error.strerror}): choose another folder or free this one."
        ) from error
    return folder


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then give it its name, so that no half file is ever seen.

    The temporary file keeps the suffix of `path`, because some writers choose the format by it.
    """
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with the same line ends on every system."""
    path.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold the lock of `path` among processes, waiting for another that has it."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("%s: another process is at work on it, waiting.", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
