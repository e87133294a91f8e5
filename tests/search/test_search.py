"""The searches, with an invented objective: how many trials run, which count, what is chosen."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna
import pytest
from searches import CONTEXT, FACTS, WEIGHTS, Fits, do, everything, fake_run, finished, search, settings, states
from worlds import storage

from hirise_imb.data.hirise import CLASSES
from hirise_imb.search.database import Storage
from hirise_imb.search.leases import Leases
from hirise_imb.search.search import VERSION, SearchResult, lock_study, open_study
from hirise_imb.strategies import CONTROL, STRATEGIES, Strategy
from hirise_imb.strategies.parameters import Float
from hirise_imb.training.epoch_loop import HEADS_PER_BATCH, Failed, Job
from hirise_imb.training.trainer import Run
from hirise_imb.utils.errors import UserError

EACH = pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=list(STRATEGIES))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Storage]:
    with storage(tmp_path / "studies" / "demo.db") as opened:
        yield opened


# --- how many trials run, and what they try ---


def test_it_runs_as_many_trials_as_asked_for(store: Storage) -> None:
    fit, shown = Fits(), []
    one = do(store, 4, fit, shown=shown)
    assert len(fit.recipes) == len(finished(one)) == 4
    assert fit.units == [4]
    # It moves with the epochs too, and comes to the number of trials.
    assert shown == sorted(shown)
    assert 0 < shown[0] < 1
    assert shown[-1] == 4


def test_a_unit_has_one_seed_and_the_recipes_of_its_trials(store: Storage) -> None:
    jobs: list[Job] = []

    def fit(some: Sequence[Job]) -> list[Run]:
        jobs.extend(some)
        return [fake_run(0.5) for _ in some]

    one = do(store, 4, fit, seed=3)
    assert {job.seed for job in jobs} == {3}
    assert [job.recipe.to_dict() for job in jobs] == [entry[4] for entry in finished(one)]


def test_a_finished_search_runs_nothing(store: Storage) -> None:
    before = finished(do(store, 4))
    fit, shown = Fits(), []
    for fewer in (4, 2):
        assert finished(do(store, fewer, fit, shown=shown)) == before
    assert not fit.units
    assert not shown


@EACH
def test_the_known_points_come_first_and_none_comes_twice(strategy: Strategy, store: Storage) -> None:
    tried = settings(do(store, 11, strategy=strategy))
    known = [strategy.space.complete(point) for point in ({}, *strategy.initial_points())]
    assert tried[: len(known)] == known
    assert all(strategy.space.complete(one) == one for one in tried)  # whole, and nothing beside
    if any(isinstance(parameter, Float) for parameter in strategy.space):
        # A sampler that starts over would repeat its first points.
        assert len({json.dumps(one, sort_keys=True) for one in tried}) == len(tried)


def test_starts_come_first_however_many_there_are(store: Storage) -> None:
    class Many(type(WEIGHTS)):  # type: ignore[misc]
        def initial_points(self) -> list[dict[str, float]]:
            return [{"power": place / 10} for place in range(12)]

    tried = settings(do(store, 16, strategy=Many()))
    assert [one.get("power") for one in tried[:13]] == [1.0, *(place / 10 for place in range(12))]


@pytest.mark.parametrize("name", ["class_weights", "prototypes", "combined"])
def test_settings_that_depend_on_others_are_modelled_with_them(
    name: str, store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sampler treats none that it has seen as if it stood alone."""
    alone: list[str] = []
    original = optuna.samplers.TPESampler.sample_independent

    def counting(self: optuna.samplers.TPESampler, study: object, trial: object, name: str, space: object) -> object:
        alone.append(name)
        return original(self, study, trial, name, space)  # type: ignore[arg-type]

    one = do(store, HEADS_PER_BATCH, strategy=STRATEGIES[name])
    seen = {name for some in settings(one) for name in some}
    monkeypatch.setattr(optuna.samplers.TPESampler, "sample_independent", counting)
    do(store, 2 * HEADS_PER_BATCH, strategy=STRATEGIES[name])
    assert not seen & set(alone)
    conditional = {parameter.name for parameter in STRATEGIES[name].space if parameter.when}
    assert seen & conditional


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
        ({"data": "abc", "seed": 0, "selection": "val"}, "made with selection of an earlier version, not val"),
    ],
)
def test_other_facts_are_refused(facts: dict[str, str | int], message: str, store: Storage) -> None:
    before = finished(do(store, 2))
    with pytest.raises(UserError, match=message):
        open_study(store, "demo/class_weights", facts)
    study = open_study(store, "demo/class_weights", FACTS)  # and nothing was changed by that
    assert finished(search(store, 2)) == before
    assert study.user_attrs == {"facts": {"search": VERSION, **FACTS}}


