"""Searches with an invented objective, and whole studies in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial

from hirise_imb.data.hirise import CLASSES
from hirise_imb.recipe import Recipe
from hirise_imb.search.database import Storage, connect
from hirise_imb.search.leases import Leases
from hirise_imb.search.search import Search, finished_trials, open_study
from hirise_imb.strategies import CONTROL, STRATEGIES, RecipeContext, Settings, Strategy
from hirise_imb.training.epoch_loop import Failed, Job
from hirise_imb.training.trainer import Run
from hirise_imb.utils.files import CACHE_VARIABLE

_CONTROL = Recipe(monitor="val_macro_f1", learning_rate=3e-3)
CONTEXT = RecipeContext(("late", "early"), {CONTROL: _CONTROL, "partial_unfreeze": replace(_CONTROL, cut="late")})
FACTS: dict[str, str | int] = {"data": "abc", "seed": 0}
WEIGHTS = STRATEGIES["class_weights"]
BY_ITSELF = STRATEGIES["prototypes"]
"""Each of its trials is a unit."""
IN_PARTS = STRATEGIES["oversampling"]
"""A round of it has several units, some of several trials."""
KINDS = (WEIGHTS, BY_ITSELF, IN_PARTS)

Finished = list[tuple[object, ...]]


def fake_run(f1: float, *, cut_short: bool = False) -> Run:
    """A run whose validation macro F1 is `f1`, up to the grain of 1000 rows a class."""
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
        cut_short=cut_short,
    )


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
    """The objective; notes what it is asked for, and may fail, or stop the process, in one of its fits."""

    value: Callable[[Recipe], float] = quality
    fails: Callable[[int], str | None] = lambda place: None
    """Why the fit of this number, counted from 0, comes to nothing."""
    dies_in: int | None = None
    error: type[BaseException] = KeyboardInterrupt
    epochs: int = 3
    recipes: list[Recipe] = field(default_factory=list)
    units: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    def __call__(self, jobs: Sequence[Job]) -> list[Run | Failed]:
        first = len(self.recipes)
        self.recipes += [job.recipe for job in jobs]
        self.units.append(len(jobs))
        self.lengths += [self.epochs] * len(jobs)
        values = [self.value(job.recipe) for job in jobs]
        ended = [False] * len(jobs)
        for epoch in range(1, self.epochs + 1):
            for place, job in enumerate(jobs):
                if ended[place]:
                    continue
                assert job.on_epoch is not None
                wanted = job.on_epoch(epoch, values[place] * epoch / self.epochs)
                if not wanted:
                    self.lengths[first + place] = epoch
                    ended[place] = epoch < self.epochs
                if epoch == 2 and first + place == self.dies_in:
                    raise self.error
        reasons = [self.fails(first + place) for place in range(len(jobs))]
        return [
            fake_run(value, cut_short=end) if reason is None else Failed(reason)
            for value, end, reason in zip(values, ended, reasons, strict=True)
        ]


def search(store: Storage, trials: int, strategy: Strategy = WEIGHTS, seed: int = 0) -> Search:
    """The search of a strategy, made or gone on with."""
    study = open_study(store, f"demo/{strategy.name}", FACTS)
    return Search(study, store, strategy, CONTEXT, trials, seed)


def do(
    store: Storage,
    trials: int,
    fit: Any = None,  # noqa: ANN401
    *,
    strategy: Strategy = WEIGHTS,
    seed: int = 0,
    shown: list[float] | None = None,
) -> Search:
    """A search brought to its end by one process that is alone with it."""
    one = search(store, trials, strategy, seed)
    leases = Leases(store.engine)
    leases.clear("demo/")
    while one.work(leases, fit or Fits(), (shown if shown is not None else []).append):
        pass
    assert one.done()
    return one


def finished(one: Search) -> Finished:
    """Place, state, settings, value, recipe and reason of failure of each finished trial, by place."""
    return [
        (place, trial.state.name, trial.params, trial.value, trial.user_attrs["recipe"], trial.user_attrs.get("error"))
        for place, trial in finished_trials(one.study).items()
    ]


def settings(one: Search) -> list[Settings]:
    """What each finished trial tried, by place."""
    return [trial.params for trial in finished_trials(one.study).values()]


def everything(study: optuna.Study) -> list[FrozenTrial]:
    """All trials, those too that count for nothing."""
    return study.get_trials()


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in everything(study)]


def undisturbed(path: Path, trials: int, strategy: Strategy = WEIGHTS, **options: Any) -> Finished:  # noqa: ANN401
    """What a search without any incident comes to, in a database of its own."""
    store = connect(path)
    try:
        return finished(do(store, trials, Fits(**options), strategy=strategy))
    finally:
        store.engine.dispose()


# --- what processes do; to import the tests themselves takes them long ---


def silent(done: float) -> None:
    """What nobody looks at."""


def killed(place: Path | str, strategy: str, trials: int, told: int) -> None:
    """A process that is killed in its unit, when so many of its trials are told."""
    store = connect(place)
    original, left = Storage.set_trial_state_values, iter(range(told))

    def telling(self: Storage, *arguments: object, **options: object) -> object:
        if next(left, None) is None:
            os._exit(9)
        return original(self, *arguments, **options)  # type: ignore[arg-type]

    Storage.set_trial_state_values = telling  # type: ignore[assignment,method-assign]
    one, leases = search(store, trials, STRATEGIES[strategy]), Leases(store.engine, every=0.02, grace=0.3)
    while True:
        if not one.work(leases, Fits(epochs=8), silent):
            time.sleep(0.02)


def share(place: Path | str, strategy: str, barrier: Any, answers: Any) -> None:  # noqa: ANN401
    """A process that works on a search beside others; it answers what it has fitted."""
    try:
        store = connect(place)
        recipes: list[str] = []

        def fit(jobs: Sequence[Job]) -> list[object]:
            recipes.extend(str(job.recipe) for job in jobs)
            time.sleep(0.05)
            return Fits(epochs=8)(jobs)  # type: ignore[return-value]

        barrier.wait(30)
        one, leases = search(store, 20, STRATEGIES[strategy]), Leases(store.engine)
        while not one.done():
            if not one.work(leases, fit, silent):
                time.sleep(0.01)
        answers.put(recipes)
    except BaseException as error:
        barrier.abort()
        answers.put(repr(error))


# --- whole studies in processes of their own ---

DEADLINE = 240.0
"""Seconds after which something hangs."""

_LAUNCHER = """\
import os, sys, time
from hirise_imb.search import leases
from hirise_imb.cli import main
from hirise_imb.training import trainer

