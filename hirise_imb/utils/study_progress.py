"""Progress of a study: the time left for all of it, the step at work and the best score of each strategy."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hirise_imb.utils.progress import (
    ProgressCallback,
    align_elapsed,
    format_amount,
    format_duration,
    log,
    open_console,
    show_live,
    show_steps_in,
)

_QUIET_SECONDS = 30.0
"""Where there is no terminal, time after which a step that has not ended is logged again."""
_SCORE_WIDTH = 26
"""Width of the name of a strategy and its score, in characters."""


@dataclass
class _Part:
    """A part of a study whose steps are estimated by the same rule, so that they err by the same factor."""

    expected: Mapping[str, float] = field(default_factory=dict)
    """Expected seconds of each step by name."""
    shares: dict[str, float] = field(default_factory=dict)
    """Share of each step that is done."""
    work: float = 0.0
    """Expected seconds of what was done since the start, without the first piece of work."""
    seconds: float = 0.0
    """Seconds that it took."""
    is_warm: bool = False
    """Whether the first piece of work is done, which also pays for loading and compiling."""

    @property
    def rate(self) -> float:
        """Seconds for each expected second; 1 before anything was done."""
        return self.seconds / self.work if self.work > 0 and self.seconds > 0 else 1.0

    @property
    def total(self) -> float:
        """Expected seconds of all steps."""
        return sum(self.expected.values())

    @property
    def left(self) -> float:
        """Expected seconds of what is not done."""
        return sum((1 - self.shares.get(name, 0.0)) * seconds for name, seconds in self.expected.items())

    def advance(self, step: str, share: float, seconds: float) -> None:
        """Counts work on a step; a step that is new here was done so far before the start."""
        before = self.shares.setdefault(step, share)
        self.shares[step] = max(before, share)
        if self.is_warm or not seconds:
            self.work += (self.shares[step] - before) * self.expected.get(step, 0.0)
            self.seconds += seconds
        self.is_warm = self.is_warm or seconds > 0


@dataclass
class _Step:
    """The step at work."""

    name: str
    total: float
    unit: str
    already: float
    item: str
    begin: float
    done: float = 0.0
    checkpoint: float = 0.0
    """Time at which the last complete unit of work was counted."""

    def describe(self, now: float) -> str:
        """Returns the name, and how much is done or which item is at work."""
        if self.item:
            return f"{self.name}, {self.item} {min(int(self.done) + 1, int(self.total))} of {self.total:.0f}"
        if self.total == 1 or not self.done:
            return self.name
        speed = (self.done - self.already) / max(now - self.begin, 1e-9)
        return f"{self.name}, {format_amount(self.done, self.total, speed, self.unit)}"

    def describe_end(self) -> str:
        """Returns the name and the amount of work."""
        earlier = f" ({self.already:.0f} of them earlier)" if self.already else ""
        return self.name if self.total == 1 else f"{self.name}: {self.total:.0f} {self.unit}{earlier}"


class StudyProgress:
    """Shows how far a study is: a live view on a terminal, otherwise a log line for each step.

    The time left follows from the expected seconds of the steps. Each part of the study corrects them by the ratio of
    the time that its finished work took to the time expected for it. Work that was finished before the start counts as
    done and does not enter that ratio; nor does the first piece of work, which also pays for loading and compiling.
    """

    def __init__(self, what: str, expected: Mapping[str, float] | None = None, console: Console | None = None) -> None:
        """Takes the name of the study, and the expected seconds of each step by name.

        A step without an expected duration is shown, and counts as nothing in the whole.
        """
        self._what = what
        self._parts = {"": _Part(dict(expected or {}))}
        self._steps: list[_Step] = []
        self._scores: dict[str, dict[str, float | None]] = {}
        self._trials: dict[str, tuple[int, int]] = {}
        self._console = open_console() if console is None else console
        self._is_live = self._console.is_interactive and log.isEnabledFor(logging.INFO)
        self._stack = ExitStack()

    def __enter__(self) -> StudyProgress:
        """Shows the live view on a terminal."""
        self._stack.enter_context(show_steps_in(self))
        if self._is_live:
            view = Live(console=self._console, transient=True, redirect_stdout=False, get_renderable=self.render)
            self._stack.enter_context(show_live(view))
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the live view."""
        self._stack.close()

    def expect(self, part: str, expected: Mapping[str, float]) -> None:
        """Sets the expected seconds of the steps of a part of the study, in place of earlier ones.

        Args:
            part: name of the part, such as `features`; the empty string is that of the searches and fits.
            expected: expected seconds of each step by name.
        """
        self._parts.setdefault(part, _Part()).expected = dict(expected)

    def skip(self, step: str, share: float = 1.0) -> None:
        """Counts a step, or a share of it, as done that this process did not work on.

        The first call for a step counts what was done before the start, a later one what other processes did since.
        """
        self._part_of(step).advance(step, share, 0.0)

    def end_part(self, part: str) -> None:
        """Leaves out the steps of a part that is complete which nobody worked on: they were not needed."""
        ended = self._parts[part]
        ended.expected = {step: seconds for step, seconds in ended.expected.items() if step in ended.shares}
        for step in ended.expected:
            self.skip(step)

    def count_trials(self, step: str, strategy: str, best: float | None, finished: int, failed: int) -> None:
        """Updates the trials of a search.

        Args:
            step: step of the search.
            strategy: name of its strategy.
            best: best validation score so far; None before a trial is complete.
            finished: number of finished trials, complete or failed.
            failed: number of failed ones among them.
        """
        self._scores.setdefault(_place(step), {})[strategy] = best
        self._trials[step] = finished, failed

    @contextmanager
    def step(
        self, name: str, total: float, unit: str, already: float = 0.0, item: str = ""
    ) -> Iterator[ProgressCallback]:
        """Shows a step while the body runs.

        Args:
            name: name of the step.
            total: amount of work.
            unit: unit of the amount, such as `trials`.
            already: amount done earlier, which does not count towards the rate.
            item: word for what is worked on one after the other, such as `trial`; empty if the amount is shown.
        """
        part, now = self._part_of(name), time.monotonic()
        part.advance(name, already / total if total else 1.0, 0.0)
        step = _Step(name, total, unit, already, item, now, already, now)
        last_line = now

        def show(done: float) -> None:
            nonlocal last_line
            now = time.monotonic()
            # Epochs of a trial do not count before its end: with early stopping they say little about the time left.
            if int(done) > int(step.done):
                part.advance(name, int(done) / total, now - step.checkpoint)
                step.checkpoint = now
            is_end = step.done < total <= done
            step.done = max(step.done, done)
            if is_end:
                self._show_end(step, now)
            elif not self._is_live and done > already and now - last_line >= _QUIET_SECONDS:
                last_line = now
                log.info("%s; %s: %s", step.describe(now), self._what, self._describe(now))

        self._steps.append(step)
        try:
            yield show
        finally:
            self._steps.remove(step)

    def _show_end(self, step: _Step, now: float) -> None:
        if self._is_live:
            self._console.print(align_elapsed(step.describe_end(), now - step.begin, self._console.width))
        else:
            elapsed = format_duration(now - step.begin)
            log.info("%s in %s; %s: %s", step.describe_end(), elapsed, self._what, self._describe(now))

    def render(self) -> RenderableType:
        """Returns the live view."""
        now, width = time.monotonic(), self._console.width
        share, left = self._estimate(now)
        whole = Table.grid(padding=(0, 2, 0, 0), expand=True)
        whole.add_column(no_wrap=True, overflow="ellipsis", max_width=width // 3)
        whole.add_column(ratio=1)
        whole.add_column(justify="right", no_wrap=True)
        whole.add_column(justify="right", no_wrap=True)
        # A step that takes longer than expected has no time left to show.
        text = f"{format_duration(left)} left" if left is not None and left >= 1 else ""
        whole.add_row(Text(self._what), ProgressBar(1.0, share), Text(f"{100 * share:.0f} %"), Text(text))
        lines: list[RenderableType] = [whole]
        step = next(iter(self._steps[-1:]), None)
        if step is not None:
            lines.append(align_elapsed(step.describe(now), now - step.begin, width))
        place = _place(step.name) if step is not None else ""
        # Copies, because another thread draws the view.
        if scores := dict(self._scores.get(place, {})):
            where = f", {place}" if place else ""
            lines += [Text(f"Best validation score so far{where}", style="dim"), self._render_scores(scores)]
        if trials := list(self._trials.values()):
            finished, failed = (sum(counts) for counts in zip(*trials, strict=True))
            lines.append(Text(f"Trials: {finished:,} finished, {failed:,} failed", style="dim"))
        return Group(*lines)

    def _render_scores(self, scores: Mapping[str, float | None]) -> Table:
        """Returns the best scores of strategies, in as many columns as the width allows."""
        n_columns = max(1, (self._console.width + 1) // (_SCORE_WIDTH + 1))
        grid = Table.grid(padding=(0, 1, 0, 0))
        for _ in range(n_columns):
            grid.add_column(width=_SCORE_WIDTH, no_wrap=True, overflow="ellipsis")
        cells = []
        for name, best in scores.items():
            value = "  -  " if best is None else f"{best:.3f}"
            cell = Text(name, no_wrap=True)
            cell.truncate(_SCORE_WIDTH - len(value) - 1, overflow="ellipsis", pad=True)
            cells.append(cell.append(f" {value}"))
        n_rows = -(-len(cells) // n_columns)
        for row in range(n_rows):  # down the columns
            grid.add_row(*cells[row::n_rows])
        return grid

    def _part_of(self, step: str) -> _Part:
        """Returns the part of the study that a step belongs to."""
        return next((part for part in self._parts.values() if step in part.expected), self._parts[""])

    def _estimate(self, now: float) -> tuple[float, float | None]:
        """Returns the share of the study that is done, and the seconds left; None if no step has an estimate."""
        total = sum(part.total for part in self._parts.values())
        # By the first estimates, so that the share never goes back.
        share = 1 - sum(part.left for part in self._parts.values()) / total if total else 0.0
        left = sum(part.rate * part.left for part in self._parts.values())
        for step in self._steps[-1:]:
            # What the step at work has spent on its present unit is not left, but at most the whole unit.
            part = self._part_of(step.name)
            unit = part.rate * part.expected.get(step.name, 0.0) / max(step.total, 1.0)
            left -= min(now - step.checkpoint, unit)
        return share, max(left, 0.0) if total else None

    def _describe(self, now: float) -> str:
        """Returns the share that is done, and the time left where it can be estimated."""
        share, left = self._estimate(now)
        text = f"{100 * share:.0f} %"
        return text if left is None or left < 1 else f"{text}, {format_duration(left)} left"


def _place(step: str) -> str:
    """Returns the division of the data that a step belongs to, such as `fold 2 of 5`; empty if it names none."""
    return step.rpartition(": ")[0]
