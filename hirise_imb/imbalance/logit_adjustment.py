"""What is done to stored logits after training, at the cost of no training.

Every adjustment fits a `Correction`, which is affine: scale * z + offsets. What it may look at are logits of HELD-OUT
landmarks; logits of rows that a classifier was trained on are too sure of themselves and would mislead every fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data.hirise import CLASSES
from hirise_imb.metrics.classification import confusion_matrix, macro_f1, precision_recall_f1

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Logits = NDArray[np.floating]
Labels = NDArray[np.integer]

TEMPERATURES = (0.05, 20.0)
"""The lowest and the highest temperature that is fitted."""

_TAUS = np.arange(41) / 20
_CLEARANCE = 1e-6
"""How far a tuned offset stays from the nearest change of a decision: far above rounding, far below any meaning."""
_SLOPE = 1e-6
"""The steepest slope, in nats, that counts as the bottom of a likelihood."""
_GAIN = 1e-12
"""What counts as an improvement: one decision moves macro F1 by far more, rounding by less."""


@dataclass(frozen=True)
class Correction:
    """z -> scale * z + offsets."""

    scale: float
    offsets: Floats
    """Shape (8,)."""

    def __post_init__(self) -> None:
        """Refuse what is no correction."""
        if not 0 < self.scale < np.inf:
            raise ValueError(f"scale must be positive and finite, got {self.scale}")
        if np.shape(self.offsets) != (len(CLASSES),) or not np.isfinite(self.offsets).all():
            raise ValueError(f"offsets must be {len(CLASSES)} finite numbers, got {self.offsets}")

    def __call__(self, logits: Logits) -> Floats:
        """Corrected logits, shape (n, 8), in float64.

        Raises:
            ValueError: the logits have another shape, or are not finite.
        """
        return self.scale * _wide(logits) + self.offsets


class Adjustment(Protocol):
    """Fits a correction. Its fields are plain values, so a recipe can name it."""

    learns: ClassVar[bool]
    """Whether the correction depends on the held-out landmarks; without, they may be none."""

    def fit(self, logits: Logits, labels: Labels, prior: Floats) -> Correction:
        """The correction for one classifier.

        A class that was never trained on (prior 0) has offset 0, whatever the adjustment.

        Args:
            logits: of held-out landmarks, shape (n, 8).
            labels: their classes, shape (n,).
            prior: share of each class among the rows the classifier was trained on, as sampled, shape (8,).

        Raises:
            ValueError: a shape is another, logits are not finite, a label is no class, the prior does not sum to 1,
                or the adjustment learns from landmarks and there are none.
        """
        ...


@dataclass(frozen=True)
class NoAdjustment:
    """Logits as they are."""

    learns: ClassVar[bool] = False

    def fit(self, logits: Logits, labels: Labels, prior: Floats) -> Correction:
        """The identity."""
        _refuse(logits, labels, prior, self)
        return Correction(1.0, np.zeros(len(CLASSES)))


@dataclass(frozen=True)
class PosthocLogitAdjustment:
    """z - tau log prior (Menon et al. 2021, "Long-tail learning via logit adjustment", the post-hoc form).

    tau 1 aims at the best balanced accuracy where logits are calibrated, tau 0 changes nothing. It belongs to the rows
    as sampled: after uniform sampling all offsets are equal and no decision changes. A class never trained on has
    offset 0, below that of every other class.
    """

    learns: ClassVar[bool] = False

    tau: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a tau that is negative or not finite."""
        if not 0 <= self.tau < np.inf:  # so that it refuses NaN too
            raise ValueError(f"tau must be finite and not negative, got {self.tau}")

    def fit(self, logits: Logits, labels: Labels, prior: Floats) -> Correction:
        """Offsets from the prior alone."""
        _refuse(logits, labels, prior, self)
        return Correction(1.0, -self.tau * _log_prior(prior))


