"""The result of one stage of a recipe: a fitted model for each fold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.data.splits import Selection
from hirise_imb.features.arrays import Features
from hirise_imb.models.linear import LinearClassifier
from hirise_imb.recipe import Recipe
from hirise_imb.training.epoch_loop import OnEpoch, Snapshot

Floats = NDArray[np.float64]


class Model(Protocol):
    """A fitted model from features to logits."""

    def logits(self, features: Features) -> Floats:
        """Computes logits, shape (n, n_classes)."""
        ...


@dataclass(frozen=True)
class PooledModel:
    """A classifier on pooled features of the frozen backbone."""

    classifier: LinearClassifier

    def logits(self, features: Features) -> Floats:
        """Computes logits, shape (n, n_classes)."""
        return self.classifier.logits(features.take(np.arange(len(features))))


@dataclass(frozen=True)
class TailModel:
    """A classifier on the output of a trained backbone tail."""

    tail: Snapshot
    classifier: LinearClassifier

    def logits(self, features: Features) -> Floats:
        """Computes logits, shape (n, n_classes)."""
        return self.classifier.logits(self.tail.network.pooled(self.tail.state, features))


@dataclass(frozen=True)
class StageFit:
    """One head of a recipe, fitted on each fold."""

    models: tuple[Model, ...]
    """The fitted model of each fold."""
    priors: tuple[Floats, ...]
    """Class prior of each fold under which logits were learnt, shape (n_classes,)."""
    history: pd.DataFrame
    best_epoch: int
    pruned: bool
    seconds: float
    snapshots: tuple[Snapshot, ...] = ()
    """Snapshot of each fold, if the recipe trains in epochs."""


@dataclass(frozen=True)
class FitRequest:
    """A request for a fit of one stage."""

    recipe: Recipe
    seed: int
    selection: Selection
    record_test: bool
    """Whether the history includes the test split."""
    on_epoch: OnEpoch | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Everything that the fit depends on."""
        return self.recipe, self.seed, self.selection, self.record_test
