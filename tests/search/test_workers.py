"""Several processes of one machine at a study: the same results, whichever is killed; and what stops them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sqlite3
import sys
from collections import Counter
from pathlib import Path

import pytest
from study_processes import Command, kill_on_exit, read_results, wait_until

from hirise_imb.cli.main import main
from hirise_imb.config import StudyDefinition
from hirise_imb.pipeline.runner import RunOptions, run_study
from hirise_imb.search.database import database_path
from hirise_imb.utils.errors import UserError

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
OPTIONS: dict[str, object] = {
    "name": "demo",
    "evaluation": "given-split",
    "trials": 6,
    "refits": 1,
    "strategies": "class_weights,prototypes",
}
N_STRATEGIES = 3


def rows(out: Path, query: str) -> list[tuple[object, ...]]:
    """Reads rows of the database while others write to it."""
    path = database_path(out)
    if not path.exists():
        return []
    # Missing tables, or a lock, only mean that it is too early.
    with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()
    return []


def leased_trials(out: Path) -> int:
    """Returns how many trials are leased."""
    return len(rows(out, "SELECT unit FROM hirise_imb_leases"))


def started_trials(out: Path) -> int:
    """Returns how many leased trials are in the database; without one, a process has nothing to lose yet."""
    name = "SELECT study_name || '/' || value_json FROM trials JOIN studies USING (study_id)"
    running = f"{name} JOIN trial_user_attributes USING (trial_id) WHERE state = 'RUNNING' AND key = 'place'"
    return len(rows(out, f"SELECT unit FROM hirise_imb_leases WHERE unit IN ({running})"))


def count_trials(out: Path, state: str, key: str) -> int:
    """Returns how many trials in this state have this attribute."""
    query = f"SELECT COUNT(*) FROM trials JOIN trial_user_attributes USING (trial_id) WHERE state = '{state}'"
    return int(str(rows(out, f"{query} AND key = '{key}'")[0][0]))


def find_workers(parent: int) -> list[int]:
    """Returns the living processes that a study has started."""
    processes = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            process = int(folder.name)
            state, parent_of_process = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent_of_process) == parent and state != "Z" and b"spawn_main" in (folder / "cmdline").read_bytes():
                processes.append(process)
    return processes


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def check_places(out: Path) -> None:
    """Checks that each place of each search has one finished trial, and that nothing is left open."""
    finished = "state = 'COMPLETE'"
    query = "SELECT study_id, value_json FROM trials JOIN trial_user_attributes USING (trial_id) WHERE key = 'place'"
    places = Counter(rows(out, f"{query} AND {finished}"))
    assert len(places) == N_STRATEGIES * 6
    assert set(places.values()) == {1}
    assert rows(out, "SELECT * FROM trials WHERE state = 'RUNNING'") == []
    assert leased_trials(out) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose cache holds the features."""
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def expected(folder: Path, small_data: Path) -> dict[str, bytes]:
    """Results of a study in one process."""
    Command(folder).run("run", out=folder / "one", data=small_data, **OPTIONS)
    return dict(read_results(folder / "one" / "reports" / "demo"))