@dataclass(frozen=True)
class ClassBias:
    """z + b with b tuned for macro F1 of all eight classes, and held near the best logit adjustment.

    b maximises macro F1 (z + b) - strength * mean_k (b_k - a_k)^2 on the held-out logits. The anchor a = -tau log prior
    has the tau of 0, 0.05 .. 2 with the best macro F1 on the same logits (the smallest of equals). Tuning thresholds
    for F1: Lipton et al. 2014, "Optimal thresholding of classifiers to maximize F1 measure"; they show that it picks
    winners by chance where a class has few landmarks, hence the anchor.

    The search is coordinate ascent from the anchor with an exact search along each class, until a whole sweep improves
    nothing: no change of a single offset is better, changes of several at once may be. Offsets stay 1e-6 away from
    where a decision changes, and do not enter gaps between changes that are narrower than twice that. A class without
    held-out landmarks keeps its anchor, and one never trained on its 0.
    """

    learns: ClassVar[bool] = True

    strength: float

    def __post_init__(self) -> None:
        """Refuse a strength that is not positive or not finite."""
        if not 0 < self.strength < np.inf:
            raise ValueError(f"strength must be positive and finite, got {self.strength}")

    def fit(self, logits: Logits, labels: Labels, prior: Floats) -> Correction:
        """The offsets; a few thousand landmarks take about a tenth of a second."""
        _refuse(logits, labels, prior, self)
        z = _wide(logits)
        anchor = -_best_tau(z, labels, prior) * _log_prior(prior)
        classes = np.flatnonzero(_tunable(labels, prior))
        offsets, reached, improved = anchor.copy(), _macro_f1(z + anchor, labels), True
        while improved:
            improved = False
            for k in classes:
                offset, value = self._best_offset(z, labels, offsets, anchor, int(k))
                if value > reached + _GAIN:
                    offsets[k], reached, improved = offset, value, True
        return Correction(1.0, offsets)

    def _best_offset(self, z: Floats, labels: Labels, offsets: Floats, anchor: Floats, k: int) -> tuple[float, float]:
        """The best offset of class k, the others as they are, and the objective there.

        A row goes to class k once its offset passes the row's threshold, and before that to the row's best other class.
        Macro F1 is constant between thresholds, so the best point there is the one nearest to the anchor.
        """
        others = z + offsets
        others[:, k] = -np.inf
        rival = others.argmax(axis=1)
        thresholds = others.max(axis=1) - z[:, k]
        order = np.argsort(thresholds, kind="stable")
        edges = np.concatenate([[-np.inf], thresholds[order], [np.inf]])
        lowest, highest = edges[:-1] + _CLEARANCE, edges[1:] - _CLEARANCE
        points = np.clip(anchor[k], lowest, highest)

        # Row c of these counts holds when the c rows with the lowest thresholds have gone to class k.
        rival, truth = rival[order], np.asarray(labels)[order]
        taken = np.eye(len(CLASSES), dtype=np.int64)[rival]
        right = taken * (rival == truth)[:, None]
        predicted, hits = _left(taken), _left(right)
        predicted[:, k] = np.arange(len(truth) + 1)
        hits[1:, k] = np.cumsum(truth == k)
        f1 = precision_recall_f1(hits, np.bincount(truth, minlength=len(CLASSES)), predicted)["f1"].mean(axis=1)

        distance = (offsets - anchor) ** 2
        distance[k] = 0
        values = f1 - self.strength * (distance.sum() + (points - anchor[k]) ** 2) / len(CLASSES)
        values[lowest > highest] = -np.inf
        best = int(values.argmax())
        return float(points[best]), float(values[best])


@dataclass(frozen=True)
class Temperature:
    """softmax(z / T), T with the least mean negative log likelihood of the held-out landmarks (Guo et al. 2017).

    It changes no decision. With `bias`, softmax(z / T + b) with one more offset for each class (bias-corrected
    temperature scaling; Alexandari et al. 2020), which can.

    T stays in `TEMPERATURES`: logits that separate the held-out classes perfectly take it to the lower end. Where the
    slope at T = 1 is 0 to the last bit (one logit for all classes; a likelihood that is 1 already), T is 1. The fitted
    offsets have mean 0. A class without held-out landmarks, whose likelihood would be best with an offset of minus
    infinity, or one never trained on, keeps offset 0, the mean of the others; it still takes part in the softmax.
    """

    learns: ClassVar[bool] = True

    bias: bool = False

    def __post_init__(self) -> None:
        """Refuse a number."""
        if not isinstance(self.bias, bool):
            raise ValueError(f"bias must be true or false, got {self.bias!r}")

    def fit(self, logits: Logits, labels: Labels, prior: Floats) -> Correction:
        """The scale 1 / T, and the offsets.

        Raises:
            RuntimeError: the optimiser of the offsets did not converge.
        """
        _refuse(logits, labels, prior, self)
        z = _wide(logits)
        z -= z.max(axis=1, keepdims=True)  # no softmax changes, and sums of z stay accurate
        temperature = _temperature(z, np.asarray(labels))
        tunable = _tunable(labels, prior)
        if not self.bias or tunable.sum() < 2:  # one class alone has no offset against others
            return Correction(1 / temperature, np.zeros(len(CLASSES)))
        return _bias_corrected(z, np.asarray(labels), tunable, temperature)


