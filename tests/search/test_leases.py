from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy
from builders import quick
from hypothesis import example, given
from hypothesis import strategies as st
from servers import PROCESSES, Answers, Server, at_once, postgresql
from sqlalchemy import Engine

from hirise_imb.search.database import connect
from hirise_imb.search.leases import Lease, Leases

FAST = 0.1
"""Seconds between beats."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgresql() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    return tmp_path / "demo.db" if request.param == "sqlite" else request.getfixturevalue("server").fresh()


@pytest.fixture
def engine(place: Path | str) -> Iterator[Engine]:
    engine = connect(place).engine
    yield engine
    engine.dispose()


def until(seconds: float, attempt: Callable[[], Lease | None]) -> Lease | None:
    """The first lease that is given within that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if lease := attempt():
            return lease
        time.sleep(0.03)
    return None


def is_free(engine: Engine, unit: str) -> bool:
    lease = Leases(engine).take(unit)
    if lease:
        with lease:
            pass
    return lease is not None


def test_a_unit_has_one_holder_until_it_is_given_back(engine: Engine) -> None:
    mine, others = Leases(engine), Leases(engine)
    lease = mine.take("a")
    assert lease
    with lease:
        assert lease.unit == "a"
        assert lease.is_ours()
        assert others.take("a") is None
        assert mine.take("a") is None
        assert is_free(engine, "b")
    assert not lease.is_ours()
    assert is_free(engine, "a")


def test_a_unit_is_given_back_when_the_work_fails(engine: Engine) -> None:
    lease = Leases(engine).take("a")
    assert lease
    with pytest.raises(ZeroDivisionError), lease:
        raise ZeroDivisionError
    assert is_free(engine, "a")


@pytest.mark.parametrize("unit", ["", "x" * 256])
def test_a_name_of_no_use_is_refused(unit: str, tmp_path: Path) -> None:
    engine = connect(tmp_path / "demo.db").engine
    with pytest.raises(ValueError, match=f"unit has {len(unit)} characters"):
        Leases(engine).take(unit)
    engine.dispose()


@pytest.mark.parametrize("times", [(0, 1), (-1, 1), (1, 1), (2, 1), (float("nan"), 1), (1, float("nan")), (1, "inf")])
def test_times_of_no_use_are_refused(times: tuple[float, float]) -> None:
    every, grace = map(float, times)
    with pytest.raises(ValueError, match=f"every is {every} and grace {grace}"):
        Leases(sqlalchemy.create_engine("sqlite://"), every=every, grace=grace)


def test_who_is_alone_forgets_the_leases_of_the_dead_but_not_those_of_others(engine: Engine) -> None:
    units = ["a_/1", "a_/2", "ab/1", "b/a_/1"]
    assert all(Leases(engine).take(unit) for unit in units)  # never entered: they do not beat
    leases = Leases(engine)
    assert not any(leases.take(unit) for unit in units)
    leases.clear("a_/")
    assert [unit for unit in units if leases.take(unit)] == ["a_/1", "a_/2"]


def test_a_lease_beats_through_a_database_that_is_away_for_a_moment(engine: Engine) -> None:
    others = Leases(engine, every=FAST, grace=1.5)
    lease = Leases(engine, every=FAST).take("a")
    assert lease
    with lease:
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE hirise_imb_leases RENAME TO away")
        time.sleep(4 * FAST)
        with pytest.raises(sqlalchemy.exc.SQLAlchemyError):
            lease.is_ours()
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE away RENAME TO hirise_imb_leases")
        assert until(2.5, lambda: others.take("a")) is None
        assert lease.is_ours()


def hold(place: Path | str, every: float, pipe: Connection) -> None:
    """A process that takes the unit "a" and says, when asked, whether it still has it."""
    lease = Leases(connect(place).engine, every=every).take("a")
    assert lease
    with lease:
        pipe.send("taken")
        while pipe.recv() == "held?":
            pipe.send(lease.is_ours())
    pipe.send("given back")


@pytest.fixture
def holder(place: Path | str) -> Iterator[Callable[[float], tuple[int, Connection]]]:
    """Starts a process that holds the unit "a"; its id and the pipe to it."""
    with ExitStack() as stack:

        def start(every: float) -> tuple[int, Connection]:
            ours, theirs = PROCESSES.Pipe()
            process = PROCESSES.Process(target=hold, args=(place, every, theirs))
            process.start()
            stack.callback(process.join)
            stack.callback(process.kill)
            assert ours.poll(60)
            assert ours.recv() == "taken"
            assert process.pid
            return process.pid, ours

        yield start


