"""Pools the fits of an arm over the divisions of a design, so that each tested landmark is predicted once by a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hirise_imb.data.manifest import Manifest
from hirise_imb.metrics.classification import Predictions
from hirise_imb.pipeline.division_fits import ArmFit, DivisionFits
from hirise_imb.reporting.records import Arm, Omitted, Selection
from hirise_imb.training.context import Division
from hirise_imb.training.trainer import Run


def pool_arms(fits: Sequence[DivisionFits], repeats: int, images: Sequence[str]) -> list[Arm]:
    """Returns the arms that every division has, with their predictions of all tested landmarks.

    Args:
        fits: the fits of each division, repeat by repeat.
        repeats: number of repeats; their divisions test each landmark once.
        images: names of the tested images in the order of predictions.
    """
    names = [name for name in fits[0].arms if all(name in one.arms for one in fits)]
    return [_pool_arm(name, fits, repeats, images) for name in names]


def list_omitted(fits: Sequence[DivisionFits]) -> list[Omitted]:
    """Returns the strategies that could not be used in some division, with the first reason."""
    omitted: dict[str, Omitted] = {}
    for one in fits:
        for name, (summary, reason) in one.failures.items():
            place = f"in {one.division.name}: " if len(fits) > 1 else ""
            omitted.setdefault(name, Omitted(name, summary, place + reason))
    return list(omitted.values())


def tested_landmarks(divisions: Sequence[Division], manifest: Manifest) -> pd.DataFrame:
    """Returns the landmarks that a design tests; columns: image, landmark, source, label."""
    rows = np.unique(np.concatenate([division.trainer.splits.test for division in divisions]))
    return manifest.table.loc[rows, ["image", "landmark", "source", "label"]].reset_index(drop=True)


def list_outer_folds(divisions: Sequence[Division], repeats: int, manifest: Manifest) -> pd.DataFrame:
    """Returns the outer fold of each source; columns: repeat and fold (from 1), source."""
    folds = len(divisions) // repeats
    rows = [
        (1 + place // folds, 1 + place % folds, source)
        for place, division in enumerate(divisions)
        for source in sorted(set(manifest.table.loc[division.trainer.splits.test, "source"]))
    ]
    return pd.DataFrame(rows, columns=["repeat", "fold", "source"])


def _pool_arm(name: str, fits: Sequence[DivisionFits], repeats: int, images: Sequence[str]) -> Arm:
    parts = [one.arms[name] for one in fits]
    first, folds = parts[0], len(parts) // repeats
    # The fits of one seed in one repeat, fold by fold.
    pools = [
        [part.runs[seed] for part in parts[start : start + folds]]
        for start in range(0, len(parts), folds)
        for seed in range(len(first.runs))
    ]
    capped = [
        tuple(_is_capped(part, seed) for part in parts[start : start + folds])
        for start in range(0, len(parts), folds)
        for seed in range(len(first.runs))
    ]
    return Arm(
        name=name,
        role=first.role,
        summary=first.summary,
        selections=tuple(
            Selection(
                division=one.division.name,
                recipe=part.recipe.to_dict(),
                settings=dict(part.settings),
                val_macro_f1=part.validation.score,
                trials=list(part.trials),
                members=part.recipe.n_averaged,
                space=part.space,
            )
            for one, part in zip(fits, parts, strict=True)
        ),
        seeds=tuple(pool[0].seed for pool in pools),
        predictions=tuple(_pool_predictions(pool, images) for pool in pools),
        histories=tuple(_mean_history(pool) for pool in pools),
        best_epochs=tuple(tuple(run.best_epoch for run in pool) for pool in pools),
        capped=tuple(capped),
        temperatures=tuple(tuple(run.temperature for run in pool) for pool in pools),
        seconds=round(sum(part.seconds for part in parts), 2),  # as environment.json stores it
        notes=tuple(dict.fromkeys(note for part in parts for run in part.runs for note in run.notes)),
    )


def _is_capped(part: ArmFit, seed: int) -> bool:
    if part.role == "baseline":
        return 0 < part.runs[seed].best_epoch == part.recipe.max_epochs
    return part.validation.capped


def _pool_predictions(pool: Sequence[Run], images: Sequence[str]) -> Predictions:
    """Returns the predictions of several fits as one.

    Raises:
        ValueError: the fits do not predict each image once.
    """
    names = [name for run in pool for name in run.test.images]
    position = {name: place for place, name in enumerate(names)}
    if len(names) != len(images) or position.keys() != set(images):
        raise ValueError("the fits of an arm do not predict each tested image once")
    probabilities = np.concatenate([run.test.probabilities for run in pool])
    return Predictions(tuple(images), probabilities[[position[name] for name in images]])


def _mean_history(pool: Sequence[Run]) -> pd.DataFrame:
    """Returns the mean history of several fits, as far as the shortest."""
    shortest = min(len(run.history) for run in pool)
    columns = pool[0].history.columns
    values = np.mean([run.history[:shortest].to_numpy(float) for run in pool], axis=0)
    history = pd.DataFrame(values, columns=columns)
    return history.astype({"epoch": np.int64}) if "epoch" in history else history
