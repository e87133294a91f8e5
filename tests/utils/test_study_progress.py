"""Progress of a task of many steps: the share that is done and the time left."""

from __future__ import annotations

import io

import pytest
from clocks import Clock
from rich.console import Console

from hirise_imb.utils import study_progress
from hirise_imb.utils.study_progress import StudyProgress


def test_a_step_has_a_line_at_its_end_with_the_time_left(clock: Clock, said: pytest.LogCaptureFixture) -> None:
    with StudyProgress("demo", {"plain": 30.0, "smote": 90.0}) as progress:
        with progress.step("plain", 3, "trials") as show:
            for done in (1, 2, 3):
                clock.now += 10
                show(done)
        with progress.step("smote", 3, "trials") as show:
            clock.now += 90
            show(3)
    assert said.messages == [
        "plain: 3 trials in 30 s; demo: 25 %, 90 s left",
        "smote: 3 trials in 90 s; demo: 100 %",
    ]


def test_a_long_step_is_not_silent(clock: Clock, said: pytest.LogCaptureFixture) -> None:
    with StudyProgress("demo", {"plain": 1.0}) as progress, progress.step("plain", 100, "trials") as show:
        for done in range(1, 100):
            clock.now += 1
            show(done)
    assert [message.split()[1] for message in said.messages] == ["30", "60", "90"]


def test_what_others_or_earlier_runs_did_takes_no_time_here(clock: Clock, said: pytest.LogCaptureFixture) -> None:
    with StudyProgress("demo", {"a": 10.0, "b": 10.0, "c": 10.0}) as progress:
        progress.skip("a")
        with progress.step("b", 10, "trials", already=5) as show:
            clock.now += 50
            show(10)
    # Half of b took 50 s, and so c will take 100 s.
    assert said.messages == ["b: 10 trials in 50 s; demo: 67 %, 2 min left"]


def test_a_step_without_an_estimate_counts_as_nothing(clock: Clock, said: pytest.LogCaptureFixture) -> None:
    with StudyProgress("demo", {"a": 10.0}) as progress, progress.step("further control", 1, "fits") as show:
        clock.now += 5
        show(1)
    assert said.messages == ["further control in 5 s; demo: 0 %, 10 s left"]


def test_on_a_terminal_the_task_is_above_the_step_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()

    def make_console(**_: object) -> Console:
        return Console(file=output, force_terminal=True, width=80, color_system=None)

    monkeypatch.setattr(study_progress, "Console", make_console)
    with StudyProgress("demo", {"plain": 1.0, "smote": 1.0}) as progress:
        with progress.step("plain", 2, "trials") as show:
            show(2)
        with progress.step("smote", 2, "trials") as show:
            show(1)
            assert progress._bars is not None
            progress._bars.refresh()
    frames = output.getvalue()
    assert frames.index("demo") < frames.index("plain") < frames.index("smote")
    assert "1 of 2 trials" in frames
    assert "75 %" in frames
