"""Progress of long tasks and messages to the user: a live view on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from hirise_imb.utils.terminal import SafeConsole, escape_controls

log = logging.getLogger("hirise_imb")

ProgressCallback = Callable[[float], None]
"""Called with the amount done so far."""


class StepDisplay(Protocol):
    """A display of a larger task, which shows the parts of that task as its steps."""

    def step(
        self, name: str, total: float, unit: str, already: float = 0.0
    ) -> AbstractContextManager[ProgressCallback]:
        """Shows a step while the body runs."""


_larger_tasks: list[StepDisplay] = []
"""Displays of the tasks that are running; the last one shows the steps."""
_live_consoles: list[Console] = []
"""Consoles with a live view; messages are printed above the last one."""


def open_console() -> Console:
    """Opens the console of messages and progress, standard error; it is interactive on a terminal alone."""
    # Continuous integration sets FORCE_COLOR for its logs: colours are wanted there, a moving view is not.
    return SafeConsole(stderr=True, force_interactive=None if sys.stderr.isatty() else False)


@contextmanager
def show_live(view: Live | Progress) -> Iterator[None]:
    """Shows a live view while the body runs; messages are printed above it."""
    _live_consoles.append(view.console)
    try:
        with view:
            yield
    finally:
        _live_consoles.pop()


@contextmanager
def show_steps_in(display: StepDisplay) -> Iterator[None]:
    """Shows all progress as steps of a larger task while the body runs."""
    _larger_tasks.append(display)
    try:
        yield
    finally:
        _larger_tasks.pop()


@contextmanager
def track(
    what: str, total: float, unit: str, *, scale: float = 1.0, already: float = 0.0
) -> Iterator[ProgressCallback]:
    """Shows amount, rate and time left while the body runs: a bar on a terminal, otherwise a log line per tenth.

    Args:
        what: name of the task, such as `features`.
        total: total amount of work.
        unit: unit of the rate, such as `images`.
        scale: amount in one unit, such as 1e6 for bytes shown in MB.
        already: amount done earlier, which does not count towards the rate.
    """
    if _larger_tasks and scale == 1:
        with _larger_tasks[-1].step(what, total, unit, already) as show:
            yield show
        return
    console = open_console()
    if not console.is_interactive:
        yield _lines(what, total, unit, scale, already)
        return
    column = Column(no_wrap=True)
    columns = (
        TextColumn("{task.description}", table_column=column, markup=False),
        BarColumn(20),
        _Amount(unit, scale, column),
        TimeRemainingColumn(table_column=column),
    )
    bar = Progress(*columns, console=console, redirect_stdout=False, disable=not log.isEnabledFor(logging.INFO))
    with show_live(bar):
        task = bar.add_task(what, total=total)
        bar.update(task, completed=already)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def show_stage(what: str) -> Iterator[None]:
    """Shows that something without a known amount is at work, and for how long, while the body runs.

    Args:
        what: what is done, such as `Writing the report`.
    """
    if _larger_tasks:
        with _larger_tasks[-1].step(what, 1, "") as show:
            yield
            show(1)
        return
    begin = time.monotonic()
    console = open_console()
    if not log.isEnabledFor(logging.INFO):
        yield
    elif console.is_interactive:
        line = Live(
            console=console,
            transient=True,
            redirect_stdout=False,
            get_renderable=lambda: Text(f"{what} ... {format_duration(time.monotonic() - begin)}"),
        )
        with show_live(line):
            yield
        console.print(align_elapsed(what, time.monotonic() - begin, console.width), highlight=False)
    else:
        say(f"{what} ...")
        yield
        say(f"{what}: done in {format_duration(time.monotonic() - begin)}")


def align_elapsed(what: str, seconds: float, width: int) -> Text:
    """Returns the line of a finished step, `width` characters wide: its name, and its elapsed time on the right."""
    elapsed = format_duration(seconds)
    line = Text(what, no_wrap=True)
    line.truncate(max(width - len(elapsed) - 2, 1), overflow="ellipsis", pad=True)
    return line.append(f"  {elapsed}")


def format_duration(seconds: float) -> str:
    """Formats a duration for progress: `30 s`, `2 min`, `1 h 20 min`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


class _Amount(ProgressColumn):
    """A column such as `480 of 3616 images, 77.2 images/s`."""

    def __init__(self, unit: str, scale: float, column: Column) -> None:
        super().__init__(column)
        self.unit = unit
        self.scale = scale

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed or 0.0
        return Text(format_amount(task.completed, task.total or 0.0, speed, self.unit, self.scale))


def format_amount(done: float, total: float, speed: float, unit: str, scale: float = 1) -> str:
    """Formats amount and rate: `3 of 8 trials, 2.5 s each`, or `480 of 3616 images, 77.2 images/s`.

    Args:
        done: amount done so far.
        total: total amount.
        speed: amount in a second; 0 if it is not known yet.
        unit: unit of the rate.
        scale: amount in one unit.
    """
    countable = scale == 1
    amount = f"{int(done)} of {total:.0f} {unit}" if countable else f"{done / scale:.1f} of {total / scale:.1f} {unit}"
    rate = speed / scale
    if rate == 0:
        return amount
    return f"{amount}, {1 / rate:.1f} s each" if countable and rate < 1 else f"{amount}, {rate:.1f} {unit}/s"


def _lines(what: str, total: float, unit: str, scale: float, already: float) -> ProgressCallback:
    begin = time.monotonic()
    last_tenth = int(10 * already // total) if total else 10

    def show(done: float) -> None:
        nonlocal last_tenth
        tenths = int(10 * done // total) if total else 10
        if tenths > last_tenth:
            # The clock may not have moved since the start.
            speed = (done - already) / max(time.monotonic() - begin, 1e-9)
            left = f", {(total - done) / speed:.0f} s left" if speed and done < total else ""
            log.info("%s: %s%s", what, format_amount(done, total, speed, unit, scale), left)
        last_tenth = max(last_tenth, tenths)

    return show


def say(message: str) -> None:
    """Logs a message to the user."""
    log.info("%s", message)


def warn(message: str) -> None:
    """Logs a message that the user sees even with `--quiet`."""
    log.warning("%s", message)


class _MessageHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Prints messages above a live view, plainly on a terminal, and with the time of day elsewhere."""

    def format(self, record: logging.LogRecord) -> str:
        message = escape_controls(super().format(record))
        if self.stream.isatty():
            return message
        return f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {message}"

    def emit(self, record: logging.LogRecord) -> None:
        if _live_consoles:
            _live_consoles[-1].print(Text(record.getMessage()))
        else:
            super().emit(record)


def log_to_stderr(*, quiet: bool = False) -> None:
    """Sends the package's log messages to standard error, as the command line does.

    Args:
        quiet: whether only warnings are shown, and no progress.
    """
    # Replaced and not propagated: after a second call, or with a library's handler on the root logger, every message
    # would be printed twice.
    log.handlers[:] = [_MessageHandler(sys.stderr)]
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.propagate = False
