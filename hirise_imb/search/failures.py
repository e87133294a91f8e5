"""Failures of a database in one sentence: what is wrong, where, and what to do. No sentence shows a password."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.request import url2pathname

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from hirise_imb.utils.errors import UserError

DAMAGE_REMEDY: Final = "restore a copy of it, or move it away; the same command then trains its trials again."

_FILE_FAILURES: Final = {
    "BUSY": ("is locked", "close the program that has locked it; the same command then continues."),
    "CANTOPEN": (
        "can't be opened",
        "move it away if it is no file, or make it and its folder writable; the same command then continues.",
    ),
    "FULL": ("can't be written to", "free some space on its disk; the same command then continues."),
    "IOERR": (
        "can't be written to",
        "check that its disk has space and that files may grow so large (ulimit -f); the same command then continues.",
    ),
    "NOTADB": ("is not a database of this Optuna version", "move it away."),
    "READONLY": ("can't be written to", "make it and its folder writable; the same command then continues."),
}
"""What is wrong with a file, and what to do, by the primary result code of SQLite."""

_NOT_FOUND: Final = "Record does not exist."
"""Optuna's message for a study or trial that has gone."""

# What Optuna's decoding of damaged rows raises: an unknown state, malformed JSON, a missing value, a string in place of
# a number.
_DECODING_ERRORS: Final = (LookupError, ValueError, TypeError, AttributeError, AssertionError, ArithmeticError)


@contextmanager
def explain_failures(url: URL) -> Iterator[None]:
    """Replaces errors of the database that the block raises by a sentence for the user.

    Args:
        url: address of the database.

    Raises:
        UserError: the database failed.
    """
    try:
        yield
    except (DBAPIError, StorageInternalError) as error:
        raise UserError(_describe_failure(url, error)) from error
    except KeyError as error:
        if error.args != (_NOT_FOUND,):
            raise
        raise UserError(
            f"{display_url(url)}: a study was deleted while this command worked on it: run the command again, which "
            f"begins that study anew."
        ) from error


@contextmanager
def refuse_damaged_rows(storage: RDBStorage, study: str) -> Iterator[None]:
    """Replaces errors of Optuna's decoding of a study by a sentence for the user.

    Args:
        storage: storage of the database.
        study: name of the study that the block reads.

    Raises:
        UserError: a row of the study can't be decoded.
    """
    try:
        yield
    except _DECODING_ERRORS as error:
        if isinstance(error, KeyError) and error.args == (_NOT_FOUND,):
            raise  # the study was deleted; its rows are not damaged
        cause = f"{type(error).__name__} in study {study}: {describe_cause(error)}"
        raise UserError(f"{display_url(storage.engine.url)} is damaged ({cause}): {DAMAGE_REMEDY}") from error


def display_url(url: URL) -> str:
    """Returns the file or the address of a database without its password, and without options, which may have one."""
    if url.get_backend_name() == "sqlite" and "uri" in url.query:
        return url2pathname(str(url.database).removeprefix("file://"))
    return url.set(query={}).render_as_string(hide_password=True)


def describe_cause(error: BaseException, url: URL | None = None) -> str:
    """Returns the driver's message in one line; SQLAlchemy's own adds statements and a link to it.

    Args:
        error: error of SQLAlchemy or Optuna.
        url: address whose password, also one in its options, is replaced by asterisks.
    """
    message = " ".join(str(_root_cause(error)).split())
    if url is not None:
        options = [str(value) for key, value in url.query.items() if "pass" in key]
        for secret in filter(None, (url.password, *options)):
            message = message.replace(str(secret), "***")
    return message


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _describe_failure(url: URL, error: BaseException) -> str:
    name, cause = display_url(url), describe_cause(error, url)
    if url.get_backend_name() != "sqlite":
        return f"{name} failed ({cause}): check that its server runs; the same command then continues."
    root = _root_cause(error)
    # SQLITE_IOERR_WRITE is a kind of SQLITE_IOERR. Python's own errors, of values it can't decode, have no code.
    code = getattr(root, "sqlite_errorname", "") if isinstance(root, sqlite3.Error) else ""
    problem, remedy = _FILE_FAILURES.get(code.removeprefix("SQLITE_").split("_")[0], ("is damaged", DAMAGE_REMEDY))
    return f"{name} {problem} ({cause}): {remedy}"
