"""A PostgreSQL server of the tests' own, where it is installed, and processes that start together."""

from __future__ import annotations

import multiprocessing
import multiprocessing.queues
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

import pytest
import sqlalchemy

PROCESSES = multiprocessing.get_context("forkserver")
"""New processes that share no connection with this one, and need not import what takes long."""
PROCESSES.set_forkserver_preload(
    ["builders", "hypothesis", "hirise_imb.search.database", "hirise_imb.search.leases", "psycopg"]
)

Answers: TypeAlias = "multiprocessing.queues.Queue[object]"

USER = "tester"
PASSWORD = "Zq9 of/the:tests?"
SECRETS = (PASSWORD[4:], quote(PASSWORD[4:], safe=""))
"""What of the password no output may contain; its blank is left out, since addresses write it in three ways."""


def check_secrecy(outputs: list[str], *folders: Path) -> None:
    """Checks that no output and no file holds the password."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert files
    for secret in SECRETS:
        assert all(secret not in output for output in outputs)
        assert [path for path in files if secret.encode() in path.read_bytes()] == []


@dataclass
class Server:
    """It listens on this machine and asks for the password."""

    port: int
    _launch: Callable[[], subprocess.Popen[bytes]] = field(repr=False)
    """Starts the process of the server and waits until it answers."""
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _numbers: Iterator[int] = field(default_factory=count, repr=False)

    def url(self, database: str, *, user: str = USER, password: str = PASSWORD) -> str:
        made = sqlalchemy.URL.create("postgresql", user, password, "127.0.0.1", self.port, database)
        return made.render_as_string(hide_password=False)

    def start(self) -> None:
        """Starts the server, with the databases that it had."""
        self._process = self._launch()

    def stop(self, number: int = signal.SIGINT) -> None:
        """Stops the server.

        Args:
            number: SIGINT cuts its clients off in order, SIGQUIT lets it end as in a crash.
        """
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(timeout=30)

    def do(self, statement: str, database: str = "postgres") -> None:
        """Execute a statement outside of any transaction."""
        url = self.url(database).replace("postgresql:", "postgresql+psycopg:")
        engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)

    def fresh(self) -> str:
        """The URL of a new and empty database."""
        name = f"fresh{next(self._numbers)}"
        self.do(f"CREATE DATABASE {name}")
        return self.url(name)


@contextmanager
def postgresql() -> Iterator[Server]:
    """A new server, gone at the end; where it can't be had, the test is skipped."""
    pytest.importorskip("psycopg")
    programs = _programs()
    with tempfile.TemporaryDirectory(prefix="postgresql-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        as_user = _as_user(folder)
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        data = folder / "data"
        initdb: list[str | Path] = [
            programs / "initdb",
            "-D",
            data,
            "-U",
            USER,
            "-A",
            "scram-sha-256",
            "--pwfile",
            secret,
            "-N",
        ]
        subprocess.run([*as_user, *initdb, "-E", "UTF8", "--locale=C"], check=True, capture_output=True, cwd=folder)
        port = _free_port()
        options = [f"-cport={port}", "-clisten_addresses=127.0.0.1", "-cunix_socket_directories=", "-cfsync=off"]

        def launch() -> subprocess.Popen[bytes]:
            with (folder / "log").open("w") as log:
                process = subprocess.Popen(
                    [*as_user, programs / "postgres", "-D", data, *options], stdout=log, stderr=log, cwd=folder
                )
            _wait_until_ready(process, programs, port, folder / "log")
            return process

        server = Server(port, launch)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _programs() -> Path:
    """The newest of Debian's, which are not in the path, or else those in the path."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    if folders:
        return folders[-1]
    found = shutil.which("postgres")
    if not found:
        pytest.skip("PostgreSQL is not installed")
    return Path(found).resolve().parent


def _as_user(folder: Path) -> list[str]:
    """What comes before a command, since PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return []
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    user = next((name for name in ("postgres", "nobody") if name in names), None)
    if not user or not shutil.which("setpriv"):
        pytest.skip("PostgreSQL refuses to run as root, and there is no other user to run it as")
    entry = pwd.getpwnam(user)
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    return ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(server: subprocess.Popen[bytes], programs: Path, port: int, log: Path) -> None:
    ask: list[str | Path] = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    end = time.monotonic() + 60
    while subprocess.run(ask, check=False).returncode != 0:
        if server.poll() is not None or time.monotonic() > end:
            pytest.fail(f"PostgreSQL did not start:\n{log.read_text()}")
        time.sleep(0.1)


def at_once(work: Callable[..., None], *arguments: object, processes: int = 4) -> list[object]:
    """What as many processes answer, each doing `work(*arguments, barrier, answers)` and giving one answer."""
    barrier, answers = PROCESSES.Barrier(processes), PROCESSES.Queue()
    started = [PROCESSES.Process(target=work, args=(*arguments, barrier, answers)) for _ in range(processes)]
    for process in started:
        process.start()
    given = [answers.get(timeout=120) for _ in started]
    for process in started:
        process.join()
    return given
