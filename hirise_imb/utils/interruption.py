"""Ctrl-C and SIGTERM: how a process ends when it is asked to, wherever it is at that moment.

Python raises `KeyboardInterrupt` wherever the main thread happens to be. In a callback of C code, such as that of a
weak reference, the exception is printed and forgotten; some libraries catch it, and others turn it into an error of
their own. Here an interruption is remembered, and raised again until it has ended what the process does. This module
imports nothing heavy, because the command line installs the handlers before everything else.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from logging import LogRecord
    from sys import UnraisableHookArgs

EXIT_CODE: Final = 130
"""Exit code of a command that was interrupted."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_SAME_REQUEST: Final = 0.5
"""Seconds within which further signals are the same request: `timeout` and some schedulers send two at once."""
_PATIENCE: Final = 1.0
"""Seconds after which an interruption that something has swallowed is raised again."""

CONTINUES: Final = "what was finished is saved; the same command continues from there."
"""What is saved and how to go on, for commands that do not say it in more detail."""

_request_time: float | None = None
"""Time of the monotonic clock at which the first signal came; None before."""
_is_worker = False
"""Whether another process interrupts this one."""


def install_handlers(*, worker: bool = False) -> None:
    """Lets Ctrl-C and SIGTERM interrupt this process; a second one that comes later ends it at once.

    Args:
        worker: whether another process interrupts this one. Then further signals have no effect: a signal to the whole
            group of processes reaches a worker in addition to the one from its parent, which kills it if it takes too
            long.
    """
    global _is_worker
    _is_worker = worker
    # A shell starts programs in the background with SIGINT ignored, and they have to leave it so.
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _interrupt_again)
    sys.unraisablehook = _notice_swallowed
    sys.excepthook = _report_uncaught
    import logging  # takes a while: only now that the handlers are there

    if logging.lastResort is not None:
        logging.lastResort.addFilter(_is_worth_logging)


def ignore_signals() -> None:
    """Lets a process whose work is done end undisturbed."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    _set_timer(0)


def is_requested() -> bool:
    """Returns whether this process was asked to end."""
    return _request_time is not None


def acknowledge() -> None:
    """Tells that an interruption has ended what it should, so that it is not raised again."""
    _set_timer(0)


@contextmanager
def end_at_interruption() -> Iterator[None]:
    """Ends the block, without an error, when the process is interrupted."""
    try:
        yield
    except BaseException as error:
        if not is_interruption(error):
            raise
        acknowledge()


def is_interruption(error: BaseException) -> bool:
    """Returns whether an exception comes from an interruption: libraries turn some into errors of their own."""
    return isinstance(error, KeyboardInterrupt) or is_requested()


def report(saved: str = CONTINUES) -> None:
    """Prints the line with which an interrupted command ends.

    Args:
        saved: sentence that says what is saved, and how to go on.
    """
    with suppress(OSError, ValueError):  # standard error may be closed: the terminal may be gone
        sys.stderr.write(f"interrupted: {saved}\n")
        sys.stderr.flush()


def end_process(code: int) -> NoReturn:
    """Ends the process without its threads and its exit functions, which an interruption may have left waiting."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    global _request_time
    now = time.monotonic()
    if _request_time is None:
        _request_time = now
        _set_timer(_PATIENCE)
        raise KeyboardInterrupt
    if now - _request_time > _SAME_REQUEST and not _is_worker:
        # A live view that is cut off leaves the cursor invisible.
        cursor = "\x1b[?25h" if os.isatty(2) else ""
        with suppress(OSError):
            os.write(2, f"{cursor}interrupted: ended at once; {CONTINUES}\n".encode())
        _kill_workers()
        os._exit(EXIT_CODE)


def _interrupt_again(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    error = sys.exception()
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return  # not swallowed: blocks that it leaves are cleaning up
        error = error.__context__
    raise KeyboardInterrupt


def _notice_swallowed(unraisable: UnraisableHookArgs) -> None:
    """Raises an interruption again that C code could not pass on, instead of printing it."""
    if is_requested() and isinstance(unraisable.exc_value, KeyboardInterrupt):
        _set_timer(0.001)
    else:
        sys.__unraisablehook__(unraisable)


def _is_worth_logging(record: LogRecord) -> bool:
    """Returns whether a message of a library is printed: some log each exception that passes through them."""
    return record.exc_info is None or not isinstance(record.exc_info[1], KeyboardInterrupt)


def _report_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ends a process that was interrupted before or after its command ran; prints other errors."""
    if not is_interruption(error):
        sys.__excepthook__(kind, error, trace)
        return
    report()
    end_process(EXIT_CODE)


def _set_timer(seconds: float) -> None:
    """Lets the interruption be raised again after some seconds and then regularly; 0 for never."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds, _PATIENCE if seconds else 0)


def _kill_workers() -> None:
    if "multiprocessing" in sys.modules:
        import multiprocessing

        for process in multiprocessing.active_children():
            process.kill()
