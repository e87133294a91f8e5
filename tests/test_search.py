"""The searches, with an invented objective: how many trials run, what survives an interruption, what is chosen."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import sqlalchemy
from optuna.trial import TrialState
from worlds import storage

from hirise_imb import search
from hirise_imb.errors import UserError
from hirise_imb.landmarks import CLASSES
from hirise_imb.recipe import Recipe
from hirise_imb.search import FINISHED, Chosen, Storage, choose, open_study, run_trials
from hirise_imb.strategies import STRATEGIES, Strategy
from hirise_imb.training import OnEpoch, Run

CUTS = ("late", "early")
ALL = 1000
"""More trials than any study here has."""
FACTS: dict[str, str | int] = {"data": "abc", "seed": 0}
WEIGHTS = STRATEGIES["class_weights"]


def fake_run(f1: float) -> Run:
    """A run whose validation macro F1 is `f1`, up to the grain of 1000 rows a class."""
    hits = round(1000 * f1)
    confusion = np.diag(np.full(len(CLASSES), hits))
    confusion += np.roll(np.diag(np.full(len(CLASSES), 1000 - hits)), 1, axis=1)
    return Run(seed=0, history=pd.DataFrame(), best_epoch=3, val_confusion=confusion, test=None, seconds=1.5)


def quality(recipe: Recipe) -> float:
    """Deterministic, with one peak, from what the strategies vary."""
    numbers = [value for value in flatten(recipe.to_dict()) if isinstance(value, float)]
    return float(0.5 + 0.4 * np.cos(3 * sum(numbers)))


def flatten(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from flatten(inner)
    else:
        yield value


@dataclass
class Fits:
    """The objective; notes what it is asked for, and may stop the process in one of its calls."""

    value: Callable[[Recipe], float] = quality
    dies_in: int | None = None
    error: type[BaseException] = KeyboardInterrupt
    recipes: list[Recipe] = field(default_factory=list)

    def __call__(self, recipe: Recipe, on_epoch: OnEpoch) -> Run:
        self.recipes.append(recipe)
        value = self.value(recipe)
        for epoch in range(1, 4):
            on_epoch(epoch, value * epoch / 3)
            if epoch == 2 and len(self.recipes) - 1 == self.dies_in:
                raise self.error
        return fake_run(value)


def do(
    store: Storage,
    trials: int,
    fit: Any = None,  # noqa: ANN401
    *,
    strategy: Strategy = WEIGHTS,
    seed: int = 0,
    shown: list[float] | None = None,
) -> optuna.Study:
    study = open_study(store, f"demo/{strategy.name}", FACTS)
    run_trials(study, strategy, CUTS, trials, seed, fit or Fits(), (shown if shown is not None else []).append)
    return study


def finished(study: optuna.Study) -> list[tuple[str, Mapping[str, object], float | None]]:
    trials = study.get_trials(deepcopy=False, states=FINISHED)
    return [(trial.state.name, trial.params, trial.value) for trial in trials]


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk() -> Iterator[None]:
    """No test here is about power cuts; without this, most of the time goes into fsync."""

    def hasten(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "connect", hasten)
    yield
    sqlalchemy.event.remove(sqlalchemy.engine.Engine, "connect", hasten)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Storage]:
    with storage(tmp_path / "studies" / "demo.db") as opened:
        yield opened


# --- how many trials run ---


def test_it_runs_as_many_trials_as_asked_for(store: Storage) -> None:
    fit, shown = Fits(), []
    study = do(store, 4, fit, shown=shown)
    assert len(fit.recipes) == len(finished(study)) == 4
    assert shown == [1, 2, 3, 4]


def test_a_finished_search_runs_nothing(store: Storage) -> None:
    before = finished(do(store, 4))
    fit, shown = Fits(), []
    for fewer in (4, 2):
        assert finished(do(store, fewer, fit, shown=shown)) == before
    assert not fit.recipes
    assert not shown


def test_asking_for_more_goes_on(store: Storage, tmp_path: Path) -> None:
    first = finished(do(store, 3))
    fit = Fits()
    longer = finished(do(store, 9, fit))
    assert len(fit.recipes) == 6
    assert longer[:3] == first
    with storage(tmp_path / "at-once.db") as other:
        assert finished(do(other, 9)) == longer


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=list(STRATEGIES))
def test_the_known_points_come_first_and_none_comes_twice(strategy: Strategy, store: Storage) -> None:
    trials = finished(do(store, 11, strategy=strategy))
    starts = strategy.starts(CUTS)
    for start, (_, params, _) in zip(starts, trials, strict=False):
        assert start.items() <= params.items()
    free = [json.dumps(params) for _, params, _ in trials if "split_file" not in params.values()]
    assert len(set(free)) == len(free)  # a sampler that starts over would repeat its first points


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=list(STRATEGIES))
def test_a_resumed_search_does_not_repeat_its_points(strategy: Strategy, store: Storage) -> None:
    for trials in range(1, 8):
        study = do(store, trials, strategy=strategy)
    sampled = finished(study)[len(strategy.starts(CUTS)) :]
    free = [json.dumps(params) for _, params, _ in sampled if "split_file" not in params.values()]
    assert len(set(free)) == len(free) > 0


def test_the_seed_decides_what_is_sampled(store: Storage, tmp_path: Path) -> None:
    one = finished(do(store, 6))
    for name, seed, same in (("a.db", 0, True), ("b.db", 1, False)):
        with storage(tmp_path / name) as other:
            found = finished(do(other, 6, seed=seed))
        assert found[:3] == one[:3]
        assert (found[3:] == one[3:]) is same


# --- interruptions ---


@pytest.mark.parametrize("strategy", [WEIGHTS, STRATEGIES["partial_unfreeze"]], ids=lambda strategy: strategy.name)
@pytest.mark.parametrize(("at", "error"), [(0, KeyboardInterrupt), (9, MemoryError)])
def test_an_interrupted_search_ends_as_an_undisturbed_one(
    error: type[BaseException], at: int, strategy: Strategy, store: Storage, tmp_path: Path
) -> None:
    with pytest.raises(error):
        do(store, 12, Fits(dies_in=at, error=error), strategy=strategy)
    study = do(store, 12, strategy=strategy)
    with storage(tmp_path / "undisturbed.db") as other:
        undisturbed = do(other, 12, strategy=strategy)
        assert finished(study) == finished(undisturbed)
        assert choose(study, strategy, CUTS, ALL) == choose(undisturbed, strategy, CUTS, ALL)
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    assert states.count(TrialState.FAIL) == 1
    assert TrialState.RUNNING not in states


def test_interrupted_again_and_again(store: Storage, tmp_path: Path) -> None:
    for _ in range(5):  # one trial gets done between two interruptions
        with pytest.raises(KeyboardInterrupt):
            do(store, 10, Fits(dies_in=1))
    study = do(store, 10)
    with storage(tmp_path / "undisturbed.db") as other:
        assert finished(study) == finished(do(other, 10))


def test_a_trial_of_a_killed_process_counts_for_nothing(store: Storage) -> None:
    study = do(store, 2)
    study.ask()
    study.ask()
    fit = Fits()
    study = do(store, 3, fit)
    assert len(fit.recipes) == 1
    assert [trial.state.name for trial in study.get_trials(deepcopy=False)] == ["COMPLETE"] * 2 + ["FAIL"] * 2 + [
        "COMPLETE"
    ]


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


def slow_then_bad(number: list[int]) -> Callable[[Recipe, OnEpoch], Run]:
    """Five good trials, then ones that report little for long; were they run to the end, they would win."""

    def fit(recipe: Recipe, on_epoch: OnEpoch) -> Run:
        number.append(0)
        good = len(number) <= 5
        for epoch in range(1, 16):
            number[-1] = epoch
            on_epoch(epoch, 0.5 if good else 0.1)
        return fake_run(0.5 if good else 0.9)

    return fit


def test_pruned_trials_count_and_are_never_chosen(store: Storage) -> None:
    epochs: list[int] = []
    study = do(store, 8, slow_then_bad(epochs))
    assert [state for state, _, _ in finished(study)] == ["COMPLETE"] * 5 + ["PRUNED"] * 3
    assert epochs[:5] == [15] * 5
    assert all(5 < stopped < 15 for stopped in epochs[5:])  # never in the first five epochs
    chosen = choose(study, WEIGHTS, CUTS, ALL)
    assert chosen.trial == 0
    assert [entry["state"] for entry in chosen.history] == ["complete"] * 5 + ["pruned"] * 3
    assert [entry["value"] for entry in chosen.history] == pytest.approx([0.5] * 5 + [0.1] * 3)
    assert all("seconds" in trial.user_attrs for trial in study.trials)
    again: list[int] = []
    do(store, 8, slow_then_bad(again))
    assert not again


def test_a_failure_is_recorded_and_not_hidden(store: Storage) -> None:
    with pytest.raises(FloatingPointError):
        do(store, 2, Fits(dies_in=0, error=FloatingPointError))
    study = open_study(store, "demo/class_weights", FACTS)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL]


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
    """The dashboard reads while trials are written; SQLite would answer "database is locked" without its timeout."""
    reader = sqlite3.connect(tmp_path / "studies" / "demo.db", check_same_thread=False)

    def fit(recipe: Recipe, on_epoch: OnEpoch) -> Run:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM trials").fetchall()
        reader.execute("COMMIT")
        return fake_run(0.5)

    try:
        assert len(finished(do(store, 3, fit))) == 3
    finally:
        reader.close()
    assert store.engine.dialect.name == "sqlite"
    assert search.FINISHED == (TrialState.COMPLETE, TrialState.PRUNED)
