"""A request for a fit, and its result: a fitted head for each seed and fold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.recipe import Recipe
from hirise_imb.training.epoch_loop import OnEpoch
from hirise_imb.training.fitted import FittedHead
from hirise_imb.training.learners import Snapshot

Floats = NDArray[np.float64]

FitProtocol = Literal["cross-validation", "final", "reference"]
"""What is fitted: the folds of each seed, with epochs chosen on held-out landmarks; training and validation together,
for a given number of epochs; or the training split, stopped on the validation split as published."""


@dataclass(frozen=True)
class StageFit:
    """One head of a recipe, fitted with each seed on each of its folds."""

    heads: tuple[tuple[FittedHead, ...], ...]
    """The fitted head of each seed and fold."""
    priors: tuple[tuple[Floats, ...], ...]
    """Class prior of each seed and fold under which logits were learnt, shape (n_classes,)."""
    histories: tuple[pd.DataFrame, ...]
    """One row per epoch of all stages: a single table of means over seeds with held-out landmarks, and one for each
    seed in a final fit; without rows for a closed-form head."""
    epochs: tuple[int, ...]
    """Best number of epochs of each stage that trains in epochs; 0 for a head that starts at class means."""
    capped: bool
    """Whether the best epoch of a stage is the last one allowed."""
    notes: tuple[str, ...] = ()
    """How the data limited the recipe, if it did."""
    snapshots: tuple[tuple[Snapshot, ...], ...] = ()
    """Weights of each seed and fold, if the recipe trains in epochs."""

    def append(self, second: StageFit) -> StageFit:
        """Returns the fit of a second stage with joint histories: the epochs of this one, then those of the second."""

        def join(earlier: pd.DataFrame, later: pd.DataFrame) -> pd.DataFrame:
            renumbered = later.assign(epoch=later["epoch"] + len(earlier))
            return pd.concat([earlier, renumbered]).reset_index(drop=True)

        return replace(
            second,
            histories=tuple(map(join, self.histories, second.histories)),
            epochs=self.epochs + second.epochs,
            capped=self.capped or second.capped,
        )


@dataclass(frozen=True)
class FitRequest:
    """A request for a fit of one head of a recipe."""

    recipe: Recipe
    seeds: tuple[int, ...]
    assignments: tuple[int, ...]
    """Number of the fold assignment of each seed; without effect outside a cross-validation."""
    protocol: FitProtocol
    epochs: tuple[int, ...] = ()
    """Epochs of each stage of a final fit."""
    on_epoch: OnEpoch | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Everything that the fit depends on."""
        return self.recipe, self.seeds, self.assignments, self.protocol, self.epochs
