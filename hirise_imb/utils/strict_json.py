"""Reads JSON as the standard defines it; Python's own reader accepts more."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

_LARGEST = 2**63 - 1
"""Largest integer; larger ones do not fit the arrays that values go to."""


def parse_json(content: str | bytes) -> Any:  # noqa: ANN401
    """Returns the value of a JSON document.

    Raises:
        ValueError: it is not JSON in UTF-8, repeats a key, is nested too deeply, has a number that is not finite or
            an integer beyond 64 bits, or half a surrogate pair; the message continues a sentence about the document.
    """
    text = content if isinstance(content, str) else content.decode("utf-8")
    try:
        value = json.loads(
            text,
            parse_constant=_reject_constant,
            parse_float=_parse_float,
            parse_int=_parse_integer,
            object_pairs_hook=_reject_repetition,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    # "\ud800" is valid JSON, but no file can store it.
    if "\\ud" in text.lower():
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _reject_constant(name: str) -> float:
    """Refuses NaN and infinities, which Python accepts in JSON although the standard does not."""
    raise ValueError(f"{name} is not a number")


def _parse_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _parse_integer(digits: str) -> int:
    # The length is checked first: Python refuses to convert thousands of digits, with a message about itself.
    if len(digits) > 20 or abs(value := int(digits)) > _LARGEST:
        raise ValueError("an integer is too large")
    return value


def _reject_repetition(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has the key {repeated!r} twice")
    return entries
