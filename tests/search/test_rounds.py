"""Searches in rounds: interruptions, later extensions and the number of workers do not change what comes out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import optuna
import pytest
from builders import quick
from fake_searches import (
    CLOSED_FORM,
    FINITE,
    KINDS,
    TRAINED,
    FakeFit,
    FinishedTrials,
    all_trials,
    create_database,
    finished_trials,
    ignore_progress,
    lost_trials,
    make_validation,
    open_search,
    open_storage,
    quality,
    run_search,
    run_undisturbed,
    share_search,
    trial_states,
    tried_settings,
    work_until_killed,
)
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from servers import PROCESSES, at_once

from hirise_imb.config import Override
from hirise_imb.recipe import Recipe
from hirise_imb.search.database import Storage, connect
from hirise_imb.search.digests import DIGEST, compute_digest
from hirise_imb.search.leases import Leases
from hirise_imb.strategies import STRATEGIES, Parameters, PosthocStrategy, Strategy
from hirise_imb.training.epoch_loop import OnEpoch
from hirise_imb.training.trainer import CrossValidation
from hirise_imb.utils.errors import FitFailed


def best_at(best: int, places: Iterator[int], recipe: Recipe) -> float:
    """The usual objective, except for one place, which gets the highest value."""
    return 1.0 if next(places) == best else quality(recipe)


EACH_KIND = pytest.mark.parametrize("strategy", KINDS, ids=lambda strategy: strategy.name)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with open_storage(tmp_path / "studies" / "demo.db") as opened:
        yield opened


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FinishedTrials]:
    """Trials of undisturbed searches of 20 trials, by strategy."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return {
        strategy.name: run_undisturbed(folder / f"{strategy.name}.db", 20, strategy, epochs=8) for strategy in KINDS
    }


def count_places(strategy: Strategy, trials: int) -> int:
    """Returns how many places a search has that is asked for so many trials."""
    settings = strategy.space.distinct_settings()
    return trials if settings is None else min(trials, len(list(settings)))


# --- rounds ---


def test_a_round_has_eight_trials_and_begins_when_the_one_before_is_finished(storage: Storage) -> None:
    """Each worker starts inside the fit of another one, so all of them work at the same time."""
    at_once: list[list[int]] = []

    def work(depth: int) -> bool:
        def fit(recipe: Recipe, on_epoch: OnEpoch) -> CrossValidation:
            on_epoch(1, 0.1)
            if not work(depth + 1):
                states = trial_states(open_search(storage, 20).trial_store.study)
                at_once.append([states.count("COMPLETE"), states.count("RUNNING")])
            return make_validation(quality(recipe))

        return open_search(storage, 20).train_next_trial(create_leases(storage), fit, ignore_progress)

    while work(0):
        pass
    # Number of finished trials, and of those in training, whenever another worker found nothing to do.
    assert at_once == [[0, 8], [8, 8], [16, 4]]


def test_progress_grows_with_epochs_and_trials(storage: Storage) -> None:
    shown: list[float] = []
    run_search(storage, 20, progress=shown)
    assert shown == sorted(shown)
    assert [count for count in shown if isinstance(count, int)] == list(range(1, 21))
    assert len(set(shown)) == 20 * 4  # three epochs and the end of each


@EACH_KIND
@pytest.mark.parametrize("stops", [(10, 20), (1, 2, 11, 20)], ids=str)
def test_asking_for_more_ends_as_asking_at_once(
    stops: tuple[int, ...], strategy: Strategy, storage: Storage, undisturbed: dict[str, FinishedTrials]
) -> None:
    fit = FakeFit(epochs=8)
    before: FinishedTrials = []
    for trials in stops:
        longer = finished_trials(run_search(storage, trials, fit, strategy=strategy))
        assert longer[: len(before)] == before
        before = longer
    assert len(fit.recipes) == count_places(strategy, stops[-1])
    assert longer == undisturbed[strategy.name]


