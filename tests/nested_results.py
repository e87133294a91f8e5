"""Results of a nested cross-validation made by hand: three classes, 21 sources, and predictions to choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.data.dataset import ClassSet
from hirise_imb.metrics.classification import Predictions
from hirise_imb.recipe import Recipe
from hirise_imb.reporting import Arm, Results
from hirise_imb.reporting.records import Role, Selection

FOLDS = 3
SEEDS = (0, 1)
CLASSES = ClassSet(("hill", "flat", "lake"), "flat")
"""Hills are in eight sources, lakes in three, flat landmarks in all; the majority class is not the first."""

Ints = NDArray[np.int64]


def make_landmarks() -> pd.DataFrame:
    """Returns 21 sources with 4 flat landmarks each; 8 of them have hills and 3 have lakes as well."""
    rows = [(f"S{n:02}", label) for n in range(21) for label in (1, 1, 1, 1, *[0] * (n % 3 + 1) * (n < 8))]
    rows += [(f"S{n:02}", 2) for n in (2, 9, 16) for _ in range(3)]
    names = [f"{source}-{place}" for place, (source, _) in enumerate(rows)]
    sources, labels = zip(*rows, strict=True)
    return pd.DataFrame({"image": names, "landmark": names, "source": sources, "label": labels})


def outer_folds(repeats: int) -> pd.DataFrame:
    """Returns folds that differ between repeats."""
    rows = [
        (repeat, 1 + (n + n // 5 * (repeat - 1)) % FOLDS, f"S{n:02}")
        for repeat in range(1, repeats + 1)
        for n in range(21)
    ]
    return pd.DataFrame(rows, columns=["repeat", "fold", "source"])


def guess(labels: Ints, right: float, seed: int) -> Ints:
    """Returns the true class of a share of the landmarks, and any class of the others."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(labels)) < right, labels, rng.integers(0, 3, len(labels)))


LUCK = 0.02
"""Score of each chosen trial minus that of its recipe with other seeds and folds."""


def make_arm(
    name: str,
    role: Role,
    predicted: Sequence[Ints],
    *,
    scores: Sequence[float],
    settings: Sequence[Mapping[str, str | float | int]] = (),
    first_trials: Sequence[float | None] = (),
) -> Arm:
    """Returns an arm with these predicted classes, one array for each fit, and one inner score for each division.

    Args:
        name: name of the arm.
        role: role of the arm.
        predicted: predicted classes of each fit.
        scores: inner score of each division.
        settings: chosen settings of each division; without them, the arm has no search.
        first_trials: value of the first trial of each search, None for one that failed; the second is chosen, and is
            by `LUCK` better than the inner score.
    """
    names = tuple(make_landmarks()["image"])
    selections = []
    for place, score in enumerate(scores):
        trials: list[dict[str, str | float | None]] = []
        if settings:
            first = first_trials[place]
            trials = [{"state": "fail" if first is None else "complete", "value": first}]
            trials.append({"state": "complete", "value": score + LUCK})
        repeat, fold = divmod(place, FOLDS)
        division = f"fold {fold + 1}" if len(scores) == FOLDS else f"repeat {repeat + 1}, fold {fold + 1}"
        chosen = dict(settings[place]) if settings else {}
        selections.append(Selection(division, Recipe().to_dict(), chosen, score, trials))
    probabilities = [(0.8 * np.eye(3)[fit] + 0.2 / 3).astype(np.float32) for fit in predicted]
    return Arm(
        name=name,
        role=role,
        summary=f"what {name} does",
        selections=tuple(selections),
        seeds=tuple(range(len(predicted))),
        predictions=tuple(Predictions(names, shares) for shares in probabilities),
        histories=tuple(pd.DataFrame() for _ in predicted),
        best_epochs=((0,) * FOLDS,) * len(predicted),
        capped=((False,) * FOLDS,) * len(predicted),
        temperatures=((1.0,) * FOLDS,) * len(predicted),
        seconds=1.0,
    )


def make_results(*arms: Arm, repeats: int = 1) -> Results:
    """Returns the results of a nested cross-validation with these arms, the baseline first."""
    counts = {"sources": 3, "landmarks": 12, "images": 12, "rows": 12}
    splits = {"split": np.repeat(("train", "val", "test"), 3), "class": CLASSES.names * 3}
    return Results(
        name="nested",
        setting="Tiles: made up.",
        study_toml='name = "nested"\n',
        classes=CLASSES,
        test=make_landmarks(),
        data=pd.DataFrame(splits | counts),
        arms=arms,
        environment={"seconds": {arm.name: arm.seconds for arm in arms}},
        trial_seeds=1,
        outer_folds=outer_folds(repeats),
    )
