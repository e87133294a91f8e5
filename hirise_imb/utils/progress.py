"""Progress of long tasks: a bar on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

log = logging.getLogger("hirise_imb")

ProgressCallback = Callable[[float], None]
"""Called with the amount done so far."""


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
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(what, total, unit, scale, already)
        return
    column = Column(no_wrap=True)
    columns = (
        TextColumn("{task.description}", table_column=column),
        BarColumn(20),
        _Amount(unit, scale, column),
        TimeRemainingColumn(table_column=column),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=total)
        bar.update(task, completed=already)
        yield lambda done: bar.update(task, completed=done)


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


def log_to_stderr() -> None:
    """Sends the package's log messages to standard error, as the command line does."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    # Replaced and not propagated: after a second call, or with a library's handler on the root logger, every message
    # would be printed twice.
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False
