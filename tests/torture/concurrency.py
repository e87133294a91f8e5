"""Several processes work at once on one database and one cache; some are killed, and the server stops."""

from __future__ import annotations

import functools
import os
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from fake_searches import ignore_progress, open_search
from servers import PROCESSES, SECRETS, Server, check_secrecy, postgresql
from study_processes import wait_until

from hirise_imb.recipe import Recipe
from hirise_imb.search import Leases, connect, lock_study, open_database
from hirise_imb.training.epoch_loop import OnEpoch
from hirise_imb.training.trainer import CrossValidation
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import exclusive_lock
from torture import small_study
from torture.attacks import Area, Attempt, Outcome, attack
from torture.commands import environment, finish, start
from torture.database import N_TRIALS, Fit, Results, read_results, search, undisturbed

JUMPING_LAUNCHER = Path(__file__).parents[1] / "jumping_launcher.py"


@contextmanager
def server_or_none() -> Iterator[Server | None]:
    """Starts a PostgreSQL server; yields None where there is none."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(postgresql())
        except pytest.skip.Exception:
            server = None
        yield server


# --- searches with an invented objective ---


class SlowFit(Fit):
    """An objective that takes so long that all processes get a trial."""

    def __call__(self, recipe: Recipe, on_epoch: OnEpoch) -> CrossValidation:
        """Fits a recipe."""
        time.sleep(0.1)
        return super().__call__(recipe, on_epoch)


def _work(database: Path | str, errors: Path) -> None:
    """Works on a search until it is complete; writes a file if it fails."""
    try:
        with open_database(database) as storage:
            shared, leases = open_search(storage, N_TRIALS), Leases(storage.engine, interval=0.2, grace=4)
            while not shared.is_complete():
                if not shared.train_next_trial(leases, SlowFit(), ignore_progress):
                    time.sleep(0.05)
    except BaseException:
        (errors / str(os.getpid())).write_text(traceback.format_exc())
        raise


def _share_search(attempt: Attempt, database: Path | str, expected: Results) -> Outcome:
    """Lets four processes create a database and share a search; one of them is killed."""
    errors = attempt.folder / "errors"
    errors.mkdir()
    processes = [PROCESSES.Process(target=_work, args=(database, errors)) for _ in range(4)]
    for process in processes:
        process.start()
    processes[0].join(attempt.random.uniform(0, 4))
    processes[0].kill()
    for process in processes:
        process.join(120)
    assert not (texts := [path.read_text() for path in errors.iterdir()]), texts[0]
    assert [process.exitcode for process in processes[1:]] == [0, 0, 0]
    with open_database(database) as storage:
        complete = open_search(storage, N_TRIALS)
        states = [trial.state.name for trial in complete.trial_store.study.get_trials()]
        assert read_results(complete) == expected, "results differ from those of an undisturbed search"
        assert "RUNNING" not in states
        assert len(states) <= N_TRIALS + 1, "a trial was trained twice, and not because its process was killed"
    return Outcome.CORRECT


@attack(Area.CONCURRENCY, "four processes create a SQLite file and share a search; one is killed", tries=8)
def share_sqlite(attempt: Attempt) -> Outcome:
    _, expected = undisturbed(attempt)
    return _share_search(attempt, attempt.folder / "studies" / "studies.db", expected)


@attack(Area.CONCURRENCY, "the same on PostgreSQL", tries=5, quick=0)
def share_postgresql(attempt: Attempt) -> Outcome:
    _, expected = undisturbed(attempt)
    with server_or_none() as server:
        return Outcome.NOT_TRIED if server is None else _share_search(attempt, server.fresh(), expected)


@attack(Area.CONCURRENCY, "PostgreSQL stopped during a search, in order or as in a crash, then the same again", tries=5)
def stop_postgresql(attempt: Attempt) -> Outcome:
    _, expected = undisturbed(attempt)
    with server_or_none() as server:
        if server is None:
            return Outcome.NOT_TRIED
        stop = functools.partial(server.stop, attempt.random.choice([signal.SIGINT, signal.SIGQUIT]))
        moment = attempt.random.randrange(N_TRIALS)

        class StoppingFit(Fit):
            def __call__(self, recipe: Recipe, on_epoch: OnEpoch) -> CrossValidation:
                if self.calls == moment:
                    stop()
                return super().__call__(recipe, on_epoch)

        url = server.fresh()
        with pytest.raises(UserError) as refusal:
            search(url, StoppingFit())
        server.start()
        text = str(refusal.value)
        assert "the same command then continues" in text
        assert "\n" not in text
        assert not any(secret in text for secret in SECRETS)
        fit = Fit()
        assert search(url, fit) == expected
        assert fit.calls == N_TRIALS - moment, "finished trials were trained again"
    return Outcome.SAME


# --- locks ---


def _hold_locks(path: Path, pipe: Connection) -> None:
    """Has all locks of a study, and an open transaction in its database, until it is killed."""
    storage = connect(path)
    with lock_study(path.with_name("demo")), exclusive_lock(path), storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trials SET state = 'FAIL'")
        pipe.send("locked")
        time.sleep(600)


@attack(Area.CONCURRENCY, "a process killed that has every lock of a study and an open transaction", tries=10)
def kill_owner_of_locks(attempt: Attempt) -> Outcome:
    folder, expected = undisturbed(attempt)
    path = attempt.folder / "studies.db"
    path.write_bytes((folder / "closed" / "studies.db").read_bytes())
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=_hold_locks, args=(path, theirs))
    process.start()
    try:
        assert ours.poll(60)
        assert ours.recv() == "locked"
        with pytest.raises(UserError, match="in use by another run"), lock_study(path.with_name("demo")):
            pass
    finally:
        process.kill()
        process.join()
    begin = time.monotonic()
    with lock_study(path.with_name("demo")):
        fit = Fit()
        assert search(path, fit) == expected
    assert fit.calls == 0
    assert time.monotonic() - begin < 20, "the dead process kept its locks"
    return Outcome.CORRECT


@attack(Area.CONCURRENCY, "a process killed while it creates the database", tries=15)
def kill_creation(attempt: Attempt) -> Outcome:
    _, expected = undisturbed(attempt)
    path = attempt.folder / "studies" / "studies.db"
    process = PROCESSES.Process(target=connect, args=(path,))
    process.start()
    with suppress(AssertionError):
        wait_until(path.exists, seconds=60)
    process.join(attempt.random.uniform(0, 0.5))
    process.kill()
    process.join()
    assert search(path, Fit()) == expected
    return Outcome.SAME


# --- whole studies ---


@attack(Area.CONCURRENCY, "the same `run` started twice at once", tries=2, quick=0)
def run_twice_at_once(attempt: Attempt) -> Outcome:
    words = small_study.words(attempt, attempt.folder)
    processes = [start(*words) for _ in range(2)]
    finished = sorted((finish(process) for process in processes), key=lambda one: one.code)
    finished[0].expect_success()
    finished[1].expect_sentence("in use by another run")  # the first one takes far longer than a start
    small_study.run(attempt, attempt.folder).expect_success()
    small_study.expect_same_report(attempt, attempt.folder)
    return Outcome.SAME


@attack(Area.CONCURRENCY, "two studies at once, with one database and one cache", tries=1, quick=0)
def run_two_studies_at_once(attempt: Attempt) -> Outcome:
    # Names that LIKE takes for the same.
    names = (small_study.NAME, small_study.NAME.title())
    processes = [start(*small_study.words(attempt, attempt.folder, name=name)) for name in names]
    for process in processes:
        finish(process).expect_success()
    for name in names:
        small_study.expect_same_report(attempt, attempt.folder, name)
    return Outcome.SAME


@attack(Area.CONCURRENCY, "a run of four processes on SQLite", tries=1, quick=0)
def run_with_workers(attempt: Attempt) -> Outcome:
    finished = finish(start(*small_study.words(attempt, attempt.folder, workers=4))).expect_success()
    assert "locked" not in finished.out + finished.err
    small_study.expect_same_report(attempt, attempt.folder)
    return Outcome.SAME


def _command_lines(parent: int) -> list[bytes]:
    """Returns the command lines of the living processes that a process has started."""
    lines = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                lines.append((folder / "cmdline").read_bytes())
    return lines


@attack(
    Area.SECURITY,
    "PostgreSQL stopped during a run of four processes: its password looked for in output, files and command lines",
    tries=1,
    quick=0,
)
def run_while_postgresql_stops(attempt: Attempt) -> Outcome:
    with server_or_none() as server:
        if server is None:
            return Outcome.NOT_TRIED
        url, out = server.fresh(), attempt.folder / "out"
        words = small_study.words(attempt, out, workers=4, storage=url)
        process = start(*words)
        lines = wait_until(lambda: one if len(one := _command_lines(process.pid)) >= 3 else [], process)
        assert not any(secret.encode() in line for secret in SECRETS for line in lines)
        time.sleep(attempt.random.uniform(0, 5))
        server.stop(attempt.random.choice([signal.SIGINT, signal.SIGQUIT]))
        stopped = finish(process)
        if stopped.code:  # otherwise the run was faster
            stopped.expect_sentence("the same command then continues")
        server.start()
        finished = finish(start(*words)).expect_success()
        check_secrecy([stopped.out, stopped.err, finished.out, finished.err], out)
        assert not [log for log in (out / "studies").glob("*.log") if "Traceback" in log.read_text(encoding="utf-8")]
    small_study.expect_same_report(attempt, out)
    return Outcome.SAME


@attack(Area.DISK, "the clock jumps by hours, forwards and backwards, during a run of two processes", tries=2, quick=0)
def run_while_clock_jumps(attempt: Attempt) -> Outcome:
    words = small_study.words(attempt, attempt.folder, workers=2)
    env = environment(CLOCK_SEED=str(attempt.seed))
    finish(start(*words, env=env, program=[str(JUMPING_LAUNCHER)])).expect_success()
    small_study.expect_same_report(attempt, attempt.folder)
    return Outcome.SAME