@LINUX
@pytest.mark.slow
def test_two_of_three_processes_are_killed_and_the_results_are_those_of_one(
    folder: Path, small_data: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    command = Command(folder, hold := tmp_path / "hold")
    with kill_on_exit(command.start("run", out=tmp_path, data=small_data, workers=3, **OPTIONS)) as process:
        wait_until(lambda: started_trials(tmp_path) == 3, process)  # the study itself has one of them
        children = find_workers(process.pid)
        assert len(children) == 2
        for child in children:
            os.kill(child, signal.SIGKILL)
        hold.unlink()
        output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    for number in (1, 2):
        log = tmp_path / "studies" / f"demo.worker-{number}.log"
        assert f"A worker ended with code -9: see {log}." in output
        assert "cross-validation" in log.read_text(encoding="utf-8")
    assert count_trials(tmp_path, "FAIL", "lost") >= 1
    check_places(tmp_path)
    assert read_results(tmp_path / "reports" / "demo") == expected


@LINUX
@pytest.mark.slow
def test_workers_end_soon_after_the_study_was_killed_and_it_goes_on_later(
    folder: Path, small_data: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    command = Command(folder, hold := tmp_path / "hold")
    with kill_on_exit(command.start("run", out=tmp_path, data=small_data, workers=3, **OPTIONS)) as process:
        wait_until(lambda: leased_trials(tmp_path) == 3, process)
        children = find_workers(process.pid)
        process.kill()
        hold.unlink()
        wait_until(lambda: not any(map(is_alive, children)), seconds=30)
    output = Command(folder).run("run", out=tmp_path, data=small_data, workers=2, **OPTIONS)
    assert "A worker ended" not in output
    check_places(tmp_path)
    assert read_results(tmp_path / "reports" / "demo") == expected


@LINUX
@pytest.mark.slow
def test_workers_that_are_asked_to_end_do_not_count_as_dead(
    folder: Path, small_data: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """As they are when the time is over, when the user interrupts the study, or when a cluster ends its job."""
    command = Command(folder, tmp_path / "hold")
    for interruptions, number in enumerate([signal.SIGINT, signal.SIGTERM], 1):
        with kill_on_exit(command.start("run", out=tmp_path, data=small_data, workers=2, **OPTIONS)) as process:
            wait_until(lambda: started_trials(tmp_path) == 2, process)
            process.send_signal(number)
            output, _ = process.communicate(timeout=60)
        assert process.returncode == 130, output
        assert rows(tmp_path, "SELECT * FROM trials WHERE state = 'RUNNING'") == []
        assert count_trials(tmp_path, "FAIL", "lost") == leased_trials(tmp_path) == 0
        assert count_trials(tmp_path, "FAIL", "place") >= 2 * interruptions
    Command(folder).run("run", out=tmp_path, data=small_data, **OPTIONS)
    check_places(tmp_path)
    assert read_results(tmp_path / "reports" / "demo") == expected


# --- options ---


@pytest.mark.parametrize("words", [["--workers", "0"], ["--workers", "-1"], ["--timeout", "0"], ["--timeout", "nan"]])
def test_options_that_make_no_sense_are_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *words, "--out", str(tmp_path)]) == 2
    assert f"error: {words[0]} is {words[1]}: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_options_are_checked_when_they_are_created() -> None:
    with pytest.raises(UserError, match="--workers is 0: use 1 or more"):
        RunOptions(workers=0)
    with pytest.raises(UserError, match="--timeout is -1: give a number of seconds above 0"):
        RunOptions(timeout=-1)


@pytest.fixture
def definition(toy: str, small_data: Path) -> StudyDefinition:
    return StudyDefinition(
        name="demo",
        data=str(small_data),
        backbone=toy,
        weights="random",
        strategies=("class_weights", "logit_adjustment"),
        trials=10,
        refits=1,
        evaluation=("given-split",),
    )


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_study_whose_time_runs_out_reports_what_is_missing(definition: StudyDefinition, tmp_path: Path) -> None:
    report, page = run_study(definition, tmp_path / "short", RunOptions(timeout=1e-6))
    assert [arm.name for arm in report.arms] == ["baseline", "baseline_to_the_end"]
    missing = {omitted.name: omitted.reason for omitted in report.omitted}
    assert list(missing) == ["plain", *definition.strategies]
    assert missing["class_weights"] == "no trial was finished in time"
    assert "depends on plain" in missing["logit_adjustment"]
    assert "no trial was finished in time" in page.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_study_whose_time_runs_out_can_be_continued(definition: StudyDefinition, tmp_path: Path) -> None:
    few = dataclasses.replace(definition, trials=3)
    run_study(few, tmp_path / "short")  # so that there are some trials
    report, _ = run_study(definition, tmp_path / "short", RunOptions(timeout=1e-6))
    n_trials = {arm.name: len(arm.selections[0].trials) for arm in report.arms}
    assert n_trials == {"baseline": 0, "baseline_to_the_end": 0, "plain": 3, **dict.fromkeys(definition.strategies, 3)}

    run_study(definition, tmp_path / "short")
    run_study(definition, tmp_path / "undisturbed")
    reports = [tmp_path / name / "reports" / "demo" for name in ("short", "undisturbed")]
    assert read_results(reports[0]) == read_results(reports[1])
