"""The records that reports compare: arms, and strategies that gave no result.

They contain only plain data, so that a report can be written again from its folder by a program that knows neither the
strategies nor the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from hirise_imb.metrics.classification import Predictions

Role = Literal["baseline", "baseline_to_the_end", "control", "strategy"]
"""What an arm is for.

The baseline is the reference run as published; `baseline_to_the_end` is its recipe without a limit on the epochs that
binds; a control is a tuned recipe without a remedy; a strategy has a remedy.
"""

STATES = {"complete": "complete", "fail": "failed"}
"""Descriptions of the states of finished trials."""


@dataclass(frozen=True)
class Selection:
    """The recipe of an arm in one division of the data: the given split, or an outer fold.

    Raises:
        ValueError: the state of a trial is unknown.
    """

    division: str
    """Name of the division: `given split`, `fold 2`, or `repeat 1, fold 2` if there are several repeats."""
    recipe: dict[str, Any]
    """The recipe as `Recipe.to_dict` returns it."""
    settings: dict[str, str | float | int]
    """Hyperparameters that the search chose; empty for an arm without a search."""
    val_score: float
    """Validation score: the target metric in the cross-validation, on the same folds and with the same seeds for all
    arms, which are other folds and seeds than those of the trials."""
    trials: Sequence[Mapping[str, Any]]
    """State, value, hyperparameters (`params`) and reason of failure (`error`) of each finished trial, in order; empty
    for an arm without a search."""
    members: int = 1
    """Number of fits or heads whose log-probabilities are averaged in each prediction."""
    space: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Range of each hyperparameter that the trials tried: `low`, `high`, `log` and `integer`, or `choices`."""

    def __post_init__(self) -> None:
        """Checks the states of the trials."""
        for trial in self.trials:
            if trial["state"] not in STATES:
                raise ValueError(f"trials must be in the states {', '.join(STATES)}, got {trial['state']!r}")


@dataclass(frozen=True)
class Arm:
    """The baseline, a control, or the chosen recipes of a strategy, fitted with several seeds.

    A fit with one seed has predicted all landmarks that the report tests. In a nested cross-validation, it consists of
    a fit for each outer fold, whose predictions are pooled.

    Raises:
        ValueError: the role is unknown.
    """

    name: str
    role: Role
    summary: str
    selections: tuple[Selection, ...]
    """What was selected in each division of the data, repeat by repeat."""
    seeds: tuple[int, ...]
    """Seeds of the fits, repeat by repeat."""
    predictions: tuple[Predictions, ...]
    """Predictions of the tested landmarks, one for each seed."""
    histories: tuple[pd.DataFrame, ...]
    """One table for each seed with a row for each epoch; without rows for a closed-form head.

    The `val_*` columns of a final fit are those of the cross-validation, mean over folds and seeds. Means over outer
    folds end with the shortest fit.
    """
    best_epochs: tuple[tuple[int, ...], ...]
    """Number of epochs of each seed's final fits, and the best epoch of each fit of the published baseline, one for
    each division of its repeat; counted from 1, and 0 for a closed-form head."""
    capped: tuple[tuple[bool, ...], ...]
    """Whether the best epoch is the last one allowed, so that more epochs might have scored higher; likewise."""
    temperatures: tuple[tuple[float, ...], ...]
    """Temperature fitted without the tested landmarks; likewise. It is not applied to the predictions."""
    seconds: float
    """Wall time of all trials and fits in seconds, including those of earlier runs."""
    notes: tuple[str, ...] = ()
    """Sentences about what the fits had to do differently from the recipe, such as limits of too small classes."""

    def __post_init__(self) -> None:
        """Checks the role."""
        if self.role not in get_args(Role):
            raise ValueError(f"role must be one of {', '.join(get_args(Role))}, got {self.role!r}")

    @property
    def val_score(self) -> float:
        """Validation score, mean over divisions."""
        return float(np.mean([selection.val_score for selection in self.selections]))

    @property
    def members(self) -> tuple[int, ...]:
        """Number of fits or heads whose log-probabilities are averaged in each prediction, for each division."""
        return tuple(selection.members for selection in self.selections)

    @property
    def averages(self) -> bool:
        """Whether predictions average several fits or heads."""
        return max(self.members) > 1

    @property
    def has_search(self) -> bool:
        """Whether hyperparameters were searched."""
        return any(selection.trials for selection in self.selections)

    @property
    def has_epochs(self) -> bool:
        """Whether the arm is trained in epochs; false for a closed-form head."""
        return any(len(history) > 0 for history in self.histories)


@dataclass(frozen=True)
class Omitted:
    """A strategy that could not be used on this data, and why."""

    name: str
    summary: str
    reason: str


@dataclass(frozen=True)
class Origin:
    """A report that a comparison takes arms from."""

    name: str
    """Label of the report, which precedes the names of its arms."""
    study: str
    setting: str
    arms: tuple[str, ...]
    """Names of its arms in the comparison, in the order of its own tables."""
    chosen: str | None
    """The arm that its own verdict advises, which may be its control or baseline; None without a strategy."""


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