def cross_fit_adjustment(
    adjustment: Adjustment, logits: Logits, labels: Labels, priors: Floats, groups: Labels
) -> Floats:
    """Logits of each group as corrected by what was fitted on all other groups, shape (n, 8).

    So no landmark is corrected by its own label. The correction of group g is fitted with `priors[g]`.

    Args:
        adjustment: what is fitted.
        logits: of landmarks that were held out, shape (n, 8).
        labels: their classes, shape (n,).
        priors: shape (n_groups, 8). Row g is the prior of the classifier that gave group g its logits: in grouped
            cross-validation each fold's classifier was trained on other rows.
        groups: the row of `priors` each landmark belongs to, such as its fold of sources, shape (n,).

    Raises:
        ValueError: as of `Adjustment.fit`; a group has no prior; or the adjustment learns from landmarks and there
            is one group only, so that no landmarks are left to learn from.
    """
    groups = np.asarray(groups)
    if groups.shape != (len(logits),) or not np.issubdtype(groups.dtype, np.integer):
        raise ValueError(
            f"groups must be one integer for each of {len(logits)} rows, got {groups.shape} {groups.dtype}"
        )
    if len(labels) != len(logits):
        raise ValueError(f"labels must be one integer for each of {len(logits)} rows, got {len(labels)}")
    present = np.unique(groups)
    if len(present) and not 0 <= present[0] <= present[-1] < len(priors):
        raise ValueError(f"groups must be rows 0 to {len(priors) - 1} of priors, got {present.tolist()}")
    if adjustment.learns and len(present) == 1:
        raise ValueError(f"groups must be at least two for {adjustment}, which learns from the other groups; got one")
    corrected = np.empty((len(groups), len(CLASSES)))
    for group in present:
        own = groups == group
        correction = adjustment.fit(logits[~own], labels[~own], priors[group])
        corrected[own] = correction(logits[own])
    return corrected


def log_softmax(logits: Logits) -> Floats:
    """Log of the probabilities, along the last axis, in float64; no logit overflows."""
    z = np.asarray(logits, np.float64)
    z = z - z.max(axis=-1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(axis=-1, keepdims=True)), np.float64)


def softmax(logits: Logits) -> Floats:
    """Probabilities, along the last axis, in float64."""
    return np.exp(log_softmax(logits))


def _refuse(logits: Logits, labels: Labels, prior: Floats, adjustment: Adjustment) -> None:
    """Refuse what no correction can be fitted to; the messages name the argument."""
    n, classes = len(_wide(logits)), np.asarray(labels)
    if classes.shape != (n,) or not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(f"labels must be one integer for each of {n} rows, got {classes.shape} {classes.dtype}")
    if ((classes < 0) | (classes >= len(CLASSES))).any():
        raise ValueError(f"labels must be classes 0 to {len(CLASSES) - 1}, got {np.unique(classes).tolist()}")
    if adjustment.learns and n == 0:
        raise ValueError(f"labels must not be empty for {adjustment}, which learns from them")
    shares = np.asarray(prior)
    if shares.shape != (len(CLASSES),) or not (shares >= 0).all() or not abs(shares.sum() - 1) < 1e-6:
        raise ValueError(f"prior must be {len(CLASSES)} shares that sum to 1, got {prior}")


def _wide(logits: Logits) -> Floats:
    """A copy in float64."""
    z = np.array(logits, np.float64)
    if z.ndim != 2 or z.shape[1] != len(CLASSES):
        raise ValueError(f"logits must have shape (n, {len(CLASSES)}), got {z.shape}")
    if not np.isfinite(z).all():
        raise ValueError("logits must be finite, got infinity or NaN")
    return z


