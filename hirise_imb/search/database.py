"""The database of searches, a file or on a server, set up so that several processes can write to it at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from filelock import FileLock, Timeout
from sqlalchemy import URL, event

from hirise_imb.search.failures import DAMAGE_REMEDY, describe_cause, display_url, explain_failures
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import ensure_folder, exclusive_lock
from hirise_imb.utils.progress import warn

Storage = optuna.storages.RDBStorage

LOCK_TIMEOUT = 60
"""Seconds that a process waits for the transaction of another one."""

_ADDRESS_FORMS = "a file (sqlite:///path.db), postgresql://user@host/database or mysql+pymysql://user@host/database"
_DRIVER_HINTS = {
    "postgresql": "pip install 'hirise-imb[postgresql]' and let the address start with postgresql://",
    "mysql": "pip install pymysql and let the address start with mysql+pymysql://",
}
# Optuna first checks which tables exist and then creates the others. Two processes that do so at the same time on an
# empty database would both try to create them, so the server grants this lock to one connection at a time.
_TABLE_CREATION_LOCKS = {
    "postgresql": "SELECT pg_advisory_xact_lock(7241953)",  # an arbitrary number, the same in all processes
    "mysql": f"SELECT GET_LOCK('hirise_imb', {LOCK_TIMEOUT})",
}


def database_path(out: Path) -> Path:
    """Returns the database file below the folder `out`, which is used unless an address is given."""
    return out / "studies" / "studies.db"


@contextmanager
def lock_study(path: Path) -> Iterator[None]:
    """Keeps other runs out of a study while the block lasts.

    Args:
        path: path from which the names of the study's files are derived; it need not exist.

    Raises:
        UserError: another process runs this study.
    """
    ensure_folder(path.parent)
    lock = FileLock(path.with_name(f"{path.name}.lock"), timeout=0)  # not `with_suffix`: the name may have dots
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{path} is in use by another run: wait for it, or choose another --name.") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def open_database(database: Path | str) -> Iterator[Storage]:
    """Opens a database, or creates it, while the block lasts.

    Args:
        database: as for `connect`.

    Raises:
        UserError: the database can't be opened, or it fails while the block lasts: its disk is full, its file is
            damaged, its server has gone.
    """
    storage = connect(database)
    try:
        with explain_failures(storage.engine.url):
            yield storage
    finally:
        storage.engine.dispose()


def connect(database: Path | str) -> Storage:
    """Opens a database, or creates it.

    Every process must call this itself: a storage that was pickled has lost the settings made here.

    Args:
        database: a file, or an address: sqlite:///..., postgresql://..., mysql+DRIVER://...

    Raises:
        UserError: the address is malformed, its driver is missing, the server refuses, the file is damaged, or the file
            or database does not belong to this version of Optuna. No message shows a password.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if isinstance(database, Path):
        return _connect_file(database)
    url = _parse_address(database)
    return _connect_file(Path(str(url.database))) if url.get_backend_name() == "sqlite" else _connect_server(url)


def display_address(database: Path | str) -> str:
    """Returns a file or an address as messages show it: without its password, and without options, which may have one.

    Raises:
        UserError: the address is malformed.
    """
    return str(database) if isinstance(database, Path) else display_url(_parse_address(database))


def _parse_address(address: str) -> URL:
    """Checks an address; psycopg 3 is the driver of PostgreSQL unless the address names another one."""
    # A malformed address is never repeated in a message: it is unknown where in it a password is.
    try:
        url = sqlalchemy.make_url(address)
    except (ValueError, sqlalchemy.exc.ArgumentError) as error:
        raise UserError(f"The address of the database is malformed: give {_ADDRESS_FORMS}.") from error
    backend = url.get_backend_name()
    if backend == "sqlite":
        if url.drivername not in ("sqlite", "sqlite+pysqlite") or url.host or url.query:
            raise UserError("The address of a database file is sqlite:///path.db, without host, driver and options.")
        if url.database in (None, "", ":memory:"):
            raise UserError("The address names no file: give sqlite:///path.db.")
        return url
    if backend not in _DRIVER_HINTS:
        raise UserError(f"A database of the kind {backend} is not supported: give {_ADDRESS_FORMS}.")
    # Everything up to the last @ may be the password, and part of it would be shown as the host.
    if address.count("@") > 1:
        raise UserError("The address of the database has more than one @: write one inside a password as %40.")
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _connect_file(path: Path) -> Storage:
    ensure_folder(path.parent)
    # A path may contain ?, which ends the path in an address. As a URI it is quoted, and SQLite itself decodes it.
    url = URL.create("sqlite", database=path.absolute().as_uri(), query={"uri": "true"})
    # One process at a time creates the tables, as on servers.
    with explain_failures(url), exclusive_lock(path):
        if path.exists():
            _check_file(path, url)
        try:
            storage = _create_storage(url, {"connect_args": {"timeout": LOCK_TIMEOUT}})
        except (RuntimeError, AssertionError) as error:  # which Optuna raises for the tables of another version
            cause = describe_cause(error)
            raise UserError(f"{path} is not a database of this Optuna version ({cause}): move it away.") from error
        # Only after the tables exist: while Optuna creates them, it opens a second connection inside a transaction
        # of the first one, which BEGIN IMMEDIATE would make it wait for.
        event.listen(storage.engine, "connect", _configure_sqlite)
        event.listen(storage.engine, "begin", _begin_immediately)
        storage.engine.dispose()  # drops the connections that were made without the listeners
        storage.engine.connect().close()  # the first connection switches the file to write-ahead logging
    return storage


