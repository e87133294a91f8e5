"""Post-hoc adjustment of logits: corrections fitted on held-out landmarks, without any training.

Every adjustment fits a `Correction`, which is affine: scale * z + offsets. It may use logits of HELD-OUT landmarks
only: logits of training rows are over-confident and would mislead every fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from hirise_imb.utils.errors import NotFinite

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Logits = NDArray[np.floating]
Labels = NDArray[np.integer]


@dataclass(frozen=True)
class Correction:
    """The map z -> scale * z + offsets.

    Raises:
        ValueError: the scale is not positive.
        NotFinite: a number is not finite.
    """

    scale: float
    offsets: Floats
    """Offset of each class, shape (n_classes,)."""

    def __post_init__(self) -> None:
        """Checks the values."""
        if not 0 < self.scale < np.inf:
            raise ValueError(f"scale must be positive and finite, got {self.scale}")
        if np.ndim(self.offsets) != 1 or not np.isfinite(self.offsets).all():
            raise NotFinite(f"offsets must be finite numbers, one for each class, got {self.offsets}")

    def __call__(self, logits: Logits) -> Floats:
        """Returns corrected logits in float64, shape (n, n_classes).

        Raises:
            ValueError: the logits have another shape.
            NotFinite: a logit is not finite, before or after the correction.
        """
        z = copy_logits(logits)
        if z.shape[1] != len(self.offsets):
            raise ValueError(f"logits must have shape (n, {len(self.offsets)}), got {z.shape}")
        with np.errstate(over="ignore"):
            return copy_logits(self.scale * z + self.offsets)


class Adjustment(Protocol):
    """Fits a correction. Its fields are plain values, so that a recipe can name it."""

    learns: ClassVar[bool]
    """Whether the correction depends on held-out landmarks."""

    def fit(self, logits: Logits, labels: Labels, prior: Floats) -> Correction:
        """Fits the correction for one classifier.

        A class that was never trained on (prior 0) has offset 0, whatever the adjustment.

        Args:
            logits: logits of held-out landmarks, shape (n, n_classes); n may be 0 unless the adjustment learns.
            labels: class ids of those landmarks, shape (n,).
            prior: share of each class among the training rows as sampled, shape (n_classes,).

        Raises:
            ValueError: a shape does not fit, a label is not a class id, the prior does not sum to 1, or the adjustment
                learns from landmarks and there are none.
            NotFinite: a logit is not finite.
        """
        ...


@dataclass(frozen=True)
class NoAdjustment:
    """Leaves logits as they are."""

    learns: ClassVar[bool] = False

    def fit(self, logits: Logits, labels: Labels, prior: Floats) -> Correction:
        """Returns the identity."""
        check_heldout(logits, labels, prior, self)
        return Correction(1.0, np.zeros(len(prior)))


@dataclass(frozen=True)
class PosthocLogitAdjustment:
    """Subtracts tau log prior (Menon et al. 2021, "Long-tail learning via logit adjustment", the post-hoc form).

    Tau 1 targets balanced accuracy where logits are calibrated, tau 0 changes nothing. The prior is that of the rows
    as sampled: after class-balanced sampling all offsets are equal and no decision changes. A class never trained on
    has offset 0, below that of every other class.
    """

    learns: ClassVar[bool] = False

    tau: float = 1.0

    def __post_init__(self) -> None:
        """Checks the range of tau."""
        if not 0 <= self.tau < np.inf:  # written so that NaN is refused too
            raise ValueError(f"tau must be finite and not negative, got {self.tau}")

    def fit(self, logits: Logits, labels: Labels, prior: Floats) -> Correction:
        """Returns offsets that are computed from the prior alone."""
        check_heldout(logits, labels, prior, self)
        return Correction(1.0, -self.tau * log_prior(prior))


def cross_fit_adjustment(
    adjustment: Adjustment, logits: Logits, labels: Labels, priors: Floats, groups: Labels
) -> Floats:
    """Corrects the logits of each group by an adjustment fitted on all other groups, shape (n, n_classes).

    Thus no landmark is corrected with the help of its own label. The correction of group g is fitted with `priors[g]`.

    Args:
        adjustment: adjustment to fit.
        logits: logits of held-out landmarks, shape (n, n_classes).
        labels: their class ids, shape (n,).
        priors: shape (n_groups, n_classes). Row g is the prior of the classifier that produced the logits of group g:
            in grouped cross-validation the classifier of each fold was trained on other rows.
        groups: row of `priors` for each landmark, such as its fold, shape (n,).

    Raises:
        ValueError: as in `Adjustment.fit`; a group has no prior; or the adjustment learns from landmarks and there is
            only one group, so that none are left to learn from.
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
    corrected = np.empty((len(groups), priors.shape[1]))
    for group in present:
        in_group = groups == group
        correction = adjustment.fit(logits[~in_group], labels[~in_group], priors[group])
        corrected[in_group] = correction(logits[in_group])
    return corrected


def log_softmax(logits: Logits) -> Floats:
    """Returns log-probabilities along the last axis, in float64; no logit overflows."""
    z = np.asarray(logits, np.float64)
    z = z - z.max(axis=-1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(axis=-1, keepdims=True)))


def softmax(logits: Logits) -> Floats:
    """Returns probabilities along the last axis, in float64."""
    return np.exp(log_softmax(logits))


def check_heldout(logits: Logits, labels: Labels, prior: Floats, adjustment: Adjustment) -> None:
    """Checks the arguments of `Adjustment.fit`.

    Raises:
        ValueError: an argument is not as documented there; the message names it.
    """
    n, n_classes = copy_logits(logits).shape
    class_ids = np.asarray(labels)
    if class_ids.shape != (n,) or not np.issubdtype(class_ids.dtype, np.integer):
        raise ValueError(f"labels must be one integer for each of {n} rows, got {class_ids.shape} {class_ids.dtype}")
    if ((class_ids < 0) | (class_ids >= n_classes)).any():
        raise ValueError(f"labels must be classes 0 to {n_classes - 1}, got {np.unique(class_ids).tolist()}")
    if adjustment.learns and n == 0:
        raise ValueError(f"labels must not be empty for {adjustment}, which learns from them")
    shares = np.asarray(prior)
    if shares.shape != (n_classes,) or not (shares >= 0).all() or not abs(shares.sum() - 1) < 1e-6:
        raise ValueError(f"prior must be {n_classes} shares that sum to 1, got {prior}")


def copy_logits(logits: Logits) -> Floats:
    """Returns a copy in float64.

    Raises:
        ValueError: the logits do not have two axes.
        NotFinite: a logit is not finite.
    """
    z = np.array(logits, np.float64)
    if z.ndim != 2:
        raise ValueError(f"logits must have shape (n, n_classes), got {z.shape}")
    if not np.isfinite(z).all():
        raise NotFinite("logits must be finite, got infinity or NaN")
    return z


def log_prior(prior: Floats) -> Floats:
    """Returns the log of the shares; 0 for a class that was never trained on."""
    shares = np.asarray(prior, np.float64)
    return np.log(np.where(shares > 0, shares, 1))


def adjustable_classes(labels: Labels, prior: Floats) -> NDArray[np.bool_]:
    """Marks the classes that were trained on and have held-out landmarks, shape (n_classes,)."""
    present = np.bincount(labels, minlength=len(prior)) > 0
    return np.asarray(present & (np.asarray(prior) > 0))
