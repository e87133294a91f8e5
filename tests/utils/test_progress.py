"""Progress where there is no terminal, and the messages of the command line."""

import logging
import re
from collections.abc import Iterator

import pytest
from clocks import Clock

from hirise_imb.utils import progress
from hirise_imb.utils.progress import format_duration, show_stage, track


def test_lines_give_amount_rate_and_time_left(
    clock: Clock, said: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with track("features", 200, "images") as show:
        clock.now += 2
        show(50)
        clock.now += 8
        show(200)
    assert said.messages == [
        "features: 50 of 200 images, 25.0 images/s, 6 s left",
        "features: 200 of 200 images, 20.0 images/s",
    ]
    assert capsys.readouterr().err == ""


def test_what_was_done_before_does_not_count_for_the_rate(clock: Clock, said: pytest.LogCaptureFixture) -> None:
    with track("download", 1000e6, "MB", scale=1e6, already=600e6) as show:
        clock.now += 10
        show(700e6)
    assert said.messages == ["download: 700.0 of 1000.0 MB, 10.0 MB/s, 30 s left"]


def test_a_line_comes_every_tenth_at_most(clock: Clock, said: pytest.LogCaptureFixture) -> None:
    with track("features", 1000, "images", already=395) as show:
        for done in range(396, 1001):
            clock.now += 0.1
            show(done)
    amounts = [message.split()[1] for message in said.messages]
    assert amounts == ["400", "500", "600", "700", "800", "900", "1000"]
    assert all(" 10.0 images/s" in message for message in said.messages)


def test_steps_larger_than_a_tenth_and_steps_back(clock: Clock, said: pytest.LogCaptureFixture) -> None:
    with track("trials", 4, "trials") as show:
        for done in (1, 0, 1, 3, 4, 4):
            clock.now += 1
            show(done)
    assert [message.split()[1] for message in said.messages] == ["1", "3", "4"]


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("total", "already"), [(0, 0), (5, 5)])
def test_nothing_to_do_says_nothing(total: float, already: float, said: pytest.LogCaptureFixture) -> None:
    with track("features", total, "images", already=already) as show:
        show(total)
    assert said.messages == []


@pytest.mark.usefixtures("clock")
def test_no_time_passed_is_no_error(said: pytest.LogCaptureFixture) -> None:
    with track("features", 2, "images") as show:
        show(1)
    assert said.messages[0].startswith("features: 1 of 2 images, ")


def test_a_stage_is_announced_and_its_time_is_logged(clock: Clock, said: pytest.LogCaptureFixture) -> None:
    with show_stage("Writing the report"):
        clock.now += 20
    assert said.messages == ["Writing the report ...", "Writing the report: done in 20 s"]


def test_an_interactive_console_needs_a_terminal(
    monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as continuous integration does for its logs
    with track("features", 2, "images") as show:
        show(2)
    assert len(said.messages) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (99.4, "99 s"), (100, "2 min"), (5940, "99 min"), (7260, "2 h 1 min")]
)
def test_durations_have_at_most_two_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    log = logging.getLogger("hirise_imb")
    before = log.handlers[:], log.level, log.propagate
    yield log
    log.handlers[:], log.level, log.propagate = before


def test_the_command_line_sends_messages_to_standard_error_once(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    progress.log_to_stderr()
    progress.log_to_stderr()
    progress.say("100 % of {this} is [bold]plain[/]")
    captured = capsys.readouterr()
    assert captured.out == ""
    # No terminal: a log, whose lines have a time of day.
    assert re.fullmatch(r"\d\d:\d\d:\d\d 100 % of \{this\} is \[bold\]plain\[/\]\n", captured.err)
    assert not logger.propagate


def test_a_quiet_command_line_prints_warnings_alone(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    progress.log_to_stderr(quiet=True)
    progress.say("a message")
    progress.warn("a warning")
    with track("features", 1, "images") as show:
        show(1)
    assert capsys.readouterr().err[9:] == "a warning\n"
