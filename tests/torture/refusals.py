"""What the refusal of hostile data must look like where it is read without the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hirise_imb.utils.errors import UserError

T = TypeVar("T")


def read_or_refuse(read: Callable[[], T], *words: str) -> T | None:
    """Returns what `read` returns, or None where it is refused with a message that contains some words.

    Raises:
        Exception: any other than UserError: on the command line, it would be a traceback.
    """
    try:
        return read()
    except UserError as error:
        message = str(error)
        assert message.strip(), "the refusal is empty"
        assert len(message) < 20_000, f"the refusal has {len(message):,} characters"
        assert all(word in message for word in words), message
        return None


def list_files(folder: Path) -> dict[str, int]:
    """Returns all paths below a folder, with the sizes of files."""
    return {str(path): path.lstat().st_size for path in folder.rglob("*")}
