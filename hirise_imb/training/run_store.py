"""Stores finished runs on disk, so that a study that is run again does not train anything twice."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.config import GIVEN_SPLIT
from hirise_imb.metrics.classification import Predictions, macro_f1
from hirise_imb.recipe import Recipe
from hirise_imb.training.context import Division
from hirise_imb.training.fitted import FittedModel
from hirise_imb.training.trainer import CrossValidation, Run
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import ensure_folder, write_atomically

_HISTORY_PREFIX = "history_"
_VERSION = 5
"""Version of the file format; it is part of the file names, so files of other versions are never read."""


@dataclass(frozen=True)
class RunStore:
    """A folder with one file for each run, named after everything that the results of the run depend on."""

    folder: Path
    facts: Mapping[str, str | int]
    """Facts that every run depends on in addition to its recipe and seed, such as digests of data and weights."""
    keeps_models: bool = False
    """Whether the fitted model of each run is stored, too; a run without its model is then fitted again."""

    def load_or_fit(
        self, name: str, recipe: Recipe, seeds: Sequence[int], fit: Callable[[Sequence[int]], Sequence[Run]]
    ) -> list[Run]:
        """Returns the run of each seed; fits and stores those that are not stored.

        Args:
            name: distinguishes runs of the same recipe and seed, such as those on other folds.
            recipe: recipe of the runs.
            seeds: seeds of the runs.
            fit: function that fits the runs of some seeds.

        Raises:
            FitFailed: the fit failed; nothing is stored.
        """
        paths = {seed: self._path(name, recipe, seed) for seed in seeds}
        missing = [seed for seed in seeds if not self.has(name, recipe, seed)]
        if missing:
            for seed, run in zip(missing, fit(missing), strict=True):
                if self.keeps_models:
                    self._store_model(self._model_path(paths[seed]), run)
                write_atomically(paths[seed], partial(_save, run))
        return [_load(path) for path in paths.values()]

    def load_or_validate(
        self, recipe: Recipe, seeds: Sequence[int], fit: Callable[[], CrossValidation]
    ) -> CrossValidation:
        """Returns the stored cross-validation of a recipe, or makes and stores it if there is none.

        Raises:
            FitFailed: the fit failed; nothing is stored.
        """
        path = self._path(f"cross-validation {list(seeds)}", recipe, seeds[0])
        if path.exists():
            return _load_validation(path)
        validation = fit()
        write_atomically(path, partial(_save_validation, validation))
        return validation

    def has(self, name: str, recipe: Recipe, seed: int) -> bool:
        """Checks whether the run is stored, with its model if the store keeps models."""
        path = self._path(name, recipe, seed)
        return path.exists() and (not self.keeps_models or self._model_path(path).exists())

    def load_model(self, name: str, recipe: Recipe, seed: int) -> FittedModel:
        """Returns the fitted model of a stored run.

        Raises:
            UserError: the file is damaged.
        """
        path = self._model_path(self._path(name, recipe, seed))
        try:
            # A file that numpy opens itself stays open where it is damaged.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                return FittedModel.from_arrays(dict(stored))
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is damaged ({error}): delete it and run the study again.") from error

    def test_accesses(self) -> dict[str, int | str]:
        """Returns how often stored runs have predicted the test split, and the first and the last time (UTC)."""
        times = []
        for path in sorted(self.folder.glob("*.npz")):
            with np.load(path) as stored:
                if "test_probabilities" in stored:
                    times.append(str(stored["made"]))
        return {"predictions": len(times)} | ({"first": min(times), "last": max(times)} if times else {})

    def _store_model(self, path: Path, run: Run) -> None:
        assert run.model is not None  # a run that was just fitted has one
        arrays = run.model.to_arrays()
        ensure_folder(path.parent)
        write_atomically(path, lambda part: np.savez(part, allow_pickle=False, **arrays))

    def _model_path(self, path: Path) -> Path:
        return self.folder / "models" / path.name

    def _path(self, name: str, recipe: Recipe, seed: int) -> Path:
        # The name is a digest of everything that a result depends on, so a run is never mistaken for one with other
        # settings, data or weights.
        key = json.dumps([_VERSION, dict(self.facts), name, recipe.to_dict(), seed], sort_keys=True)
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"


def open_run_store(out: Path, study: str, division: Division, *, keeps_models: bool = False) -> RunStore:
    """Opens the store of a division's finished fits, and creates its folder.

    Args:
        out: folder that contains `studies/`.
        study: name of the study.
        division: division of the data.
        keeps_models: whether fitted models are stored, too.
    """
    folder = out / "studies" / f"{study}.runs"
    if division.key != GIVEN_SPLIT:
        folder = folder / division.key.replace(" ", "-")
    return RunStore(ensure_folder(folder), division.facts, keeps_models)


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
        score=validation.score,
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
            score=float(stored["score"]) if "score" in stored else _mean_macro_f1(stored["confusions"]),
            notes=tuple(stored["notes"].tolist()),
            seconds=float(stored["seconds"]),
        )


def _mean_macro_f1(confusions: NDArray[np.int64]) -> float:
    """Returns the validation score of a file that was written when macro F1 was the only target."""
    return float(np.mean([macro_f1(confusion) for confusion in confusions]))


def _history_arrays(history: pd.DataFrame) -> dict[str, NDArray[Any]]:
    return {f"{_HISTORY_PREFIX}{name}": history[name].to_numpy() for name in history}


def _history(stored: Mapping[str, NDArray[Any]]) -> pd.DataFrame:
    columns = [name for name in stored if name.startswith(_HISTORY_PREFIX)]
    return pd.DataFrame({name.removeprefix(_HISTORY_PREFIX): stored[name] for name in columns})
