"""The database of a study, a file or a server's, opened so that several processes can write to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from sqlalchemy import URL, event

from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import ensure_folder, exclusive_lock

Storage = optuna.storages.RDBStorage

PATIENCE = 60
"""Seconds that one process waits for the transaction of another."""

_KINDS = "a file (sqlite:///path.db), postgresql://user@host/database or mysql+pymysql://user@host/database"
_REMEDIES = {
    "postgresql": "pip install 'hirise-imb[postgresql]' and let the address start with postgresql://",
    "mysql": "pip install pymysql and let the address start with mysql+pymysql://",
}
# Optuna looks which tables there are and then makes the others: one process at a time.
_ONE_AT_A_TIME = {
    "postgresql": "SELECT pg_advisory_xact_lock(7241953)",  # any number, if it is the same for all
    "mysql": f"SELECT GET_LOCK('hirise_imb', {PATIENCE})",
}


def database_path(out: Path) -> Path:
    """The file that holds all searches of a project, unless an address is given."""
    return out / "studies" / "studies.db"


def connect(place: Path | str) -> Storage:
    """Open the database of a study, made anew where there is none.

    A process that is started anew opens it itself: a storage that was pickled has lost what is set here.

    Args:
        place: a file, or an address: sqlite:///..., postgresql://..., mysql+DRIVER://...

    Raises:
        UserError: the address is not understood, its driver is missing, the server refuses, or what is there is no
            database of this Optuna version. No message holds a password.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if isinstance(place, Path):
        return _in_file(place)
    url = _parsed(place)
    return _in_file(Path(str(url.database))) if url.get_backend_name() == "sqlite" else _on_server(url)


def display_address(place: Path | str) -> str:
    """A file or an address as messages show it: without password, and without options, where one may stand too.

    Raises:
        UserError: the address is not understood.
    """
    if isinstance(place, Path):
        return str(place)
    return _shown(_parsed(place))


def _shown(url: URL) -> str:
    return url.set(query={}).render_as_string(hide_password=True)


def _parsed(address: str) -> URL:
    """The address, checked; psycopg 3 is the driver of PostgreSQL unless another is named."""
    # What is not understood is not repeated: nobody knows where in it a password stands.
    try:
        url = sqlalchemy.make_url(address)
    except (ValueError, sqlalchemy.exc.ArgumentError) as error:
        raise UserError(f"The address of the database is not understood: give {_KINDS}.") from error
    kind = url.get_backend_name()
    if kind == "sqlite":
        if url.drivername not in ("sqlite", "sqlite+pysqlite") or url.host or url.query:
            raise UserError("The address of a database file is sqlite:///path.db, without host, driver and options.")
        if url.database in (None, "", ":memory:"):
            raise UserError("The address names no file: give sqlite:///path.db.")
        return url
    if kind not in _REMEDIES:
        raise UserError(f"A database of the kind {kind} is not supported: give {_KINDS}.")
    if address.count("@") > 1:  # all up to the last one may be password, and would be shown as the host
        raise UserError("The address of the database has more than one @: write one inside a password as %40.")
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _in_file(path: Path) -> Storage:
    url = URL.create("sqlite", database=str(path))
    ensure_folder(path.parent)
    try:
        with exclusive_lock(path):
            store = _storage(url, {"connect_args": {"timeout": PATIENCE}})
            # Only now: while it makes the tables, Optuna opens a second connection inside a transaction of the first.
            event.listen(store.engine, "connect", _for_many_writers)
            event.listen(store.engine, "begin", _begin_immediately)
            store.engine.dispose()
            store.engine.connect().close()  # the first one switches the file to the log
    except Exception as error:
        reason = _reason(error)
        known = ("file is not a database", "unable to open database file")
        if reason in known or isinstance(error, RuntimeError):
            raise UserError(f"{path} is no database of this Optuna version ({reason}): move it away.") from error
        raise
    return store


def _for_many_writers(connection: Any, _: object) -> None:  # noqa: ANN401  (any database driver's)
    # The driver begins no transactions of its own: `_begin_immediately` does.
    connection.isolation_level = None
    # A trial writes some fifty times, and waiting for the disk each time takes longer than its training. With a log
    # that is written ahead, a killed process loses nothing; a power failure may lose the last trials, never the file.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin_immediately(connection: sqlalchemy.Connection) -> None:
    # A transaction that has read and wants to write while another writes is refused at once, however long the timeout,
    # since what it has read would be outdated. One that asks for the right to write first waits its turn.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _on_server(url: URL) -> Storage:
    name, kind = _shown(url), url.get_backend_name()
    try:
        probe = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise UserError(f"{name} needs a driver that is not installed ({error}): {_REMEDIES[kind]}.") from error
    if probe.dialect.is_async:
        raise UserError(f"{name} names an asynchronous driver, which Optuna can't use: {_REMEDIES[kind]}.")
    try:
        connection = probe.connect()
    except Exception as error:  # of any class: each driver has its own ideas about options
        reason = _without_password(url, _reason(error))
        raise UserError(
            f"{name} can't be opened ({reason}): check host, port, user, password and name of the database."
        ) from error
    with connection:
        connection.exec_driver_sql(_ONE_AT_A_TIME[kind])  # let go with the connection
        try:
            store = _storage(url, {"pool_pre_ping": True})
        except (RuntimeError, sqlalchemy.exc.DBAPIError, optuna.exceptions.StorageInternalError) as error:
            raise UserError(
                f"{name} can't hold studies of this Optuna version ({_without_password(url, _reason(error))}): name a "
                f"database in which the user may create tables."
            ) from error
    if kind == "postgresql":
        event.listen(store.engine, "connect", _no_endless_transactions)
        store.engine.dispose()
    return store


def _no_endless_transactions(connection: Any, _: object) -> None:  # noqa: ANN401  (any database driver's)
    # A machine that vanishes, or a process suspended, inside a transaction would lock others out for hours.
    cursor = connection.cursor()
    cursor.execute(f"SET idle_in_transaction_session_timeout = '{PATIENCE}s'")
    cursor.close()
    connection.commit()


def _reason(error: BaseException) -> str:
    """What the driver said, in one line: the text of SQLAlchemy around it has statements and a link."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())


def _without_password(url: URL, text: str) -> str:
    """The text of a driver, should it repeat a password that stands in the address or its options."""
    options = [str(value) for key, value in url.query.items() if "pass" in key]
    for secret in filter(None, (url.password, *options)):
        text = text.replace(str(secret), "***")
    return text


def _storage(url: URL, engine: dict[str, Any]) -> Storage:
    text = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")  # Optuna fills it in
    # The first one makes the tables and checks them; if it fails, it leaves no connection open.
    Storage(text, engine_kwargs={**engine, "poolclass": sqlalchemy.NullPool})
    return Storage(text, engine_kwargs=engine)
