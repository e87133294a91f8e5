"""The process of a command: its streams, and the variables of its environment that libraries read."""

from __future__ import annotations

import atexit
import codecs
import io
import os
import sys
import warnings
from typing import Final

_PLAIN: Final = {"–": "-", "−": "-", "…": "...", "×": "x"}
"""What stands for characters of our messages where the encoding of a stream lacks them."""
_LACKING: Final = "hirise_imb.plain"
_NARROWEST, _WIDEST = 40, 1000
"""Columns of output without a terminal: below, a table would lose its text, and above, fill the memory with spaces."""


def prepare_process() -> None:
    """Keeps settings of the user's environment from stopping a command in the middle, or from changing what it writes.

    For the command line alone: a program that uses the package has its own settings.
    """
    _open_descriptors()
    codecs.register_error(_LACKING, _replace_lacking)
    for stream in (sys.stdout, sys.stderr):
        # A stream that a test or a calling program has put in place is left as it is.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_LACKING)
    atexit.register(_flush_output)
    # Warnings of libraries are for their developers; turned into errors, they would stop a study.
    if any(option.partition(":")[0].startswith("e") for option in sys.warnoptions):
        warnings.simplefilter("default")
    # No command opens a window, and no file contains the time at which it was built.
    os.environ["MPLBACKEND"] = "agg"
    os.environ.pop("SOURCE_DATE_EPOCH", None)
    columns = os.environ.pop("COLUMNS", "")
    if columns.isdecimal() and int(columns[:5]) > 0:
        os.environ["COLUMNS"] = str(min(max(int(columns[:5]), _NARROWEST), _WIDEST))


def _open_descriptors() -> None:
    """Connects standard streams that the caller has closed to nothing.

    Otherwise the next file to be opened gets the number of the stream, and what libraries print from C++ would be
    written into it.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            mode = "r" if descriptor == 0 else "w"
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _flush_output() -> None:
    """Prints what is left, or forgets it if nobody reads: otherwise the interpreter would print an error at its end."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _replace_lacking(error: UnicodeError) -> tuple[str, int]:
    """Replaces characters that an encoding lacks by plain ones, or by their escape sequences (PEP 293)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    plain = (_PLAIN.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in lacking)
    return "".join(plain), error.end
