"""Reads TOML files that people wrote, within limits that no such file reaches."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import check_regular_file

_MAX_BYTES = 1 << 20
"""Largest size of a file."""
_MAX_LENGTH = 4096
"""Largest number of characters of a string; no path is longer."""
_MAX_DEPTH = 16
"""Tables and lists that may be inside each other."""


def read_toml(path: Path) -> dict[str, Any]:
    """Returns the content of a TOML file.

    Raises:
        OSError: it can't be read.
        UserError: it is not valid TOML, too large, or nested too deeply.
    """
    check_regular_file(path)
    if (size := path.stat().st_size) > _MAX_BYTES:
        raise UserError(f"{path} has {size:,} bytes, over the limit of {_MAX_BYTES:,}: name another file.")
    try:
        return parse_toml(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is not valid TOML: {error}.") from error


def parse_toml(content: bytes) -> dict[str, Any]:
    """Returns the values of a TOML document.

    Raises:
        ValueError: it is not TOML in UTF-8, is nested too deeply, or has a number or string that is too long; the
            message continues a sentence about the document.
    """
    try:
        values = tomllib.loads(content.decode("utf-8"))
        _check_values(values)
    except RecursionError as error:
        raise ValueError("its lists or tables are nested too deeply") from error
    return values


def _check_values(value: object, depth: int = 0) -> None:
    """Checks what the parser does not: the depth, which dots in keys can raise, and that numbers are finite."""
    if depth > _MAX_DEPTH:
        raise RecursionError
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("an integer has more than 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a number that anything can be set to")
    if isinstance(value, str) and len(value) > _MAX_LENGTH:
        raise ValueError(f"a string has {len(value):,} characters, over the limit of {_MAX_LENGTH:,}")
    if isinstance(value, dict | list):
        for entry in (*value, *value.values()) if isinstance(value, dict) else value:
            _check_values(entry, depth + 1)
