"""Searches in rounds: neither an interruption, nor a later extension, nor who does what changes what comes out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna
import pytest
from builders import quick
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from searches import (
    BY_ITSELF,
    IN_PARTS,
    KINDS,
    WEIGHTS,
    Finished,
    Fits,
    do,
    everything,
    fake_run,
    finished,
    killed,
    quality,
    search,
    settings,
    share,
    silent,
    states,
    undisturbed,
)
from servers import PROCESSES, Server, at_once, postgresql
from worlds import storage

from hirise_imb.search.database import Storage, connect
from hirise_imb.search.leases import Leases
from hirise_imb.search.search import finished_trials
from hirise_imb.strategies import STRATEGIES, Strategy
from hirise_imb.training.epoch_loop import HEADS_PER_BATCH, Failed, Job, batch_key

EACH_KIND = pytest.mark.parametrize("strategy", KINDS, ids=lambda strategy: strategy.name)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Storage]:
    with storage(tmp_path / "studies" / "demo.db") as opened:
        yield opened


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    """What undisturbed searches of 20 trials come to, by strategy."""
    folder = tmp_path_factory.mktemp("alone")
    return {strategy.name: undisturbed(folder / f"{strategy.name}.db", 20, strategy, epochs=8) for strategy in KINDS}


# --- rounds and units ---


def test_trials_train_in_rounds_of_eight(store: Storage) -> None:
    fit, shown = Fits(), []
    do(store, 20, fit, shown=shown)
    assert fit.units == [8, 8, 4]
    assert shown == sorted(shown)
    assert [count for count in shown if isinstance(count, int)] == [8, 16, 20]
    do(store, 21, fit, shown=shown)
    do(store, 26, fit, shown=shown)
    assert fit.units[3:] == [1, 3, 2]  # a round that was begun is filled up first
    assert [count for count in shown if isinstance(count, int)][3:] == [21, 24, 26]
    assert HEADS_PER_BATCH == 8


@pytest.mark.parametrize("name", ["class_weights", "oversampling", "prototypes", "partial_unfreeze", "ensemble"])
def test_a_unit_is_what_trains_in_one_pass(name: str, store: Storage) -> None:
    units: list[Sequence[Job]] = []

    def fit(jobs: Sequence[Job]) -> list[object]:
        units.append(jobs)
        return [fake_run(quality(job.recipe)) for job in jobs]

    do(store, 8, fit, strategy=STRATEGIES[name])
    together = [[batch_key(job) for job in unit] for unit in units if len(unit) > 1]
    assert all(keys == keys[:1] * len(keys) for keys in together)
    assert len({keys[0] for keys in together}) == len(together)  # none could be joined with another
    for unit in units:
        alone = [not job.recipe.trained or job.recipe.cut != "top" or job.recipe.members > 1 for job in unit]
        assert len(unit) == 1 or not any(alone)


@EACH_KIND
@pytest.mark.parametrize("stops", [(10, 20), (1, 2, 11, 20)], ids=str)
def test_asking_for_more_ends_as_asking_at_once(
    stops: tuple[int, ...], strategy: Strategy, store: Storage, alone: dict[str, Finished]
) -> None:
    fit = Fits(epochs=8)
    before: Finished = []
    for trials in stops:
        longer = finished(do(store, trials, fit, strategy=strategy))
        assert longer[: len(before)] == before
        before = longer
    assert len(fit.recipes) == stops[-1]
    assert longer == alone[strategy.name]


@pytest.mark.parametrize("strategy", [WEIGHTS, STRATEGIES["partial_unfreeze"]], ids=lambda strategy: strategy.name)
def test_a_trial_tries_what_earlier_rounds_suggest(strategy: Strategy, store: Storage, tmp_path: Path) -> None:
    """Never what trials of its own round do."""
    one = do(store, 24, strategy=strategy)
    tried, values = settings(one), [entry[3] for entry in finished(one)]
    for same in (8, 16):
        worst = min(range(same - 8, same), key=lambda place: values[place] or 0.0)  # becomes the best
        places = iter(range(24))
        fit = Fits(value=lambda recipe, worst=worst, places=places: 1.0 if next(places) == worst else quality(recipe))
        with storage(tmp_path / f"{same}.db") as other:
            found = settings(do(other, same + 8, fit, strategy=strategy))
        assert found[:same] == tried[:same]
        if same == 8:  # with more trials, the sampler may see the same two sides in them whatever one of them does
            assert found[same:] != tried[same : same + 8]


@pytest.mark.parametrize("stops", [(6, 8), (13, 16)], ids=str)
def test_trials_of_a_round_do_not_prune_each_other(stops: tuple[int, int], store: Storage, tmp_path: Path) -> None:
    """Not even where a round is filled up later."""

    def falling(values: Iterator[float]) -> Fits:
        return Fits(value=lambda recipe: next(values), epochs=15)

    values = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.05, 0.04, 0.9, 0.9, 0.9, 0.9, 0.9, 0.5, 0.45, 0.4]
    with storage(tmp_path / "at-once.db") as other:
        expected = finished(do(other, stops[1], falling(iter(values))))
    fit = falling(iter(values))
    for trials in stops:
        one = do(store, trials, fit)
    assert finished(one) == expected


# --- interruptions ---


@EACH_KIND
@pytest.mark.parametrize(("at", "error"), [(0, KeyboardInterrupt), (9, MemoryError)])
def test_an_interrupted_search_ends_as_an_undisturbed_one(
    error: type[BaseException], at: int, strategy: Strategy, store: Storage, tmp_path: Path
) -> None:
    fit = Fits(dies_in=at, error=error)
    with pytest.raises(error):
        do(store, 12, fit, strategy=strategy)
    one = do(store, 12, strategy=strategy)
    with storage(tmp_path / "undisturbed.db") as other:
        at_once = do(other, 12, strategy=strategy)
        assert finished(one) == finished(at_once)
        assert one.choose() == at_once.choose()
    assert states(one.study).count("FAIL") == fit.units[-1]
    assert "RUNNING" not in states(one.study)
    assert not any("lost" in trial.user_attrs for trial in everything(one.study))  # nobody has died


def test_an_interruption_while_trials_begin_leaves_none_running(
    store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, left = Storage.create_new_trial, iter(range(2))

    def beginning(self: Storage, *arguments: object) -> int:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return original(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "create_new_trial", beginning)
        with pytest.raises(KeyboardInterrupt):
            do(store, 4)
    assert states(search(store, 4).study) == ["FAIL", "FAIL"]
    assert not any("lost" in trial.user_attrs for trial in everything(do(store, 4).study))  # nobody has died


def stop_when_told(patch: pytest.MonkeyPatch, told: int) -> None:
    """Kill the process, as it were, when so many trials have been told their end: nothing is written any more."""
    original, left = Storage.set_trial_state_values, iter(range(told))

    def telling(self: Storage, *arguments: object, **options: object) -> object:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return original(self, *arguments, **options)  # type: ignore[arg-type]

    patch.setattr(Storage, "set_trial_state_values", telling)


@EACH_KIND
@pytest.mark.parametrize("told", [1, 6, 9, 15])
def test_a_search_that_is_interrupted_while_trials_are_told_ends_as_an_undisturbed_one(
    told: int, strategy: Strategy, store: Storage, alone: dict[str, Finished]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_when_told(patch, told)
        with pytest.raises(KeyboardInterrupt):
            do(store, 20, Fits(epochs=8), strategy=strategy)
    one = search(store, 20, strategy)
    assert len(finished(one)) == told
    assert states(one.study).count("RUNNING") > 0
    fit = Fits(epochs=8)
    assert finished(do(store, 20, fit, strategy=strategy)) == alone[strategy.name]
    assert len(fit.recipes) == 20 - told
    assert "RUNNING" not in states(one.study)


@EACH_KIND
def test_interrupted_again_and_again(strategy: Strategy, store: Storage, alone: dict[str, Finished]) -> None:
    for told in (3, 3, 5, 5):  # never three times in one trial
        with pytest.MonkeyPatch.context() as patch:
            stop_when_told(patch, told + states(search(store, 20, strategy).study).count("RUNNING"))
            with pytest.raises(KeyboardInterrupt):
                do(store, 20, Fits(epochs=8), strategy=strategy)
        with pytest.raises(KeyboardInterrupt):
            do(store, 20, Fits(dies_in=0, epochs=8), strategy=strategy)
    assert finished(do(store, 20, Fits(epochs=8), strategy=strategy)) == alone[strategy.name]


# --- several workers, one inside the fit of another: every order of their steps is a possible one ---


def leases_of(store: Storage, grace: float = 1000.0) -> Leases:
    return Leases(store.engine, every=min(500.0, grace / 2), grace=grace)


@given_settings(quick, max_examples=12)
@given(order=st.lists(st.integers(0, 3), max_size=30), trials=st.integers(1, 20), strategy=st.sampled_from(KINDS))
def test_the_order_of_units_and_the_number_of_workers_play_no_part(
    order: list[int],
    trials: int,
    strategy: Strategy,
    alone: dict[str, Finished],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("nested")
    store = connect(folder / "demo.db")
    fitted: Counter[tuple[str, ...]] = Counter()
    left = iter(order)

    def worker(depth: int) -> bool:
        def fit(jobs: Sequence[Job]) -> list[object]:
            for _ in range(next(left, 0)):
                if depth < 4:
                    worker(depth + 1)
            runs = Fits(epochs=8)(jobs)
            fitted.update(str(job.recipe) for job in jobs)
            return runs

        return search(store, trials, strategy).work(leases_of(store), fit, silent)

    while worker(0):
        pass
    one = search(store, trials, strategy)
    assert finished(one) == alone[strategy.name][:trials]
    assert len(everything(one.study)) == sum(fitted.values()) == trials
    store.engine.dispose()


def test_a_unit_in_other_hands_is_left_and_the_next_one_is_done(store: Storage) -> None:
    mine, others = Fits(), Fits()
    seen: list[bool] = []

    def fit(jobs: Sequence[Job]) -> list[object]:
        seen.extend(search(store, 8, BY_ITSELF).work(leases_of(store), others, silent) for _ in range(8))
        return mine(jobs)

    one = search(store, 8, BY_ITSELF)
    assert one.work(leases_of(store), fit, silent)
    assert seen == [True] * 7 + [False]  # the next round waits for the whole of this one
    assert one.done()
    assert (mine.units, others.units) == ([1], [1] * 7)


# --- workers that die or come back ---


def taken_over(store: Storage, trials: int, strategy: Strategy, fit: Fits) -> None:
    """Bring a search to its end in place of those who give no sign of life."""
    leases = leases_of(store, grace=0.05)
    one = search(store, trials, strategy)
    while not one.done():
        if not one.work(leases, fit, silent):
            time.sleep(0.02)


@EACH_KIND
@pytest.mark.parametrize("epochs_left", [0, 3])
def test_a_suspended_worker_that_comes_back_changes_nothing(
    epochs_left: int, strategy: Strategy, store: Storage, alone: dict[str, Finished]
) -> None:
    others = Fits(epochs=8)
    published: list[int] = []
    after: list[object] = []

    def fit(jobs: Sequence[Job]) -> list[object]:
        for job in jobs:
            assert job.on_epoch is not None
            job.on_epoch(1, 0.999)
        taken_over(store, 20, strategy, others)
        after.append(everything(one.study))
        for epoch in range(2, 2 + epochs_left):
            for job in jobs:
                assert job.on_epoch is not None
                job.on_epoch(epoch, 0.999)
        return [fake_run(0.999) for _ in jobs]

    one = search(store, 20, strategy)
    one.work(leases_of(store), fit, silent, lambda trial, run: published.append(trial.number))
    assert after == [everything(one.study)]
    assert not published
    assert finished(one) == alone[strategy.name]
    assert len(others.recipes) == 20
    lost = [trial for trial in everything(one.study) if "lost" in trial.user_attrs]
    assert {trial.state for trial in lost} == {TrialState.FAIL}
    assert len(everything(one.study)) == 20 + len(lost)


def test_a_worker_that_lost_its_unit_while_its_runs_were_stored_changes_nothing(
    store: Storage, alone: dict[str, Finished]
) -> None:
    """It was suspended between two of them: the first counts, the others are done again, to the same end."""
    one = search(store, 20, WEIGHTS)
    others = Fits(epochs=8)

    def publish(trial: optuna.trial.FrozenTrial, run: object) -> None:
        if trial.user_attrs["place"] == 2:
            taken_over(store, 20, WEIGHTS, others)

    one.work(leases_of(store), Fits(epochs=8), silent, publish)
    assert finished(one) == alone["class_weights"]
    assert len(others.recipes) == 18
    assert Counter(states(one.study)) == Counter(trial[1] for trial in alone["class_weights"]) + Counter(FAIL=6)


def test_a_trial_that_ends_while_it_is_buried_counts(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker comes back between the look of the one who takes over and the act."""
    original, comes_back = Storage.set_trial_user_attr, []

    def setting(self: Storage, trial: int, key: str, value: object) -> None:
        if key == "lost" and not comes_back:
            comes_back.append(trial)
            self.set_trial_state_values(trial, TrialState.COMPLETE, [0.75])
        original(self, trial, key, value)

    def fit(jobs: Sequence[Job]) -> list[object]:
        monkeypatch.setattr(Storage, "set_trial_user_attr", setting)
        taken_over(store, 8, WEIGHTS, Fits())
        return [fake_run(0.1) for _ in jobs]

    one = search(store, 8, WEIGHTS)
    one.work(leases_of(store), fit, silent)
    assert len(comes_back) == 1
    assert one.done()
    assert finished(one)[0][1:4:2] == ("COMPLETE", 0.75)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgresql() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    return tmp_path / "demo.db" if request.param == "sqlite" else request.getfixturevalue("server").fresh()


