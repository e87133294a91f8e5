"""Searches in rounds: interruptions, later extensions and the number of workers do not change what comes out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import optuna
import pytest
from builders import quick
from fake_searches import (
    BATCH_PER_TRIAL,
    KINDS,
    ONE_BATCH,
    SEVERAL_BATCHES,
    FakeFit,
    FinishedTrials,
    all_trials,
    create_database,
    fake_run,
    finished_trials,
    ignore_progress,
    lost_trials,
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

from hirise_imb.recipe import Recipe
from hirise_imb.search.database import Storage, connect
from hirise_imb.search.leases import Leases
from hirise_imb.strategies import STRATEGIES, Strategy
from hirise_imb.training.epoch_loop import HEADS_PER_BATCH, Job, batch_key
from hirise_imb.training.outcome import Outcome
from hirise_imb.training.trainer import Run


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


# --- rounds and batches ---


def test_trials_train_in_rounds_of_eight(storage: Storage) -> None:
    fit = FakeFit()
    shown: list[float] = []
    run_search(storage, 20, fit, progress=shown)
    assert fit.batch_sizes == [8, 8, 4]
    assert shown == sorted(shown)
    assert [count for count in shown if isinstance(count, int)] == [8, 16, 20]
    run_search(storage, 21, fit, progress=shown)
    run_search(storage, 26, fit, progress=shown)
    assert fit.batch_sizes[3:] == [1, 3, 2]  # an incomplete round is filled up first
    assert [count for count in shown if isinstance(count, int)][3:] == [21, 24, 26]
    assert HEADS_PER_BATCH == 8


@pytest.mark.parametrize("name", ["class_weights", "oversampling", "prototypes", "partial_unfreeze", "ensemble"])
def test_a_batch_is_what_trains_in_one_pass(name: str, storage: Storage) -> None:
    batches: list[Sequence[Job]] = []

    def fit(jobs: Sequence[Job]) -> list[Outcome[Run]]:
        batches.append(jobs)
        return [Outcome(fake_run(quality(job.recipe))) for job in jobs]

    run_search(storage, 8, fit, strategy=STRATEGIES[name])
    keys = [[batch_key(job) for job in batch] for batch in batches if len(batch) > 1]
    assert all(several == several[:1] * len(several) for several in keys)
    assert len({several[0] for several in keys}) == len(keys)  # no two batches could be joined
    for batch in batches:
        alone = [not job.recipe.trained or job.recipe.cut != "top" or job.recipe.members > 1 for job in batch]
        assert len(batch) == 1 or not any(alone)


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
    assert len(fit.recipes) == stops[-1]
    assert longer == undisturbed[strategy.name]


@pytest.mark.parametrize("strategy", [ONE_BATCH, STRATEGIES["partial_unfreeze"]], ids=lambda strategy: strategy.name)
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


@pytest.mark.parametrize("stops", [(6, 8), (13, 16)], ids=str)
def test_trials_of_a_round_do_not_prune_each_other(stops: tuple[int, int], storage: Storage, tmp_path: Path) -> None:
    """Not even when a round is completed later."""

    def falling(values: Iterator[float]) -> FakeFit:
        return FakeFit(value=lambda recipe: next(values), epochs=15)

    values = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.05, 0.04, 0.9, 0.9, 0.9, 0.9, 0.9, 0.5, 0.45, 0.4]
    with open_storage(tmp_path / "at-once.db") as other:
        expected = finished_trials(run_search(other, stops[1], falling(iter(values))))
    fit = falling(iter(values))
    for trials in stops:
        search = run_search(storage, trials, fit)
    assert finished_trials(search) == expected


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
    assert trial_states(search.trial_store.study).count("FAIL") == fit.batch_sizes[-1]
    assert "RUNNING" not in trial_states(search.trial_store.study)
    assert not lost_trials(search)  # no worker has died


def test_an_interruption_while_trials_begin_leaves_none_running(
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
    assert trial_states(open_search(storage, 4).trial_store.study) == ["FAIL", "FAIL"]
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
    assert len(fit.recipes) == 20 - closed
    assert "RUNNING" not in trial_states(search.trial_store.study)


@EACH_KIND
def test_interrupted_again_and_again(
    strategy: Strategy, storage: Storage, undisturbed: dict[str, FinishedTrials]
) -> None:
    for closed in (3, 3, 5, 5):  # never three times in one trial
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
def test_the_order_of_batches_and_the_number_of_workers_play_no_part(
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
        def fit(jobs: Sequence[Job]) -> list[Outcome[Run]]:
            for _ in range(next(left, 0)):
                if depth < 4:
                    worker(depth + 1)
            runs = FakeFit(epochs=8)(jobs)
            fitted.update(str(job.recipe) for job in jobs)
            return runs

        return open_search(storage, trials, strategy).train_next_batch(create_leases(storage), fit, ignore_progress)

    while worker(0):
        pass
    search = open_search(storage, trials, strategy)
    assert finished_trials(search) == undisturbed[strategy.name][:trials]
    assert len(all_trials(search)) == sum(fitted.values()) == trials
    storage.engine.dispose()


def test_a_worker_passes_over_a_batch_that_another_one_trains(storage: Storage) -> None:
    first, second = FakeFit(), FakeFit()
    outcomes: list[bool] = []

    def fit(jobs: Sequence[Job]) -> list[Outcome[Run]]:
        other = open_search(storage, 8, BATCH_PER_TRIAL)
        outcomes.extend(other.train_next_batch(create_leases(storage), second, ignore_progress) for _ in range(8))
        return first(jobs)

    search = open_search(storage, 8, BATCH_PER_TRIAL)
    assert search.train_next_batch(create_leases(storage), fit, ignore_progress)
    assert outcomes == [True] * 7 + [False]  # the next round waits for the whole of this one
    assert search.is_complete()
    assert (first.batch_sizes, second.batch_sizes) == ([1], [1] * 7)


# --- workers that die or come back ---


def take_over(storage: Storage, trials: int, strategy: Strategy, fit: FakeFit) -> None:
    """Completes a search in place of workers that show no sign of life."""
    leases = create_leases(storage, grace=0.05)
    search = open_search(storage, trials, strategy)
    while not search.is_complete():
        if not search.train_next_batch(leases, fit, ignore_progress):
            time.sleep(0.02)


@EACH_KIND
@pytest.mark.parametrize("epochs_left", [0, 3])
def test_a_suspended_worker_that_comes_back_changes_nothing(
    epochs_left: int, strategy: Strategy, storage: Storage, undisturbed: dict[str, FinishedTrials]
) -> None:
    successor = FakeFit(epochs=8)
    published: list[int] = []
    trials_after: list[object] = []

    def fit(jobs: Sequence[Job]) -> list[Outcome[Run]]:
        for job in jobs:
            assert job.on_epoch is not None
            job.on_epoch(1, 0.999)
        take_over(storage, 20, strategy, successor)
        trials_after.append(all_trials(search))
        for epoch in range(2, 2 + epochs_left):
            for job in jobs:
                assert job.on_epoch is not None
                job.on_epoch(epoch, 0.999)
        return [Outcome(fake_run(0.999)) for _ in jobs]

    search = open_search(storage, 20, strategy)
    search.train_next_batch(
        create_leases(storage), fit, ignore_progress, lambda trial, run: published.append(trial.number)
    )
    assert trials_after == [all_trials(search)]
    assert not published
    assert finished_trials(search) == undisturbed[strategy.name]
    assert len(successor.recipes) == 20
    lost = lost_trials(search)
    assert {trial.state for trial in lost} == {TrialState.FAIL}
    assert len(all_trials(search)) == 20 + len(lost)


def test_a_worker_that_loses_its_batch_while_it_stores_runs_changes_nothing(
    storage: Storage, undisturbed: dict[str, FinishedTrials]
) -> None:
    """It is suspended between two of them: those stored before count, the others are trained again."""
    search = open_search(storage, 20, ONE_BATCH)
    successor = FakeFit(epochs=8)

    def publish(trial: optuna.trial.FrozenTrial, run: object) -> None:
        if trial.user_attrs["place"] == 2:
            take_over(storage, 20, ONE_BATCH, successor)

    search.train_next_batch(create_leases(storage), FakeFit(epochs=8), ignore_progress, publish)
    assert finished_trials(search) == undisturbed["class_weights"]
    assert len(successor.recipes) == 18
    assert Counter(trial_states(search.trial_store.study)) == Counter(
        trial[1] for trial in undisturbed["class_weights"]
    ) + Counter(FAIL=6)


def test_a_trial_that_its_worker_finishes_while_it_is_reaped_counts(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker comes back just when another one, which has found the trial running, is about to close it."""
    original = Storage.set_trial_user_attr
    finished_late: list[int] = []

    def set_late(self: Storage, trial: int, key: str, value: object) -> None:
        if key == "lost" and not finished_late:
            finished_late.append(trial)
            self.set_trial_state_values(trial, TrialState.COMPLETE, [0.75])
        original(self, trial, key, value)

    def fit(jobs: Sequence[Job]) -> list[Outcome[Run]]:
        monkeypatch.setattr(Storage, "set_trial_user_attr", set_late)
        take_over(storage, 8, ONE_BATCH, FakeFit())
        return [Outcome(fake_run(0.1)) for _ in jobs]

    search = open_search(storage, 8, ONE_BATCH)
    search.train_next_batch(create_leases(storage), fit, ignore_progress)
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
    kill_worker(database, ONE_BATCH, 20, closed=10)
    storage = connect(database)
    search = open_search(storage, 20, ONE_BATCH)
    assert Counter(trial_states(search.trial_store.study))["RUNNING"] == 6
    fit = FakeFit(epochs=8)
    leases = create_leases(storage, grace=0.5)
    begin = time.monotonic()
    while not search.train_next_batch(leases, fit, ignore_progress):
        assert trial_states(search.trial_store.study).count("RUNNING") == 6  # not before the grace has passed
        time.sleep(0.02)
    assert time.monotonic() - begin >= 0.5
    while search.train_next_batch(leases, fit, ignore_progress):
        pass
    assert finished_trials(search) == undisturbed["class_weights"]
    assert fit.batch_sizes == [1] * 6 + [4]  # trials in which a worker died are trained one by one
    lost = lost_trials(search)
    assert [trial.state.name for trial in lost] == ["FAIL"] * 6
    assert sorted(trial.user_attrs["place"] for trial in lost) == list(range(10, 16))
    storage.engine.dispose()