def test_a_search_of_an_earlier_version_is_refused(store: Storage) -> None:
    """Its facts were attributes of the study, and its trials had no places."""
    study = optuna.create_study(storage=store, study_name="demo/class_weights", direction="maximize")
    study.set_user_attr("data", "abc")
    study.add_trial(optuna.trial.create_trial(value=0.5))
    with pytest.raises(UserError, match=f"made with search of an earlier version, not {VERSION}: give"):
        open_study(store, "demo/class_weights", FACTS)
    assert optuna.load_study(study_name="demo/class_weights", storage=store).user_attrs == {"data": "abc"}


def test_studies_of_one_database_are_apart(store: Storage) -> None:
    do(store, 2)
    fit = Fits()
    do(store, 2, fit, strategy=STRATEGIES["focal_loss"])
    assert len(fit.recipes) == 2


# --- pruning, failing and choosing ---


def scripted(values: Sequence[float], **options: object) -> Fits:
    left = iter(values)
    return Fits(value=lambda recipe: next(left), **options)  # type: ignore[arg-type]


def chosen_of(one: object) -> SearchResult:
    assert isinstance(one, SearchResult)
    return one


def test_the_highest_is_chosen(store: Storage) -> None:
    chosen = chosen_of(do(store, 4, scripted([0.2, 0.7, 0.6, 0.1])).choose())
    assert chosen.trial == 1
    assert chosen.val_macro_f1 == pytest.approx(0.7)
    assert chosen.settings == WEIGHTS.space.complete({"power": 0.5})
    assert chosen.recipe == WEIGHTS.recipe(chosen.settings, CONTEXT)
    assert [entry["state"] for entry in chosen.history] == ["complete"] * 4
    assert [entry["value"] for entry in chosen.history] == pytest.approx([0.2, 0.7, 0.6, 0.1])


def test_a_choice_among_fewer_trials_leaves_later_ones_aside(store: Storage) -> None:
    do(store, 4, scripted([0.2, 0.5, 0.6, 0.1]))
    chosen = chosen_of(search(store, 2).choose())
    assert chosen.val_macro_f1 == pytest.approx(0.5)
    assert len(chosen.history) == 2


def test_of_equals_the_earliest_is_chosen(store: Storage) -> None:
    assert chosen_of(do(store, 5, scripted([0.2, 0.7, 0.7, 0.1, 0.7])).choose()).trial == 1


def test_the_place_of_the_chosen_does_not_count_interrupted_trials(store: Storage) -> None:
    with pytest.raises(KeyboardInterrupt):
        do(store, 3, Fits(dies_in=0))
    chosen = chosen_of(do(store, 3, scripted([0.2, 0.3, 0.7])).choose())
    assert chosen.trial == 2
    assert len(chosen.history) == 3


class Worsening(Fits):
    """Eight good trials, then ones that report little for long; were they run to the end, they would win."""

    def __init__(self) -> None:
        super().__init__(epochs=15)

    def __call__(self, jobs: Sequence[Job]) -> list[Run | Failed]:
        good = not self.recipes
        self.value = lambda recipe: 0.5 if good else 0.1
        runs = super().__call__(jobs)
        return [run if good or (isinstance(run, Run) and run.cut_short) else fake_run(0.9) for run in runs]


def test_pruned_trials_count_and_are_never_chosen(store: Storage) -> None:
    fit = Worsening()
    one = do(store, 11, fit)
    assert states(one.study) == ["COMPLETE"] * 8 + ["PRUNED"] * 3
    assert fit.lengths[:8] == [15] * 8
    assert all(5 < stopped < 15 for stopped in fit.lengths[8:])  # never in the first five epochs
    chosen = chosen_of(one.choose())
    assert chosen.trial == 0
    assert [entry["state"] for entry in chosen.history] == ["complete"] * 8 + ["pruned"] * 3
    assert [entry["value"] for entry in chosen.history] == pytest.approx([0.5] * 8 + [0.1] * 3)  # of the best epoch
    assert chosen.seconds == pytest.approx(11 * 1.5)
    again = Fits()
    do(store, 11, again)
    assert not again.units


def test_a_run_that_comes_to_nothing_is_recorded_and_goes_on_record_once(store: Storage) -> None:
    reasons = {1: "there are no pairs", 6: "the loss is no number"}
    fit = scripted([0.2, 0.9, 0.3, 0.1, 0.4, 0.3, 0.8, 0.2, 0.3, 0.3], fails=reasons.get)
    one = do(store, 10, fit)
    assert len(fit.recipes) == 10
    assert states(one.study) == ["COMPLETE", "FAIL", *["COMPLETE"] * 4, "FAIL", *["COMPLETE"] * 3]
    failed = {place: entry[5] for place, entry in enumerate(finished(one)) if entry[5] is not None}
    assert failed == reasons
    again = Fits()
    assert finished(do(store, 10, again)) == finished(one)
    assert not again.units
    chosen = chosen_of(one.choose())
    assert chosen.trial == 4  # neither 1 nor 6
    assert len(chosen.history) == 10
    assert chosen.history[6] == {"state": "fail", "value": None, "error": "the loss is no number"}
    assert all("error" not in chosen.history[place] for place in range(10) if place not in reasons)


