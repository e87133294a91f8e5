"""Stores finished runs on disk, so that a study that is run again does not train anything twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.config import GIVEN_SPLIT
from hirise_imb.metrics.classification import Predictions, macro_f1
from hirise_imb.recipe import Recipe
from hirise_imb.training.array_file import DamagedFile, read_verified, write_verified
from hirise_imb.training.context import Division
from hirise_imb.training.fitted import FittedModel
from hirise_imb.training.trainer import CrossValidation, Run
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import ensure_folder, remove_leftovers
from hirise_imb.utils.progress import warn

_HISTORY_PREFIX = "history_"
_VERSION = 5
"""Version of the file format; it is part of the file names, so files of other versions are never read."""
_FILES = f"{'[0-9a-f]' * 16}.npz"
"""Pattern of the file names; temporary files, which a killed process leaves, have others."""

T = TypeVar("T")
Arrays: TypeAlias = Mapping[str, NDArray[Any]]


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
        runs = {seed: self._load(path) for seed, path in paths.items()}
        missing = [seed for seed, run in runs.items() if run is None]
        if missing:
            for seed, run in zip(missing, fit(missing), strict=True):
                path = paths[seed]
                if self.keeps_models:
                    assert run.model is not None  # a run that was just fitted has one
                    ensure_folder(self._model_path(path).parent)
                    write_verified(self._model_path(path), run.model.to_arrays())
                write_verified(path, _run_to_arrays(run))
                # Read again, so that results do not depend on whether a run was stored before.
                runs[seed] = _run_from_arrays(read_verified(path))
        return [run for run in runs.values() if run is not None]

    def load_or_validate(
        self, recipe: Recipe, seeds: Sequence[int], fit: Callable[[], CrossValidation]
    ) -> CrossValidation:
        """Returns the stored cross-validation of a recipe, or makes and stores it if there is none.

        Raises:
            FitFailed: the fit failed; nothing is stored.
        """
        path = self._path(f"cross-validation {list(seeds)}", recipe, seeds[0])
        if (stored := _read(path, _validation_from_arrays)) is not None:
            return stored
        validation = fit()
        write_verified(path, _validation_to_arrays(validation))
        return validation

    def has(self, name: str, recipe: Recipe, seed: int) -> bool:
        """Returns whether there are files of the run, and of its model if the store keeps models."""
        path = self._path(name, recipe, seed)
        return path.exists() and (not self.keeps_models or self._model_path(path).exists())

    def load_model(self, name: str, recipe: Recipe, seed: int) -> FittedModel:
        """Returns the fitted model of a stored run.

        Raises:
            UserError: the file is damaged.
        """
        path = self._model_path(self._path(name, recipe, seed))
        try:
            return FittedModel.from_arrays(read_verified(path))
        except (OSError, ValueError, DamagedFile) as error:
            raise UserError(f"{path} can't be read any more ({error}): run the study again.") from error

    def test_accesses(self) -> dict[str, int | str]:
        """Returns how often stored runs have predicted the test split, and the first and the last time (UTC).

        A fit that was repeated, because its file was damaged or lacked the model, is counted once, at the time of its
        repetition: it predicts the same. Files that can't be read are counted on their own, since they may be fits.
        """
        times, unreadable = [], 0
        for path in sorted(self.folder.glob(_FILES)):
            try:
                stored = read_verified(path)
            except DamagedFile:
                unreadable += 1
                continue
            if "test_probabilities" in stored:
                times.append(str(stored["made"]))
        return (
            {"predictions": len(times)}
            | ({"first": min(times), "last": max(times)} if times else {})
            | ({"unreadable": unreadable} if unreadable else {})
        )

    def _load(self, path: Path) -> Run | None:
        """Returns a stored run; None if it, or the model that the store keeps with it, is missing or damaged."""
        run = _read(path, _run_from_arrays)
        if run is not None and self.keeps_models and _read(self._model_path(path), FittedModel.from_arrays) is None:
            return None
        return run

    def _model_path(self, path: Path) -> Path:
        return self.folder / "models" / path.name

    def _path(self, name: str, recipe: Recipe, seed: int) -> Path:
        # The name is a digest of everything that a result depends on, so a run is never mistaken for one with other
        # settings, data or weights.
        key = json.dumps([_VERSION, dict(self.facts), name, recipe.to_dict(), seed], sort_keys=True)
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"


def open_run_store(out: Path, study: str, division: Division, *, keeps_models: bool = False) -> RunStore:
    """Opens the store of a division's finished fits, and creates its folder. The study has to be locked.

    Args:
        out: folder that contains `studies/`.
        study: name of the study.
        division: division of the data.
        keeps_models: whether fitted models are stored, too.
    """
    folder = out / "studies" / f"{study}.runs"
    if division.key != GIVEN_SPLIT:
        folder = folder / division.key.replace(" ", "-")
    for place in (ensure_folder(folder), folder / "models"):
        remove_leftovers(place)
    return RunStore(folder, division.facts, keeps_models)


def _read(path: Path, convert: Callable[[Arrays], T]) -> T | None:
    """Returns what is stored in a file; None, with a message, if it is damaged, and None if there is none."""
    try:
        return convert(read_verified(path))
    except FileNotFoundError:
        return None
    except (DamagedFile, KeyError, ValueError, TypeError, AttributeError) as error:
        warn(f"The stored fit {path} is damaged ({error}); it is repeated.")
        return None


def _run_to_arrays(run: Run) -> Arrays:
    return {
        "seed": np.array(run.seed),
        "best_epoch": np.array(run.best_epoch),
        # numpy stores a string with four bytes for each character, and a byte string with one.
        "test_images": np.array(run.test.images, "S"),
        "test_probabilities": run.test.probabilities,
        "temperature": np.array(run.temperature),
        "notes": np.array(run.notes, "U"),
        "seconds": np.array(run.seconds),
        "made": np.array(datetime.now(UTC).isoformat(timespec="seconds")),
        **_history_arrays(run.history),
    }


def _run_from_arrays(stored: Arrays) -> Run:
    return Run(
        seed=int(stored["seed"]),
        history=_history(stored),
        best_epoch=int(stored["best_epoch"]),
        test=Predictions(tuple(name.decode() for name in stored["test_images"].tolist()), stored["test_probabilities"]),
        temperature=float(stored["temperature"]),
        notes=tuple(stored["notes"].tolist()),
        seconds=float(stored["seconds"]),
    )


def _validation_to_arrays(validation: CrossValidation) -> Arrays:
    return {
        "seeds": np.array(validation.seeds),
        "epochs": np.array(validation.epochs, np.int64),
        "capped": np.array(validation.capped),
        "log_probabilities": validation.log_probabilities,
        "temperatures": np.array(validation.temperatures),
        "confusions": validation.confusions,
        "score": np.array(validation.score),
        "notes": np.array(validation.notes, "U"),
        "seconds": np.array(validation.seconds),
        **_history_arrays(validation.history),
    }


def _validation_from_arrays(stored: Arrays) -> CrossValidation:
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


def _history(stored: Arrays) -> pd.DataFrame:
    columns = [name for name in stored if name.startswith(_HISTORY_PREFIX)]
    return pd.DataFrame({name.removeprefix(_HISTORY_PREFIX): stored[name] for name in columns})
