"""The disk is full, or files may not grow, at a random write: afterwards the same command finishes."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from handmade import without_figures

from hirise_imb.data.hirise import HIRISE
from hirise_imb.utils.files import CACHE_VARIABLE
from torture import small_study
from torture.attacks import Area, Attempt, Outcome, attack
from torture.commands import Finished, call, environment, finish, start
from torture.disk import deadline, known_toy, run_program, undisturbed_model


@contextmanager
def _limit_file_size(size: int) -> Iterator[None]:
    """No file may become larger than this, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _commands(attempt: Attempt, out: Path) -> dict[str, Callable[[], Finished]]:
    """Returns commands that write into a new folder, by name."""
    data, model, zipped = small_study.data(attempt), undisturbed_model(attempt), _zip(attempt)
    images = data / HIRISE.layout.image_folder
    report = small_study.undisturbed(attempt) / "reports" / small_study.NAME
    other = attempt.prepare("copied-report", lambda folder: shutil.copytree(report, folder))
    shutil.copytree(report, out / "report")
    return {
        "import": lambda: call("data", "import", zipped),
        "rebuild": lambda: call("report", out / "report"),
        "predict": lambda: call("predict", model, images, "--out", out / "p.parquet"),
        "export": lambda: call("export", model, "--format", "keras", "--out", out / "network.keras"),
        "compare": lambda: call("compare", report, other, "--name", "twice", "--out", out),
    }


def _zip(attempt: Attempt) -> Path:
    def make(folder: Path) -> None:
        folder.mkdir()
        shutil.make_archive(str(folder / "data"), "zip", small_study.data(attempt).parent, "data")

    return attempt.prepare("zipped-data", make) / "data.zip"


def _list(*folders: Path) -> list[str]:
    """Returns the paths of all files but locks and times."""
    paths = [str(path.relative_to(folder)) for folder in folders for path in folder.rglob("*") if path.is_file()]
    return sorted(path for path in paths if not path.endswith(".lock"))


@attack(
    Area.DISK,
    "No file may grow beyond a random size: imported data, predictions, exports, reports",
    tries=12,
    quick=1,
)
def limit_file_size(attempt: Attempt) -> Outcome:
    out, fresh = attempt.folder / "out", attempt.folder / "fresh"
    commands, undisturbed = _commands(attempt, out), _commands(attempt, fresh)
    name = attempt.random.choice(sorted(commands))
    cache = Path(os.environ[CACHE_VARIABLE])
    with known_toy(), deadline(), without_figures():
        with _limit_file_size(int(10 ** attempt.random.uniform(0, 6))):
            finished = commands[name]()
        if finished.code:
            finished.expect_sentence()
            commands[name]().expect_success()
        files = _list(out, cache)
        shutil.rmtree(cache, ignore_errors=True)
        undisturbed[name]().expect_success()
    assert files == _list(fresh, cache), name
    for path in fresh.rglob("*.parquet"):
        assert path.read_bytes() == (out / path.relative_to(fresh)).read_bytes(), path
    return Outcome.REFUSED if finished.code else Outcome.CORRECT


@attack(
    Area.DISK,
    "The disk is full at a random write of a run; some space is freed, then the same command",
    tries=4,
    quick=0,
)
def fill_disk(attempt: Attempt) -> Outcome:
    place = attempt.folder / "disk"
    place.mkdir()
    cache = Path(shutil.copytree(small_study.undisturbed(attempt).parent / "cache", attempt.folder / "cache"))
    env = environment(**{CACHE_VARIABLE: str(cache)})
    # The first sizes are too small for the database, most for the fits, the last ones for the report.
    is_disk = run_program("mount", "-t", "tmpfs", "-o", f"size={attempt.random.randrange(20, 3000)}k", "none", place)
    try:
        if is_disk:
            finished = finish(start(*small_study.words(attempt, place), env=env))
            assert run_program("mount", "-o", "remount,size=1g", place)
        else:  # without the right to mount
            with _limit_file_size(int(10 ** attempt.random.uniform(3, 6))):
                finished = finish(start(*small_study.words(attempt, place), env=env))
        if finished.code:
            assert "Traceback" not in finished.err, finished.err
            assert finished.code == 2, finished
        finish(start(*small_study.words(attempt, place), env=env)).expect_success()
        small_study.expect_same_report(attempt, place)
    finally:
        assert not is_disk or run_program("umount", place)
    return Outcome.SAME


@attack(Area.DISK, "No file of a run may grow beyond a random size, then the same command", tries=3, quick=0)
def limit_file_size_of_run(attempt: Attempt) -> Outcome:
    small_study.undisturbed(attempt)
    with _limit_file_size(int(10 ** attempt.random.uniform(1, 6))):  # child processes get the limit
        finished = finish(start(*small_study.words(attempt, attempt.folder)))
    if finished.code:
        assert "Traceback" not in finished.err, finished.err
        assert finished.code == 2, finished
    small_study.run(attempt, attempt.folder).expect_success()
    small_study.expect_same_report(attempt, attempt.folder)
    return Outcome.SAME