@pytest.mark.parametrize("strategy", [TRAINED, STRATEGIES["partial_unfreeze"]], ids=lambda strategy: strategy.name)
def test_a_trial_depends_on_earlier_rounds(strategy: Strategy, storage: Storage, tmp_path: Path) -> None:
    """And nothing that the trials of its own round do."""
    search = run_search(storage, 24, strategy=strategy)
    tried = tried_settings(search)
    values: list[float] = [trial[3] for trial in finished_trials(search)]
    for same in (8, 16):
        worst = min(range(same - 8, same), key=values.__getitem__)  # becomes the best
        places = iter(range(24))
        fit = FakeFit(partial(best_at, worst, places))
        with open_storage(tmp_path / f"{same}.db") as other:
            changed = tried_settings(run_search(other, same + 8, fit, strategy=strategy))
        assert changed[:same] == tried[:same]
        if same == 8:  # with more, one changed value may leave the sampler's two groups of trials as they are
            assert changed[same:] != tried[same : same + 8]


# --- strategies with few distinct settings ---


@pytest.mark.parametrize("name", ["temperature", "tta", "ensemble"])
@pytest.mark.parametrize("trials", [2, 20])
def test_each_distinct_setting_is_tried_once(name: str, trials: int, storage: Storage) -> None:
    strategy = STRATEGIES[name]
    fit = FakeFit()
    search = run_search(storage, trials, fit, strategy=strategy)
    tried = tried_settings(search)
    settings = list(strategy.space.distinct_settings() or ())
    assert len(tried) == len(fit.recipes) == search.n_trials == min(trials, len(settings))
    assert all(tried.count(one) == 1 for one in tried)
    assert all(one in settings for one in tried)
    initial_settings = strategy.initial_settings()
    assert tried[: len(initial_settings)] == initial_settings[:trials]
    assert search.is_complete()


def test_an_override_may_leave_few_settings(storage: Storage) -> None:
    overrides: dict[str, Override] = {
        "power": 0.5,
        "scheme": ("inverse_power", "effective_number"),
        "one_minus_beta": 0.01,
        "learning_rate": 1e-3,
        "weight_decay": 0.1,
    }
    fixed = TRAINED.narrow(overrides)
    tried = tried_settings(run_search(storage, 20, strategy=fixed))
    assert {(one["scheme"], one["unit"]) for one in tried} == {
        (scheme, unit) for scheme in ("inverse_power", "effective_number") for unit in ("landmarks", "sources")
    }
    assert len(tried) == 4


def test_a_strategy_without_parameters_has_one_trial(storage: Storage) -> None:
    class NoParametersStrategy(PosthocStrategy[Parameters]):
        name = "none"
        summary = source = "nothing"
        parameters = Parameters

        def apply(self, recipe: Recipe, parameters: Parameters) -> Recipe:
            return recipe

    search = run_search(storage, 20, strategy=NoParametersStrategy())
    assert tried_settings(search) == [{}]
    assert search.choose().get().settings == {}


def test_a_failed_setting_is_not_tried_again(storage: Storage) -> None:
    fit = FakeFit(fails={0: "it broke"}.get)
    tried = tried_settings(run_search(storage, 20, fit, strategy=FINITE))
    assert len(fit.recipes) == len(tried) == count_places(FINITE, 20)
    assert all(tried.count(one) == 1 for one in tried)


def test_repetitions_of_the_sampler_are_replaced_wherever_they_come(storage: Storage) -> None:
    """Also where the strategy itself names a setting twice."""

    class RepeatingStrategy(type(FINITE)):  # type: ignore[misc]
        def initial_points(self) -> list[dict[str, object]]:
            return [{"kind": "heads", "members": 1}, {}, {"kind": "heads", "members": 1}]

    tried = tried_settings(run_search(storage, 20, strategy=RepeatingStrategy()))
    assert all(tried.count(one) == 1 for one in tried)
    assert len(tried) == count_places(FINITE, 20)


# --- interruptions ---


@EACH_KIND
@pytest.mark.parametrize(("at", "error"), [(0, KeyboardInterrupt), (9, MemoryError)])
def test_an_interrupted_search_ends_as_an_undisturbed_one(
    error: type[BaseException], at: int, strategy: Strategy, storage: Storage, tmp_path: Path
) -> None:
    fit = FakeFit(dies_in=at, error=error)
    with pytest.raises(error):
        run_search(storage, 12, fit, strategy=strategy)
    search = run_search(storage, 12, strategy=strategy)
    with open_storage(tmp_path / "undisturbed.db") as other:
        at_once = run_search(other, 12, strategy=strategy)
        assert finished_trials(search) == finished_trials(at_once)
        assert search.choose() == at_once.choose()
    assert trial_states(search.trial_store.study).count("FAIL") == 1
    assert "RUNNING" not in trial_states(search.trial_store.study)
    assert not lost_trials(search)  # no worker has died


