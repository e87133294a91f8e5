"""The database of searches is damaged, replaced, full or read-only; its file is that of a small search."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import random
import resource
import shutil
import sqlite3
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fake_searches import FakeFit, quality, run_search

from hirise_imb.recipe import Recipe
from hirise_imb.search import open_database
from hirise_imb.search.search import Search
from hirise_imb.training.epoch_loop import OnEpoch
from hirise_imb.training.trainer import CrossValidation
from hirise_imb.utils.errors import FitFailed, UserError
from torture.attacks import Area, Attempt, Outcome, attack

N_TRIALS = 9
"""More than a round, so that the later trials depend on the earlier ones."""

Results = list[tuple[Any, ...]]


class Fit:
    """A deterministic objective that fails for some recipes; it may do something before one of its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, recipe: Recipe, on_epoch: OnEpoch) -> CrossValidation:
        """Fits a recipe."""
        self.calls += 1
        if quality(recipe) < 0.2:
            on_epoch(1, 0.1)
            raise FitFailed("the loss is not finite")
        return FakeFit()(recipe, on_epoch)


def search(database: Path | str, fit: Fit) -> Results:
    """Runs a search to its end, or continues it; returns everything that reports take from it."""
    with open_database(database) as storage:
        return read_results(run_search(storage, N_TRIALS, fit))


def read_results(complete: Search) -> Results:
    """Returns what reports take from a complete search, and the best trial."""
    best = complete.choose().get()
    trials = complete.finished_trials().items()
    rows: Results = [
        (place, trial.state.name, trial.params, trial.distributions, trial.values, trial.user_attrs)
        for place, trial in trials
    ]
    return [*rows, (best.place, best.score, best.recipe, best.history, best.space, best.seconds)]


def undisturbed(attempt: Attempt) -> tuple[Path, Results]:
    """Returns a folder with a finished database, in two forms, and its results.

    `closed/` has the file as a process leaves it at its end, `killed/` the file and its log as one leaves them that is
    killed.
    """

    def make(folder: Path) -> None:
        (folder / "closed").mkdir(parents=True)
        path = folder / "closed" / "studies.db"
        with open_database(path) as storage:
            run_search(storage, N_TRIALS, Fit())
            shutil.copytree(folder / "closed", folder / "killed")

    folder = attempt.prepare("database", make)
    return folder, _undisturbed_results(folder)


@functools.cache
def _undisturbed_results(folder: Path) -> Results:
    with tempfile.TemporaryDirectory() as copy:
        shutil.copy(folder / "closed" / "studies.db", copy)
        return search(Path(copy) / "studies.db", Fit())


def expect_refusal_or_results(path: Path, expected: Results) -> Outcome:
    """Continues a search; fails unless the database is refused in one sentence, or ends with the expected results."""
    fit = Fit()
    try:
        results = search(path, fit)
    except UserError as error:
        expect_sentence(error, path)
        return Outcome.REFUSED
    assert results == expected, "results differ from those of an undisturbed search"
    return Outcome.REPAIRED if fit.calls else Outcome.CORRECT


def expect_sentence(error: UserError, path: Path) -> None:
    """Fails unless a refusal is one line that names the file, or the study in it, and says what to do."""
    text = str(error)
    assert "\n" not in text, text
    assert str(path) in text or "study demo/" in text, text
    assert ": " in text, text


def copy_database(attempt: Attempt) -> tuple[Path, Results]:
    """Copies a database; returns the file to damage, which may be its log, and the undisturbed results."""
    folder, expected = undisturbed(attempt)
    form = attempt.random.choice(["closed", "killed"])
    work = shutil.copytree(folder / form, attempt.folder / "work")
    return attempt.random.choice([file for file in sorted(work.glob("studies.db*")) if file.stat().st_size]), expected


@attack(Area.DISK, "one bit of the study's database flipped", tries=100, quick=2)
def flip_bit_in_database(attempt: Attempt) -> Outcome:
    target, expected = copy_database(attempt)
    content = bytearray(target.read_bytes())
    content[attempt.random.randrange(len(content))] ^= 1 << attempt.random.randrange(8)
    target.write_bytes(content)
    return expect_refusal_or_results(target.with_name("studies.db"), expected)


def _flip(value: object, chance: random.Random) -> object:
    """Returns a value of the database with one bit flipped."""
    if isinstance(value, float):
        return struct.unpack("<d", _flip_byte(struct.pack("<d", value), chance))[0]
    if isinstance(value, int):
        return value ^ 1 << chance.randrange(8)
    return _flip_byte(str(value).encode(), chance).decode("utf-8", "replace")


