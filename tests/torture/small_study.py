"""The small study that attacks disturb, and its undisturbed report."""

from __future__ import annotations

import shutil
from pathlib import Path

from study_processes import read_results
from worlds import small_copy

from hirise_imb.data import synthetic
from hirise_imb.utils.files import CACHE_VARIABLE
from torture.attacks import Attempt
from torture.commands import Finished, environment, finish, start

NAME = "demo"


def data(attempt: Attempt) -> Path:
    """Returns a data folder in the official layout with some 150 images of all classes."""

    def make(folder: Path) -> None:
        synthetic.write(folder / "whole")
        small_copy(next((folder / "whole").iterdir()), folder / "data", 4)
        shutil.rmtree(folder / "whole")

    return attempt.prepare("small-data", make) / "data"


def words(attempt: Attempt, out: Path, **others: object) -> list[object]:
    """Returns the arguments that run the study; others replace or follow those that it has."""
    options = {
        **{"name": NAME, "data": data(attempt), "out": out, "backbone": "toy", "weights": "random"},
        **{"strategies": "class_weights", "trials": 3, "refits": 2, "outer-folds": 2},
        **others,
    }
    return ["run", *(word for option, value in options.items() for word in (f"--{option}", value))]


def run(attempt: Attempt, out: Path) -> Finished:
    """Runs the study to its end, or continues it."""
    return finish(start(*words(attempt, out)))


def undisturbed(attempt: Attempt) -> Path:
    """Returns the output folder of a study that nothing disturbed; its feature cache is in `cache` next to it."""

    def make(folder: Path) -> None:
        env = environment(**{CACHE_VARIABLE: str(folder / "cache")})
        finish(start(*words(attempt, folder / "out"), env=env)).expect_success()

    return attempt.prepare("undisturbed", make) / "out"


def expect_same_report(attempt: Attempt, out: Path, name: str = NAME) -> None:
    """Fails unless the report of the study, under this name, equals the undisturbed one, but for times."""
    expected = read_results(undisturbed(attempt) / "reports" / NAME)
    actual = read_results(out / "reports" / name)
    # The summary has the name.
    actual = {key: content.replace(f'"{name}"'.encode(), f'"{NAME}"'.encode()) for key, content in actual.items()}
    assert actual.keys() == expected.keys()
    for name, content in expected.items():
        assert actual[name] == content, f"{name} differs from that of an undisturbed study"
