"""Learnable weight scaling: the lengths of a fitted classifier's weights are learnt anew, their directions kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hirise_imb.imbalance.logit_adjustment import log_softmax
from hirise_imb.models.closed_form import power_shares
from hirise_imb.utils.errors import NotApplicable, NotFinite

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_SLOPE_TOLERANCE = 1e-6
"""Steepest slope, in nats, that counts as converged."""


@dataclass(frozen=True)
class WeightScaling:
    """z_k -> f_k z_k with one factor f_k for each class (LWS; Kang et al. 2020).

    The factors minimise the mean cross-entropy of the training images, drawn by class, plus strength / 2 |f - 1|^2.
    Drawing class k with probability proportional to n_k^power is done exactly, by weights n_k^(power - 1) of its
    images. Kang et al. draw all classes equally (power 0), and have no penalty but a fixed number of epochs: at the
    optimum without penalty, the factors of a classifier that separates its training images are infinite.
    """

    power: float
    """Exponent of the class counts, in [0, 1]; 0 gives all classes the same weight, 1 all images."""
    strength: float
    """Strength of the penalty relative to the mean cross-entropy; positive."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if not 0 <= self.power <= 1:
            raise ValueError(f"power must be in [0, 1], got {self.power}")
        if not 0 < self.strength < np.inf:
            raise ValueError(f"strength must be positive and finite, got {self.strength}")

    def prior(self, counts: Ints) -> Floats:
        """Returns the class prior under which the factors are learnt, shape (n_classes,): n_k^power, normalised."""
        return power_shares(counts, self.power)

    def fit(self, logits: NDArray[np.floating], labels: Ints, counts: Ints) -> Floats:
        """Returns the factor of each class, shape (n_classes,); 1 for a class without images.

        Args:
            logits: logits of the training images, each image once, shape (n, n_classes).
            labels: their class ids, shape (n,).
            counts: number of training images of each class, shape (n_classes,).

        Raises:
            ValueError: a shape does not fit, or the counts are not those of the labels.
            NotFinite: a logit is not finite.
            NotApplicable: the optimiser did not converge.
        """
        from scipy.optimize import minimize

        z = np.asarray(logits, dtype=np.float64)
        if z.shape != (len(labels), len(counts)) or not len(z):
            raise ValueError(f"logits must have shape ({len(labels)}, {len(counts)}) and not be empty, got {z.shape}")
        if not np.isfinite(z).all():
            raise NotFinite("logits must be finite")
        if not np.array_equal(np.bincount(labels, minlength=len(counts)), counts):
            raise ValueError("counts must be the number of labels of each class")
        rows, present = np.arange(len(z)), counts > 0
        weights = (self.prior(counts) / np.maximum(counts, 1))[labels]

        def objective(factors: Floats) -> tuple[float, Floats]:
            """Returns the penalised loss and its gradient."""
            log_p = log_softmax(z * factors)
            residual = np.exp(log_p)
            residual[rows, labels] -= 1
            loss = -float(weights @ log_p[rows, labels]) + self.strength / 2 * float(((factors - 1) ** 2).sum())
            slope = weights @ (residual * z) + self.strength * (factors - 1)
            return loss, np.where(present, slope, 0)

        options = {"ftol": 0, "gtol": _SLOPE_TOLERANCE / 10}  # the slope alone ends the search, not a small improvement
        result = minimize(objective, np.ones(len(counts)), jac=True, method="L-BFGS-B", options=options)
        # The optimiser also reports a failure if rounding stopped it at the optimum of this convex problem.
        if np.abs(result.jac).max() > _SLOPE_TOLERANCE:
            raise NotApplicable(f"Learnable weight scaling did not converge: {result.message}.")
        return np.asarray(result.x)
