"""Class offsets tuned for macro F1 on held-out landmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hirise_imb.imbalance.logit_adjustment import (
    Correction,
    Floats,
    Ints,
    Labels,
    Logits,
    adjustable_classes,
    check_heldout,
    copy_logits,
    log_prior,
)
from hirise_imb.metrics.classification import confusion_matrix, macro_f1, precision_recall_f1

_TAUS = np.arange(41) / 20
"""Grid from which the anchor's tau is chosen."""

_CLEARANCE = 1e-6
"""Distance that a tuned offset keeps from a change of decision: far above rounding, far below a meaningful
difference."""

_MIN_GAIN = 1e-12
"""Least gain that counts as an improvement: one decision moves macro F1 by far more, rounding by less."""


@dataclass(frozen=True)
class ClassBias:
    """z + b with b tuned for macro F1 of all classes, and regularised towards the best logit adjustment.

    b maximises macro F1(z + b) - strength * mean_k (b_k - a_k)^2 on the held-out logits. The anchor a = -tau log prior
    has the tau among 0, 0.05 .. 2 with the best macro F1 on the same logits (the smallest in case of ties). Tuning
    thresholds for F1: Lipton et al. 2014, "Optimal thresholding of classifiers to maximize F1 measure"; they show that
    it picks winners by chance where a class has few landmarks, hence the anchor.

    The search is coordinate ascent from the anchor, with an exact line search for each class, until a whole sweep
    improves nothing: no change of a single offset is better, simultaneous changes of several may be. Offsets keep 1e-6
    away from any change of decision, and do not enter gaps between changes that are narrower than twice that. A class
    without held-out landmarks keeps its anchor, and one never trained on has offset 0.
    """

    learns: ClassVar[bool] = True

    strength: float
    """Strength of the regularisation, in macro F1 per squared nat; positive."""

    def __post_init__(self) -> None:
        """Checks the range of the strength."""
        if not 0 < self.strength < np.inf:
            raise ValueError(f"strength must be positive and finite, got {self.strength}")

    def fit(self, logits: Logits, labels: Labels, prior: Floats) -> Correction:
        """Tunes the offsets; a few thousand landmarks take about a tenth of a second."""
        check_heldout(logits, labels, prior, self)
        z = copy_logits(logits)
        anchor = -_best_tau(z, labels, prior) * log_prior(prior)
        offsets, score, improved = anchor.copy(), _macro_f1(z + anchor, labels), True
        while improved:
            improved = False
            for k in np.flatnonzero(adjustable_classes(labels, prior)).tolist():
                offset, value = self._best_offset(z, labels, offsets, anchor, k)
                if value > score + _MIN_GAIN:
                    offsets[k], score, improved = offset, value, True
        return Correction(1.0, offsets)

    def _best_offset(self, z: Floats, labels: Labels, offsets: Floats, anchor: Floats, k: int) -> tuple[float, float]:
        """Returns the best offset of class k with all others fixed, and the objective there.

        A row is predicted as class k once its offset exceeds the row's threshold, and as the row's best other class
        before. Macro F1 is constant between thresholds, so that the best point there is the one nearest to the anchor.
        """
        n_classes = z.shape[1]
        others = z + offsets
        others[:, k] = -np.inf
        rival = others.argmax(axis=1)
        thresholds = others.max(axis=1) - z[:, k]
        order = np.argsort(thresholds)
        edges = np.concatenate([[-np.inf], thresholds[order], [np.inf]])
        lowest, highest = edges[:-1] + _CLEARANCE, edges[1:] - _CLEARANCE
        points = np.clip(anchor[k], lowest, highest)

        # Row c of these counts assumes that the c rows with the lowest thresholds are predicted as class k.
        rival, truth = rival[order], np.asarray(labels)[order]
        to_rival = rival[:, None] == np.arange(n_classes)
        rival_hits = to_rival & (rival == truth)[:, None]
        predicted, hits = _remaining_sums(to_rival), _remaining_sums(rival_hits)
        predicted[:, k] = np.arange(len(truth) + 1)
        hits[1:, k] = np.cumsum(truth == k)
        f1 = precision_recall_f1(hits, np.bincount(truth, minlength=n_classes), predicted)["f1"].mean(axis=1)

        squares = (offsets - anchor) ** 2
        squares[k] = 0
        values = f1 - self.strength * (squares.sum() + (points - anchor[k]) ** 2) / n_classes
        values[lowest > highest] = -np.inf
        best = int(values.argmax())
        return float(points[best]), float(values[best])


def _macro_f1(logits: Floats, labels: Labels) -> float:
    return macro_f1(confusion_matrix(labels, logits.argmax(axis=1), logits.shape[1]))


def _best_tau(z: Floats, labels: Labels, prior: Floats) -> float:
    """Returns the tau of the grid with the best macro F1 after logit adjustment, the smallest in case of ties."""
    log_shares = log_prior(prior)
    return float(_TAUS[np.argmax([_macro_f1(z - tau * log_shares, labels) for tau in _TAUS])])


def _remaining_sums(rows: NDArray[np.bool_]) -> Ints:
    """Returns column sums without the first 0, 1 .. n rows, shape (n + 1, columns)."""
    total = rows.sum(axis=0)
    return np.vstack([total, total - np.cumsum(rows, axis=0)])
