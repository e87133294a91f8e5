"""Finished runs on disk, so that a report written again fits nothing again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hirise_imb.files import write_whole
from hirise_imb.recipe import Recipe
from hirise_imb.training import Run

_COLUMN = "history_"


@dataclass(frozen=True)
class RunStore:
    """One file a run, named after all that its numbers depend on."""

    folder: Path
    facts: Mapping[str, str | int]
    """What every run depends on beside its recipe and seed."""

    def get(self, recipe: Recipe, seed: int, fit: Callable[[], Run]) -> Run:
        """The stored run of a recipe and seed; where there is none, `fit` is called and its run stored."""
        path = self._path(recipe, seed)
        if path.exists():
            return _load(path)
        run = fit()
        write_whole(path, lambda part: _save(run, part))
        return run

    def has(self, recipe: Recipe, seed: int) -> bool:
        """Whether the run is stored."""
        return self._path(recipe, seed).exists()

    def _path(self, recipe: Recipe, seed: int) -> Path:
        key = json.dumps([dict(self.facts), recipe.to_dict(), seed], sort_keys=True)
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"


def _save(run: Run, path: Path) -> None:
    assert run.test is not None
    np.savez(
        path,
        allow_pickle=False,
        seed=run.seed,
        best_epoch=run.best_epoch,
        val_confusion=run.val_confusion,
        test=run.test,
        seconds=run.seconds,
        **{f"{_COLUMN}{name}": run.history[name].to_numpy() for name in run.history},
    )


def _load(path: Path) -> Run:
    with np.load(path) as stored:
        columns = [name for name in stored if name.startswith(_COLUMN)]
        return Run(
            seed=int(stored["seed"]),
            history=pd.DataFrame({name.removeprefix(_COLUMN): stored[name] for name in columns}),
            best_epoch=int(stored["best_epoch"]),
            val_confusion=stored["val_confusion"],
            test=stored["test"],
            seconds=float(stored["seconds"]),
        )