def kill(place: Path | str, strategy: Strategy, trials: int, told: int) -> None:
    process = PROCESSES.Process(target=killed, args=(place, strategy.name, trials, told))
    process.start()
    process.join(60)
    assert process.exitcode == 9


def test_the_trials_of_a_dead_worker_are_closed_and_done_again_after_the_grace(
    place: Path | str, alone: dict[str, Finished]
) -> None:
    kill(place, WEIGHTS, 20, told=10)
    store = connect(place)
    one = search(store, 20, WEIGHTS)
    assert Counter(states(one.study))["RUNNING"] == 6
    fit = Fits(epochs=8)
    leases = leases_of(store, grace=0.5)
    begin = time.monotonic()
    while not one.work(leases, fit, silent):
        assert states(one.study).count("RUNNING") == 6  # nobody touches them before
        time.sleep(0.02)
    assert time.monotonic() - begin >= 0.5
    while one.work(leases, fit, silent):
        pass
    assert finished(one) == alone["class_weights"]
    assert fit.units == [1] * 6 + [4]  # what a worker died in is done one by one
    lost = [trial for trial in everything(one.study) if "lost" in trial.user_attrs]
    assert [trial.state.name for trial in lost] == ["FAIL"] * 6
    assert sorted(trial.user_attrs["place"] for trial in lost) == list(range(10, 16))
    store.engine.dispose()


