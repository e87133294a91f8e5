"""Trials whose stored values were changed do not count, and are trained again."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from fake_searches import FakeFit, all_trials, create_database, finished_trials, open_search, run_search

from hirise_imb.search import connect, open_database
from hirise_imb.search.digests import warn_of_damaged_trials
from hirise_imb.search.search import Search
from hirise_imb.utils.errors import UserError

TRIALS = 9
"""More than a round: the last trial depends on the others."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The database of a complete search."""
    path = create_database(tmp_path / "studies.db")
    run(path)
    return path


def run(path: Path, fit: FakeFit | None = None, trials: int = TRIALS) -> Search:
    """Runs a search to its end, or continues it."""
    with open_database(path) as storage:
        search = run_search(storage, trials, fit)
        search.finished_trials()
        return search


def execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement).rowcount


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE trial_values SET value = value - 0.125 WHERE trial_id = 3",
        "UPDATE trial_params SET param_value = param_value * 1.0001 WHERE trial_id = 3",
        "UPDATE trial_user_attributes SET value_json = '7' WHERE trial_id = 3 AND key = 'place'",
        "UPDATE trial_user_attributes SET key = 'plbce' WHERE trial_id = 3 AND key = 'place'",
        "DELETE FROM trial_system_attributes WHERE trial_id = 3",
        "DELETE FROM trial_intermediate_values WHERE trial_id = 3",
    ],
)
def test_a_changed_trial_is_trained_again(statement: str, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_database(path) as storage:
        expected = finished_trials(open_search(storage, TRIALS))
    execute(path, statement)
    with open_database(path) as storage:
        warn_of_damaged_trials(storage)
    fit = FakeFit()
    run(path, fit)
    assert len(fit.recipes) == 1
    with open_database(path) as storage:
        search = open_search(storage, TRIALS)
        assert finished_trials(search) == expected
        # The dashboard takes the changed trial for an interrupted one, and later runs do not mention it.
        assert [trial.state.name for trial in all_trials(search)] == [
            "FAIL" if number == 2 else "COMPLETE" for number in range(TRIALS + 1)
        ]
    messages = [record.getMessage() for record in caplog.records if "damaged" in record.getMessage()]
    assert messages == [
        f"Study demo/class_weights: damaged in the database{text}."
        for text in (": trial 2; the same run command trains what is damaged again", ", and trained again: trial 2")
    ]


def test_trials_of_a_version_without_digests_count(path: Path) -> None:
    for table in ("trial_system_attributes", "study_system_attributes"):
        execute(path, f"DELETE FROM {table} WHERE key LIKE 'hirise_imb:%'")
    for changed in (False, True):
        fit = FakeFit()
        run(path, fit)
        assert len(fit.recipes) == changed
        if not changed:  # their digests have been stored when they were first read
            execute(path, "UPDATE trial_values SET value = value - 0.125 WHERE trial_id = 3")


def test_a_row_that_cannot_be_decoded_is_refused(path: Path) -> None:
    execute(path, "UPDATE trials SET state = 'COMPLETD' WHERE trial_id = 3")
    with pytest.raises(UserError, match=r"studies\.db is damaged .* study demo/class_weights: .* restore a copy"):
        run(path)
    with open_database(path) as storage, pytest.raises(UserError, match=r"studies\.db is damaged"):
        warn_of_damaged_trials(storage)


def test_a_study_that_is_deleted_during_its_run_is_named(path: Path) -> None:
    def delete(index: int) -> None:
        other = connect(path)
        other.delete_study(other.get_study_id_from_name("demo/class_weights"))
        other.engine.dispose()

    with pytest.raises(UserError, match="a study was deleted while this command worked on it"):
        run(path, FakeFit(fails=delete), TRIALS + 1)
