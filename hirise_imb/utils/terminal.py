"""Text on the terminal: names of files, classes and arms can't move the cursor or change colours."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and line feed, marks that reverse the direction of text, and halves of surrogate pairs.

Python decodes bytes of file names that are not UTF-8 as halves of surrogate pairs, which no stream can encode.
"""


def escape_controls(text: str) -> str:
    r"""Returns a text in which control characters are written as in Python, such as `\x1b`."""
    return _CONTROLS.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def write_line(text: str, stream: TextIO | None = None) -> None:
    """Prints a line with its control characters escaped; None means standard output."""
    print(escape_controls(text), file=sys.stdout if stream is None else stream)


class SafeConsole(Console):
    """A console that prints text as it is: without markup or emoji, and with control characters escaped."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401
        """Takes the options of a console."""
        super().__init__(markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yields the parts of a renderable; those that control the terminal for a live view stay as they are."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=escape_controls(segment.text))
