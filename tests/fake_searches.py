"""Searches with an invented objective, in this process and in others."""

from __future__ import annotations

import functools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial

from hirise_imb.data.hirise import HIRISE
from hirise_imb.features.inputs import Input
from hirise_imb.recipe import Recipe
from hirise_imb.search.database import Storage, connect, lock_study
from hirise_imb.search.leases import Leases
from hirise_imb.search.search import Fit, Search
from hirise_imb.search.trial_store import open_trial_store
from hirise_imb.strategies import (
    CONTROL,
    STRATEGIES,
    Parameters,
    PosthocStrategy,
    RecipeContext,
    Settings,
    Strategy,
    choice,
    integer,
)
from hirise_imb.strategies.ensemble import FURTHER_HEADS
from hirise_imb.training.epoch_loop import OnEpoch
from hirise_imb.training.trainer import CrossValidation
from hirise_imb.utils.errors import FitFailed

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

    from servers import Answers

CLASSES = HIRISE.classes
_CONTROL = Recipe(monitor="val_macro_f1", learning_rate=3e-3)
CONTEXT = RecipeContext(
    cuts=("late", "early"),
    bases={
        CONTROL: _CONTROL,
        "partial_unfreeze": replace(_CONTROL, cut="late"),
        "representation": replace(_CONTROL, inputs=(Input(layer="late"),)),
    },
    layers=("late", "middle", "early"),
)
FACTS: dict[str, str | int] = {"data": "abc", "seed": 0}
TRAINED = STRATEGIES["class_weights"]
"""Trains a head; infinitely many settings."""
CLOSED_FORM = STRATEGIES["prototypes"]


@dataclass(frozen=True)
class FiniteParameters(Parameters):
    """Sixteen settings: two rounds, and fewer than the searches here ask for."""

    kind: Literal["seeds", "heads"] = choice(default="seeds", help="of the members", source="here")
    members: int = integer(1, 8, default=5, help="number of fits", source="here")


class FiniteStrategy(PosthocStrategy[FiniteParameters]):
    """Averages fits, and heads of other kinds."""

    name = "finite"
    summary = "fits are averaged"
    source = "here"
    parameters = FiniteParameters

    def apply(self, recipe: Recipe, parameters: FiniteParameters) -> Recipe:
        """Returns the recipe with several fits, and with closed-form heads if their kind is chosen."""
        return replace(recipe, members=parameters.members, also=FURTHER_HEADS if parameters.kind == "heads" else ())

    def initial_points(self) -> list[Settings]:
        """Returns one fit with heads of three kinds."""
        return [{"kind": "heads", "members": 1}]


FINITE = FiniteStrategy()
"""Has few distinct settings, more than one round of them."""
KINDS = (TRAINED, CLOSED_FORM, FINITE)

FinishedTrials = list[tuple[Any, ...]]


def make_validation(f1: float, *, notes: tuple[str, ...] = (), capped: bool = False) -> CrossValidation:
    """Returns a cross-validation whose score is `f1`, to more digits than the counts of its confusion matrices give."""
    scores = (f1 - 0.01, f1 + 0.01)
    hits = [round(1000 * score) for score in scores]
    correct = [np.diag(np.full(len(CLASSES), count)) for count in hits]
    wrong = [np.roll(np.diag(np.full(len(CLASSES), 1000 - count)), 1, axis=1) for count in hits]
    return CrossValidation(
        seeds=(0, 1),
        epochs=(3,),
        capped=capped,
        history=pd.DataFrame(),
        confusions=np.stack(correct) + np.stack(wrong),
        log_probabilities=np.zeros((2, 0, len(CLASSES)), np.float32),
        temperatures=(1.0,),
        notes=notes,
        seconds=1.5,
        score=f1,
    )


def quality(recipe: Recipe) -> float:
    """A deterministic objective with one peak, of whatever numbers strategies vary."""
    numbers = [float(value) for value in _leaves(recipe.to_dict()) if isinstance(value, int | float)]
    return float(0.5 + 0.4 * np.cos(3 * sum(numbers)))


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    else:
        yield value


@dataclass
class FakeFit:
    """The objective as a `Fit` that records what it is asked for; it may fail, or interrupt the process."""

    value: Callable[[Recipe], float] = quality
    fails: Callable[[int], str | None] = lambda index: None
    """Returns why the fit of this index, from 0, fails."""
    dies_in: int | None = None
    error: type[BaseException] = KeyboardInterrupt
    epochs: int = 3
    recipes: list[Recipe] = field(default_factory=list)

    def __call__(self, recipe: Recipe, on_epoch: OnEpoch) -> CrossValidation:
        index = len(self.recipes)
        self.recipes.append(recipe)
        value = self.value(recipe)
        for epoch in range(1, self.epochs + 1):
            on_epoch(epoch, value * epoch / self.epochs)
            if epoch == 2 and index == self.dies_in:
                raise self.error
        reason = self.fails(index)
        if reason is not None:
            raise FitFailed(reason)
        return make_validation(value)


