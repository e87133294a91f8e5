"""The searches, with an invented objective: how many trials run, what survives an interruption, what is chosen."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from searches import ALL, CUTS, FACTS, WEIGHTS, Fits, do, fake_run, finished
from worlds import storage

from hirise_imb import search
from hirise_imb.errors import UserError
from hirise_imb.landmarks import CLASSES
from hirise_imb.search import Chosen, Storage, choose, open_study
from hirise_imb.strategies import STRATEGIES, Strategy
from hirise_imb.training import Job, Run


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Storage]:
    with storage(tmp_path / "studies" / "demo.db") as opened:
        yield opened


# --- how many trials run ---


def test_it_runs_as_many_trials_as_asked_for(store: Storage) -> None:
    fit, shown = Fits(), []
    study = do(store, 4, fit, shown=shown)
    assert len(fit.recipes) == len(finished(study)) == 4
    assert fit.rounds == [4]
    # It moves with the epochs too, and comes to the number of trials.
    assert shown == sorted(shown)
    assert 0 < shown[0] < 1
    assert shown[-1] == 4


def test_a_round_has_one_seed_and_the_recipes_of_its_trials(store: Storage) -> None:
    jobs: list[Job] = []

    def fit(some: Sequence[Job]) -> list[Run]:
        jobs.extend(some)
        return [fake_run(0.5) for _ in some]

    study = do(store, 4, fit, seed=3)
    assert {job.seed for job in jobs} == {3}
    assert [job.recipe.to_dict() for job in jobs] == [recipe for *_, recipe in finished(study)]


def test_a_finished_search_runs_nothing(store: Storage) -> None:
    before = finished(do(store, 4))
    fit, shown = Fits(), []
    for fewer in (4, 2):
        assert finished(do(store, fewer, fit, shown=shown)) == before
    assert not fit.recipes
    assert not shown


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=list(STRATEGIES))
def test_the_known_points_come_first_and_none_comes_twice(strategy: Strategy, store: Storage) -> None:
    trials = finished(do(store, 11, strategy=strategy))
    starts = strategy.starts(CUTS)
    for start, (_, params, *_) in zip(starts, trials, strict=False):
        assert start.items() <= params.items()
    free = [json.dumps(params) for _, params, *_ in trials if "split_file" not in params.values()]
    assert len(set(free)) == len(free)  # a sampler that starts over would repeat its first points


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=list(STRATEGIES))
def test_a_resumed_search_does_not_repeat_its_points(strategy: Strategy, store: Storage) -> None:
    for trials in range(1, 8):
        study = do(store, trials, strategy=strategy)
    sampled = finished(study)[len(strategy.starts(CUTS)) :]
    free = [json.dumps(params) for _, params, *_ in sampled if "split_file" not in params.values()]
    assert len(set(free)) == len(free) > 0


def test_the_seed_decides_what_is_sampled(store: Storage, tmp_path: Path) -> None:
    one = finished(do(store, 6))
    for name, seed, same in (("a.db", 0, True), ("b.db", 1, False)):
        with storage(tmp_path / name) as other:
            found = finished(do(other, 6, seed=seed))
        assert found[:3] == one[:3]
        assert (found[3:] == one[3:]) is same


# --- what a study was made with ---


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"data": "xyz", "seed": 0}, r"study demo/class_weights was made with data abc, not xyz: give .*--name.*--out"),
        ({"data": "abc", "seed": 1}, "made with seed 0, not 1"),
    ],
)
def test_other_facts_are_refused(facts: dict[str, str | int], message: str, store: Storage) -> None:
    before = finished(do(store, 2))
    with pytest.raises(UserError, match=message):
        open_study(store, "demo/class_weights", facts)
    study = open_study(store, "demo/class_weights", FACTS)  # and nothing was changed by that
    assert finished(study) == before
    assert study.user_attrs == FACTS


def test_studies_of_one_database_are_apart(store: Storage) -> None:
    do(store, 2)
    fit = Fits()
    do(store, 2, fit, strategy=STRATEGIES["focal_loss"])
    assert len(fit.recipes) == 2


# --- pruning and choosing ---


def scripted(values: Sequence[float]) -> Fits:
    left = iter(values)
    return Fits(value=lambda recipe: next(left))


def test_the_highest_is_chosen(store: Storage) -> None:
    study = do(store, 4, scripted([0.2, 0.7, 0.6, 0.1]))
    chosen = choose(study, WEIGHTS, CUTS, ALL)
    assert chosen.trial == 1
    assert chosen.val_macro_f1 == pytest.approx(0.7)
    assert chosen.settings == {"scheme": "inverse_power", "power": 0.5}
    assert chosen.recipe == WEIGHTS.recipe(optuna.trial.FixedTrial(chosen.settings), CUTS)
    assert [entry["state"] for entry in chosen.history] == ["complete"] * 4
    assert [entry["value"] for entry in chosen.history] == pytest.approx([0.2, 0.7, 0.6, 0.1])


def test_a_choice_among_fewer_trials_leaves_later_ones_aside(store: Storage) -> None:
    study = do(store, 4, scripted([0.2, 0.5, 0.6, 0.1]))
    chosen = choose(study, WEIGHTS, CUTS, 2)
    assert chosen.val_macro_f1 == pytest.approx(0.5)
    assert len(chosen.history) == 2


def test_of_equals_the_earliest_is_chosen(store: Storage) -> None:
    assert choose(do(store, 5, scripted([0.2, 0.7, 0.7, 0.1, 0.7])), WEIGHTS, CUTS, ALL).trial == 1


def test_the_place_of_the_chosen_does_not_count_failed_trials(store: Storage) -> None:
    with pytest.raises(KeyboardInterrupt):
        do(store, 3, Fits(dies_in=0))
    chosen = choose(do(store, 3, scripted([0.2, 0.3, 0.7])), WEIGHTS, CUTS, ALL)
    assert chosen.trial == 2
    assert len(chosen.history) == 3


class Worsening(Fits):
    """Eight good trials, then ones that report little for long; were they run to the end, they would win."""

    def __init__(self) -> None:
        super().__init__(epochs=15)

    def __call__(self, jobs: Sequence[Job]) -> list[Run]:
        good = not self.recipes
        self.value = lambda recipe: 0.5 if good else 0.1
        return [run if good or run.cut_short else fake_run(0.9) for run in super().__call__(jobs)]


def test_pruned_trials_count_and_are_never_chosen(store: Storage) -> None:
    fit = Worsening()
    study = do(store, 11, fit)
    assert [state for state, *_ in finished(study)] == ["COMPLETE"] * 8 + ["PRUNED"] * 3
    assert fit.lengths[:8] == [15] * 8
    assert all(5 < stopped < 15 for stopped in fit.lengths[8:])  # never in the first five epochs
    chosen = choose(study, WEIGHTS, CUTS, ALL)
    assert chosen.trial == 0
    assert [entry["state"] for entry in chosen.history] == ["complete"] * 8 + ["pruned"] * 3
    told = [0.1 * stopped / 15 for stopped in fit.lengths[8:]]  # the last that each reported
    assert [entry["value"] for entry in chosen.history] == pytest.approx([0.5] * 8 + told)
    assert all("seconds" in trial.user_attrs for trial in study.trials)
    again = Fits()
    do(store, 11, again)
    assert not again.recipes


def test_a_failure_is_recorded_and_not_hidden(store: Storage) -> None:
    with pytest.raises(FloatingPointError):
        do(store, 10, Fits(dies_in=8, error=FloatingPointError))
    study = optuna.load_study(study_name="demo/class_weights", storage=store)
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    assert states == [TrialState.COMPLETE] * 8 + [TrialState.FAIL] * 2  # the round that it was in


def test_trials_carry_what_the_dashboard_shows(store: Storage) -> None:
    study = do(store, 1, scripted([0.6]))
    [trial] = study.trials
    attributes = trial.user_attrs
    assert set(attributes) == {"recipe", "seconds", "best_epoch", *(f"f1/{name}" for name in CLASSES)}
    assert json.loads(json.dumps(attributes)) == attributes
    assert attributes["recipe"]["class_weights"] == {"kind": "InversePower", "power": 1.0}
    assert attributes["best_epoch"] == 3
    assert attributes["f1/spider"] == pytest.approx(0.6)
    assert study.metric_names == ["validation macro F1"]
    assert trial.intermediate_values == pytest.approx({1: 0.2, 2: 0.4, 3: 0.6})


def test_chosen_is_plain(store: Storage) -> None:
    chosen = choose(do(store, 2), WEIGHTS, CUTS, ALL)
    assert isinstance(chosen, Chosen)
    assert json.loads(json.dumps([chosen.settings, chosen.history, chosen.val_macro_f1]))


# --- the database ---


def test_only_one_run_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "demo.db"
    with (
        storage(path),
        pytest.raises(UserError, match=r"demo\.db is in use by another `study run`: wait"),
        storage(path),
    ):
        pass
    with storage(path) as store:  # and free again afterwards
        do(store, 1)


def test_another_process_keeps_it_too_and_a_dead_one_does_not(tmp_path: Path) -> None:
    path = tmp_path / "demo.db"
    script = (
        "import sys; from pathlib import Path; from hirise_imb.search import held\n"
        "with held(Path(sys.argv[1])):\n print('held', flush=True)\n sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="in use"), storage(path):
            pass
    finally:
        other.kill()
        other.communicate()
    with storage(path) as store:
        do(store, 1)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    content = b"no database at all, " * 100
    path = tmp_path / "demo.db"
    path.write_bytes(content)
    with (
        pytest.raises(UserError, match=r"demo\.db is no database of this Optuna version .*: move it away"),
        storage(path),
    ):
        pass
    assert path.read_bytes() == content


def test_a_database_of_another_optuna_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "demo.db"
    with storage(path) as store:
        do(store, 1)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE version_info SET schema_version = 99")
        database.execute("UPDATE alembic_version SET version_num = 'v99.0.0'")
    database.close()
    with pytest.raises(UserError, match=r"demo\.db is no database of this Optuna version"), storage(path):
        pass


def test_a_reader_does_not_stop_the_search(store: Storage, tmp_path: Path) -> None:
    """The dashboard reads while trials are written, and may be slow about it."""
    reader = sqlite3.connect(tmp_path / "studies" / "demo.db", isolation_level=None)
    seen: list[int] = []

    def fit(jobs: Sequence[Job]) -> list[Run]:
        if not seen:
            reader.execute("BEGIN")
        seen.append(len(reader.execute("SELECT * FROM trials").fetchall()))
        return [fake_run(0.5) for _ in jobs]

    try:
        assert len(finished(do(store, 18, fit))) == 18
        assert seen == [8, 8, 8]  # what was there when it began to read
        reader.execute("COMMIT")
        assert len(reader.execute("SELECT * FROM trials").fetchall()) == 18
    finally:
        reader.close()
    assert search.FINISHED == (TrialState.COMPLETE, TrialState.PRUNED)


def test_the_database_is_written_ahead(store: Storage, tmp_path: Path) -> None:
    do(store, 1)
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1  # NORMAL
    other = sqlite3.connect(tmp_path / "studies" / "demo.db")
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()