def test_a_trial_in_which_three_workers_died_has_failed(tmp_path: Path) -> None:
    path = create_database(tmp_path / "demo.db")
    for _ in range(2):
        kill_worker(path, BATCH_PER_TRIAL, 3, closed=0)
    storage = connect(path)
    fit = FakeFit()
    leases = create_leases(storage, grace=0.3)
    with pytest.MonkeyPatch.context() as patch:  # a look at the search is no death
        patch.setattr(Leases, "acquire", lambda self, batch: None)
        assert not open_search(storage, 3, BATCH_PER_TRIAL).train_next_batch(leases, fit, ignore_progress)
    assert not open_search(storage, 3, BATCH_PER_TRIAL).is_complete()
    storage.engine.dispose()
    kill_worker(path, BATCH_PER_TRIAL, 3, closed=2)  # reaps the trial that the second left, and dies in another one
    storage = connect(path)
    search = open_search(storage, 3, BATCH_PER_TRIAL)
    take_over(storage, 3, BATCH_PER_TRIAL, fit)
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
    answers = at_once(share_search, database, SEVERAL_BATCHES.name, processes=3)
    recipes = [answer for answer in answers if isinstance(answer, list)]
    assert len(recipes) == 3, answers
    storage = connect(database)
    search = open_search(storage, 20, SEVERAL_BATCHES)
    assert finished_trials(search) == undisturbed[SEVERAL_BATCHES.name]
    assert len(all_trials(search)) == 20
    assert sum(map(len, recipes)) == 20
    assert sum(map(bool, recipes)) > 1
    storage.engine.dispose()
