"""Temperature scaling: calibration of logits on held-out landmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hirise_imb.imbalance.logit_adjustment import (
    Correction,
    Floats,
    Labels,
    Logits,
    adjustable_classes,
    check_heldout,
    copy_logits,
    log_softmax,
    softmax,
)

TEMPERATURES = (0.05, 20.0)
"""Lowest and highest temperature that can be fitted."""

_SLOPE_TOLERANCE = 1e-6
"""Steepest slope, in nats, that counts as converged."""

_MAX_SEARCHES = 5
"""Searches for the offsets before they count as not converging; nearly always one is enough."""


@dataclass(frozen=True)
class Temperature:
    """softmax(z / T) with the T of least mean negative log-likelihood on the held-out landmarks (Guo et al. 2017).

    It changes no decision. With `bias`, softmax(z / T + b) with one additional offset for each class (bias-corrected
    temperature scaling; Alexandari et al. 2020), which can.

    T stays within `TEMPERATURES`: logits that separate the held-out classes perfectly take it to the lower end. Where
    the slope at T = 1 is exactly 0 (one logit for all classes; a likelihood of 1 already), T is 1. The fitted offsets
    have mean 0. A class without held-out landmarks, whose best offset would be minus infinity, and one never trained on
    keep offset 0, the mean of the others; they still take part in the softmax.
    """

    learns: ClassVar[bool] = True

    bias: bool = False
    """Whether each class has an offset too."""

    def __post_init__(self) -> None:
        """Checks the type."""
        if not isinstance(self.bias, bool):
            raise ValueError(f"bias must be true or false, got {self.bias!r}")

    def fit(self, logits: Logits, labels: Labels, prior: Floats) -> Correction:
        """Fits the scale 1 / T, and the offsets.

        Raises:
            RuntimeError: the optimiser of the offsets did not converge.
        """
        check_heldout(logits, labels, prior, self)
        z = copy_logits(logits)
        z -= z.max(axis=1, keepdims=True)  # changes no softmax, and keeps sums of z accurate
        temperature = _fit_temperature(z, np.asarray(labels))
        adjustable = adjustable_classes(labels, prior)
        if not self.bias or adjustable.sum() < 2:  # a single class has no offset relative to others
            return Correction(1 / temperature, np.zeros(len(prior)))
        return _fit_bias_corrected(z, np.asarray(labels), adjustable, temperature)


def _fit_temperature(z: Floats, labels: Labels) -> float:
    """Fits T of softmax(z / T); the likelihood is convex in 1 / T, so its slope has at most one root."""
    from scipy.optimize import brentq

    true_logit = z[np.arange(len(z)), labels]

    def slope(log_temperature: float) -> float:
        """Returns the derivative of the mean negative log-likelihood with respect to 1 / T."""
        p = softmax(z * np.exp(-log_temperature))
        return float(((p * z).sum(axis=1) - true_logit).mean())

    lowest, highest = np.log(TEMPERATURES)
    if slope(0.0) == 0:
        return 1.0
    if slope(lowest) <= 0:
        return TEMPERATURES[0]
    if slope(highest) >= 0:
        return TEMPERATURES[1]
    return float(np.exp(brentq(slope, lowest, highest, xtol=1e-12)))


def _fit_bias_corrected(z: Floats, labels: Labels, adjustable: NDArray[np.bool_], temperature: float) -> Correction:
    """Fits T and b of softmax(z / T + b), starting from the best T without b; convex in (1 / T, b)."""
    from scipy.optimize import Bounds, minimize

    rows, one_hot = np.arange(len(z)), np.eye(z.shape[1])[labels]
    # The scale is optimised in units of the logits' spread, so that its steps are of the size of the offsets'.
    unit = float(z.std()) or 1.0

    def to_correction(values: Floats) -> Correction:
        offsets = np.zeros(z.shape[1])
        offsets[adjustable] = values[1:] - values[1:].mean()
        return Correction(float(values[0]) / unit, offsets)

    def loss(values: Floats) -> tuple[float, Floats]:
        """Returns the mean negative log-likelihood, and its gradient with respect to the scale and the free offsets."""
        correction = to_correction(values)
        log_p = log_softmax(correction.scale * z + correction.offsets)
        residual = np.exp(log_p) - one_hot
        by_offset = residual.mean(axis=0)[adjustable]
        by_scale = float((residual * z).sum(axis=1).mean()) / unit
        return -float(log_p[rows, labels].mean()), np.array([by_scale, *(by_offset - by_offset.mean())])

    start = np.array([unit / temperature, *np.zeros(adjustable.sum())])
    low, high = np.full(len(start), -np.inf), np.full(len(start), np.inf)
    low[0], high[0] = unit / TEMPERATURES[1], unit / TEMPERATURES[0]
    options = {"ftol": 0, "gtol": 1e-9}  # the slope alone ends the search, not a small improvement
    # A search also ends at a step that improves nothing, which can be far from the optimum where classes are nearly
    # separated. The next one, without its memory of slopes, gets on from there.
    for _ in range(_MAX_SEARCHES):
        result = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=Bounds(low, high), options=options)
        # Since the problem is convex, the slopes show how near the optimum is. The optimiser's own flag does not: it
        # also reports a failure if rounding stopped the search.
        if np.abs(np.clip(result.x - result.jac, low, high) - result.x).max() <= _SLOPE_TOLERANCE:
            return to_correction(result.x)
        start = result.x
    raise RuntimeError(f"bias-corrected temperature scaling did not converge: {result.message}")
