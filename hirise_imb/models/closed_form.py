"""Closed-form heads: classifiers computed from all training images, each once, without epochs or random seeds.

Class counts n_k and shares pi_k are those of training images, variants of a landmark included, as for trained heads:
the prior that logits are learnt under and that logit adjustment divides out is that of the rows a head is fitted on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hirise_imb.features.training_features import TrainingFeatures
from hirise_imb.imbalance.class_weights import inverse_power
from hirise_imb.imbalance.temperature import Temperature
from hirise_imb.models.linear import MIN_SQUARED_LENGTH, LinearClassifier, transform
from hirise_imb.models.newton import PenalisedLoss, minimise
from hirise_imb.models.preparation import MIN_SPREAD
from hirise_imb.models.projection import source_means
from hirise_imb.utils.errors import NotApplicable

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Normalisation = Literal["none", "unit", "centred_unit"]

ABSENT = -1e4
"""Logit of a class without training images. The logits of all others have mean 0, so at least one of them is
higher. It is finite, so that a held-out landmark of the class has a large loss, but not an infinite one."""


@dataclass(frozen=True)
class NearestMean:
    """Nearest class mean: logits -|x - mu_k|^2 / (2 s^2 T) + prior_power log pi_k, up to terms that all classes share.

    mu_k is the mean over the sources of class k of the means of their images: a mean over images would be dominated
    by the largest source. s^2 is the mean of |x - mu_y|^2 over training images, pi_k the share of class k among them.
    T is the temperature of greatest likelihood on the training images without the prior (Guo et al. 2017): how much a
    distance means depends on how many of the features separate classes, which s^2 does not say. The features x are
    used as they are, at unit length, or centred and at unit length: UN, L2N and CL2N of SimpleShot (Wang et al. 2019).
    """

    normalise: Normalisation
    prior_power: float
    """Exponent of the class prior, in [0, 2]; 0 treats all classes as equally frequent."""

    def __post_init__(self) -> None:
        """Checks the normalisation and the range of the power."""
        if self.normalise not in get_args(Normalisation):
            raise ValueError(f"normalise must be one of {', '.join(get_args(Normalisation))}, got {self.normalise!r}")
        _check_power("prior_power", self.prior_power)

    def prior(self, counts: Ints) -> Floats:
        """Returns the class prior under which logits are learnt from these counts, shape (n_classes,)."""
        return power_shares(counts, self.prior_power)

    def fit(self, training: TrainingFeatures) -> LinearClassifier:
        """Computes the class means.

        Raises:
            NotApplicable: there are images of fewer than two classes, or all equal the mean of their class.
        """
        labels, sources, counts = training.labels, training.sources, training.counts()
        present = present_classes(counts)
        rows = training.features.astype(np.float64)
        unit = self.normalise != "none"
        # Distances don't depend on the centre unless lengths are normalised; then it only preserves digits.
        centre = np.zeros(rows.shape[1]) if self.normalise == "unit" else rows.mean(axis=0)
        gain = np.ones(rows.shape[1])
        x = transform(rows, centre, gain, unit)
        means = np.zeros((len(counts), rows.shape[1]))
        for k in present:
            means[k] = source_means(x[labels == k], sources[labels == k])[0].mean(axis=0)
        variance = _within_class_variance(x, means[labels])
        kernel = means[present] / variance
        bias = -(means[present] ** 2).sum(axis=1) / (2 * variance)
        prior = counts / len(labels)
        by_distance = expand_to_classes(present, len(counts), kernel, bias, centre, gain, unit)
        scale = Temperature().fit(by_distance.logits(training.features), labels, prior).scale
        bias = scale * bias + self.prior_power * np.log(prior[present])
        return expand_to_classes(present, len(counts), scale * kernel, bias, centre, gain, unit)


@dataclass(frozen=True)
class Discriminant:
    """Linear discriminant analysis with a shrunk covariance, as scikit-learn defines both (solver "lsqr").

    With S the mean over classes of their covariances, weighted by the priors p_k, the covariance used is
    (1 - shrinkage) S + shrinkage tr(S) / width I. p_k is proportional to pi_k^prior_power, with pi_k the share of class
    k among training images; so the power acts on S too, in which all classes have the same weight at power 0.
    """

    shrinkage: float
    """Weight of the mean variance, in (0, 1]; 1 leaves nothing else, which gives nearest means."""
    prior_power: float
    """Exponent of the class prior, in [0, 2]; 0 treats all classes as equally frequent."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if not 0 < self.shrinkage <= 1:
            raise ValueError(f"shrinkage must be in (0, 1], got {self.shrinkage}")
        _check_power("prior_power", self.prior_power)

    def prior(self, counts: Ints) -> Floats:
        """Returns the class prior under which logits are learnt from these counts, shape (n_classes,)."""
        return power_shares(counts, self.prior_power)

    def fit(self, training: TrainingFeatures) -> LinearClassifier:
        """Computes class means and the shrunk covariance; sources are not used.

        Raises:
            NotApplicable: there are images of fewer than two classes, all equal the mean of their class, or the
                shrinkage is so small that rounding leaves the covariance singular.
        """
        from scipy.linalg import cho_factor, cho_solve

        features, labels, counts = training.features, training.labels, training.counts()
        present = present_classes(counts)
        centre = features.mean(axis=0, dtype=np.float64)
        x = features - centre
        width = x.shape[1]
        means = np.zeros((len(counts), width))
        for k in present:
            means[k] = x[labels == k].mean(axis=0)
        _within_class_variance(x, means[labels])  # raises if there is none
        priors = (counts / len(labels)) ** self.prior_power * (counts > 0)
        priors /= priors.sum()
        scaled = (x - means[labels]) * np.sqrt(priors / np.maximum(counts, 1))[labels, None]
        covariance = (1 - self.shrinkage) * (scaled.T @ scaled)
        covariance.flat[:: width + 1] += self.shrinkage * (scaled**2).sum() / width
        # scikit-learn solves by least squares, for matrices of any rank; shrunk, the matrix is positive definite, and
        # Cholesky takes a tenth of the time.
        try:
            kernel = cho_solve(cho_factor(covariance), means[present].T).T
        except np.linalg.LinAlgError as error:
            raise NotApplicable(f"A shrinkage of {self.shrinkage} leaves the covariance singular: {error}") from error
        bias = np.log(priors[present]) - (means[present] * kernel).sum(axis=1) / 2
        return expand_to_classes(present, len(counts), kernel, bias, centre, np.ones(width))