def _log_prior(prior: Floats) -> Floats:
    """log of the shares; 0 for a class never trained on."""
    shares = np.asarray(prior, np.float64)
    return np.log(shares, out=np.zeros(len(shares)), where=shares > 0)


def _tunable(labels: Labels, prior: Floats) -> NDArray[np.bool_]:
    """Classes that were trained on and have held-out landmarks, shape (8,)."""
    there = np.bincount(labels, minlength=len(CLASSES)) > 0
    return np.asarray(there & (np.asarray(prior) > 0))


def _macro_f1(logits: Floats, labels: Labels) -> float:
    return macro_f1(confusion_matrix(labels, logits.argmax(axis=1), len(CLASSES)))


def _best_tau(z: Floats, labels: Labels, prior: Floats) -> float:
    """The tau of the grid with the best macro F1 after logit adjustment; the smallest of equals."""
    log_prior = _log_prior(prior)
    return float(_TAUS[np.argmax([_macro_f1(z - tau * log_prior, labels) for tau in _TAUS])])


def _left(rows: Ints) -> Ints:
    """What is left of the column sums when the first 0, 1 .. n rows are gone, shape (n + 1, columns)."""
    left = np.empty((len(rows) + 1, rows.shape[1]), np.int64)
    left[0] = rows.sum(axis=0)
    left[1:] = left[0] - np.cumsum(rows, axis=0)
    return left


def _temperature(z: Floats, labels: Labels) -> float:
    """T of softmax(z / T). The likelihood is convex in 1 / T, so its slope has one root or none."""
    from scipy.optimize import brentq

    own = z[np.arange(len(z)), labels]

    def slope(log_temperature: float) -> float:
        """Of the mean negative log likelihood by 1 / T."""
        p = softmax(z * np.exp(-log_temperature))
        return float(((p * z).sum(axis=1) - own).mean())

    lowest, highest = np.log(TEMPERATURES)
    if slope(0.0) == 0:
        return 1.0
    if slope(lowest) <= 0:
        return TEMPERATURES[0]
    if slope(highest) >= 0:
        return TEMPERATURES[1]
    return float(np.exp(brentq(slope, lowest, highest, xtol=1e-12)))


def _bias_corrected(z: Floats, labels: Labels, tunable: NDArray[np.bool_], temperature: float) -> Correction:
    """T and b of softmax(z / T + b), from the best T without b on; convex in (1 / T, b)."""
    from scipy.optimize import minimize

    rows, truth = np.arange(len(z)), np.eye(len(CLASSES))[labels]
    unit = float(z.std()) or 1.0  # the scale is searched in units that make its steps like offsets'

    def unpacked(values: Floats) -> Correction:
        offsets = np.zeros(len(CLASSES))
        offsets[tunable] = values[1:] - values[1:].mean()
        return Correction(float(values[0]) / unit, offsets)

    def loss(values: Floats) -> tuple[float, Floats]:
        """The mean negative log likelihood, and its slopes by the scale and by the free offsets."""
        correction = unpacked(values)
        log_p = log_softmax(correction.scale * z + correction.offsets)
        excess = np.exp(log_p) - truth
        by_offset = excess.mean(axis=0)[tunable]
        by_scale = float((excess * z).sum(axis=1).mean()) / unit
        return -float(log_p[rows, labels].mean()), np.array([by_scale, *(by_offset - by_offset.mean())])

    start = np.array([unit / temperature, *np.zeros(tunable.sum())])
    low, high = np.full(len(start), -np.inf), np.full(len(start), np.inf)
    low[0], high[0] = unit / TEMPERATURES[1], unit / TEMPERATURES[0]
    options = {"ftol": 0, "gtol": 1e-9}
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=list(zip(low, high, strict=True)), options=options
    )
    # Convex, so slopes say how far it got. The optimiser also calls it a failure to have stopped at rounding.
    if np.abs(np.clip(found.x - found.jac, low, high) - found.x).max() > _SLOPE:
        raise RuntimeError(f"bias-corrected temperature scaling did not converge: {found.message}")
    return unpacked(found.x)
