"""What is compared, as it comes from a study and as its folder keeps it: arms, and strategies that came to nothing.

Everything here is plain data, so that a report can be written again from its folder, by a program that knows neither
the strategies nor the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hirise_imb.metrics.classification import Predictions

SELECTIONS = {"grouped-cv": "folds by source", "val": "validation split"}
"""What trials are scored on, in words."""

STATES = {"complete": "complete", "pruned": "pruned", "fail": "failed"}
"""How a trial can end, in words."""


@dataclass(frozen=True)
class Arm:
    """The baseline or the chosen recipe of a strategy, fitted with several seeds.

    Raises:
        ValueError: a kind of selection or a trial's state is unknown.
    """

    name: str
    summary: str
    recipe: dict[str, Any]
    """Of `Recipe.to_dict`."""
    settings: dict[str, str | float | int]
    """What the search chose; empty for the baseline."""
    val_macro_f1: float
    """By which arms are compared before the test split is looked at: the same folds for all, with the study's seed."""
    trials: list[dict[str, str | float | None]]
    """State, value and reason of failure of each finished trial, in order; empty for the baseline."""
    seeds: tuple[int, ...]
    predictions: tuple[Predictions, ...]
    """Of the test split, one a seed."""
    histories: tuple[pd.DataFrame, ...]
    """One row an epoch, one table a seed; without rows where a head is computed."""
    best_epochs: tuple[int, ...]
    """Counted from 1; 0 where a head is computed."""
    temperatures: tuple[float, ...]
    """The temperature that validation asks for, one a seed; predictions are without it."""
    seconds: float
    """Wall time of its trials and fits, whenever they were made."""
    selection: str = "grouped-cv"
    """What its trials were scored on, a key of `SELECTIONS`: values of different kinds can't be compared. Without
    meaning for the baseline, which has no trials."""

    def __post_init__(self) -> None:
        """Refuse words that no table knows."""
        if self.selection not in SELECTIONS:
            raise ValueError(f"selection must be one of {', '.join(SELECTIONS)}, got {self.selection!r}")
        for trial in self.trials:
            if trial["state"] not in STATES:
                raise ValueError(f"trials must be in the states {', '.join(STATES)}, got {trial['state']!r}")

    @property
    def has_epochs(self) -> bool:
        """Whether it is trained, not computed."""
        return any(len(history) > 0 for history in self.histories)

    @property
    def at_last_epoch(self) -> int:
        """Seeds whose kept epoch is the last one that was run: more might have scored higher.

        Patience lets a run go on after its best epoch, so that only the number of epochs allowed can have ended these.
        """
        pairs = zip(self.best_epochs, self.histories, strict=True)
        return sum(0 < epoch == len(history) for epoch, history in pairs)


@dataclass(frozen=True)
class Omitted:
    """A strategy that came to nothing on this data."""

    name: str
    summary: str
    reason: str


@dataclass(frozen=True)
class Spread:
    """A score over seeds."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Mean, smallest and largest."""
        return cls(float(np.mean(values)), float(np.min(values)), float(np.max(values)))

    def apart(self, other: Spread) -> bool:
        """Whether the two ranges have no value in common."""
        return self.low > other.high or self.high < other.low
