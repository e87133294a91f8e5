"""Several processes of one machine at a study: the same results, whoever is killed; and what stops them."""

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
from searches import Command, ended, results, until

from hirise_imb.cli.main import main
from hirise_imb.config import StudyDefinition
from hirise_imb.pipeline.runner import RunOptions, run_study
from hirise_imb.search.database import database_path
from hirise_imb.utils.errors import UserError

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
OPTIONS = {"name": "demo", "trials": 6, "refits": 1, "strategies": "class_weights,prototypes"}
SEARCHED = 3


def rows(out: Path, query: str) -> list[tuple[object, ...]]:
    """Of the database, read beside those who write."""
    path = database_path(out)
    if not path.exists():
        return []
    # Tables that are being made, or a lock, only mean that it is too early.
    with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()
    return []


def leases(out: Path) -> int:
    """Units that are at work."""
    return len(rows(out, "SELECT unit FROM hirise_imb_leases"))


def begun(out: Path) -> int:
    """Units at work whose trials are there; a process that has only just taken one has none to lose."""
    place = "SELECT study_name || '/' || value_json FROM trials JOIN studies USING (study_id)"
    running = f"{place} JOIN trial_user_attributes USING (trial_id) WHERE state = 'RUNNING' AND key = 'place'"
    return len(rows(out, f"SELECT unit FROM hirise_imb_leases WHERE unit IN ({running})"))


def noted(out: Path, state: str, key: str) -> int:
    """Trials in this state of which this was noted."""
    query = f"SELECT COUNT(*) FROM trials JOIN trial_user_attributes USING (trial_id) WHERE state = '{state}'"
    return int(str(rows(out, f"{query} AND key = '{key}'")[0][0]))


def workers(parent: int) -> list[int]:
    """Processes that a study has started and that are alive."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            process = int(folder.name)
            state, above = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(above) == parent and state != "Z" and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(process)
    return found


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def each_place_once(out: Path) -> None:
    finished = "state IN ('COMPLETE', 'PRUNED')"
    query = "SELECT study_id, value_json FROM trials JOIN trial_user_attributes USING (trial_id) WHERE key = 'place'"
    found = Counter(rows(out, f"{query} AND {finished}"))
    assert len(found) == SEARCHED * 6
    assert set(found.values()) == {1}
    assert rows(out, "SELECT * FROM trials WHERE state = 'RUNNING'") == []
    assert leases(out) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a cache that knows the features."""
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def expected(folder: Path, small_data: Path) -> dict[str, bytes]:
    """What one process comes to."""
    Command(folder).do("run", out=folder / "one", data=small_data, **OPTIONS)
    return dict(results(folder / "one" / "reports" / "demo"))


@LINUX
def test_two_of_three_processes_are_killed_and_the_results_are_those_of_one(
    folder: Path, small_data: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    command = Command(folder, pause=1.0)
    with ended(command.start("run", out=tmp_path, data=small_data, workers=3, **OPTIONS)) as process:
        until(lambda: begun(tmp_path) == 3)  # the study itself has one of them
        children = workers(process.pid)
        assert len(children) == 2
        for child in children:
            os.kill(child, signal.SIGKILL)
        said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    for number in (1, 2):
        log = tmp_path / "studies" / f"demo.worker-{number}.log"
        assert f"A worker ended with code -9: see {log}." in said
        assert "cross-validation" in log.read_text(encoding="utf-8")
    assert noted(tmp_path, "FAIL", "lost") >= 1
    each_place_once(tmp_path)
    assert results(tmp_path / "reports" / "demo") == expected


@LINUX
def test_workers_end_soon_after_the_study_was_killed_and_it_goes_on_later(
    folder: Path, small_data: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    command = Command(folder, pause=1.0)
    with ended(command.start("run", out=tmp_path, data=small_data, workers=3, **OPTIONS)) as process:
        until(lambda: leases(tmp_path) == 3)
        children = workers(process.pid)
        process.kill()
        until(lambda: not any(map(alive, children)), seconds=30)
    said = command.do("run", out=tmp_path, data=small_data, workers=3, **OPTIONS)
    assert "A worker ended" not in said
    each_place_once(tmp_path)
    assert results(tmp_path / "reports" / "demo") == expected


@LINUX
def test_workers_that_are_told_to_end_do_not_count_as_dead(
    folder: Path, small_data: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """Neither where the time is over nor where the user interrupts the study."""
    command = Command(folder, pause=2.0)
    with ended(command.start("run", out=tmp_path, data=small_data, workers=3, **OPTIONS)) as process:
        until(lambda: begun(tmp_path) == 3)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert rows(tmp_path, "SELECT * FROM trials WHERE state = 'RUNNING'") == []
    assert noted(tmp_path, "FAIL", "lost") == leases(tmp_path) == 0
    assert noted(tmp_path, "FAIL", "place") >= 3
    Command(folder).do("run", out=tmp_path, data=small_data, **OPTIONS)
    each_place_once(tmp_path)
    assert results(tmp_path / "reports" / "demo") == expected


# --- options ---


@pytest.mark.parametrize("words", [["--workers", "0"], ["--workers", "-1"], ["--timeout", "0"], ["--timeout", "nan"]])
def test_efforts_of_no_use_are_refused(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *words, "--out", str(tmp_path)]) == 2
    assert f"error: {words[0]} is {words[1]}: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_effort_is_checked_where_it_is_made() -> None:
    with pytest.raises(UserError, match="--workers is 0: use 1 or more"):
        RunOptions(workers=0)
    with pytest.raises(UserError, match="--timeout is -1: give seconds, more than 0"):
        RunOptions(timeout=-1)


def test_a_study_whose_time_runs_out_says_what_is_missing_and_goes_on_later(
    toy: str, small_data: Path, tmp_path: Path
) -> None:
    strategies = ("class_weights", "logit_adjustment")
    definition = StudyDefinition("demo", str(small_data), toy, "random", strategies=strategies, trials=10, refits=1)
    found, page = run_study(definition, tmp_path / "short", RunOptions(timeout=1e-6))
    assert [arm.name for arm in found.arms] == ["baseline"]
    missing = {omitted.name: omitted.reason for omitted in found.omitted}
    assert list(missing) == ["plain", *strategies]
    assert missing["class_weights"] == "no trial was finished in time"
    assert "starts from plain" in missing["logit_adjustment"]
    assert "no trial was finished in time" in page.read_text(encoding="utf-8")

    few = dataclasses.replace(definition, trials=3)
    run_study(few, tmp_path / "short")  # some trials are there
    found, _ = run_study(definition, tmp_path / "short", RunOptions(timeout=1e-6))
    there = {arm.name: len(arm.trials) for arm in found.arms}
    assert there == {"baseline": 0, "plain": 3, **dict.fromkeys(strategies, 3)}

    run_study(definition, tmp_path / "short")
    run_study(definition, tmp_path / "undisturbed")
    reports = [tmp_path / name / "reports" / "demo" for name in ("short", "undisturbed")]
    assert results(reports[0]) == results(reports[1])
