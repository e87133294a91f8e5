"""A study shared by four processes and a PostgreSQL server, one of which is killed at work."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import sqlalchemy
from searches import Command, ended, results, until
from servers import PASSWORD, Server, postgresql

from hirise_imb.search.database import connect, database_path

TRIALS = 10
STRATEGIES = ("class_weights", "focal_loss", "logit_adjustment", "prototypes")
SEARCHED = ("plain", *STRATEGIES)
WORKERS = ("one", "two", "three")
SECRETS = (PASSWORD, PASSWORD[4:], quote(PASSWORD, safe=""), quote_plus(PASSWORD))


@pytest.fixture
def server() -> Iterator[Server]:
    with postgresql() as running:
        yield running


_WHO = """
CREATE TABLE begun (trial_id INTEGER, who TEXT);
CREATE FUNCTION note() RETURNS trigger AS $$
BEGIN INSERT INTO begun VALUES (NEW.trial_id, current_setting('application_name')); RETURN NEW; END;
$$ LANGUAGE plpgsql;
CREATE TRIGGER noting AFTER INSERT ON trials FOR EACH ROW EXECUTE FUNCTION note();
"""
"""The database itself notes who begins a trial."""


class Database:
    """The study's, looked at from outside."""

    def __init__(self, url: str) -> None:
        connect(url).engine.dispose()  # makes the tables
        self.url = url
        driven = url.replace("postgresql:", "postgresql+psycopg:")
        self._engine = sqlalchemy.create_engine(driven, poolclass=sqlalchemy.NullPool)
        with self._engine.begin() as connection:
            connection.exec_driver_sql(_WHO)

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with self._engine.begin() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(query)]

    def running(self) -> list[tuple[object, ...]]:
        """Who is at work in which trial."""
        return self.rows("SELECT who, trial_id FROM trials JOIN begun USING (trial_id) WHERE state = 'RUNNING'")


def at_work(database: Database) -> str | None:
    """A worker that has a trial in hands, once two others have begun some too."""
    known = {who for (who,) in database.rows("SELECT DISTINCT who FROM begun")}
    return next((str(who) for who, _ in database.running() if who in WORKERS and len(known) >= 3), None)


def kill_one_at_work(database: Database, processes: dict[str, subprocess.Popen[str]]) -> list[tuple[object, ...]]:
    """Kill a worker in the midst of a trial; who it was, and in which trials."""

    def killed() -> list[tuple[object, ...]]:
        if (who := at_work(database)) is None:
            return []
        os.kill(processes[who].pid, signal.SIGSTOP)
        left = [row for row in database.running() if row[0] == who]
        os.kill(processes[who].pid, signal.SIGKILL if left else signal.SIGCONT)
        return left

    return list(until(killed))


def places(database: Database) -> list[tuple[object, ...]]:
    """Study, place and state of all trials, and what else was noted of them."""
    return database.rows(
        "SELECT study_name, place.value_json::INTEGER, state::TEXT, COALESCE(error.key, lost.key), trials.trial_id "
        "FROM trials JOIN studies USING (study_id) JOIN trial_user_attributes place USING (trial_id) "
        "LEFT JOIN trial_user_attributes error ON error.trial_id = trials.trial_id AND error.key = 'error' "
        "LEFT JOIN trial_user_attributes lost ON lost.trial_id = trials.trial_id AND lost.key = 'lost' "
        "WHERE place.key = 'place' ORDER BY trials.trial_id"
    )


def no_secret(said: list[str], *folders: Path) -> None:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert files
    for secret in SECRETS:
        assert all(secret not in text for text in said)
        assert [path for path in files if secret.encode() in path.read_bytes()] == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills as POSIX does")
def test_a_study_of_four_processes_one_of_which_is_killed_ends_as_that_of_one(
    server: Server, small_data: Path, tmp_path: Path
) -> None:
    options = {"name": "demo", "data": small_data, "trials": TRIALS, "refits": 1, "strategies": ",".join(STRATEGIES)}
    options["selection"] = "val"  # the quicker one
    Command(tmp_path).do("run", out=tmp_path / "undisturbed", **options)

    database = Database(server.fresh())
    slow = Command(tmp_path, pause=1.0)
    processes = {
        who: slow.start(
            "run" if who == "main" else "work",
            storage=f"{database.url}?application_name={who}",
            out=tmp_path / "shared" / who,
            **options,
        )
        for who in ("main", *WORKERS)
    }
    with ended(*processes.values()):
        left = kill_one_at_work(database, processes)
        victim = str(left[0][0])
        said = {who: process.communicate(timeout=240)[0] for who, process in processes.items()}
    codes = {who: process.returncode for who, process in processes.items()}
    assert codes == dict.fromkeys(codes, 0) | {victim: -signal.SIGKILL}, said
    assert all(
        text.endswith("Nothing is left to search.\n") for who, text in said.items() if who not in ("main", victim)
    )

    # Each place of each strategy has one finished trial; those the dead worker left were closed and done again.
    trials = places(database)
    finished = Counter((study, place) for study, place, state, note, _ in trials if state != "FAIL" or note == "error")
    assert sorted(study.split("/")[1].split()[0] for study, _ in finished) == sorted(SEARCHED * TRIALS)
    assert sorted(place for _, place in finished) == sorted([*range(TRIALS)] * len(SEARCHED))
    assert set(finished.values()) == {1}
    lost = {trial for *_, state, note, trial in trials if state == "FAIL" and note != "error"}
    assert {trial for _, trial in left} <= lost
    assert all(note == "lost" for *_, note, trial in trials if trial in lost)
    assert database.running() == []
    assert len({who for (who,) in database.rows("SELECT DISTINCT who FROM begun")}) >= 3

    expected = results(tmp_path / "undisturbed" / "reports" / "demo")
    assert len(expected) == 2 + 4 * (1 + len(SEARCHED))  # predictions, and confusions as table and figure
    assert results(tmp_path / "shared" / "main" / "reports" / "demo") == expected

    # Another folder, the same database: nothing is searched again.
    begun = database.rows("SELECT COUNT(*) FROM begun")
    said["again"] = Command(tmp_path).do("run", storage=database.url, out=tmp_path / "again", **options)
    assert database.rows("SELECT COUNT(*) FROM begun") == begun
    assert results(tmp_path / "again" / "reports" / "demo") == expected

    assert not database_path(tmp_path / "shared" / "main").exists()
    no_secret(list(said.values()), tmp_path / "shared", tmp_path / "again")