def test_an_interruption_before_a_trial_begins_leaves_none_running(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, left = Storage.create_new_trial, iter(range(2))

    def beginning(self: Storage, *arguments: object) -> int:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return original(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "create_new_trial", beginning)
        with pytest.raises(KeyboardInterrupt):
            run_search(storage, 4)
    assert trial_states(open_search(storage, 4).trial_store.study) == ["COMPLETE", "COMPLETE"]
    assert not lost_trials(run_search(storage, 4))  # no worker has died


def interrupt_after(patch: pytest.MonkeyPatch, closed: int) -> None:
    """Interrupts the process when it has closed so many trials; as if it were killed, it writes nothing any more."""
    original, left = Storage.set_trial_state_values, iter(range(closed))

    def close_or_interrupt(self: Storage, *arguments: object, **options: object) -> object:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return original(self, *arguments, **options)  # type: ignore[arg-type]

    patch.setattr(Storage, "set_trial_state_values", close_or_interrupt)


@EACH_KIND
@pytest.mark.parametrize("closed", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (6, 15)), 9])
def test_a_search_that_is_interrupted_while_trials_are_closed_ends_as_an_undisturbed_one(
    closed: int, strategy: Strategy, storage: Storage, undisturbed: dict[str, FinishedTrials]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, closed)
        with pytest.raises(KeyboardInterrupt):
            run_search(storage, 20, FakeFit(epochs=8), strategy=strategy)
    search = open_search(storage, 20, strategy)
    assert len(finished_trials(search)) == closed
    assert trial_states(search.trial_store.study).count("RUNNING") > 0
    fit = FakeFit(epochs=8)
    assert finished_trials(run_search(storage, 20, fit, strategy=strategy)) == undisturbed[strategy.name]
    assert len(fit.recipes) == count_places(strategy, 20) - closed
    assert "RUNNING" not in trial_states(search.trial_store.study)


@EACH_KIND
def test_interrupted_again_and_again(
    strategy: Strategy, storage: Storage, undisturbed: dict[str, FinishedTrials]
) -> None:
    for closed in (3, 3, 4, 5):  # never three times in one trial
        with pytest.MonkeyPatch.context() as patch:
            interrupt_after(
                patch, closed + trial_states(open_search(storage, 20, strategy).trial_store.study).count("RUNNING")
            )
            with pytest.raises(KeyboardInterrupt):
                run_search(storage, 20, FakeFit(epochs=8), strategy=strategy)
        with pytest.raises(KeyboardInterrupt):
            run_search(storage, 20, FakeFit(dies_in=0, epochs=8), strategy=strategy)
    assert finished_trials(run_search(storage, 20, FakeFit(epochs=8), strategy=strategy)) == undisturbed[strategy.name]


# --- several workers, each inside the fit of another: any nesting is an order in which processes can work ---


def create_leases(storage: Storage, grace: float = 1000.0) -> Leases:
    return Leases(storage.engine, interval=min(500.0, grace / 2), grace=grace)


