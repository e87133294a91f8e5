"""Searches with an invented objective: how many trials run, which ones count, which one is chosen."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import optuna
import pytest
from fake_searches import (
    CONTEXT,
    FACTS,
    TRAINED,
    FakeFit,
    finished_trials,
    make_validation,
    open_search,
    open_storage,
    run_search,
    trial_states,
    tried_settings,
)

from hirise_imb.data.hirise import HIRISE
from hirise_imb.recipe import Recipe
from hirise_imb.search.database import Storage, lock_study
from hirise_imb.search.leases import Leases
from hirise_imb.search.proposals import TRIALS_PER_ROUND
from hirise_imb.search.trial_store import VERSION, open_trial_store
from hirise_imb.strategies import CONTROL, STRATEGIES, Strategy
from hirise_imb.training.epoch_loop import OnEpoch
from hirise_imb.training.trainer import CrossValidation
from hirise_imb.utils.errors import FitFailed, UserError

EACH = pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=list(STRATEGIES))


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with open_storage(tmp_path / "studies" / "demo.db") as opened:
        yield opened


# --- how many trials run, and what they try ---


def test_it_runs_as_many_trials_as_asked_for(storage: Storage) -> None:
    fit = FakeFit()
    shown: list[float] = []
    search = run_search(storage, 4, fit, progress=shown)
    assert len(fit.recipes) == len(finished_trials(search)) == 4
    # Progress grows with the epochs too, and ends at the number of trials.
    assert shown == sorted(shown)
    assert 0 < shown[0] < 1
    assert shown[-1] == 4


def test_the_recipes_that_are_fitted_are_those_of_the_trials(storage: Storage) -> None:
    fit = FakeFit()
    search = run_search(storage, 4, fit)
    assert [recipe.to_dict() for recipe in fit.recipes] == [entry[4] for entry in finished_trials(search)]


def test_a_finished_search_runs_nothing(storage: Storage) -> None:
    before = finished_trials(run_search(storage, 4))
    fit = FakeFit()
    shown: list[float] = []
    for fewer in (4, 2):
        assert finished_trials(run_search(storage, fewer, fit, progress=shown)) == before
    assert not fit.recipes
    assert not shown


@EACH
def test_the_initial_points_come_first_and_none_comes_twice(strategy: Strategy, storage: Storage) -> None:
    tried = tried_settings(run_search(storage, 11, strategy=strategy))
    initial_points = [strategy.space.complete(point) for point in ({}, *strategy.initial_points())]
    assert tried[: len(initial_points)] == initial_points
    assert all(strategy.space.complete(one) == one for one in tried)  # complete, and nothing else
    # A sampler that started anew each round would repeat its first points.
    assert len({json.dumps(one, sort_keys=True) for one in tried}) == len(tried)


def test_initial_points_come_first_however_many_there_are(storage: Storage) -> None:
    class ManyInitialPoints(type(TRAINED)):  # type: ignore[misc]
        def initial_points(self) -> list[dict[str, float]]:
            return [{"power": place / 10} for place in range(12)]

    tried = tried_settings(run_search(storage, 16, strategy=ManyInitialPoints()))
    assert [one.get("power") for one in tried[:13]] == [1.0, *(place / 10 for place in range(12))]


@pytest.mark.parametrize("name", ["class_weights", "prototypes", "combined"])
def test_conditional_settings_are_modelled_with_those_they_depend_on(
    name: str, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sampler draws no setting that it has seen before as if it were independent of the others."""
    independent: list[str] = []
    original = optuna.samplers.TPESampler.sample_independent

    def record(self: optuna.samplers.TPESampler, study: object, trial: object, name: str, space: object) -> object:
        independent.append(name)
        return original(self, study, trial, name, space)  # type: ignore[arg-type]

    search = run_search(storage, TRIALS_PER_ROUND, strategy=STRATEGIES[name])
    seen = {name for settings in tried_settings(search) for name in settings}
    monkeypatch.setattr(optuna.samplers.TPESampler, "sample_independent", record)
    run_search(storage, 2 * TRIALS_PER_ROUND, strategy=STRATEGIES[name])
    assert not seen & set(independent)
    conditional = {parameter.name for parameter in STRATEGIES[name].space if parameter.when}
    assert seen & conditional


def test_the_seed_decides_what_is_sampled(storage: Storage, tmp_path: Path) -> None:
    expected = finished_trials(run_search(storage, 6))
    for name, seed, same in (("a.db", 0, True), ("b.db", 1, False)):
        with open_storage(tmp_path / name) as other:
            trials = finished_trials(run_search(other, 6, seed=seed))
        assert trials[:3] == expected[:3]  # initial points
        assert (trials[3:] == expected[3:]) is same


