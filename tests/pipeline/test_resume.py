"""A study that is killed twice and started again ends as one that was left alone."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from study_processes import Command, kill_on_exit, read_results, wait_until

from hirise_imb.search.database import database_path

FIRST_OUTER_FOLD = 3
"""Number of the first study of the nested cross-validation in the database, after two of the given split."""


def options(data: Path, out: Path) -> dict[str, object]:
    """Returns the options of the study."""
    return {
        "name": "demo",
        "data": data,
        "strategies": "class_weights",
        "trials": 3,
        "outer-folds": 2,
        "refits": 2,
        "out": out,
    }


def kill_when(ready: Callable[[], bool], stop_after: str, data: Path, out: Path) -> None:
    """Starts the study and kills it as soon as `ready`, which comes true before it stops by itself."""
    command = Command(out.parent, stop_after=stop_after)
    with kill_on_exit(command.start("run", **options(data, out))) as process:
        wait_until(ready, process)


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
    out, cache = tmp_path / "one" / "killed", tmp_path / "one" / "cache"
    kill_when(lambda: cached_bytes(cache) > 0, "40 images", small_data, out)
    kept = cached_bytes(cache)
    images = 68 * sum(1 for _ in (small_data / "map-proj-v3_2").iterdir())
    assert 0 < kept < images  # in the midst of the extraction
    assert not (out / "reports" / "demo" / "summary.json").exists()

    kill_when(lambda: ("COMPLETE", 2) in trials(out), "4 trials", small_data, out)
    assert cached_bytes(cache) == images
    done = trials(out)
    assert [study for _, study in done].count(2) < 4  # in the midst of the second search
    assert not (out / "reports" / "demo" / "summary.json").exists()

    kill_when(lambda: ("COMPLETE", FIRST_OUTER_FOLD) in trials(out), "4 trials", small_data, out)
    in_fold = [study for _, study in trials(out) if study >= FIRST_OUTER_FOLD]
    assert 0 < len(in_fold) < 2 * 2 * 3  # in the middle of an outer fold

    Command(tmp_path / "one").run("run", **options(small_data, out))
    after = trials(out)
    finished = [trial for trial in done if trial[0] == "COMPLETE"]
    assert [trial for trial in after if trial[0] == "COMPLETE"][: len(finished)] == finished
    assert [state for state, _ in after].count("COMPLETE") == 2 * 3 * 3  # the control has some too; three divisions
    assert "RUNNING" not in {state for state, _ in after}

    Command(tmp_path / "other").run("run", **options(small_data, tmp_path / "other" / "undisturbed"))
    results = read_results(out / "reports" / "demo")
    assert results == read_results(tmp_path / "other" / "undisturbed" / "reports" / "demo")
    # Of each design, two files of all arms, and of each arm predictions, a table and a figure in two formats.
    assert len(results) == 2 * (2 + 4 * 4)