@dataclass(frozen=True)
class Logistic:
    """Multinomial logistic regression on standardised features, as scikit-learn defines it.

    It minimises c sum_i w_y(i) L_i + |kernel|^2 / 2, with L_i the cross-entropy of image i and weights w_k
    proportional to n_k^-power, with a mean of 1 over images. n_k is the number of images of class k, which the sum
    runs over, so that all classes have the same total weight at power 1. With two classes it is the binomial model,
    which has one row of weights to penalise.
    """

    c: float
    """scikit-learn's C, the inverse strength of regularisation: a factor of the summed, not the mean loss. Positive."""
    power: float
    """Exponent of the class weights, in [0, 2]; 0 gives all images the same weight, 1 all classes."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if not 0 < self.c < np.inf:
            raise ValueError(f"c must be positive and finite, got {self.c}")
        _check_power("power", self.power)

    def prior(self, counts: Ints) -> Floats:
        """Returns the class prior under which logits are learnt from these counts, shape (n_classes,)."""
        return power_shares(counts, 1 - self.power)

    def fit(self, training: TrainingFeatures) -> LinearClassifier:
        """Solves the convex problem; sources are not used.

        Raises:
            NotApplicable: there are images of fewer than two classes, or the solver did not converge.
        """
        labels, counts = training.labels, training.counts()
        present = present_classes(counts)
        x, centre, gain = standardise(training.features)
        weights = solve_logistic(x, labels, present, self.c, inverse_power(counts, self.power)[labels])
        return expand_to_classes(present, len(counts), weights[:, :-1], weights[:, -1], centre, gain)


def standardise(features: NDArray[np.floating]) -> tuple[NDArray[np.float32], Floats, Floats]:
    """Returns standardised rows with a 1 at the end, shape (n, width + 1), and the centre and gain that make them.

    Args:
        features: shape (n, width).
    """
    centre = features.mean(axis=0, dtype=np.float64)
    x = np.ones((len(features), features.shape[1] + 1), np.float32)
    scaled = x[:, :-1]
    np.subtract(features, centre, out=scaled, casting="same_kind")
    spread = np.sqrt(np.einsum("ij,ij->j", scaled, scaled, dtype=np.float64) / len(features))
    # A feature that never varies can have a spread that consists of rounding errors.
    gain = np.where(spread > MIN_SPREAD * np.abs(centre), 1 / np.maximum(spread, np.finfo(float).tiny), 1)
    np.multiply(scaled, gain, out=scaled, casting="same_kind")
    return x, centre, gain


def solve_logistic(
    x: NDArray[np.float32], labels: Ints, present: list[int], c: float, row_weights: Floats, start: Floats | None = None
) -> Floats:
    """Returns the weights of multinomial logistic regression, a row for each present class, the bias last.

    Args:
        x: standardised rows with a 1 at the end, shape (n, width + 1).
        labels: class id of each row, shape (n,).
        present: ids of the present classes.
        c: scikit-learn's C.
        row_weights: weight of each row in the loss, shape (n,).
        start: weights that the solver begins at, such as those of other rows; zeros if None.

    Raises:
        NotApplicable: the solver did not converge.
    """
    # Both classes of two have weights here, k and -k, where the binomial model has 2 k: twice the squares.
    factor = c / 2 if len(present) == 2 else c
    one_hot = (labels[:, None] == present).astype(np.float64)
    try:
        return minimise(PenalisedLoss(x, one_hot, factor * row_weights), start)
    except NotApplicable as error:
        raise NotApplicable(f"Logistic regression with c {c} did not converge: {error}.") from error


def power_shares(counts: Ints, power: float) -> Floats:
    """Returns shares proportional to n^power; 0 for a class without rows."""
    shares = np.where(counts > 0, np.maximum(counts, 1).astype(float) ** power, 0)
    return np.asarray(shares / shares.sum())


def _check_power(name: str, power: float) -> None:
    if not 0 <= power <= 2:
        raise ValueError(f"{name} must be in [0, 2], got {power}")


def present_classes(counts: Ints) -> list[int]:
    """Returns the ids of the classes that have images."""
    present: list[int] = np.flatnonzero(counts).tolist()
    if len(present) < 2:
        raise NotApplicable(f"A classifier needs training images of at least two classes; the data has {len(present)}.")
    return present


def _within_class_variance(x: Floats, class_means: Floats) -> float:
    """Returns the mean squared distance of rows to the means of their own classes."""
    variance = float(((x - class_means) ** 2).sum(axis=1).mean())
    # Equal rows differ from their mean by rounding.
    if variance <= MIN_SQUARED_LENGTH * float((x**2).sum(axis=1).mean()):
        raise NotApplicable(
            "Every training image equals the mean of its class: there is no spread to measure distances by."
        )
    return variance


def expand_to_classes(
    present: list[int],
    n_classes: int,
    kernel: Floats,
    bias: Floats,
    centre: Floats,
    gain: Floats,
    unit: bool = False,
) -> LinearClassifier:
    """Extends a classifier of the present classes to all classes.

    Args:
        present: ids of the present classes.
        n_classes: number of classes of the data set.
        kernel: weights, shape (len(present), width).
        bias: biases, shape (len(present),).
        centre: subtracted from features first, shape (width,).
        gain: factor of the centred features, shape (width,).
        unit: whether features are scaled to unit length.
    """
    full_kernel = np.zeros((n_classes, kernel.shape[1]))
    full_bias = np.full(n_classes, ABSENT)
    # Subtracting what all classes share changes no probability; then the highest logit is never below 0.
    full_kernel[present] = kernel - kernel.mean(axis=0)
    full_bias[present] = bias - bias.mean()
    return LinearClassifier(full_kernel, full_bias, centre, gain, unit)
