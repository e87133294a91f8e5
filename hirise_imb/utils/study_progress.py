"""Progress of a task of many steps: one bar for all of them with the time left, and below it the step at work."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from hirise_imb.utils.progress import ProgressCallback, format_amount

log = logging.getLogger("hirise_imb")

_QUIET_SECONDS = 30.0
"""Where there is no terminal, time after which a step that has not ended is logged again."""


class StudyProgress:
    """Shows how far a task of many steps is: two bars on a terminal, otherwise a log line for each step.

    The time left follows from the weights of the steps: what is done took the time since the start, and the rest takes
    as much for each unit of weight. What was done before the start does not count.
    """

    def __init__(self, what: str, weights: Mapping[str, float]) -> None:
        """Takes the name of the task, and the expected duration of each step by name, in any unit.

        A step without an expected duration is shown, and counts as nothing in the whole.
        """
        self._what, self._weights = what, weights
        self._shares = dict.fromkeys(weights, 0.0)
        self._already: dict[str, float] = {}
        self._begin = time.monotonic()
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.fields[text]}"))
        self._bars = Progress(*columns, console=console) if console.is_terminal else None

    def __enter__(self) -> StudyProgress:
        """Shows the bar of the task on a terminal."""
        if self._bars is not None:
            self._bars.start()
            self._task = self._bars.add_task(self._what, total=sum(self._weights.values()), text="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the bars."""
        if self._bars is not None:
            self._bars.stop()

    def skip(self, step: str) -> None:
        """Counts a step as done that this process did not work on."""
        if step not in self._already:
            self._already[step] = 1.0
        self._shares[step] = 1.0
        self._show_task()

    @contextmanager
    def step(self, name: str, total: int, unit: str, already: float = 0.0) -> Iterator[ProgressCallback]:
        """Shows amount and rate of a step while the body runs.

        Args:
            name: name of the step.
            total: amount of work.
            unit: unit of the amount, such as `trials`.
            already: amount done earlier, which does not count towards the rate.
        """
        begin = last_line = time.monotonic()
        self._already.setdefault(name, already / total)
        bar = None if self._bars is None else self._bars.add_task(f"  {name}", total=total, text="")
        last_done = already

        def show(done: float) -> None:
            nonlocal last_line, last_done
            now = time.monotonic()
            text = format_amount(done, total, (done - already) / max(now - begin, 1e-9), unit)
            self._shares[name] = done / total
            self._show_task()
            if bar is not None and self._bars is not None:
                self._bars.update(bar, completed=done, text=text)
            elif done > last_done and (done >= total or now - last_line >= _QUIET_SECONDS):
                last_line = now
                log.info("%s: %s; %s: %s", name, text, self._what, self._describe())
            last_done = max(last_done, done)

        try:
            show(already)
            yield show
        finally:
            if bar is not None and self._bars is not None:
                self._bars.remove_task(bar)

    def _show_task(self) -> None:
        if self._bars is not None:
            self._bars.update(self._task, completed=self._done(self._shares), text=self._describe())

    def _done(self, shares: Mapping[str, float]) -> float:
        return sum(share * self._weights.get(name, 0.0) for name, share in shares.items())

    def _describe(self) -> str:
        """Returns the share that is done, and the time left where it can be estimated."""
        total, done = sum(self._weights.values()), self._done(self._shares)
        text = f"{100 * done / total:.0f} %"
        here = done - self._done(self._already)
        if here <= 0 or done >= total:
            return text
        seconds = (time.monotonic() - self._begin) * (total - done) / here
        return f"{text}, {seconds:.0f} s left" if seconds < 100 else f"{text}, {seconds / 60:.0f} min left"