def _check_file(path: Path, url: URL) -> None:
    """Checks the structure of an existing file, before anything is written to it.

    Raises:
        UserError: the file is damaged, or belongs to another program.
    """
    if path.is_file() and not path.stat().st_size:
        # A process that is killed at its start leaves an empty file, and so does a program that truncates it.
        warn(f"{path} is empty: all searches begin anew.")
        return
    # Each page and each index: 0.1 s for 2,000 trials. What it can't see, a changed value, the trials' digests show.
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, connect_args={"timeout": LOCK_TIMEOUT})
    try:
        with engine.connect() as connection:
            problem = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one()
            tables = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars().all()
            columns = connection.exec_driver_sql("SELECT name FROM pragma_table_info('studies')").scalars().all()
    except UnicodeDecodeError as error:  # of a name that an error of SQLite's repeats
        raise UserError(f"{path} is damaged (a name is not UTF-8): {DAMAGE_REMEDY}") from error
    if problem != "ok":
        raise UserError(f"{path} is damaged ({' '.join(str(problem).split())}): {DAMAGE_REMEDY}")
    # Optuna creates the table of studies first, so it is there even if the creation was interrupted.
    if tables and "study_name" not in columns:
        raise UserError(f"{path} is a database of another program: name another file, or move it away.")


def _configure_sqlite(connection: Any, _: object) -> None:  # noqa: ANN401  (the connection of any driver)
    # By default, Python's driver itself begins transactions, and only before the first write. With None,
    # `_begin_immediately` decides when they begin.
    connection.isolation_level = None
    # Writers append to a log instead of changing the file in place, so that another program that reads the file,
    # however slowly, does not keep a search waiting.
    connection.execute("PRAGMA journal_mode=WAL")
    # A trial writes some fifty times, and waiting for the disk each time would take longer than its training. With the
    # log, NORMAL waits only when the log is copied to the file: a killed process loses nothing, a power failure may
    # lose the last trials, and neither can damage the file.
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin_immediately(connection: sqlalchemy.Connection) -> None:
    # A plain BEGIN takes the right to write at the first write. If another process has written since this transaction
    # first read, SQLite refuses at once, however long the timeout: what was read is outdated. Optuna reads before it
    # writes in most transactions. BEGIN IMMEDIATE takes the right to write before the first read, and waits for it.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _connect_server(url: URL) -> Storage:
    name, backend = display_url(url), url.get_backend_name()
    try:
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise UserError(f"{name} needs a driver that is not installed ({error}): {_DRIVER_HINTS[backend]}.") from error
    if engine.dialect.is_async:
        raise UserError(f"{name} names an asynchronous driver, which Optuna can't use: {_DRIVER_HINTS[backend]}.")
    try:
        connection = engine.connect()
    except Exception as error:  # of any class: each driver has errors of its own for options
        cause = describe_cause(error, url)
        raise UserError(
            f"{name} can't be opened ({cause}): check host, port, user, password and name of the database."
        ) from error
    with explain_failures(url), connection:
        connection.exec_driver_sql(_TABLE_CREATION_LOCKS[backend])  # released when the connection closes
        try:
            storage = _create_storage(url, {"pool_pre_ping": True})  # replaces connections that the server has cut
        except (RuntimeError, sqlalchemy.exc.DBAPIError, optuna.exceptions.StorageInternalError) as error:
            raise UserError(
                f"{name} can't store studies of this Optuna version ({describe_cause(error, url)}): name a "
                f"database in which the user may create tables."
            ) from error
    if backend == "postgresql":
        event.listen(storage.engine, "connect", _limit_idle_transactions)
        storage.engine.dispose()  # drops the connections that were made without the listener
    return storage


def _limit_idle_transactions(connection: Any, _: object) -> None:  # noqa: ANN401  (the connection of any driver)
    # A machine that vanishes, or a process that is suspended, inside a transaction keeps its locks, and the server may
    # not notice for hours. With this limit it ends the transaction after a minute, and the others continue.
    cursor = connection.cursor()
    cursor.execute(f"SET idle_in_transaction_session_timeout = '{LOCK_TIMEOUT}s'")
    cursor.close()
    connection.commit()


def _create_storage(url: URL, engine_options: dict[str, Any]) -> Storage:
    # Optuna uses the address as a template and fills in braces.
    address = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    # The first storage creates and checks the tables. If that fails, its engine, which nobody can reach to dispose of
    # it, has left no connection open, since it pools none.
    Storage(address, engine_kwargs={**engine_options, "poolclass": sqlalchemy.NullPool})
    return Storage(address, engine_kwargs=engine_options)