def create_database(path: Path) -> Path:
    """Writes a database that has its tables and nothing in them, unless there is one already; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_bytes(_empty_database())
    return path


@functools.cache
def _empty_database() -> bytes:
    # Optuna writes a dozen tables one by one and waits for the disk after each, some 0.3 s a database.
    with tempfile.TemporaryDirectory() as folder:
        connect(path := Path(folder) / "empty.db").engine.dispose()
        return path.read_bytes()


@contextmanager
def open_storage(path: Path) -> Iterator[Storage]:
    """Opens a study's database, locked as a run locks it."""
    with lock_study(path):
        storage = connect(create_database(path))
        try:
            yield storage
        finally:
            storage.engine.dispose()


def open_search(storage: Storage, trials: int, strategy: Strategy = TRAINED, seed: int = 0) -> Search:
    """Creates the search of a strategy, or opens it to continue it."""
    trial_store = open_trial_store(storage, f"demo/{strategy.name}", FACTS)
    return Search(trial_store, strategy, CONTEXT, trials, seed, CLASSES)


def run_search(
    storage: Storage,
    trials: int,
    fit: Fit | None = None,
    *,
    strategy: Strategy = TRAINED,
    seed: int = 0,
    progress: list[float] | None = None,
) -> Search:
    """Completes a search in one process that is alone with it; `progress` gets what it shows."""
    search = open_search(storage, trials, strategy, seed)
    leases = Leases(storage.engine)
    leases.clear("demo/")
    while search.train_next_trial(leases, fit or FakeFit(), (progress if progress is not None else []).append):
        pass
    assert search.is_complete()
    return search


def finished_trials(search: Search) -> FinishedTrials:
    """Returns place, state, settings, value, recipe and reason of failure of each finished trial, by place."""
    return [
        (place, trial.state.name, trial.params, trial.value, trial.user_attrs["recipe"], trial.user_attrs.get("error"))
        for place, trial in search.trial_store.finished_trials().items()
    ]


def tried_settings(search: Search) -> list[Settings]:
    """Returns the settings of each finished trial, by place."""
    return [trial.params for trial in search.trial_store.finished_trials().values()]


def all_trials(search: Search) -> list[FrozenTrial]:
    """Returns all trials in the database, those too that do not count."""
    return search.trial_store.study.get_trials()


def lost_trials(search: Search) -> list[FrozenTrial]:
    """Returns the trials whose worker died."""
    return [trial for trial in all_trials(search) if "lost" in trial.user_attrs]


def trial_states(study: optuna.Study) -> list[str]:
    """Returns the state of each trial of a study, in the order of their starts."""
    return [trial.state.name for trial in study.get_trials()]


def run_undisturbed(path: Path, trials: int, strategy: Strategy = TRAINED, epochs: int = 3) -> FinishedTrials:
    """Returns the trials of a search without any incident, in a database of its own."""
    storage = connect(create_database(path))
    try:
        return finished_trials(run_search(storage, trials, FakeFit(epochs=epochs), strategy=strategy))
    finally:
        storage.engine.dispose()


def ignore_progress(done: float) -> None:
    """A progress callback that shows nothing."""


# --- run in other processes, which would need long to import the tests themselves ---


def work_until_killed(database: Path | str, strategy: str, trials: int, closed: int) -> None:
    """Works on a search; dies like a killed process once it has closed so many trials."""
    storage = connect(database)
    original, left = Storage.set_trial_state_values, iter(range(closed))

    def close_or_die(self: Storage, *arguments: Any, **options: Any) -> bool:  # noqa: ANN401
        if next(left, None) is None:
            os._exit(9)
        return original(self, *arguments, **options)

    Storage.set_trial_state_values = close_or_die  # type: ignore[method-assign]
    search = open_search(storage, trials, STRATEGIES[strategy])
    leases = Leases(storage.engine, interval=0.02, grace=0.3)
    while True:
        if not search.train_next_trial(leases, FakeFit(epochs=8), ignore_progress):
            time.sleep(0.02)


def share_search(database: Path | str, strategy: str, barrier: Barrier, answers: Answers) -> None:
    """Works on a search of 20 trials together with other processes; answers which recipes it has trained."""
    try:
        storage = connect(database)
        recipes: list[str] = []

        def fit(recipe: Recipe, on_epoch: OnEpoch) -> CrossValidation:
            recipes.append(str(recipe))
            time.sleep(0.05)
            return FakeFit(epochs=8)(recipe, on_epoch)

        barrier.wait(30)
        search, leases = open_search(storage, 20, STRATEGIES[strategy]), Leases(storage.engine)
        while not search.is_complete():
            if not search.train_next_trial(leases, fit, ignore_progress):
                time.sleep(0.01)
        answers.put(recipes)
    except BaseException as error:
        barrier.abort()
        answers.put(repr(error))
