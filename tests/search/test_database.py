from __future__ import annotations

import contextlib
import re
import sqlite3
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from builders import quick
from hypothesis import example, given
from hypothesis import strategies as st
from optuna.trial import TrialState
from servers import Answers, Server, at_once

from hirise_imb.search.database import connect, display_address
from hirise_imb.utils.errors import UserError

SECRET = "Zq9"
"""A part of every password here, and of nothing else."""


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "postgresql":
        request.getfixturevalue("server")
    return str(request.param)


def fresh(kind: str, request: pytest.FixtureRequest, folder: Path, name: str) -> Path | str:
    """A place where no database is yet."""
    return folder / "new" / f"{name}.db" if kind == "sqlite" else request.getfixturevalue("server").fresh()


def refusal(place: Path | str) -> str:
    with pytest.raises(UserError) as caught:
        connect(place)
    text = str(caught.value)
    assert SECRET not in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("redis://u:Zq9@host/0", r"kind redis is not supported: give a file \(sqlite:///path\.db\), postgresql://"),
        ("studies/demo.db", r"malformed: give a file \(sqlite:///path\.db\), postgresql://"),
        ("journal.log", "malformed"),
        ("postgresql://u:Zq9@host:port/studies", "malformed"),
        ("postgresql://u:a@Zq9@host/studies", "more than one @: write one inside a password as %40"),
        (
            "postgresql+nosuch://u:Zq9@host/x",
            r"u:\*\*\*@host/x needs a driver .* pip install 'hirise-imb\[postgresql\]'",
        ),
        ("mysql+nosuch://u:Zq9@host/studies", r"needs a driver that is not installed .* pip install pymysql"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///x.db?mode=ro", "without host, driver and options"),
        ("sqlite+aiosqlite:///x.db", "without host, driver and options"),
        ("sqlite://host/x.db", "without host, driver and options"),
    ],
)
def test_an_unusable_address_is_refused(address: str, message: str) -> None:
    assert re.search(message, refusal(address))


def test_psycopg_3_is_the_driver_of_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as if it were not installed
    assert "pip install 'hirise-imb[postgresql]'" in refusal("postgresql://u:Zq9@127.0.0.1/studies")
    assert display_address("postgresql://127.0.0.1/studies") == "postgresql+psycopg://127.0.0.1/studies"
    assert display_address("postgresql+psycopg2://127.0.0.1/studies") == "postgresql+psycopg2://127.0.0.1/studies"


def test_a_server_that_refuses_is_named_without_password(server: Server) -> None:
    good = server.fresh()
    name = good.rsplit("/", 1)[1]
    assert "password authentication failed" in refusal(server.url(name, password="Zq9-wrong"))
    assert f'database "no{name}" does not exist' in refusal(server.url(f"no{name}"))
    assert "refused" in refusal(good.replace(f":{server.port}/", ":1/"))
    assert 'invalid connection option "foo"' in refusal(f"{good}?foo=1")
    text = refusal(f"postgresql://tester@127.0.0.1:{server.port}/{name}?password=Zq9-wrong")
    assert f"postgresql+psycopg://tester@127.0.0.1:{server.port}/{name} can't be opened" in text
    assert "***" in refusal(f"{good}?sslpassword=Zq9x&connect_timeout=Zq9x")  # the driver repeats the word


def test_an_unusable_database_on_a_server_is_refused(server: Server) -> None:
    url = server.fresh()
    name = url.rsplit("/", 1)[1]
    server.do("CREATE ROLE guest LOGIN PASSWORD 'Zq9'")
    assert "permission denied for schema public" in refusal(server.url(name, user="guest", password="Zq9"))
    connect(url).engine.dispose()
    server.do("UPDATE alembic_version SET version_num = 'v99.0.0'", name)
    assert "of this Optuna version" in refusal(url)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("dear diary, " * 100)
    for place in (path, f"sqlite:///{path}"):
        assert f"{path} is not a database of this Optuna version" in refusal(place)
    path.unlink()
    path.mkdir()
    assert "move it away" in refusal(path)


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8)


@quick
@given(before=words, after=words)
@example(before="/", after="?#")
@example(before="@", after=":")
def test_no_password_is_ever_shown(before: str, after: str) -> None:
    password = before + SECRET + after
    url = sqlalchemy.URL.create("postgresql", "me", password, "host", 5432, "studies")
    assert display_address(url.render_as_string(hide_password=False)) == "postgresql+psycopg://me:***@host:5432/studies"
    option = sqlalchemy.URL.create("mysql+pymysql", "me", host="host", database="x", query={"passwd": password})
    assert display_address(option.render_as_string(hide_password=False)) == "mysql+pymysql://me@host/x"
    try:  # as people write it: not quoted
        text = display_address(f"postgresql://me:{password}@host/studies")
    except UserError as error:
        text = str(error)
    assert SECRET not in text


@pytest.mark.parametrize(
    "name", ["plain.db", "a b%20c.db", "{x}.db", "what?.db", "a@b@c.db", "é#1.db", "a?b #%25/{é}.db"]
)
def test_a_path_may_have_any_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / name
    storage = connect(path)
    optuna.create_study(storage=storage, study_name="kept")
    storage.engine.dispose()
    assert path.exists()
    assert display_address(path) == str(path)
    again = connect(path)
    assert [study.study_name for study in again.get_all_studies()] == ["kept"]
    again.engine.dispose()