def test_the_unit_of_a_killed_process_is_taken_over_after_the_grace(
    engine: Engine, holder: Callable[[float], tuple[int, Connection]]
) -> None:
    process, _ = holder(FAST)
    leases = Leases(engine, every=FAST, grace=0.6)
    os.kill(process, signal.SIGKILL)
    start = time.monotonic()
    assert leases.take("a") is None
    lease = until(5, lambda: leases.take("a"))
    assert time.monotonic() - start >= 0.6
    assert lease
    with lease:
        assert lease.is_ours()
        assert Leases(engine).take("a") is None
    assert is_free(engine, "a")


def test_a_process_that_beats_keeps_its_unit_however_long_it_takes(
    engine: Engine, holder: Callable[[float], tuple[int, Connection]]
) -> None:
    _, pipe = holder(FAST)
    others = Leases(engine, every=FAST, grace=1.0)
    assert until(3, lambda: others.take("a")) is None
    pipe.send("held?")
    assert pipe.recv() is True
    pipe.send("give back")
    assert pipe.recv() == "given back"
    assert others.take("a")


def test_a_suspended_process_finds_its_unit_lost_and_leaves_it_to_the_new_holder(
    engine: Engine, holder: Callable[[float], tuple[int, Connection]]
) -> None:
    process, pipe = holder(1.0)
    os.kill(process, signal.SIGSTOP)  # before its first beat, so never inside a transaction
    leases = Leases(engine, every=FAST, grace=1.5)
    lease = until(10, lambda: leases.take("a"))
    assert lease
    with lease:
        os.kill(process, signal.SIGCONT)
        pipe.send("held?")
        assert pipe.recv() is False
        pipe.send("give back")
        assert pipe.recv() == "given back"
        assert lease.is_ours()
        assert Leases(engine).take("a") is None


UNITS = [f"unit {k}" for k in range(12)]


def race(place: Path | str, barrier: Barrier, answers: Answers) -> None:
    """A process that takes over what it can, at the same moment as others."""
    try:
        leases = Leases(connect(place).engine, every=FAST, grace=0.2)
        assert not any(leases.take(unit) for unit in UNITS)
        time.sleep(0.3)
        got = []
        with ExitStack() as stack:
            for unit in UNITS:
                barrier.wait(60)
                if lease := leases.take(unit):
                    stack.enter_context(lease)
                    got.append(unit)
            barrier.wait(60)
            answers.put(got)
    except BaseException as error:
        barrier.abort()
        answers.put(repr(error))


def test_one_of_many_gets_a_unit_whose_holder_is_dead(engine: Engine, place: Path | str) -> None:
    dead = Leases(engine)
    assert all(dead.take(unit) for unit in UNITS)  # never entered: they do not beat
    answers = at_once(race, place)
    assert all(isinstance(answer, list) for answer in answers), answers
    assert Counter(unit for answer in answers for unit in answer) == Counter(UNITS)  # type: ignore[attr-defined]


def work(place: Path | str, folder: Path, barrier: Barrier, answers: Answers) -> None:
    """A process that takes and gives back units for a while, and fails if it finds another at the same one."""
    try:
        barrier.wait(60)
        leases = Leases(connect(place).engine, every=0.02, grace=30)
        end = time.monotonic() + 2
        times = 0
        while time.monotonic() < end:
            if lease := leases.take(unit := random.choice(UNITS[:2])):
                with lease:
                    with (folder / unit).open("x"):
                        time.sleep(random.random() / 50)
                    assert lease.is_ours()
                    (folder / unit).unlink()
                times += 1
        answers.put(times)
    except BaseException as error:
        barrier.abort()
        answers.put(repr(error))


def test_two_never_work_at_the_same_unit(place: Path | str, tmp_path: Path) -> None:
    folder = tmp_path / "at work"
    folder.mkdir()
    answers = at_once(work, place, folder)
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
def test_whose_a_unit_is_follows_from_what_each_has_seen(steps: list[tuple[str, int]]) -> None:
    """Against a model: the holder, its beats, and since when each of three processes has seen both unchanged."""
    engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.StaticPool)
    now = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hirise_imb.search.leases.time", SimpleNamespace(monotonic=lambda: float(now)))
        processes = [Leases(engine, every=1, grace=5) for _ in range(3)]
        leases: list[Lease | None] = [None] * 3
        holder, life = None, 0
        seen: list[tuple[int, int]] = [(-1, 0)] * 3  # sign of life, and when it was first seen
        for step, number in steps:
            if step == "wait":
                now += number
            elif step == "take":
                lease = processes[number].take("a")
                stale = seen[number][0] == life and now - seen[number][1] >= 5
                if holder is None or stale:
                    assert lease
                    leases[number], holder, life = lease, number, life + 1
                else:
                    assert lease is None
                    if seen[number][0] != life:
                        seen[number] = (life, now)
            elif lease := leases[number]:
                assert lease.is_ours() == (number == holder)
                life += number == holder
        for number, lease in enumerate(leases):
            assert not lease or lease.is_ours() == (number == holder)
    engine.dispose()