def test_a_trial_in_which_three_workers_died_has_failed(tmp_path: Path) -> None:
    path = tmp_path / "demo.db"
    for _ in range(2):
        kill(path, BY_ITSELF, 3, told=0)
    store = connect(path)
    fit = Fits()
    leases = leases_of(store, grace=0.3)
    with pytest.MonkeyPatch.context() as patch:  # who only looks does not count as one who died
        patch.setattr(Leases, "take", lambda self, unit: None)
        assert not search(store, 3, BY_ITSELF).work(leases, fit, silent)
    assert not search(store, 3, BY_ITSELF).done()
    store.engine.dispose()
    kill(path, BY_ITSELF, 3, told=2)  # closes the one that the second left, and dies in another than these
    store = connect(path)
    one = search(store, 3, BY_ITSELF)
    taken_over(store, 3, BY_ITSELF, fit)
    trials = finished_trials(one.study)
    lost = Counter(trial.user_attrs["place"] for trial in everything(one.study) if "lost" in trial.user_attrs)
    failed = {place: trial.user_attrs["error"] for place, trial in trials.items() if "error" in trial.user_attrs}
    assert failed == {place: "3 workers died in this trial" for place, count in lost.items() if count == 3}
    assert one.choose() != Failed("3 workers died in this trial")
    store.engine.dispose()


def test_processes_do_every_place_exactly_once(place: Path | str, alone: dict[str, Finished]) -> None:
    answers = at_once(share, place, IN_PARTS.name, processes=3)
    assert all(isinstance(answer, list) for answer in answers), answers
    store = connect(place)
    one = search(store, 20, IN_PARTS)
    assert finished(one) == alone[IN_PARTS.name]
    assert len(everything(one.study)) == 20
    assert sum(len(answer) for answer in answers) == 20  # type: ignore[arg-type]
    assert sum(bool(answer) for answer in answers) > 1
    store.engine.dispose()
