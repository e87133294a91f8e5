"""The records that reports compare: arms, and strategies that gave no result.

They contain only plain data, so that a report can be written again from its folder by a program that knows neither the
strategies nor the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hirise_imb.metrics.classification import Predictions

SELECTIONS = {"grouped-cv": "folds by source", "val": "validation split"}
"""Descriptions of what trials are scored on."""

STATES = {"complete": "complete", "pruned": "pruned", "fail": "failed"}
"""Descriptions of the states of finished trials."""


@dataclass(frozen=True)
class Arm:
    """The baseline or the chosen recipe of a strategy, fitted with several seeds.

    Raises:
        ValueError: a kind of selection or a trial's state is unknown.
    """

    name: str
    summary: str
    recipe: dict[str, Any]
    """The recipe as `Recipe.to_dict` returns it."""
    settings: dict[str, str | float | int]
    """Hyperparameters that the search chose; empty for the baseline."""
    val_macro_f1: float
    """Validation score, on the same folds and with the same seed for all arms of a study."""
    trials: list[dict[str, str | float | None]]
    """State, value and reason of failure of each finished trial, in order; empty for the baseline."""
    seeds: tuple[int, ...]
    predictions: tuple[Predictions, ...]
    """Predictions of the test split, one for each seed."""
    histories: tuple[pd.DataFrame, ...]
    """One table for each seed with a row for each epoch; without rows for a closed-form head."""
    best_epochs: tuple[int, ...]
    """Best epoch of each seed, counted from 1; 0 for a closed-form head."""
    temperatures: tuple[float, ...]
    """Temperature fitted on the validation split, one for each seed; it is not applied to the predictions."""
    seconds: float
    """Wall time of all trials and fits in seconds, including those of earlier runs."""
    selection: str = "grouped-cv"
    """What the trials were scored on, a key of `SELECTIONS`; without meaning for the baseline, which has no trials.

    Values of different kinds can't be compared.
    """

    def __post_init__(self) -> None:
        """Checks the selection and the states of the trials."""
        if self.selection not in SELECTIONS:
            raise ValueError(f"selection must be one of {', '.join(SELECTIONS)}, got {self.selection!r}")
        for trial in self.trials:
            if trial["state"] not in STATES:
                raise ValueError(f"trials must be in the states {', '.join(STATES)}, got {trial['state']!r}")

    @property
    def has_epochs(self) -> bool:
        """Whether the arm is trained in epochs; false for a closed-form head."""
        return any(len(history) > 0 for history in self.histories)

    @property
    def at_last_epoch(self) -> int:
        """Number of seeds whose best epoch is the last one, so that more epochs might have scored higher.

        Early stopping continues for some epochs after the best one, so only the maximum number of epochs can have ended
        these fits.
        """
        pairs = zip(self.best_epochs, self.histories, strict=True)
        return sum(0 < epoch == len(history) for epoch, history in pairs)


@dataclass(frozen=True)
class Omitted:
    """A strategy that could not be used on this data, and why."""

    name: str
    summary: str
    reason: str


@dataclass(frozen=True)
class Spread:
    """Mean and range of a score over seeds."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Returns the mean, smallest and largest of some values."""
        return cls(float(np.mean(values)), float(np.min(values)), float(np.max(values)))

    def apart(self, other: Spread) -> bool:
        """Checks whether the two ranges are disjoint."""
        return self.low > other.high or self.high < other.low