def _flip_byte(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


@attack(Area.DISK, "one bit of a value in the study's database flipped, its structure intact", tries=100, quick=2)
def flip_value_in_database(attempt: Attempt) -> Outcome:
    folder, expected = undisturbed(attempt)
    path = shutil.copytree(folder / "closed", attempt.folder / "work") / "studies.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        cells = [
            (table, column, row, value)
            for table in tables
            for column in [one[1] for one in connection.execute(f"PRAGMA table_info({table})")]
            for row, value in connection.execute(f"SELECT rowid, {column} FROM {table}")
            if value not in (None, "")
        ]
        # Columns in equal shares: most cells are scores of epochs.
        columns = sorted({cell[:2] for cell in cells})
        chosen = attempt.random.choice(columns)
        table, column, row, value = attempt.random.choice([cell for cell in cells if cell[:2] == chosen])
        with contextlib.suppress(sqlite3.IntegrityError), connection:
            flipped = _flip(value, attempt.random)
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (flipped, row))
    return expect_refusal_or_results(path, expected)


@attack(Area.DISK, "the study's database, or its log, cut at a random length", tries=40, quick=1)
def truncate_database(attempt: Attempt) -> Outcome:
    target, expected = copy_database(attempt)
    length = attempt.random.choice([0, attempt.random.randrange(target.stat().st_size)])
    with target.open("r+b") as file:
        file.truncate(length)
    return expect_refusal_or_results(target.with_name("studies.db"), expected)


_FOREIGN_TABLES = (
    "CREATE TABLE bookmarks (id INTEGER PRIMARY KEY, address TEXT)",
    "CREATE TABLE studies (id INTEGER PRIMARY KEY, title TEXT)",
    "CREATE TABLE trials (id INTEGER PRIMARY KEY, judge TEXT)",
    "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)",
)


@attack(Area.DISK, "a file of another kind, or another program's database, in place of the study's", tries=40, quick=1)
def replace_database(attempt: Attempt) -> Outcome:
    folder, _ = undisturbed(attempt)
    path = attempt.folder / "studies.db"
    kind = attempt.random.choice(["text", "bytes", "tables", "version", "folder"])
    if kind == "text":
        path.write_text("place, score\n" * attempt.random.randrange(1, 500))
    elif kind == "bytes":
        path.write_bytes(attempt.random.randbytes(attempt.random.randrange(1, 10_000)))
    elif kind == "folder":
        path.mkdir()
    else:
        if kind == "version":
            shutil.copy(folder / "closed" / "studies.db", path)
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            if kind == "version":
                connection.execute("UPDATE alembic_version SET version_num = 'v9.9.9'")
            else:
                for statement in attempt.random.sample(_FOREIGN_TABLES, attempt.random.randrange(1, 4)):
                    connection.execute(statement)
    before = hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b""
    try:
        search(path, Fit())
    except UserError as error:
        expect_sentence(error, path)
        after = hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b""
        assert after == before, "a file of another program was changed"
        return Outcome.REFUSED
    raise AssertionError(f"a file of the kind {kind} was accepted")


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Lets no file of this process grow above a size while the block lasts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@attack(Area.DISK, "a limit on file size reached while trials are stored, then the same again", tries=20, quick=1)
def limit_size_of_database(attempt: Attempt) -> Outcome:
    folder, expected = undisturbed(attempt)
    largest = max(file.stat().st_size for file in (folder / "killed").iterdir())
    path = attempt.folder / "studies.db"
    try:
        with file_size_limit(attempt.random.randrange(int(1.2 * largest))):
            search(path, Fit())
    except UserError as error:
        expect_sentence(error, path)
    fit = Fit()
    assert search(path, fit) == expected
    return Outcome.SAME


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path | None]:
    """Mounts a small file system while the block lasts; yields its folder, or None where nothing can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@attack(Area.DISK, "the disk full while trials are stored, or read-only, then the same again", tries=12, quick=1)
def fill_disk_of_database(attempt: Attempt) -> Outcome:
    folder, expected = undisturbed(attempt)
    largest = max(file.stat().st_size for file in (folder / "killed").iterdir()) // 1000
    size = 3 * largest
    with small_disk(attempt.folder / "disk", size) as disk:
        if disk is None:
            return Outcome.NOT_TRIED
        path = disk / "studies" / "studies.db"
        free = attempt.random.randrange(size)
        with (disk / "filler").open("wb") as filler:
            filler.write(bytes(1000 * (size - free)))
        refused = False
        try:
            search(path, Fit())
        except UserError as error:
            expect_sentence(error, path if str(path) in str(error) else path.parent)
            refused = True
        if not refused or attempt.random.random() < 0.3:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, capture_output=True)
            try:
                search(path, Fit())
            except UserError as error:
                expect_sentence(error, path.parent)
            else:
                raise AssertionError("a search on a read-only disk was not refused")
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True, capture_output=True)
        (disk / "filler").unlink()
        assert search(path, Fit()) == expected
    return Outcome.SAME
