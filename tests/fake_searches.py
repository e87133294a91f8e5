"""Searches with an invented objective, in this process and in others."""

from __future__ import annotations

import functools
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial

from hirise_imb.data.hirise import HIRISE
from hirise_imb.recipe import Recipe
from hirise_imb.search.database import Storage, connect, lock_study
from hirise_imb.search.leases import Leases
from hirise_imb.search.search import Fit, Search
from hirise_imb.search.trial_store import open_trial_store
from hirise_imb.strategies import CONTROL, STRATEGIES, RecipeContext, Settings, Strategy
from hirise_imb.training.epoch_loop import Job
from hirise_imb.training.outcome import Outcome
from hirise_imb.training.trainer import Run
from hirise_imb.utils.errors import FitFailed

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

    from servers import Answers

CLASSES = HIRISE.classes
_CONTROL = Recipe(monitor="val_macro_f1", learning_rate=3e-3)
CONTEXT = RecipeContext(("late", "early"), {CONTROL: _CONTROL, "partial_unfreeze": replace(_CONTROL, cut="late")})
FACTS: dict[str, str | int] = {"data": "abc", "seed": 0}
ONE_BATCH = STRATEGIES["class_weights"]
"""A round of it is one batch."""
BATCH_PER_TRIAL = STRATEGIES["prototypes"]
"""Each of its trials is a batch of its own."""
SEVERAL_BATCHES = STRATEGIES["oversampling"]
"""A round of it has several batches, some of several trials."""
KINDS = (ONE_BATCH, BATCH_PER_TRIAL, SEVERAL_BATCHES)

FinishedTrials = list[tuple[Any, ...]]


def fake_run(f1: float, *, pruned: bool = False) -> Run:
    """Returns a run whose validation macro F1 is `f1`, rounded to one in 1000 rows a class."""
    hits = round(1000 * f1)
    confusion = np.diag(np.full(len(CLASSES), hits))
    confusion += np.roll(np.diag(np.full(len(CLASSES), 1000 - hits)), 1, axis=1)
    return Run(
        seed=0,
        history=pd.DataFrame(),
        best_epoch=3,
        val_confusion=confusion,
        test=None,
        temperature=None,
        seconds=1.5,
        pruned=pruned,
    )


def quality(recipe: Recipe) -> float:
    """A deterministic objective with one peak, of whatever numbers strategies vary."""
    numbers = [value for value in _leaves(recipe.to_dict()) if isinstance(value, float)]
    return float(0.5 + 0.4 * np.cos(3 * sum(numbers)))


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _leaves(inner)
    else:
        yield value


@dataclass
class FakeFit:
    """The objective as a `Fit` that records what it is asked for; a run of it may fail, or interrupt the process."""

    value: Callable[[Recipe], float] = quality
    fails: Callable[[int], str | None] = lambda index: None
    """Returns why the run of this index, from 0, fails."""
    dies_in: int | None = None
    error: type[BaseException] = KeyboardInterrupt
    epochs: int = 3
    recipes: list[Recipe] = field(default_factory=list)
    batch_sizes: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    """Epochs of each run."""

    def __call__(self, jobs: Sequence[Job]) -> list[Outcome[Run]]:
        first = len(self.recipes)
        self.recipes += [job.recipe for job in jobs]
        self.batch_sizes.append(len(jobs))
        self.lengths += [self.epochs] * len(jobs)
        values = [self.value(job.recipe) for job in jobs]
        pruned = [False] * len(jobs)
        for epoch in range(1, self.epochs + 1):
            for index, job in enumerate(jobs):
                if pruned[index]:
                    continue
                assert job.on_epoch is not None
                if not job.on_epoch(epoch, values[index] * epoch / self.epochs):
                    self.lengths[first + index] = epoch
                    pruned[index] = epoch < self.epochs
                if epoch == 2 and first + index == self.dies_in:
                    raise self.error
        reasons = [self.fails(first + index) for index in range(len(jobs))]
        return [
            Outcome(fake_run(value, pruned=is_pruned)) if reason is None else Outcome(failure=FitFailed(reason))
            for value, is_pruned, reason in zip(values, pruned, reasons, strict=True)
        ]


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


def open_search(storage: Storage, trials: int, strategy: Strategy = ONE_BATCH, seed: int = 0) -> Search:
    """Creates the search of a strategy, or opens it to continue it."""
    trial_store = open_trial_store(storage, f"demo/{strategy.name}", FACTS)
    return Search(trial_store, strategy, CONTEXT, trials, seed, CLASSES)


def run_search(
    storage: Storage,
    trials: int,
    fit: Fit | None = None,
    *,
    strategy: Strategy = ONE_BATCH,
    seed: int = 0,
    progress: list[float] | None = None,
) -> Search:
    """Completes a search in one process that is alone with it; `progress` gets what it shows."""
    search = open_search(storage, trials, strategy, seed)
    leases = Leases(storage.engine)
    leases.clear("demo/")
    while search.train_next_batch(leases, fit or FakeFit(), (progress if progress is not None else []).append):
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


def run_undisturbed(path: Path, trials: int, strategy: Strategy = ONE_BATCH, epochs: int = 3) -> FinishedTrials:
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
        if not search.train_next_batch(leases, FakeFit(epochs=8), ignore_progress):
            time.sleep(0.02)


def share_search(database: Path | str, strategy: str, barrier: Barrier, answers: Answers) -> None:
    """Works on a search of 20 trials together with other processes; answers which recipes it has trained."""
    try:
        storage = connect(database)
        recipes: list[str] = []

        def fit(jobs: Sequence[Job]) -> list[Outcome[Run]]:
            recipes.extend(str(job.recipe) for job in jobs)
            time.sleep(0.05)
            return FakeFit(epochs=8)(jobs)

        barrier.wait(30)
        search, leases = open_search(storage, 20, STRATEGIES[strategy]), Leases(storage.engine)
        while not search.is_complete():
            if not search.train_next_batch(leases, fit, ignore_progress):
                time.sleep(0.01)
        answers.put(recipes)
    except BaseException as error:
        barrier.abort()
        answers.put(repr(error))
