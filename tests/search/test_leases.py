from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy
from builders import quick
from fake_searches import create_database
from hypothesis import example, given
from hypothesis import strategies as st
from servers import PROCESSES, Answers, at_once
from sqlalchemy import Engine

from hirise_imb.search.database import connect
from hirise_imb.search.leases import Lease, Leases

FAST = 0.1
"""Seconds between beats."""


MANY_PROCESSES = pytest.mark.parametrize(
    "database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)


@pytest.fixture
def engine(database: Path | str) -> Iterator[Engine]:
    engine = connect(database).engine
    yield engine
    engine.dispose()


def acquire_within(seconds: float, attempt: Callable[[], Lease | None]) -> Lease | None:
    """Returns the first lease that is granted within that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if lease := attempt():
            return lease
        time.sleep(0.03)
    return None


def is_free(engine: Engine, trial: str) -> bool:
    lease = Leases(engine).acquire(trial)
    if lease:
        with lease:
            pass
    return lease is not None


def test_a_trial_has_one_owner_until_it_is_released(engine: Engine) -> None:
    mine, others = Leases(engine), Leases(engine)
    lease = mine.acquire("a")
    assert lease
    with lease:
        assert lease.trial == "a"
        assert lease.renew()
        assert others.acquire("a") is None
        assert mine.acquire("a") is None
        assert is_free(engine, "b")
    assert not lease.renew()
    assert is_free(engine, "a")


def test_a_trial_is_released_when_the_training_fails(engine: Engine) -> None:
    lease = Leases(engine).acquire("a")
    assert lease
    with pytest.raises(ZeroDivisionError), lease:
        raise ZeroDivisionError
    assert is_free(engine, "a")


@pytest.mark.parametrize("trial", ["", "x" * 256])
def test_a_name_that_is_empty_or_too_long_is_refused(trial: str, tmp_path: Path) -> None:
    engine = connect(create_database(tmp_path / "demo.db")).engine
    with pytest.raises(ValueError, match=f"must have 1 to 255 characters, got {len(trial)}"):
        Leases(engine).acquire(trial)
    engine.dispose()


@pytest.mark.parametrize("times", [(0, 1), (-1, 1), (1, 1), (2, 1), (float("nan"), 1), (1, float("nan")), (1, "inf")])
def test_times_that_make_no_sense_are_refused(times: tuple[float, float]) -> None:
    interval, grace = map(float, times)
    with pytest.raises(ValueError, match=f"got interval {interval} and grace {grace}"):
        Leases(sqlalchemy.create_engine("sqlite://"), interval=interval, grace=grace)


def test_a_process_that_is_alone_clears_the_leases_of_its_study_alone(engine: Engine) -> None:
    trials = ["a_/1", "a_/2", "ab/1", "A_/1", "b/a_/1"]
    assert all(Leases(engine).acquire(trial) for trial in trials)  # never entered: they never beat
    leases = Leases(engine)
    assert not any(leases.acquire(trial) for trial in trials)
    leases.clear("a_/")
    assert [trial for trial in trials if leases.acquire(trial)] == ["a_/1", "a_/2"]


def test_a_lease_survives_a_database_that_is_away_for_a_moment(engine: Engine) -> None:
    others = Leases(engine, interval=FAST, grace=1.0)
    lease = Leases(engine, interval=FAST).acquire("a")
    assert lease
    with lease:
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE hirise_imb_leases RENAME TO away")
        time.sleep(4 * FAST)
        with pytest.raises(sqlalchemy.exc.SQLAlchemyError):
            lease.renew()
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE away RENAME TO hirise_imb_leases")
        assert acquire_within(1.6, lambda: others.acquire("a")) is None
        assert lease.renew()


def own_trial(database: Path | str, interval: float, pipe: Connection) -> None:
    """Acquires the trial "a" and tells, when asked, whether the lease is still its own."""
    lease = Leases(connect(database).engine, interval=interval).acquire("a")
    assert lease
    with lease:
        pipe.send("acquired")
        while pipe.recv() == "renew":
            pipe.send(lease.renew())
    pipe.send("released")


@pytest.fixture
def start_owner(database: Path | str) -> Iterator[Callable[[float], tuple[int, Connection]]]:
    """Starts a process that owns the trial "a"; gives its id and the pipe to it."""
    with ExitStack() as stack:

        def start(interval: float) -> tuple[int, Connection]:
            ours, theirs = PROCESSES.Pipe()
            process = PROCESSES.Process(target=own_trial, args=(database, interval, theirs))
            process.start()
            stack.callback(process.join)
            stack.callback(process.kill)
            assert ours.poll(60)
            assert ours.recv() == "acquired"
            assert process.pid
            return process.pid, ours

        yield start


def test_the_trial_of_a_killed_process_is_taken_over_after_the_grace(
    engine: Engine, start_owner: Callable[[float], tuple[int, Connection]]
) -> None:
    process, _ = start_owner(FAST)
    leases = Leases(engine, interval=FAST, grace=0.6)
    os.kill(process, signal.SIGKILL)
    start = time.monotonic()
    assert leases.acquire("a") is None
    lease = acquire_within(5, lambda: leases.acquire("a"))
    assert time.monotonic() - start >= 0.6
    assert lease
    with lease:
        assert lease.renew()
        assert Leases(engine).acquire("a") is None
    assert is_free(engine, "a")


def test_a_process_that_beats_keeps_its_trial_however_long_it_takes(
    engine: Engine, start_owner: Callable[[float], tuple[int, Connection]]
) -> None:
    _, pipe = start_owner(FAST)
    others = Leases(engine, interval=FAST, grace=0.8)
    assert acquire_within(1.8, lambda: others.acquire("a")) is None
    pipe.send("renew")
    assert pipe.recv() is True
    pipe.send("release")
    assert pipe.recv() == "released"
    assert others.acquire("a")


def test_a_suspended_process_finds_its_trial_lost_and_leaves_it_to_the_new_owner(
    engine: Engine, start_owner: Callable[[float], tuple[int, Connection]]
) -> None:
    process, pipe = start_owner(1.0)
    os.kill(process, signal.SIGSTOP)  # before its first beat, so never inside a transaction
    leases = Leases(engine, interval=FAST, grace=1.5)
    lease = acquire_within(10, lambda: leases.acquire("a"))
    assert lease
    with lease:
        os.kill(process, signal.SIGCONT)
        pipe.send("renew")
        assert pipe.recv() is False
        pipe.send("release")
        assert pipe.recv() == "released"
        assert lease.renew()
        assert Leases(engine).acquire("a") is None


TRIALS = [f"trial {k}" for k in range(12)]


def race(database: Path | str, barrier: Barrier, answers: Answers) -> None:
    """Takes over what it can, at the same moment as other processes."""
    try:
        leases = Leases(connect(database).engine, interval=FAST, grace=0.2)
        assert not any(leases.acquire(trial) for trial in TRIALS)
        time.sleep(0.3)
        taken_over = []
        with ExitStack() as stack:
            for trial in TRIALS:
                barrier.wait(60)
                if lease := leases.acquire(trial):
                    stack.enter_context(lease)
                    taken_over.append(trial)
            barrier.wait(60)
            answers.put(taken_over)
    except BaseException as error:
        barrier.abort()
        answers.put(repr(error))


@MANY_PROCESSES
def test_one_of_many_processes_takes_over_a_trial_whose_owner_is_dead(engine: Engine, database: Path | str) -> None:
    dead = Leases(engine)
    assert all(dead.acquire(trial) for trial in TRIALS)  # never entered: they never beat
    answers = at_once(race, database)
    assert all(isinstance(answer, list) for answer in answers), answers
    assert Counter(trial for answer in answers for trial in answer) == Counter(TRIALS)  # type: ignore[attr-defined]


def test_a_beat_at_the_last_moment_prevents_the_takeover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = connect(create_database(tmp_path / "demo.db")).engine
    lease = Leases(engine).acquire("a")
    assert lease
    others = Leases(engine, interval=0.01, grace=0.05)
    assert others.acquire("a") is None
    time.sleep(0.06)
    begin, transactions = Engine.begin, itertools.count()

    def begin_after_beat(self: Engine) -> AbstractContextManager[sqlalchemy.Connection]:
        if next(transactions) == 1:  # after the transaction that has read the row, before the one that changes it
            assert lease.renew()
        return begin(self)

    monkeypatch.setattr(Engine, "begin", begin_after_beat)
    assert others.acquire("a") is None
    assert lease.renew()
    engine.dispose()


def work(database: Path | str, folder: Path, barrier: Barrier, answers: Answers) -> None:
    """Acquires and releases trials for a while, and fails if it finds another process at the same one."""
    try:
        barrier.wait(60)
        leases = Leases(connect(database).engine, interval=0.02, grace=30)
        end = time.monotonic() + 1
        count = 0
        while time.monotonic() < end:
            if lease := leases.acquire(trial := random.choice(TRIALS[:2])):
                with lease:
                    with (folder / trial).open("x"):
                        time.sleep(random.random() / 50)
                    assert lease.renew()
                    (folder / trial).unlink()
                count += 1
        answers.put(count)
    except BaseException as error:
        barrier.abort()
        answers.put(repr(error))


@MANY_PROCESSES
def test_two_processes_never_own_the_same_trial(database: Path | str, tmp_path: Path) -> None:
    folder = tmp_path / "in-training"
    folder.mkdir()
    answers = at_once(work, database, folder)
    assert all(isinstance(answer, int) for answer in answers), answers
    assert sum(answers) > 8  # type: ignore[arg-type]


STEPS = st.one_of(
    st.tuples(st.just("take"), st.integers(0, 2)),
    st.tuples(st.just("beat"), st.integers(0, 2)),
    st.tuples(st.just("wait"), st.sampled_from([1, 4, 5, 6])),
)


@quick
@given(steps=st.lists(STEPS, max_size=40))
@example(steps=[("take", 0), ("take", 1), ("wait", 5), ("take", 1), ("beat", 0)])
@example(steps=[("take", 0), ("take", 1), ("wait", 4), ("beat", 0), ("wait", 1), ("take", 1), ("wait", 5), ("take", 1)])
@example(steps=[("take", 0), ("take", 1), ("take", 2), ("wait", 5), ("take", 2), ("take", 1), ("wait", 5), ("take", 1)])
def test_the_owner_follows_from_what_each_process_has_seen(steps: list[tuple[str, int]]) -> None:
    """Against a model: the owner, its beats, and since when each of three processes has seen both unchanged."""
    engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.StaticPool)
    now = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hirise_imb.search.leases.time", SimpleNamespace(monotonic=lambda: float(now)))
        processes = [Leases(engine, interval=1, grace=5) for _ in range(3)]
        leases: list[Lease | None] = [None] * 3
        owner: int | None = None
        life = 0
        seen: list[tuple[int, int]] = [(-1, 0)] * 3  # the last sign of life, and when it was first seen
        for step, number in steps:
            if step == "wait":
                now += number
            elif step == "take":
                lease = processes[number].acquire("a")
                stale = seen[number][0] == life and now - seen[number][1] >= 5
                if owner is None or stale:
                    assert lease
                    leases[number], owner, life = lease, number, life + 1
                else:
                    assert lease is None
                    if seen[number][0] != life:
                        seen[number] = (life, now)
            elif lease := leases[number]:
                assert lease.renew() == (number == owner)
                life += number == owner
        for number, lease in enumerate(leases):
            assert not lease or lease.renew() == (number == owner)
    engine.dispose()
