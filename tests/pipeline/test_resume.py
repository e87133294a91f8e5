"""A study that is killed twice and started again ends as one that was left alone."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from study_processes import read_results

from hirise_imb.search.database import database_path

FIRST_OUTER_FOLD = 3
"""Number of the first study of the nested cross-validation in the database, after two of the given split."""
DEADLINE = 240.0
"""Seconds after which something hangs."""


def command(data: Path, out: Path) -> list[str]:
    options = {
        "--name": "demo",
        "--data": data,
        "--strategies": "class_weights",
        "--trials": 3,
        "--outer-folds": 2,
        "--refits": 2,
        "--out": out,
    }
    return [sys.executable, "-m", "hirise_imb.study", "run", *(str(word) for pair in options.items() for word in pair)]


def environment(cache: Path) -> dict[str, str]:
    """As a user has it, with as many threads as there are cores."""
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return inherited | {"HIRISE_IMB_CACHE": str(cache), "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}


def run(data: Path, out: Path, cache: Path) -> str:
    done = subprocess.run(
        command(data, out), env=environment(cache), capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def kill_when(ready: Callable[[], bool], data: Path, out: Path, cache: Path) -> None:
    """Start the study and kill it at once when `ready`, which has to come before its end."""
    process = subprocess.Popen(
        command(data, out), env=environment(cache), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        begin = time.monotonic()
        while not ready():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() - begin < DEADLINE
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()


def cached_bytes(cache: Path) -> int:
    return sum(path.stat().st_size for path in cache.glob("features/*/index.bin"))


def trials(out: Path) -> list[tuple[str, int]]:
    """State of each trial and its study, read while the process runs."""
    database = database_path(out)
    if not database.exists():
        return []
    # A schema that is being made, or a lock, only means that it is too early.
    with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT state, study_id FROM trials ORDER BY trial_id").fetchall()
    return []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does")
def test_killed_and_started_again_it_ends_as_if_left_alone(small_data: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "killed", tmp_path / "cache"
    kill_when(lambda: cached_bytes(cache) > 0, small_data, out, cache)
    kept = cached_bytes(cache)
    images = 68 * sum(1 for _ in (small_data / "map-proj-v3_2").iterdir())
    assert 0 < kept < images  # in the midst of the extraction
    assert not (out / "reports" / "demo" / "summary.json").exists()

    kill_when(lambda: ("COMPLETE", 2) in trials(out), small_data, out, cache)
    assert cached_bytes(cache) == images
    done = trials(out)
    assert [study for _, study in done].count(2) < 4  # in the midst of the second search
    assert not (out / "reports" / "demo" / "summary.json").exists()

    kill_when(lambda: ("COMPLETE", FIRST_OUTER_FOLD) in trials(out), small_data, out, cache)
    in_fold = [study for _, study in trials(out) if study >= FIRST_OUTER_FOLD]
    assert 0 < len(in_fold) < 2 * 2 * 3  # in the middle of an outer fold

    run(small_data, out, cache)
    after = trials(out)
    finished = [trial for trial in done if trial[0] == "COMPLETE"]
    assert [trial for trial in after if trial[0] == "COMPLETE"][: len(finished)] == finished
    assert [state for state, _ in after].count("COMPLETE") == 2 * 3 * 3  # the control has some too; three divisions
    assert "RUNNING" not in {state for state, _ in after}

    run(small_data, tmp_path / "undisturbed", tmp_path / "other-cache")
    results = read_results(out / "reports" / "demo")
    assert results == read_results(tmp_path / "undisturbed" / "reports" / "demo")
    # Of each design, two files of all arms, and of each arm predictions, a table and a figure in two formats.
    assert len(results) == 2 * (2 + 4 * 4)