def test_what_failed_tells_the_sampler_and_the_pruner_nothing(store: Storage, tmp_path: Path) -> None:
    """It is as good as not seen: whatever it reported before it failed."""
    found = []
    for number, high in enumerate((0.99, 0.01)):
        with storage(tmp_path / f"{number}.db") as other:
            values = iter([0.2, high, 0.3, 0.1, 0.4, 0.3, 0.3, 0.2, *[0.25] * 8])
            fit = Fits(lambda recipe, values=values: next(values), {1: "no pairs"}.get, epochs=12)  # type: ignore[misc]
            found.append((finished(do(other, 16, fit)), fit.lengths))
    assert found[0] == found[1]


def test_where_all_failed_the_first_reason_is_told(store: Storage) -> None:
    one = do(store, 10, Fits(fails=lambda place: f"reason {place}"))
    assert one.choose() == Failed("reason 0")
    assert states(one.study) == ["FAIL"] * 10


def test_nothing_is_chosen_from_nothing(store: Storage) -> None:
    one = search(store, 3)
    assert not one.done()
    assert one.choose() == Failed("no trial was finished in time")


def test_what_was_pruned_is_no_choice_even_alone(store: Storage) -> None:
    study = search(store, 1).study
    recipe = WEIGHTS.recipe(WEIGHTS.space.complete({}), CONTEXT).to_dict()
    pruned = optuna.trial.TrialState.PRUNED
    study.add_trial(optuna.trial.create_trial(state=pruned, value=0.5, user_attrs={"place": 0, "recipe": recipe}))
    assert isinstance(search(store, 1).choose(), Failed)


def test_an_error_is_recorded_and_not_hidden(store: Storage) -> None:
    with pytest.raises(FloatingPointError):
        do(store, 10, Fits(dies_in=8, error=FloatingPointError))
    study = optuna.load_study(study_name="demo/class_weights", storage=store)
    assert states(study) == ["COMPLETE"] * 8 + ["FAIL"] * 2  # the unit that it was in
    assert not any({"error", "lost"} & set(trial.user_attrs) for trial in everything(study))  # it may come out well


def test_trials_carry_what_the_dashboard_shows(store: Storage) -> None:
    study = do(store, 1, scripted([0.6])).study
    [trial] = study.trials
    attributes = trial.user_attrs
    assert set(attributes) == {"place", "recipe", "seconds", "best_epoch", *(f"f1/{name}" for name in CLASSES)}
    assert json.loads(json.dumps(attributes)) == attributes
    assert attributes["recipe"]["class_weights"] == {"kind": "InversePower", "power": 1.0, "unit": "landmarks"}
    assert attributes["place"] == 0
    assert attributes["best_epoch"] == 3
    assert attributes["f1/spider"] == pytest.approx(0.6)
    assert study.metric_names == ["validation macro F1"]
    assert trial.intermediate_values == pytest.approx({1: 0.2, 2: 0.4, 3: 0.6})


def test_a_run_is_published_before_its_trial_ends(store: Storage) -> None:
    one, seen = search(store, 3), []

    def publish(trial: optuna.trial.FrozenTrial, run: Run) -> None:
        seen.append((trial.user_attrs["place"], trial.state.name, round(run.val_macro_f1, 6)))
        assert trial.user_attrs["best_epoch"] == 3

    fit = scripted([0.2, 0.7, 0.6], fails={1: "no pairs"}.get)
    assert one.work(Leases(store.engine), fit, lambda done: None, publish)
    assert seen == [(0, "RUNNING", 0.2), (2, "RUNNING", 0.6)]


def test_a_strategy_that_starts_from_another_takes_its_recipe(store: Storage) -> None:
    one = do(store, 2, strategy=STRATEGIES["logit_adjustment"])
    base = CONTEXT.bases[CONTROL].to_dict()
    for entry in finished(one):
        recipe = entry[4]
        assert isinstance(recipe, dict)
        assert {name for name in base if recipe[name] != base[name]} == {"adjustment"}


def test_chosen_is_plain(store: Storage) -> None:
    chosen = chosen_of(do(store, 2).choose())
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


def test_studies_whose_names_differ_after_a_dot_run_beside_each_other(tmp_path: Path) -> None:
    with (
        lock_study(tmp_path / "v3.1"),
        lock_study(tmp_path / "v3.2"),
        pytest.raises(UserError),
        lock_study(tmp_path / "v3.1"),
    ):
        pass


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