def test_an_address_of_a_file_opens_the_same_file(tmp_path: Path) -> None:
    storage = connect(tmp_path / "demo.db")
    optuna.create_study(storage=storage, study_name="kept")
    other = connect(f"sqlite:///{tmp_path}/demo.db")
    assert [study.study_name for study in other.get_all_studies()] == ["kept"]
    for opened in (storage, other):
        opened.engine.dispose()


def test_a_file_has_a_write_ahead_log(tmp_path: Path) -> None:
    storage = connect(tmp_path / "demo.db")
    with storage.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1  # NORMAL
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000
    storage.engine.dispose()


def test_the_server_ends_an_idle_transaction(server: Server) -> None:
    storage = connect(server.fresh())
    for _ in range(2):  # the second connection comes from the pool
        with storage.engine.connect() as connection:
            assert connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar() == "1min"
    storage.engine.dispose()


def test_a_connection_that_the_server_has_cut_is_replaced(server: Server) -> None:
    storage = connect(url := server.fresh())
    name = url.rsplit("/", 1)[1]
    assert storage.get_all_studies() == []
    server.do(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    assert storage.get_all_studies() == []
    storage.engine.dispose()


def test_a_waiting_writer_sees_what_the_other_one_wrote(tmp_path: Path) -> None:
    """Read, then write, in one transaction: without BEGIN IMMEDIATE, one of two writers is refused."""
    storages = [connect(tmp_path / "demo.db") for _ in range(2)]
    with storages[0].engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE numbers (n INTEGER)")
        connection.exec_driver_sql("INSERT INTO numbers VALUES (0)")

    def count_up(place: int) -> None:
        for _ in range(50):
            with storages[place].engine.begin() as connection:
                n = connection.exec_driver_sql("SELECT n FROM numbers").scalar_one()
                time.sleep(0.001)
                connection.exec_driver_sql(f"UPDATE numbers SET n = {n + 1}")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(count_up, range(2)))
    with storages[0].engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT n FROM numbers").scalar() == 100
    for storage in storages:
        storage.engine.dispose()


def create(places: list[Path | str], barrier: Barrier, done: Answers) -> None:
    """A process that opens each place at the same moment as others, and works a little."""
    try:
        for place in places:
            barrier.wait(60)
            study = optuna.create_study(storage=connect(place), study_name="one", load_if_exists=True)
            study.tell(study.ask(), 1.0)
        done.put("done")
    except BaseException as error:
        barrier.abort()
        done.put(repr(error))


def hammer(place: Path | str, seconds: float, barrier: Barrier, done: Answers) -> None:
    """A process that runs trials as fast as it can."""
    try:
        study = optuna.load_study(
            storage=connect(place), study_name="one", sampler=optuna.samplers.RandomSampler(), pruner=None
        )
        barrier.wait(60)
        end = time.monotonic() + seconds
        values = {}
        while time.monotonic() < end:
            trial = study.ask()
            x = trial.suggest_float("x", 0, 1)
            for step in range(3):
                trial.report(x + step, step)
            trial.set_user_attr("twice", 2 * x)
            study.tell(trial, x)
            values[trial.number] = x
        done.put(values)
    except BaseException as error:
        barrier.abort()
        done.put(repr(error))


def test_many_processes_may_create_the_database_at_once(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    places = [fresh(kind, request, tmp_path, f"n{k}") for k in range(3)]
    assert at_once(create, places) == ["done"] * 4
    for place in places:
        storage = connect(place)
        (study,) = optuna.study.get_all_study_summaries(storage=storage)
        assert study.n_trials == 4
        storage.engine.dispose()


def test_many_processes_write_and_no_trial_is_lost(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    storage = connect(place := fresh(kind, request, tmp_path, "one"))
    study = optuna.create_study(storage=storage, study_name="one")
    answers = at_once(hammer, place, 1.0)
    assert all(isinstance(answer, dict) for answer in answers), answers
    written = {number: x for answer in answers for number, x in answer.items()}  # type: ignore[attr-defined]
    trials = study.get_trials(deepcopy=False)
    assert [trial.number for trial in trials] == list(range(len(written)))
    assert all(answers), "each process got its turn"
    for trial in trials:
        x = written[trial.number]
        assert trial.state is TrialState.COMPLETE
        assert (trial.value, trial.params, trial.user_attrs) == (x, {"x": x}, {"twice": 2 * x})
        assert trial.intermediate_values == {step: x + step for step in range(3)}
    storage.engine.dispose()


def test_damage_whose_description_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE studies (study_name)")
        connection.execute("CREATE INDEX other ON studies (study_name)")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = 'nonsense' WHERE name = 'other'")
    # Not UTF-8; SQLite repeats the name in its error: malformed database schema (other).
    path.write_bytes(path.read_bytes().replace(b"other", b"\xe5ther"))
    with pytest.raises(UserError, match=r"studies\.db is damaged \(a name is not UTF-8\): restore a copy"):
        connect(path)
