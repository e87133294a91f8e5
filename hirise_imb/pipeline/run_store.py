"""Stores finished runs on disk, so that a study that is run again does not train anything twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.metrics.classification import Predictions
from hirise_imb.recipe import Recipe
from hirise_imb.training.trainer import Run
from hirise_imb.utils.files import write_atomically

_HISTORY_PREFIX = "history_"
_VERSION = 3
"""Version of the file format; it is part of the file names, so files of other versions are never read."""


@dataclass(frozen=True)
class RunStore:
    """A folder with one file for each run, named after everything that the results of the run depend on."""

    folder: Path
    facts: Mapping[str, str | int]
    """Facts that every run depends on in addition to its recipe and seed, such as digests of data and weights."""

    def load_or_fit(self, name: str, recipe: Recipe, seed: int, fit: Callable[[], Run]) -> Run:
        """Returns the stored run, or fits and stores it if there is none.

        Args:
            name: distinguishes runs of the same recipe and seed, such as those on other folds.
            recipe: recipe of the run.
            seed: seed of the run.
            fit: function that fits the run.

        Raises:
            FitFailed: the fit failed; nothing is stored.
        """
        path = self._path(name, recipe, seed)
        if path.exists():
            return _load(path)
        run = fit()
        write_atomically(path, lambda part: _save(run, part))
        return run

    def has(self, name: str, recipe: Recipe, seed: int) -> bool:
        """Checks whether the run is stored."""
        return self._path(name, recipe, seed).exists()

    def test_accesses(self) -> dict[str, int | str]:
        """Returns how often stored runs have predicted the test split, and the first and the last time (UTC)."""
        times = []
        for path in sorted(self.folder.glob("*.npz")):
            with np.load(path) as stored:
                if "test_probabilities" in stored:
                    times.append(str(stored["made"]))
        return {"predictions": len(times)} | ({"first": min(times), "last": max(times)} if times else {})

    def _path(self, name: str, recipe: Recipe, seed: int) -> Path:
        # The name is a digest of everything that a result depends on, so a run is never mistaken for one with other
        # settings, data or weights.
        key = json.dumps([_VERSION, dict(self.facts), name, recipe.to_dict(), seed], sort_keys=True)
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"


def _save(run: Run, path: Path) -> None:
    optional: dict[str, NDArray[Any]] = {}
    if run.test is not None:
        # numpy stores a string with four bytes for each character, and a byte string with one.
        optional = {"test_images": np.array(run.test.images, "S"), "test_probabilities": run.test.probabilities}
    if run.temperature is not None:
        optional["temperature"] = np.array(run.temperature)
    np.savez(
        path,
        allow_pickle=False,
        seed=run.seed,
        best_epoch=run.best_epoch,
        val_confusion=run.val_confusion,
        seconds=run.seconds,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        **optional,
        **{f"{_HISTORY_PREFIX}{name}": run.history[name].to_numpy() for name in run.history},
    )


def _load(path: Path) -> Run:
    with np.load(path) as stored:
        columns = [name for name in stored if name.startswith(_HISTORY_PREFIX)]
        test = None
        if "test_probabilities" in stored:
            names = tuple(name.decode() for name in stored["test_images"].tolist())
            test = Predictions(names, stored["test_probabilities"])
        return Run(
            seed=int(stored["seed"]),
            history=pd.DataFrame({name.removeprefix(_HISTORY_PREFIX): stored[name] for name in columns}),
            best_epoch=int(stored["best_epoch"]),
            val_confusion=stored["val_confusion"],
            test=test,
            temperature=float(stored["temperature"]) if "temperature" in stored else None,
            seconds=float(stored["seconds"]),
        )
