"""Scores of held-out landmarks during training, and the cross-fitted choice of the epoch.

In a cross-validation, the landmarks of a held-out fold are predicted by the model at the epoch that is best on all
OTHER landmarks. If the epoch were chosen on the landmarks that it is scored on, the score would contain the luck of
that choice. Each seed has folds of its own, so "all others" leaves these landmarks out for every seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hirise_imb.imbalance.logit_adjustment import log_softmax
from hirise_imb.metrics.classification import precision_recall_f1
from hirise_imb.recipe import Monitor

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class HeldOut:
    """The landmarks that are held out, and which model predicts them."""

    labels: Ints
    """Class id of each landmark, shape (n,)."""
    parts: tuple[tuple[Ints, ...], ...]
    """Positions in `labels` of the landmarks of each fold, by seed and fold; the folds of a seed hold each one once."""
    n_classes: int

    @property
    def cross_fitted(self) -> bool:
        """Whether the epoch of each part is chosen on the other landmarks; impossible if one part holds them all."""
        return all(len(folds) > 1 for folds in self.parts)


@dataclass(frozen=True)
class EpochScores:
    """Scores of the held-out landmarks after an epoch, means over seeds."""

    loss: float
    """Cross-entropy in nats."""
    accuracy: float
    macro_f1: float
    choice: float
    """The quantity by which epochs are chosen: the greater, the better."""
    part_choices: tuple[tuple[float, ...], ...]
    """The same by seed and fold, on all landmarks but those of the part; on all if the choice is not cross-fitted."""


def score_epoch(held_out: HeldOut, logits: NDArray[np.floating], monitor: Monitor) -> EpochScores:
    """Scores the predictions of an epoch.

    Args:
        held_out: the landmarks.
        logits: shape (n_seeds, n, n_classes).
        monitor: quantity by which epochs are chosen; `none` counts as macro F1, which then is only shown.
    """
    labels, k = held_out.labels, held_out.n_classes
    losses = -np.take_along_axis(log_softmax(logits), labels[None, :, None], axis=2)[..., 0]
    predicted = logits.argmax(axis=2)
    cells = labels * k + predicted
    confusions = _confusions(cells, k)
    f1, loss = _mean_macro_f1(confusions), float(losses.mean())

    def choose_without(part: Ints) -> float:
        """Returns the quantity on all landmarks but those of a part."""
        if monitor == "val_loss":
            return -float((losses.sum() - losses[:, part].sum()) / (losses.size - len(losses) * len(part)))
        return _mean_macro_f1(confusions - _confusions(cells[:, part], k))

    choice = -loss if monitor == "val_loss" else f1
    part_choices = tuple(
        tuple(choose_without(part) if held_out.cross_fitted else choice for part in folds) for folds in held_out.parts
    )
    return EpochScores(loss, float((predicted == labels).mean()), f1, choice, part_choices)


def _confusions(cells: Ints, n_classes: int) -> Ints:
    """Returns the confusion matrix of each seed, shape (n_seeds, n_classes, n_classes)."""
    counts = [np.bincount(of_seed, minlength=n_classes**2) for of_seed in cells]
    return np.stack(counts).reshape(-1, n_classes, n_classes)


def _mean_macro_f1(confusions: Ints) -> float:
    """Returns the mean macro F1 over seeds."""
    hits = np.diagonal(confusions, axis1=1, axis2=2)
    return float(precision_recall_f1(hits, confusions.sum(axis=2), confusions.sum(axis=1))["f1"].mean())