@pytest.mark.slow
@given_settings(quick, max_examples=12)
@given(order=st.lists(st.integers(0, 3), max_size=30), trials=st.integers(1, 20), strategy=st.sampled_from(KINDS))
def test_the_order_of_trials_and_the_number_of_workers_play_no_part(
    order: list[int],
    trials: int,
    strategy: Strategy,
    undisturbed: dict[str, FinishedTrials],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("nested")
    storage = connect(create_database(folder / "demo.db"))
    fitted: Counter[str] = Counter()
    left = iter(order)

    def worker(depth: int) -> bool:
        def fit(recipe: Recipe, on_epoch: OnEpoch) -> CrossValidation:
            for _ in range(next(left, 0)):
                if depth < 4:
                    worker(depth + 1)
            fitted[str(recipe)] += 1
            return FakeFit(epochs=8)(recipe, on_epoch)

        return open_search(storage, trials, strategy).train_next_trial(create_leases(storage), fit, ignore_progress)

    while worker(0):
        pass
    search = open_search(storage, trials, strategy)
    assert finished_trials(search) == undisturbed[strategy.name][:trials]
    assert len(all_trials(search)) == sum(fitted.values()) == count_places(strategy, trials)
    storage.engine.dispose()


@EACH_KIND
def test_a_worker_passes_over_a_trial_that_another_one_trains(strategy: Strategy, storage: Storage) -> None:
    first, second = FakeFit(), FakeFit()
    outcomes: list[bool] = []

    def fit(recipe: Recipe, on_epoch: OnEpoch) -> CrossValidation:
        other = open_search(storage, 8, strategy)
        outcomes.extend(other.train_next_trial(create_leases(storage), second, ignore_progress) for _ in range(8))
        return first(recipe, on_epoch)

    search = open_search(storage, 8, strategy)
    assert search.train_next_trial(create_leases(storage), fit, ignore_progress)
    assert outcomes == [True] * 7 + [False]  # the next round waits for the whole of this one
    assert search.is_complete()
    assert (len(first.recipes), len(second.recipes)) == (1, 7)


# --- workers that die or come back ---


def take_over(storage: Storage, trials: int, strategy: Strategy, fit: FakeFit) -> None:
    """Completes a search in place of workers that show no sign of life."""
    leases = create_leases(storage, grace=0.05)
    search = open_search(storage, trials, strategy)
    while not search.is_complete():
        if not search.train_next_trial(leases, fit, ignore_progress):
            time.sleep(0.02)


@EACH_KIND
@pytest.mark.parametrize(("epochs_left", "fails"), [(0, False), (3, False), (0, True)])
def test_a_suspended_worker_that_comes_back_changes_nothing(
    epochs_left: int, fails: bool, strategy: Strategy, storage: Storage, undisturbed: dict[str, FinishedTrials]
) -> None:
    successor = FakeFit(epochs=8)
    published: list[int] = []
    trials_after: list[object] = []

    def fit(recipe: Recipe, on_epoch: OnEpoch) -> CrossValidation:
        on_epoch(1, 0.999)
        take_over(storage, 20, strategy, successor)
        trials_after.append(all_trials(search))
        for epoch in range(2, 2 + epochs_left):
            on_epoch(epoch, 0.999)
        if fails:
            raise FitFailed("too late")
        return make_validation(0.98)

    search = open_search(storage, 20, strategy)
    search.train_next_trial(
        create_leases(storage), fit, ignore_progress, lambda trial, validation: published.append(trial.number)
    )
    assert trials_after == [all_trials(search)]
    assert not published
    assert finished_trials(search) == undisturbed[strategy.name]
    assert len(successor.recipes) == count_places(strategy, 20)
    [lost] = lost_trials(search)
    assert lost.state is TrialState.FAIL
    assert len(all_trials(search)) == count_places(strategy, 20) + 1


def test_a_worker_that_loses_its_trial_while_it_stores_scores_changes_nothing(
    storage: Storage, undisturbed: dict[str, FinishedTrials]
) -> None:
    """It is suspended before it closes its third trial: those before count, this one is trained again."""
    search = open_search(storage, 20)
    successor = FakeFit(epochs=8)

    def publish(trial: optuna.trial.FrozenTrial, validation: object) -> None:
        if trial.user_attrs["place"] == 2:
            take_over(storage, 20, TRAINED, successor)

    for _ in range(3):
        search.train_next_trial(create_leases(storage), FakeFit(epochs=8), ignore_progress, publish)
    assert finished_trials(search) == undisturbed["class_weights"]
    assert len(successor.recipes) == 18
    assert Counter(trial_states(search.trial_store.study)) == Counter(COMPLETE=20, FAIL=1)


def test_a_trial_that_its_worker_finishes_while_it_is_reaped_counts(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker comes back just when another one, which has found the trial running, is about to close it."""
    original = Storage.set_trial_user_attr
    finished_late: list[int] = []

    def set_late(self: Storage, trial: int, key: str, value: object) -> None:
        if key == "lost" and not finished_late:
            finished_late.append(trial)
            finished = self.get_trial(trial)
            finished.state, finished.values = TrialState.COMPLETE, [0.75]
            self.set_trial_system_attr(trial, DIGEST, compute_digest(finished))
            self.set_trial_state_values(trial, TrialState.COMPLETE, [0.75])
        original(self, trial, key, value)

    def fit(recipe: Recipe, on_epoch: OnEpoch) -> CrossValidation:
        monkeypatch.setattr(Storage, "set_trial_user_attr", set_late)
        take_over(storage, 8, TRAINED, FakeFit())
        return make_validation(0.1)

    search = open_search(storage, 8)
    search.train_next_trial(create_leases(storage), fit, ignore_progress)
    assert len(finished_late) == 1
    assert search.is_complete()
    assert finished_trials(search)[0][1:4:2] == ("COMPLETE", 0.75)


def kill_worker(database: Path | str, strategy: Strategy, trials: int, closed: int) -> None:
    """Lets a worker die that has closed so many trials."""
    process = PROCESSES.Process(target=work_until_killed, args=(database, strategy.name, trials, closed))
    process.start()
    process.join(60)
    assert process.exitcode == 9


def test_the_trials_of_a_dead_worker_are_reaped_and_repeated_after_the_grace(
    database: Path | str, undisturbed: dict[str, FinishedTrials]
) -> None:
    kill_worker(database, TRAINED, 20, closed=10)
    storage = connect(database)
    search = open_search(storage, 20)
    assert Counter(trial_states(search.trial_store.study)) == Counter(COMPLETE=10, RUNNING=1)
    # The lease of the dead worker holds up its own trial alone.
    for _ in range(5):
        assert search.train_next_trial(create_leases(storage), FakeFit(epochs=8), ignore_progress)
    fit = FakeFit(epochs=8)
    leases = create_leases(storage, grace=0.5)
    begin = time.monotonic()
    while not search.train_next_trial(leases, fit, ignore_progress):
        assert trial_states(search.trial_store.study).count("RUNNING") == 1  # not before the grace has passed
        time.sleep(0.02)
    assert time.monotonic() - begin >= 0.5
    while search.train_next_trial(leases, fit, ignore_progress):
        pass
    assert finished_trials(search) == undisturbed["class_weights"]
    assert len(fit.recipes) == 1 + 4
    [lost] = lost_trials(search)
    assert (lost.state.name, lost.user_attrs["place"]) == ("FAIL", 10)
    storage.engine.dispose()


def test_a_trial_in_which_three_workers_died_has_failed(tmp_path: Path) -> None:
    path = create_database(tmp_path / "demo.db")
    for _ in range(2):
        kill_worker(path, CLOSED_FORM, 3, closed=0)
    storage = connect(path)
    fit = FakeFit()
    leases = create_leases(storage, grace=0.3)
    with pytest.MonkeyPatch.context() as patch:  # a look at the search is no death
        patch.setattr(Leases, "acquire", lambda self, trial: None)
        assert not open_search(storage, 3, CLOSED_FORM).train_next_trial(leases, fit, ignore_progress)
    assert not open_search(storage, 3, CLOSED_FORM).is_complete()
    storage.engine.dispose()
    kill_worker(path, CLOSED_FORM, 3, closed=2)  # reaps the trial that the second left, and dies in another one
    storage = connect(path)
    search = open_search(storage, 3, CLOSED_FORM)
    take_over(storage, 3, CLOSED_FORM, fit)
    trials = search.trial_store.finished_trials()
    lost = Counter(trial.user_attrs["place"] for trial in lost_trials(search))
    failed = {place: trial.user_attrs["error"] for place, trial in trials.items() if "error" in trial.user_attrs}
    assert failed == {place: "3 workers died in this trial" for place, count in lost.items() if count == 3}
    choice = search.choose()
    assert choice.failure is None or str(choice.failure) != "3 workers died in this trial"
    storage.engine.dispose()


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True)
def test_processes_finish_every_place_exactly_once(
    database: Path | str, undisturbed: dict[str, FinishedTrials]
) -> None:
    answers = at_once(share_search, database, TRAINED.name, processes=3)
    recipes = [answer for answer in answers if isinstance(answer, list)]
    assert len(recipes) == 3, answers
    storage = connect(database)
    search = open_search(storage, 20)
    assert finished_trials(search) == undisturbed[TRAINED.name]
    assert len(all_trials(search)) == 20
    assert sum(map(len, recipes)) == 20
    assert sum(map(bool, recipes)) > 1
    storage.engine.dispose()
