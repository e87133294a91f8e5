"""Stores finished runs on disk, so that a study that is run again does not train anything twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.metrics.classification import Predictions
from hirise_imb.recipe import Recipe
from hirise_imb.training.trainer import CrossValidation, Run
from hirise_imb.utils.files import write_atomically

T = TypeVar("T")

_HISTORY_PREFIX = "history_"
_VERSION = 4
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
        return _load_or_make(self._path(name, recipe, seed), _load, fit, _save)

    def load_or_validate(
        self, recipe: Recipe, seeds: Sequence[int], fit: Callable[[], CrossValidation]
    ) -> CrossValidation:
        """Returns the stored cross-validation of a recipe, or makes and stores it if there is none.

        Raises:
            FitFailed: the fit failed; nothing is stored.
        """
        path = self._path(f"cross-validation {list(seeds)}", recipe, seeds[0])
        return _load_or_make(path, _load_validation, fit, _save_validation)

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


def _load_or_make(path: Path, load: Callable[[Path], T], make: Callable[[], T], save: Callable[[T, Path], None]) -> T:
    if path.exists():
        return load(path)
    value = make()
    write_atomically(path, lambda part: save(value, part))
    return value


def _save(run: Run, path: Path) -> None:
    np.savez(
        path,
        allow_pickle=False,
        seed=run.seed,
        best_epoch=run.best_epoch,
        # numpy stores a string with four bytes for each character, and a byte string with one.
        test_images=np.array(run.test.images, "S"),
        test_probabilities=run.test.probabilities,
        temperature=run.temperature,
        notes=np.array(run.notes, "U"),
        seconds=run.seconds,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        **_history_arrays(run.history),
    )


def _load(path: Path) -> Run:
    with np.load(path) as stored:
        names = tuple(name.decode() for name in stored["test_images"].tolist())
        return Run(
            seed=int(stored["seed"]),
            history=_history(stored),
            best_epoch=int(stored["best_epoch"]),
            test=Predictions(names, stored["test_probabilities"]),
            temperature=float(stored["temperature"]),
            notes=tuple(stored["notes"].tolist()),
            seconds=float(stored["seconds"]),
        )


def _save_validation(validation: CrossValidation, path: Path) -> None:
    np.savez(
        path,
        allow_pickle=False,
        seeds=np.array(validation.seeds),
        epochs=np.array(validation.epochs, np.int64),
        capped=validation.capped,
        log_probabilities=validation.log_probabilities,
        temperatures=np.array(validation.temperatures),
        confusions=validation.confusions,
        notes=np.array(validation.notes, "U"),
        seconds=validation.seconds,
        **_history_arrays(validation.history),
    )


def _load_validation(path: Path) -> CrossValidation:
    with np.load(path) as stored:
        return CrossValidation(
            seeds=tuple(stored["seeds"].tolist()),
            epochs=tuple(stored["epochs"].tolist()),
            capped=bool(stored["capped"]),
            history=_history(stored),
            log_probabilities=stored["log_probabilities"],
            temperatures=tuple(stored["temperatures"].tolist()),
            confusions=stored["confusions"],
            notes=tuple(stored["notes"].tolist()),
            seconds=float(stored["seconds"]),
        )


def _history_arrays(history: pd.DataFrame) -> dict[str, NDArray[Any]]:
    return {f"{_HISTORY_PREFIX}{name}": history[name].to_numpy() for name in history}


def _history(stored: Mapping[str, NDArray[Any]]) -> pd.DataFrame:
    columns = [name for name in stored if name.startswith(_HISTORY_PREFIX)]
    return pd.DataFrame({name.removeprefix(_HISTORY_PREFIX): stored[name] for name in columns})