# --- continuing a study ---


def test_a_study_with_another_metric_does_not_continue_with_macro_f1(storage: Storage) -> None:
    trial_store = open_trial_store(storage, "demo/class_weights", FACTS | {"metric": "g_mean"}, "G-mean")
    assert trial_store.study.metric_names == ["validation G-mean"]
    with pytest.raises(UserError, match="begun with metric g_mean, not with metric macro_f1"):
        open_trial_store(storage, "demo/class_weights", FACTS)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (
            {"data": "xyz", "seed": 0},
            "study demo/class_weights was begun with data abc, not with data xyz: .*--name.*--out",
        ),
        ({"data": "abc", "seed": 1}, "begun with seed 0, not with seed 1"),
        ({"data": "abc", "seed": 0, "trial_seeds": 3}, "begun with no trial_seeds, not with trial_seeds 3"),
        ({"data": "abc", "seed": 0, "metric": "g_mean"}, "begun with metric macro_f1, not with metric g_mean"),
    ],
)
def test_other_facts_are_refused(facts: dict[str, str | int], message: str, storage: Storage) -> None:
    before = finished_trials(run_search(storage, 2))
    with pytest.raises(UserError, match=message):
        open_trial_store(storage, "demo/class_weights", facts)
    trial_store = open_trial_store(storage, "demo/class_weights", FACTS)  # the refusal has changed nothing
    assert finished_trials(open_search(storage, 2)) == before
    assert trial_store.study.user_attrs == {"facts": {"search": VERSION, **FACTS}}


@pytest.mark.parametrize(
    ("attributes", "trials", "version"),
    [
        # The first version: facts were attributes of the study, and trials had no places.
        ({"data": "abc"}, 1, "an earlier version"),
        ({"facts": {"search": VERSION - 1, **FACTS}}, 0, "an earlier version"),
        ({"facts": {"search": VERSION - 1, **FACTS}}, 1, "an earlier version"),
        ({"facts": {"search": VERSION + 1, **FACTS}}, 1, "a later version"),
    ],
)
def test_a_study_of_another_version_is_refused(
    attributes: dict[str, object], trials: int, version: str, storage: Storage
) -> None:
    study = optuna.create_study(storage=storage, study_name="demo/class_weights", direction="maximize")
    for key, value in attributes.items():
        study.set_user_attr(key, value)
    study.add_trials([optuna.trial.create_trial(value=0.5, user_attrs={"place": 0})] * trials)
    with pytest.raises(UserError) as caught:
        open_trial_store(storage, "demo/class_weights", FACTS)
    assert str(caught.value) == (
        f"The study demo/class_weights was begun with {version} of this program and can't be continued: give this "
        "study another --name, or choose another folder with --out."
    )
    assert optuna.load_study(study_name="demo/class_weights", storage=storage).user_attrs == attributes


def test_studies_of_one_database_are_separate(storage: Storage) -> None:
    run_search(storage, 2)
    fit = FakeFit()
    run_search(storage, 2, fit, strategy=STRATEGIES["focal_loss"])
    assert len(fit.recipes) == 2


# --- failing and choosing ---


def scripted(values: Sequence[float], fails: Callable[[int], str | None] = lambda index: None) -> FakeFit:
    """Returns an objective that gives `values` in the order in which it is asked."""
    left = iter(values)
    return FakeFit(lambda recipe: next(left), fails)


def test_the_trial_with_the_highest_value_is_chosen(storage: Storage) -> None:
    chosen = run_search(storage, 4, scripted([0.2, 0.7, 0.6, 0.1])).choose().get()
    assert chosen.place == 1
    assert chosen.score == pytest.approx(0.7)
    assert chosen.settings == TRAINED.space.complete({"power": 0.5})
    assert chosen.recipe == TRAINED.recipe(chosen.settings, CONTEXT)
    assert [entry["state"] for entry in chosen.history] == ["complete"] * 4
    assert [entry["value"] for entry in chosen.history] == pytest.approx([0.2, 0.7, 0.6, 0.1])


def test_a_choice_among_fewer_trials_ignores_later_ones(storage: Storage) -> None:
    run_search(storage, 4, scripted([0.2, 0.5, 0.6, 0.1]))
    chosen = open_search(storage, 2).choose().get()
    assert chosen.score == pytest.approx(0.5)
    assert len(chosen.history) == 2


