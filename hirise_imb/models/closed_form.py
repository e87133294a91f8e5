"""Classifiers that are linear in transformed pooled features, and three that are computed rather than trained."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data.hirise import CLASSES
from hirise_imb.imbalance.logit_adjustment import Temperature
from hirise_imb.imbalance.losses import inverse_power
from hirise_imb.models.projection import checked, source_means, without
from hirise_imb.utils.errors import NotApplicable

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Normalise = Literal["none", "unit", "centred_unit"]

ABSENT = -1e4
"""Logit of a class without training landmarks. The logits of the others have mean 0, so one of them is always higher;
and it is finite, so that such a landmark costs much in log-likelihood, but not infinity."""

_TINY = 1e-12
"""Least squared length of a row that is scaled to length 1; a row of zeros stays one."""
_CHUNK = 1024
"""Rows whose logits are computed at once: 20 MB at a width of 2,560."""
_ITERATIONS = 1000
_TOLERANCE = 1e-5
"""Of the gradient of the mean loss. scikit-learn's 1e-4 can stop short of the optimum where c is large."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """Fitted: logits = kernel x + bias, with x = (h P - centre) * gain, scaled to length 1 where `unit`.

    Raises:
        ValueError: shapes that don't fit each other, numbers that are not finite, directions that are not orthonormal.
    """

    kernel: Floats
    """Shape (8, width)."""
    bias: Floats
    """Shape (8,)."""
    centre: Floats
    """Shape (width,)."""
    gain: Floats
    """Shape (width,)."""
    unit: bool = False
    directions: Floats | None = None
    """U, orthonormal columns, shape (width, r); they are taken out of the features first: h P = h - (h U) U^T."""

    def __post_init__(self) -> None:
        """Refuse what is no classifier."""
        width = self.kernel.shape[-1]
        shapes = {"kernel": (len(CLASSES), width), "bias": (len(CLASSES),), "centre": (width,), "gain": (width,)}
        if self.directions is not None:
            shapes["directions"] = (width, self.directions.shape[-1])
        for name, shape in shapes.items():
            values = getattr(self, name)
            if values.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {values.shape}")
            if not np.isfinite(values).all():
                raise ValueError(f"{name} must be finite, got {values[~np.isfinite(values)][0]}")
        if self.directions is not None:
            products = self.directions.T @ self.directions
            if not np.allclose(products, np.eye(len(products)), atol=1e-6):
                raise ValueError(f"directions must be orthonormal columns, got the products {products}")

    def logits(self, features: NDArray[np.floating]) -> Floats:
        """Logits, computed in float64, shape (n, 8).

        Args:
            features: pooled features, shape (n, width).
        """
        out = np.empty((len(features), len(CLASSES)))
        for start in range(0, len(features), _CHUNK):
            rows = features[start : start + _CHUNK].astype(np.float64)
            rows = rows if self.directions is None else without(rows, self.directions)
            x = _transformed(rows, self.centre, self.gain, self.unit)
            out[start : start + _CHUNK] = x @ self.kernel.T + self.bias
        return out

    def weight_normalised(self, tau: float, *, keep_bias: bool = False) -> Classifier:
        """tau-normalisation: the weights w_k / |w_k|^tau, without bias or with b_k / |w_k|^tau (Kang et al. 2020).

        w_k is the kernel times the gain, since a scale before the kernel belongs to the weights, and |w_k| its length
        but for directions that are taken out of the features. The centre stays: it moves the features and is no bias of
        a class. With tau 0, decisions are those of the same classifier without bias.

        Raises:
            NotApplicable: a class has weights of length 0, such as one without training landmarks in a direct fit.
            ValueError: tau is negative or not finite, or features are scaled to unit length: cosines know no length of
                weights.
        """
        if self.unit:
            raise ValueError("unit must be False: a classifier of cosines has no lengths of weights to normalise")
        if not 0 <= tau < np.inf:
            raise ValueError(f"tau must not be negative, got {tau}")
        weights = self.kernel * self.gain
        acting = weights if self.directions is None else without(weights, self.directions)
        lengths = np.linalg.norm(acting, axis=1)
        if not lengths.all():
            raise NotApplicable(f"The weights of {CLASSES[int(lengths.argmin())]} have no length to normalise.")
        kernel = weights / lengths[:, None] ** tau
        bias = self.bias / lengths**tau if keep_bias else np.zeros(len(CLASSES))
        return replace(self, kernel=kernel, bias=bias, gain=np.ones_like(self.gain))


@dataclass(frozen=True)
class NearestMean:
    """Nearest class mean: logits -|x - mu_k|^2 / (2 s^2 T) + prior_power log pi_k, less what all classes share.

    mu_k is the mean over the sources of class k of the means of their landmarks: a mean over landmarks would be that of
    the largest source. s^2 is the mean of |x - mu_y|^2 over training landmarks, pi_k the share of class k among them.
    T is the temperature of greatest likelihood for training landmarks without the prior (Guo et al. 2017): how much a
    distance means depends on how many of the features tell classes apart, which s^2 does not say.
    The features x are taken as they are, at unit length, or less their training mean and at unit length: UN, L2N and
    CL2N of SimpleShot (Wang et al. 2019).
    """

    normalise: Normalise
    prior_power: float
    """In [0, 2]; 0 treats all classes alike."""

    def __post_init__(self) -> None:
        """Refuse an unknown transformation and a power outside [0, 2]."""
        if self.normalise not in get_args(Normalise):
            raise ValueError(f"normalise must be one of {', '.join(get_args(Normalise))}, got {self.normalise!r}")
        _check_power("prior_power", self.prior_power)

    def prior(self, counts: Ints) -> Floats:
        """Shares of classes under which its logits stand, shape (8,), where it learnt from so many rows of each."""
        return _shares(counts, self.prior_power)

    def fit(self, features: NDArray[np.floating], labels: Ints, sources: NDArray[Any]) -> Classifier:
        """Learn from one row a landmark.

        Args:
            features: shape (n, width).
            labels: class ids, shape (n,).
            sources: names or numbers, shape (n,).

        Raises:
            NotApplicable: there are landmarks of fewer than two classes, or all equal the mean of their class.
            ValueError: not equally many of each, a label that is no class, or a feature that is not finite.
        """
        there, counts = _present(features, labels, sources)
        rows = features.astype(np.float64)
        unit = self.normalise != "none"
        # Distances don't depend on the centre where lengths are left: then it only spares digits.
        centre = np.zeros(rows.shape[1]) if self.normalise == "unit" else rows.mean(axis=0)
        gain = np.ones(rows.shape[1])
        x = _transformed(rows, centre, gain, unit)
        means = np.zeros((len(CLASSES), rows.shape[1]))
        for k in there:
            means[k] = source_means(x[labels == k], sources[labels == k])[0].mean(axis=0)
        spread = _spread(x, means[labels])
        kernel = means[there] / spread
        bias = -(means[there] ** 2).sum(axis=1) / (2 * spread)
        prior = counts / len(labels)
        distances = _placed(there, kernel, bias, centre, gain, unit).logits(features)
        scale = Temperature().fit(distances, labels, prior).scale
        bias = scale * bias + self.prior_power * np.log(prior[there])
        return _placed(there, scale * kernel, bias, centre, gain, unit)


@dataclass(frozen=True)
class Discriminant:
    """Linear discriminant analysis with a shrunk covariance, as scikit-learn defines both (solver "lsqr").

    With S the mean over classes of their covariances, weighted by the priors p_k, the covariance that is used is
    (1 - shrinkage) S + shrinkage tr(S) / width I. p_k is proportional to pi_k^prior_power, with pi_k the share of class
    k among training landmarks; so the power acts on S too, in which with 0 all classes count alike.
    """

    shrinkage: float
    """In (0, 1]; 1 leaves the mean variance alone, which is nearest mean."""
    prior_power: float
    """In [0, 2]; 0 treats all classes alike."""

    def __post_init__(self) -> None:
        """Refuse a shrinkage outside (0, 1] and a power outside [0, 2]."""
        if not 0 < self.shrinkage <= 1:
            raise ValueError(f"shrinkage must be in (0, 1], got {self.shrinkage}")
        _check_power("prior_power", self.prior_power)

    def prior(self, counts: Ints) -> Floats:
        """Shares of classes under which its logits stand, shape (8,), where it learnt from so many rows of each."""
        return _shares(counts, self.prior_power)

    def fit(self, features: NDArray[np.floating], labels: Ints, sources: NDArray[Any]) -> Classifier:
        """Learn from one row a landmark.

        Args:
            features: shape (n, width).
            labels: class ids, shape (n,).
            sources: shape (n,); they make no difference.

        Raises:
            NotApplicable: there are landmarks of fewer than two classes, all equal the mean of their class, or the
                shrinkage is so small that rounding leaves the covariance singular.
            ValueError: not equally many of each, a label that is no class, or a feature that is not finite.
        """
        from scipy.linalg import cho_factor, cho_solve

        there, counts = _present(features, labels, sources)
        centre = features.mean(axis=0, dtype=np.float64)
        x = features - centre
        width = x.shape[1]
        means = np.zeros((len(CLASSES), width))
        for k in there:
            means[k] = x[labels == k].mean(axis=0)
        _spread(x, means[labels])
        priors = (counts / len(labels)) ** self.prior_power * (counts > 0)
        priors /= priors.sum()
        scaled = (x - means[labels]) * np.sqrt(priors / np.maximum(counts, 1))[labels, None]
        covariance = (1 - self.shrinkage) * (scaled.T @ scaled)
        covariance.flat[:: width + 1] += self.shrinkage * (scaled**2).sum() / width
        # scikit-learn solves by least squares, for matrices of any rank; shrunk, it is positive definite, and Cholesky
        # takes a tenth of the time.
        try:
            kernel = cho_solve(cho_factor(covariance), means[there].T).T
        except np.linalg.LinAlgError as error:
            raise NotApplicable(f"A shrinkage of {self.shrinkage} leaves the covariance singular: {error}") from error
        bias = np.log(priors[there]) - (means[there] * kernel).sum(axis=1) / 2
        return _placed(there, kernel, bias, centre, np.ones(width))


@dataclass(frozen=True)
class Logistic:
    """Multinomial logistic regression on standardised features, scikit-learn's.

    What is minimised is c sum_i w_y(i) L_i + |kernel|^2 / 2, with L_i the cross-entropy of landmark i and the weights
    w_k proportional to n_k^-power, with mean 1 over landmarks. With two classes it is the binomial one, which has one
    row of weights to be small.
    """

    c: float
    """scikit-learn's C: the inverse strength of regularisation; it stands before a sum, not a mean. Positive."""
    power: float
    """In [0, 2]; 0 weighs all landmarks alike, 1 all classes."""

    def __post_init__(self) -> None:
        """Refuse a strength that is not positive and a power outside [0, 2]."""
        if not 0 < self.c < np.inf:
            raise ValueError(f"c must be positive, got {self.c}")
        _check_power("power", self.power)

    def prior(self, counts: Ints) -> Floats:
        """Shares of classes under which its logits stand, shape (8,), where it learnt from so many rows of each."""
        return _shares(counts, 1 - self.power)

    def fit(self, features: NDArray[np.floating], labels: Ints, sources: NDArray[Any]) -> Classifier:
        """Learn from one row a landmark.

        Args:
            features: shape (n, width).
            labels: class ids, shape (n,).
            sources: shape (n,); they make no difference.

        Raises:
            NotApplicable: there are landmarks of fewer than two classes, or the optimum was not reached.
            ValueError: not equally many of each, a label that is no class, or a feature that is not finite.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        there, counts = _present(features, labels, sources)
        scaler = StandardScaler().fit(features.astype(np.float64))
        centre, gain = scaler.mean_, 1 / scaler.scale_
        x = _transformed(features, centre, gain, unit=False)
        weights = dict(enumerate(inverse_power(counts, self.power)))
        model = LogisticRegression(
            # Some fifteen Newton steps, where L-BFGS takes hundreds and several times as long.
            solver="newton-cg",
            C=self.c,
            class_weight={k: weights[k] for k in there},
            tol=_TOLERANCE,
            max_iter=_ITERATIONS,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                model.fit(x, labels)
            except ConvergenceWarning as warning:
                reason = str(warning).splitlines()[0]
                raise NotApplicable(f"Logistic regression with c {self.c} found no optimum: {reason}") from warning
        return _placed(there, model.coef_, model.intercept_, centre, gain)


def _shares(counts: Ints, power: float) -> Floats:
    """Shares in proportion to n^power; 0 for a class without rows."""
    shares = np.where(counts > 0, np.maximum(counts, 1).astype(float) ** power, 0)
    return np.asarray(shares / shares.sum())


def _check_power(name: str, power: float) -> None:
    if not 0 <= power <= 2:
        raise ValueError(f"{name} must be in [0, 2], got {power}")


def _transformed(rows: NDArray[np.floating], centre: Floats, gain: Floats, unit: bool) -> Floats:
    """(rows - centre) * gain, scaled to length 1 where `unit`."""
    x = (rows - centre) * gain
    if unit:
        x /= np.sqrt(np.maximum((x**2).sum(axis=1, keepdims=True), _TINY))
    return x


def _present(features: NDArray[np.floating], labels: Ints, sources: NDArray[Any]) -> tuple[list[int], Ints]:
    """The classes that have landmarks, and the number of landmarks of all eight."""
    checked(features, labels, sources)
    counts = np.bincount(labels, minlength=len(CLASSES))
    there = np.flatnonzero(counts).tolist()
    if len(there) < 2:
        raise NotApplicable(f"A classifier needs landmarks of two classes; there are those of {len(there)}.")
    return there, counts


def _spread(x: Floats, own: Floats) -> float:
    """Mean squared distance of rows to the means of their own classes."""
    spread = float(((x - own) ** 2).sum(axis=1).mean())
    # Means of equal rows are off by rounding.
    if spread <= _TINY * float((x**2).sum(axis=1).mean()):
        raise NotApplicable("Every landmark equals the mean of its class: there is no spread to measure distances by.")
    return spread


def _placed(
    there: list[int], kernel: Floats, bias: Floats, centre: Floats, gain: Floats, unit: bool = False
) -> Classifier:
    """The classifier of eight classes from one of those that are there.

    Args:
        there: their ids.
        kernel: shape (n, width), or (1, width) of the second of two classes against the first.
        bias: shape (n,) or (1,).
        centre: shape (width,).
        gain: shape (width,).
        unit: whether features are scaled to unit length.
    """
    if len(kernel) < len(there):
        kernel, bias = np.concatenate([-kernel, kernel]) / 2, np.concatenate([-bias, bias]) / 2
    whole = np.zeros((len(CLASSES), kernel.shape[1]))
    biases = np.full(len(CLASSES), ABSENT)
    # What all classes share changes no probability; without it, the highest logit is never below 0.
    whole[there] = kernel - kernel.mean(axis=0)
    biases[there] = bias - bias.mean()
    return Classifier(whole, biases, centre, gain, unit)
