"""Progress of a task of many steps: the share that is done and the time left."""

from __future__ import annotations

import io
import logging
import re

import pytest
from clocks import Clock
from rich.console import Console

from hirise_imb.utils.progress import say, track
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
            clock.now += 10
            show(6)
            clock.now += 40
            show(10)
    # Half of b took 50 s, and so c will take 100 s.
    assert said.messages == ["b: 10 trials (5 of them earlier) in 50 s; demo: 67 %, 2 min left"]


def test_a_step_without_an_estimate_counts_as_nothing(clock: Clock, said: pytest.LogCaptureFixture) -> None:
    with StudyProgress("demo", {"a": 10.0}) as progress, progress.step("further control", 1, "fits") as show:
        clock.now += 5
        show(1)
    assert said.messages == ["further control in 5 s; demo: 0 %, 10 s left"]


# --- the time left ---


def test_a_resumed_study_counts_earlier_trials_as_done_and_not_in_the_rate(clock: Clock) -> None:
    progress = StudyProgress("demo", {"a": 100.0, "b": 100.0})
    progress.skip("a")
    progress.skip("b", 0.5)
    assert time_left(progress) == "50 s left"  # before anything was done: as expected
    with progress.step("b", 10, "trials", already=5) as show:
        clock.now += 70  # with loading and compiling
        show(6)
        assert time_left(progress) == "40 s left"
        clock.now += 20  # twice as long as expected
        show(7)
        assert time_left(progress) == "60 s left"


def test_what_other_processes_do_meanwhile_makes_the_rest_faster(clock: Clock) -> None:
    progress = StudyProgress("demo", {"a": 100.0, "b": 100.0, "c": 100.0})
    progress.skip("a", 0.0)
    with progress.step("b", 10, "trials") as show:
        clock.now += 10
        show(1)
        progress.skip("a", 0.9)
        clock.now += 90
        show(10)
    assert time_left(progress) == "55 s left"


def test_each_part_is_corrected_by_its_own_speed(clock: Clock) -> None:
    progress = StudyProgress("demo", {"a": 50.0})
    progress.expect("features", {"features": 100.0})
    with progress.step("features", 100, "images") as show:
        for done in (10, 60):
            clock.now += 5  # a GPU, which says nothing about the searches
            show(done)
    assert time_left(progress) == "54 s left"


def test_time_passes_between_trials_but_epochs_do_not_count(clock: Clock) -> None:
    progress = StudyProgress("demo", {"a": 100.0})
    with progress.step("a", 10, "trials", item="trial") as show:
        clock.now += 4
        show(0.9)
        assert time_left(progress) == "96 s left"
        clock.now += 6
        show(1.0)
        assert time_left(progress) == "90 s left"
        clock.now += 500  # a trial may take its own time at most
        assert time_left(progress) == "80 s left"


def test_steps_that_were_not_needed_are_left_out(clock: Clock) -> None:
    progress = StudyProgress("demo", {"a": 100.0})
    progress.expect("features", {"features": 100.0, "features (tta)": 100.0})
    progress.end_part("features")
    assert time_left(progress) == "2 min left"


# --- without a terminal ---


def test_nothing_is_logged_of_a_step_that_has_not_begun_to_count(clock: Clock, said: pytest.LogCaptureFixture) -> None:
    with StudyProgress("demo", {"a": 10.0}) as progress, progress.step("a", 1, "fits") as show:
        for _ in range(5):
            clock.now += 60
            show(0)
        show(1)
    assert said.messages == ["a in 5 min; demo: 100 %"]


def test_tracked_work_inside_a_study_is_a_step_of_it(clock: Clock, said: pytest.LogCaptureFixture) -> None:
    with StudyProgress("demo", {"a": 10.0}), track("features", 20, "images") as show:
        for done in range(1, 21):
            clock.now += 1
            show(done)
    assert said.messages == ["features: 20 images in 20 s; demo: 0 %, 10 s left"]


# --- on a terminal ---


def terminal(width: int = 80) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, force_interactive=True, width=width, color_system=None)


def lines_of(progress: StudyProgress, width: int) -> list[str]:
    """Returns the lines of the live view."""
    lines = terminal(width).render_lines(progress.render(), pad=False)
    return ["".join(segment.text for segment in line) for line in lines]


def time_left(progress: StudyProgress) -> str:
    return lines_of(progress, 200)[0].split(" %")[1].strip()


@pytest.mark.parametrize("width", [80, 120])
def test_the_live_view_is_aligned_and_does_not_wrap(width: int, clock: Clock) -> None:
    names = [f"strategy_{'x' * (n % 11)}{n}" for n in range(23)]
    place = "repeat 1, fold 2 of 5"
    step = f"{place}: searching {names[-1]}"
    progress = StudyProgress("a study with a long name of its own", {step: 100.0}, terminal(width))
    for n, name in enumerate(names):
        progress.count_trials(f"{place}: searching {name}", name, None if n == 1 else n / 23, 12, n == 3)
        progress.count_trials(f"repeat 1, fold 1 of 5: searching {name}", name, 0.999, 1, 0)
    with progress.step(step, 12, "trials", item="trial") as show:
        clock.now += 30
        show(4.3)
        lines = lines_of(progress, width)
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("a study with a long name ")
    assert re.search(r" 33 %  67 s left$", lines[0])
    assert re.fullmatch(rf"{place}: searching {names[-1]}, trial 5 of 12 +30 s", lines[1])
    assert len(lines[1]) == width
    assert lines[2].rstrip() == f"Best validation score so far, {place}"
    n_columns = (width + 1) // 27
    assert len(lines) == 4 + -(-23 // n_columns)
    scores = lines[3:-1]
    assert all(f"{n / 23:.3f}" in "".join(scores) for n in range(23) if n != 1)
    assert "0.999" not in "".join(scores)
    # The numbers of a column end at the same place.
    assert {match.end() % 27 for line in scores for match in re.finditer(r"\d\.\d{3}", line)} == {26}
    assert lines[-1].rstrip() == "Trials: 299 finished, 1 failed"


@pytest.mark.usefixtures("said")
def test_finished_steps_and_messages_stay_above_the_live_view(clock: Clock) -> None:
    console = terminal()
    with StudyProgress("demo [red]", {"plain": 10.0, "smote": 10.0}, console) as progress:
        with progress.step("plain", 2, "trials") as show:
            clock.now += 75
            show(2)
        say("A message with [bold]brackets[/].")
        with progress.step("smote [x]", 2, "trials") as show:
            show(1)
    assert isinstance(console.file, io.StringIO)
    printed = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", printed)]
    [end] = [line for line in lines if line.startswith("plain: 2 trials")]
    assert end.endswith("  75 s")
    assert len(end) == 80
    assert any(line.startswith("demo [red] ") for line in lines)


@pytest.mark.usefixtures("said")
def test_a_quiet_study_shows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "hirise_imb")
    console = terminal()
    with StudyProgress("demo", {"plain": 10.0}, console) as progress, progress.step("plain", 2, "trials") as show:
        show(2)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == ""
    assert caplog.messages == []