def test_of_equals_the_earliest_is_chosen(storage: Storage) -> None:
    assert run_search(storage, 5, scripted([0.2, 0.7, 0.7, 0.1, 0.7])).choose().get().place == 1


def test_interrupted_trials_do_not_count_for_the_place_of_the_best(storage: Storage) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_search(storage, 3, FakeFit(dies_in=0))
    chosen = run_search(storage, 3, scripted([0.2, 0.3, 0.7])).choose().get()
    assert chosen.place == 2
    assert len(chosen.history) == 3


def test_no_trial_is_ended_early(storage: Storage) -> None:
    """Not even one that is far below all earlier ones; the dashboard still gets its curve."""
    fit = FakeFit(lambda recipe: 0.5 if len(fit.recipes) <= 8 else 0.1, epochs=15)
    search = run_search(storage, 11, fit)
    trials = search.trial_store.study.trials
    assert trial_states(search.trial_store.study) == ["COMPLETE"] * 11
    assert [len(trial.intermediate_values) for trial in trials] == [15] * 11
    chosen = search.choose().get()
    assert [entry["value"] for entry in chosen.history] == pytest.approx([0.5] * 8 + [0.1] * 3)
    assert chosen.seconds == pytest.approx(11 * 1.5)


def test_a_failed_run_is_recorded_once_and_not_repeated(storage: Storage) -> None:
    reasons = {1: "there are no pairs", 6: "the loss is no number"}
    fit = scripted([0.2, 0.9, 0.3, 0.1, 0.4, 0.3, 0.8, 0.2, 0.3, 0.3], fails=reasons.get)
    search = run_search(storage, 10, fit)
    assert len(fit.recipes) == 10
    assert trial_states(search.trial_store.study) == ["COMPLETE", "FAIL", *["COMPLETE"] * 4, "FAIL", *["COMPLETE"] * 3]
    failed = {place: entry[5] for place, entry in enumerate(finished_trials(search)) if entry[5] is not None}
    assert failed == reasons
    again = FakeFit()
    assert finished_trials(run_search(storage, 10, again)) == finished_trials(search)
    assert not again.recipes
    chosen = search.choose().get()
    assert chosen.place == 4  # neither 1 nor 6
    assert len(chosen.history) == 10
    failure = {"state": "fail", "value": None, "error": "the loss is no number"}
    assert {key: chosen.history[6][key] for key in failure} == failure
    assert chosen.history[6]["params"] == finished_trials(search)[6][2]
    assert all("error" not in chosen.history[place] for place in range(10) if place not in reasons)


def test_the_sampler_ignores_what_a_failed_trial_reported(tmp_path: Path) -> None:
    searches = []
    for number, high in enumerate((0.99, 0.01)):
        with open_storage(tmp_path / f"{number}.db") as other:
            values = iter([0.2, high, 0.3, 0.1, 0.4, 0.3, 0.3, 0.2, *[0.25] * 8])
            fit = FakeFit(lambda recipe, values=values: next(values), {1: "no pairs"}.get, epochs=12)  # type: ignore[misc]
            searches.append(finished_trials(run_search(other, 16, fit)))
    assert searches[0] == searches[1]


def test_where_all_trials_failed_the_first_reason_is_given(storage: Storage) -> None:
    search = run_search(storage, 10, FakeFit(fails=lambda place: f"reason {place}"))
    with pytest.raises(FitFailed, match=r"^all 10 trials failed, 1 of them for this reason: reason 0$"):
        search.choose().get()
    assert trial_states(search.trial_store.study) == ["FAIL"] * 10


def test_without_trials_there_is_no_choice(storage: Storage) -> None:
    search = open_search(storage, 3)
    assert not search.is_complete()
    with pytest.raises(FitFailed, match=r"^no trial was finished in time$"):
        search.choose().get()


def test_an_error_is_recorded_and_not_hidden(storage: Storage) -> None:
    with pytest.raises(FloatingPointError):
        run_search(storage, 10, FakeFit(dies_in=8, error=FloatingPointError))
    study = optuna.load_study(study_name="demo/class_weights", storage=storage)
    assert trial_states(study) == ["COMPLETE"] * 8 + ["FAIL"]  # the trial with the error
    # Neither failed for a reason of their own nor lost: their places are tried again.
    assert not any({"error", "lost"} & set(trial.user_attrs) for trial in study.get_trials())


