"""Finished runs on disk, so that a report written again fits nothing again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from hirise_imb.recipe import Recipe
from hirise_imb.training.epoch_loop import Failed
from hirise_imb.training.trainer import Run
from hirise_imb.utils.files import write_atomically

_COLUMN = "history_"
_VERSION = 2
"""Of what a file holds; files of another one are not read."""
_TESTED = ("test", "temperature")
"""What a run only has where the test split was asked for."""


@dataclass(frozen=True)
class RunStore:
    """One file a run, named after all that its numbers depend on."""

    folder: Path
    facts: Mapping[str, str | int]
    """What every run depends on beside its recipe and seed."""

    def get(self, name: str, recipe: Recipe, seed: int, fit: Callable[[], Run | Failed]) -> Run | Failed:
        """The stored run; where there is none, `fit` is called and its run stored. A failure is not stored.

        Args:
            name: tells a run from others of the same recipe and seed.
            recipe: of the run.
            seed: of the run.
            fit: makes it.
        """
        path = self._path(name, recipe, seed)
        if path.exists():
            return _load(path)
        run = fit()
        if isinstance(run, Run):
            write_atomically(path, lambda part: _save(run, part))
        return run

    def has(self, name: str, recipe: Recipe, seed: int) -> bool:
        """Whether the run is stored."""
        return self._path(name, recipe, seed).exists()

    def accesses(self) -> dict[str, int | str]:
        """How often the test split was predicted by what is stored, and when first and last (UTC)."""
        times = []
        for path in sorted(self.folder.glob("*.npz")):
            with np.load(path) as stored:
                if "test" in stored:
                    times.append(str(stored["made"]))
        return {"predictions": len(times)} | ({"first": min(times), "last": max(times)} if times else {})

    def _path(self, name: str, recipe: Recipe, seed: int) -> Path:
        key = json.dumps([_VERSION, dict(self.facts), name, recipe.to_dict(), seed], sort_keys=True)
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"


def _save(run: Run, path: Path) -> None:
    np.savez(
        path,
        allow_pickle=False,
        seed=run.seed,
        best_epoch=run.best_epoch,
        val_confusion=run.val_confusion,
        seconds=run.seconds,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        **{name: value for name in _TESTED if (value := getattr(run, name)) is not None},
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
            test=stored.get("test"),
            temperature=float(stored["temperature"]) if "temperature" in stored else None,
            seconds=float(stored["seconds"]),
        )
