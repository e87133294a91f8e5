"""Searches in rounds: what is tried, and that an interruption or a later extension changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from searches import ALL, CUTS, FACTS, WEIGHTS, Fits, do, finished, quality, undisturbed
from worlds import storage

from hirise_imb.search import Storage, choose, open_study
from hirise_imb.strategies import STRATEGIES, Strategy
from hirise_imb.training import TOGETHER


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Storage]:
    with storage(tmp_path / "studies" / "demo.db") as opened:
        yield opened


# --- rounds ---


def test_trials_train_in_rounds_of_eight(store: Storage) -> None:
    fit, shown = Fits(), []
    do(store, 20, fit, shown=shown)
    assert fit.rounds == [8, 8, 4]
    assert shown == sorted(shown)
    assert [count for count in shown if isinstance(count, int)] == [8, 16, 20]
    do(store, 21, fit, shown=shown)
    do(store, 26, fit, shown=shown)
    assert fit.rounds[3:] == [1, 3, 2]  # a round that was begun is filled up first
    assert [count for count in shown if isinstance(count, int)][3:] == [21, 24, 26]
    assert TOGETHER == 8


@pytest.mark.parametrize("stops", [(10, 20), (1, 2, 11, 20)], ids=str)
def test_asking_for_more_ends_as_asking_at_once(stops: tuple[int, ...], store: Storage, tmp_path: Path) -> None:
    fit = Fits(epochs=8)
    for trials in stops:
        before = finished(do(store, 0))
        longer = finished(do(store, trials, fit))
        assert longer[: len(before)] == before
    assert len(fit.recipes) == stops[-1]
    assert longer == undisturbed(tmp_path / "at-once.db", stops[-1], epochs=8)


@pytest.mark.parametrize("strategy", [WEIGHTS, STRATEGIES["partial_unfreeze"]], ids=lambda strategy: strategy.name)
def test_a_trial_tries_what_earlier_rounds_suggest(strategy: Strategy, store: Storage, tmp_path: Path) -> None:
    """Never what trials of its own round do."""
    trials = finished(do(store, 24, strategy=strategy))
    settings, values = [trial[1] for trial in trials], [trial[2] for trial in trials]
    for same in (8, 16):
        worst = min(range(same - 8, same), key=lambda place: values[place] or 0.0)  # becomes the best
        places = iter(range(24))
        fit = Fits(value=lambda recipe, worst=worst, places=places: 1.0 if next(places) == worst else quality(recipe))
        with storage(tmp_path / f"{same}.db") as other:
            found = [params for _, params, *_ in finished(do(other, same + 8, fit, strategy=strategy))]
        assert found[:same] == settings[:same]
        if same == 8:  # with more trials, the sampler may see the same two sides in them whatever one of them does
            assert found[same:] != settings[same : same + 8]


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
        study = do(store, trials, fit)
    assert finished(study) == expected


# --- interruptions ---


@pytest.mark.parametrize("strategy", [WEIGHTS, STRATEGIES["partial_unfreeze"]], ids=lambda strategy: strategy.name)
@pytest.mark.parametrize(("at", "failed", "error"), [(0, 8, KeyboardInterrupt), (9, 4, MemoryError)])
def test_an_interrupted_search_ends_as_an_undisturbed_one(
    error: type[BaseException], at: int, failed: int, strategy: Strategy, store: Storage, tmp_path: Path
) -> None:
    with pytest.raises(error):
        do(store, 12, Fits(dies_in=at, error=error), strategy=strategy)
    study = do(store, 12, strategy=strategy)
    with storage(tmp_path / "undisturbed.db") as other:
        at_once = do(other, 12, strategy=strategy)
        assert finished(study) == finished(at_once)
        assert choose(study, strategy, CUTS, ALL) == choose(at_once, strategy, CUTS, ALL)
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    assert states.count(TrialState.FAIL) == failed
    assert TrialState.RUNNING not in states


def stop_when_told(patch: pytest.MonkeyPatch, told: int) -> None:
    """Stop the process when so many trials have been told their value."""
    original, left = optuna.Study.tell, iter(range(told))

    def telling(self: optuna.Study, *arguments: object, **options: object) -> object:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return original(self, *arguments, **options)  # type: ignore[arg-type]

    patch.setattr(optuna.Study, "tell", telling)


@pytest.mark.parametrize("told", [1, 6, 9, 15])
def test_a_search_that_is_interrupted_while_a_round_is_told_ends_as_an_undisturbed_one(
    told: int, store: Storage, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_when_told(patch, told)
        with pytest.raises(KeyboardInterrupt):
            do(store, 20, Fits(epochs=8))
    study = optuna.load_study(study_name="demo/class_weights", storage=store)
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    assert len(finished(study)) == told
    assert states.count(TrialState.RUNNING) == min(20, 8 * (told // 8 + 1)) - told > 0
    fit = Fits(epochs=8)
    found = finished(do(store, 20, fit))
    assert len(fit.recipes) == 20 - told
    assert found == undisturbed(tmp_path / "undisturbed.db", 20, epochs=8)


def test_interrupted_again_and_again(store: Storage, tmp_path: Path) -> None:
    for told in (3, 3, 1, 5):
        with pytest.MonkeyPatch.context() as patch:
            stop_when_told(patch, told + len(leftover(store)))
            with pytest.raises(KeyboardInterrupt):
                do(store, 20, Fits(epochs=8))
        with pytest.raises(KeyboardInterrupt):
            do(store, 20, Fits(dies_in=1, epochs=8))
    study = do(store, 20, Fits(epochs=8))
    assert finished(study) == undisturbed(tmp_path / "undisturbed.db", 20, epochs=8)


def leftover(store: Storage) -> list[object]:
    """Trials of a process that is gone; the next one tells them that they failed."""
    study = open_study(store, "demo/class_weights", FACTS)
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state is TrialState.RUNNING]


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