def test_trials_carry_what_the_dashboard_shows(storage: Storage) -> None:
    study = run_search(storage, 1, scripted([0.6])).trial_store.study
    [trial] = study.trials
    attributes = trial.user_attrs
    scores = {f"f1/{name}" for name in HIRISE.classes}
    assert set(attributes) == {"place", "recipe", "seconds", "epochs", "capped", *scores}
    assert json.loads(json.dumps(attributes)) == attributes
    assert attributes["recipe"]["class_weights"] == {"kind": "InversePower", "power": 1.0, "unit": "landmarks"}
    assert attributes["place"] == 0
    assert (attributes["epochs"], attributes["capped"], attributes["seconds"]) == ([3], False, 1.5)
    assert attributes["f1/spider"] == pytest.approx(0.6)  # the mean over seeds of 0.59 and 0.61
    assert trial.value == 0.6
    assert study.metric_names == ["validation macro F1"]
    assert trial.intermediate_values == pytest.approx({1: 0.2, 2: 0.4, 3: 0.6})


def test_remarks_of_the_trainer_are_stored(storage: Storage) -> None:
    notes = ("neighbours limited to 3 for impact ejecta", "neighbours limited to 1 for spider")

    def fit(recipe: Recipe, on_epoch: OnEpoch) -> CrossValidation:
        return make_validation(0.5, notes=notes, capped=True)

    [trial] = run_search(storage, 1, fit).trial_store.study.trials
    assert trial.user_attrs["note"] == "; ".join(notes)
    assert trial.user_attrs["capped"] is True


def test_scores_are_published_before_the_trial_ends(storage: Storage) -> None:
    search = open_search(storage, 3)
    published: list[tuple[int, str, float]] = []

    def publish(trial: optuna.trial.FrozenTrial, validation: CrossValidation) -> None:
        published.append((trial.user_attrs["place"], trial.state.name, validation.score))
        assert trial.user_attrs["epochs"] == [3]

    fit = scripted([0.2, 0.7, 0.6], fails={1: "no pairs"}.get)
    while search.train_next_trial(Leases(storage.engine), fit, lambda done: None, publish):
        pass
    assert published == [(0, "RUNNING", 0.2), (2, "RUNNING", 0.6)]


def test_a_strategy_that_depends_on_another_changes_its_recipe(storage: Storage) -> None:
    search = run_search(storage, 2, strategy=STRATEGIES["logit_adjustment"])
    base = CONTEXT.bases[CONTROL].to_dict()
    for entry in finished_trials(search):
        recipe = entry[4]
        assert isinstance(recipe, dict)
        assert {name for name in base if recipe[name] != base[name]} == {"adjustment"}


def test_a_result_can_be_written_as_json(storage: Storage) -> None:
    chosen = run_search(storage, 2).choose().get()
    assert json.loads(json.dumps([chosen.settings, chosen.history, chosen.score]))


# --- the database ---


def test_only_one_run_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "demo.db"
    with (
        open_storage(path),
        pytest.raises(UserError, match=r"demo\.db is in use by another run: wait"),
        open_storage(path),
    ):
        pass
    with open_storage(path) as storage:  # and free again afterwards
        run_search(storage, 1)


def test_studies_whose_names_differ_after_a_dot_can_run_at_once(tmp_path: Path) -> None:
    with (
        lock_study(tmp_path / "v3.1"),
        lock_study(tmp_path / "v3.2"),
        pytest.raises(UserError),
        lock_study(tmp_path / "v3.1"),
    ):
        pass


def test_the_lock_holds_between_processes_and_ends_with_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "demo.db"
    script = (
        "import sys; from pathlib import Path; from hirise_imb.search import lock_study\n"
        "with lock_study(Path(sys.argv[1])):\n print('locked', flush=True)\n sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match="in use"), open_storage(path):
            pass
    finally:
        other.kill()
        other.communicate()
    with open_storage(path) as storage:
        run_search(storage, 1)


def test_a_reader_does_not_stop_the_search(storage: Storage, tmp_path: Path) -> None:
    """Another program may read while trials are written, however slowly."""
    reader = sqlite3.connect(tmp_path / "studies" / "demo.db", isolation_level=None)
    seen: list[int] = []

    def fit(recipe: Recipe, on_epoch: OnEpoch) -> CrossValidation:
        if len(seen) == 7:
            reader.execute("BEGIN")
        seen.append(len(reader.execute("SELECT * FROM trials").fetchall()))
        return make_validation(0.5)

    try:
        assert len(finished_trials(run_search(storage, 18, fit))) == 18
        assert seen == [*range(1, 9), *[8] * 10]  # what the database held when the transaction began
        reader.execute("COMMIT")
        assert len(reader.execute("SELECT * FROM trials").fetchall()) == 18
    finally:
        reader.close()
