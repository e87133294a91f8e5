"""Searches with an invented objective."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from worlds import storage

from hirise_imb.landmarks import CLASSES
from hirise_imb.recipe import Recipe
from hirise_imb.search import FINISHED, Storage, open_study, run_trials
from hirise_imb.strategies import STRATEGIES, Strategy
from hirise_imb.training import Job, Run

CUTS = ("late", "early")
ALL = 1000
"""More trials than any study here has."""
FACTS: dict[str, str | int] = {"data": "abc", "seed": 0}
WEIGHTS = STRATEGIES["class_weights"]


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
    """The objective; notes what it is asked for, and may stop the process in one of its fits."""

    value: Callable[[Recipe], float] = quality
    dies_in: int | None = None
    error: type[BaseException] = KeyboardInterrupt
    epochs: int = 3
    recipes: list[Recipe] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    def __call__(self, jobs: Sequence[Job]) -> list[Run]:
        first = len(self.recipes)
        self.recipes += [job.recipe for job in jobs]
        self.rounds.append(len(jobs))
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
        return [fake_run(value, cut_short=end) for value, end in zip(values, ended, strict=True)]


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


def finished(study: optuna.Study) -> list[tuple[str, Mapping[str, object], float | None, object]]:
    """State, settings, value and recipe of each finished trial."""
    trials = study.get_trials(deepcopy=False, states=FINISHED)
    return [(trial.state.name, trial.params, trial.value, trial.user_attrs["recipe"]) for trial in trials]


def undisturbed(path: Path, trials: int, strategy: Strategy = WEIGHTS, **options: Any) -> list[object]:  # noqa: ANN401
    with storage(path) as other:
        return list(finished(do(other, trials, Fits(**options), strategy=strategy)))