leases.Leases.__init__.__kwdefaults__.update(every=0.5, grace=float(os.environ["GRACE"]))
select = trainer.Trainer.select


def slowly(self, jobs, selection):
    if any(job.on_epoch for job in jobs):
        time.sleep(float(os.environ["PAUSE"]))
    return select(self, jobs, selection)


trainer.Trainer.select = slowly
if __name__ == "__main__":
    sys.exit(main.main())
"""
"""The command line, but holders count as dead sooner, and trials take so long that each process gets a share. Processes
that the study starts import it too."""


@dataclass(frozen=True)
class Command:
    """The command line, in new processes."""

    folder: Path
    """Of the launcher and the cache."""
    pause: float = 0.0
    """Seconds that a unit takes beside its training."""
    grace: float = 8.0
    """Seconds after which a silent holder counts as dead."""

    def start(self, *words: object, **options: object) -> subprocess.Popen[str]:
        """A process; what it says, on both streams, is read from its stdout."""
        launcher = self.folder / "launcher.py"
        if not launcher.exists():  # another may be about to read it
            launcher.write_text(_LAUNCHER, encoding="utf-8")
        given = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        return subprocess.Popen(
            [sys.executable, str(launcher), *map(str, words), *given],
            env=os.environ
            | {CACHE_VARIABLE: str(self.folder / "cache"), "GRACE": str(self.grace), "PAUSE": str(self.pause)}
            | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def do(self, *words: object, **options: object) -> str:
        """What a process says that ends well."""
        with ended(self.start(*words, **options)) as process:
            said, _ = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, said
        return said


@contextlib.contextmanager
def ended(*processes: subprocess.Popen[str]) -> Iterator[Any]:
    """Processes that do not outlive the block."""
    try:
        yield processes[0] if len(processes) == 1 else processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def until(ready: Callable[[], Any], seconds: float = DEADLINE, pause: float = 0.02) -> Any:  # noqa: ANN401
    """What `ready` gives as soon as it gives something."""
    end = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(pause)
    return found


def results(report: Path) -> Mapping[str, bytes]:
    """What must not differ between equal runs: everything but times and the page that shows them."""
    kept = [report / "per_class.csv", *report.glob("predictions/*"), *report.glob("confusion/*")]
    summary = json.loads((report / "summary.json").read_text(encoding="utf-8"))
    del summary["files"]  # digests of the page and of times among them
    told = {"summary": json.dumps(summary).encode()}
    return {str(path.relative_to(report)): path.read_bytes() for path in kept} | told
