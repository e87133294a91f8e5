"""A study shared by four processes and a PostgreSQL server, one of which is killed at work."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from servers import Server, check_secrecy
from study_processes import Command, kill_on_exit, read_results, wait_until

from hirise_imb.search.database import connect, database_path

TRIALS, OUTER_FOLDS = 9, 2
STRATEGIES = ("logit_adjustment", "prototypes")
SEARCHES = ("plain", *STRATEGIES)
WORKERS = ("one", "two", "three")


_RECORD_WORKERS = """
CREATE TABLE started (trial_id INTEGER, worker TEXT);
CREATE FUNCTION record_worker() RETURNS trigger AS $$
BEGIN INSERT INTO started VALUES (NEW.trial_id, current_setting('application_name')); RETURN NEW; END;
$$ LANGUAGE plpgsql;
CREATE TRIGGER record_workers AFTER INSERT ON trials FOR EACH ROW EXECUTE FUNCTION record_worker();
"""
"""Lets the database itself record which worker starts a trial."""


class Database:
    """The database of the study, seen from outside."""

    def __init__(self, url: str) -> None:
        connect(url).engine.dispose()  # makes the tables
        self.url = url
        url_with_driver = url.replace("postgresql:", "postgresql+psycopg:")
        self._engine = sqlalchemy.create_engine(url_with_driver, poolclass=sqlalchemy.NullPool)
        with self._engine.begin() as connection:
            connection.exec_driver_sql(_RECORD_WORKERS)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self._engine.begin() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(query)]

    def running(self) -> list[tuple[str, int]]:
        """Returns worker and id of each running trial."""
        query = "SELECT worker, trial_id FROM trials JOIN started USING (trial_id) WHERE state = 'RUNNING'"
        return [(str(worker), int(trial)) for worker, trial in self.rows(query)]


def worker_in_training(database: Database) -> str | None:
    """Returns a worker with a running trial, once three processes have started trials."""
    if len(database.rows("SELECT DISTINCT worker FROM started")) < 3:
        return None
    return next((worker for worker, _ in database.running() if worker in WORKERS), None)


def kill_one_in_training(database: Database, processes: dict[str, subprocess.Popen[str]]) -> list[tuple[str, int]]:
    """Kills a worker in the middle of its trials; returns worker and id of each of these trials."""

    def try_to_kill() -> list[tuple[str, int]]:
        if (worker := worker_in_training(database)) is None:
            return []
        os.kill(processes[worker].pid, signal.SIGSTOP)
        running_trials = [row for row in database.running() if row[0] == worker]
        os.kill(processes[worker].pid, signal.SIGKILL if running_trials else signal.SIGCONT)
        return running_trials

    return wait_until(try_to_kill, *processes.values())


def read_trials(database: Database) -> list[tuple[Any, ...]]:
    """Returns study, place, state, `error` or `lost` where the trial has that attribute, and id of each trial."""
    return database.rows(
        "SELECT study_name, place.value_json::INTEGER, state::TEXT, COALESCE(error.key, lost.key), trials.trial_id "
        "FROM trials JOIN studies USING (study_id) JOIN trial_user_attributes place USING (trial_id) "
        "LEFT JOIN trial_user_attributes error ON error.trial_id = trials.trial_id AND error.key = 'error' "
        "LEFT JOIN trial_user_attributes lost ON lost.trial_id = trials.trial_id AND lost.key = 'lost' "
        "WHERE place.key = 'place' ORDER BY trials.trial_id"
    )


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills as POSIX does")
def test_a_study_of_four_processes_one_of_which_is_killed_ends_as_that_of_one(
    server: Server, small_data: Path, tmp_path: Path
) -> None:
    options: dict[str, object] = {
        "name": "demo",
        "data": small_data,
        "trials": TRIALS,
        "outer-folds": OUTER_FOLDS,
        "trial-seeds": 1,  # for speed
        "refits": 1,
        "strategies": ",".join(STRATEGIES),
    }
    Command(tmp_path).run("run", out=tmp_path / "undisturbed", **options)

    database = Database(server.fresh())
    command = Command(tmp_path, hold := tmp_path / "hold")
    processes = {
        worker: command.start(
            "run" if worker == "main" else "work",
            storage=f"{database.url}?application_name={worker}",
            out=tmp_path / "shared" / worker,
            **options,
        )
        for worker in ("main", *WORKERS)
    }
    with kill_on_exit(*processes.values()):
        running_trials = kill_one_in_training(database, processes)
        victim = running_trials[0][0]
        hold.unlink()
        outputs = {worker: process.communicate(timeout=240)[0] for worker, process in processes.items()}
    codes = {worker: process.returncode for worker, process in processes.items()}
    assert codes == dict.fromkeys(codes, 0) | {victim: -signal.SIGKILL}, outputs
    assert all(
        output.endswith("No trials are left.\n") for worker, output in outputs.items() if worker not in ("main", victim)
    )

    # Each place of each search has one finished trial; the trials of the dead worker were closed and repeated.
    trials = read_trials(database)
    finished = Counter(
        (study, place) for study, place, state, attribute, _ in trials if state != "FAIL" or attribute == "error"
    )
    searches = SEARCHES * (1 + OUTER_FOLDS)  # of the given split, and of each outer fold
    assert sorted(study.split("/")[-1].split()[0] for study, _ in finished) == sorted(searches * TRIALS)
    assert sorted(place for _, place in finished) == sorted([*range(TRIALS)] * len(searches))
    assert set(finished.values()) == {1}
    lost = {trial for *_, state, attribute, trial in trials if state == "FAIL" and attribute != "error"}
    assert {trial for _, trial in running_trials} <= lost
    assert all(attribute == "lost" for *_, attribute, trial in trials if trial in lost)
    assert database.running() == []
    assert len({worker for (worker,) in database.rows("SELECT DISTINCT worker FROM started")}) >= 3

    expected = read_results(tmp_path / "undisturbed" / "reports" / "demo")
    # Of both designs, and of baselines too: predictions, confusions as table and figure.
    assert len(expected) == 2 * (2 + 4 * (2 + len(SEARCHES)))
    assert read_results(tmp_path / "shared" / "main" / "reports" / "demo") == expected

    # With another folder and the same database, nothing is searched again.
    started = database.rows("SELECT COUNT(*) FROM started")
    outputs["again"] = Command(tmp_path).run("run", storage=database.url, out=tmp_path / "again", **options)
    assert database.rows("SELECT COUNT(*) FROM started") == started
    assert read_results(tmp_path / "again" / "reports" / "demo") == expected

    assert not database_path(tmp_path / "shared" / "main").exists()
    check_secrecy(list(outputs.values()), tmp_path / "shared", tmp_path / "again")
