"""Mixing of training rows: features and labels of two rows of a mini-batch are averaged with random weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Mixing(Protocol):
    """A way to mix rows that a recipe can name."""

    @property
    def alpha(self) -> float:
        """Both parameters of the beta distribution of the weights."""
        ...

    def label_weights(self, weights: Floats, counts: Ints, partner_counts: Ints) -> Floats:
        """Returns the weight of each row's own label; that of its partner's label is the rest to 1.

        Args:
            weights: weight of each row's own features, shape (n,).
            counts: number of landmarks of each row's class, shape (n,).
            partner_counts: number of landmarks of its partner's class, shape (n,).
        """
        ...


@dataclass(frozen=True)
class Mixup:
    """Labels have the weights of the features (mixup; Zhang et al. 2018).

    On the output of a hidden layer, as here, this is manifold mixup (Verma et al. 2019).
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        """Checks the range of alpha."""
        _check_alpha(self.alpha)

    def label_weights(self, weights: Floats, counts: Ints, partner_counts: Ints) -> Floats:  # noqa: ARG002
        """Returns the weights of the features, shape (n,)."""
        return weights


@dataclass(frozen=True)
class Remix:
    """The rarer class has the whole label if it has enough of the features (Remix; Chou et al. 2020).

    With lambda the weight of a row in class i whose partner is in class j, the weight of the label i is 0 if
    n_i / n_j >= kappa and lambda < tau, 1 if n_i / n_j <= 1 / kappa and 1 - lambda < tau, and lambda otherwise.
    """

    alpha: float = 1.0
    kappa: float = 3.0
    """Ratio of the numbers of landmarks from which a class counts as the rarer one."""
    tau: float = 0.5
    """Weight of the more frequent class below which it has no part of the label."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        _check_alpha(self.alpha)
        if not 1 < self.kappa < np.inf:
            raise ValueError(f"kappa must be above 1 and finite, got {self.kappa}")
        if not 0 < self.tau <= 1:
            raise ValueError(f"tau must be in (0, 1], got {self.tau}")

    def label_weights(self, weights: Floats, counts: Ints, partner_counts: Ints) -> Floats:
        """Returns the weights of the formula, shape (n,)."""
        partner_wins = (counts >= self.kappa * partner_counts) & (weights < self.tau)
        wins = (partner_counts >= self.kappa * counts) & (1 - weights < self.tau)
        return np.where(partner_wins, 0.0, np.where(wins, 1.0, weights))


class Mixture(NamedTuple):
    """The partner of each row of an epoch, and the weights with which both are mixed."""

    partners: Ints
    """Position of the partner among the rows of the epoch, in the same mini-batch, shape (n,)."""
    weights: NDArray[np.float32]
    """Weight of the row's own features, shape (n,)."""
    label_weights: NDArray[np.float32]
    """Weight of the row's own label, shape (n,)."""

    @classmethod
    def draw(cls, mixing: Mixing, labels: Ints, landmarks: Ints, batch: int, rng: np.random.Generator) -> Mixture:
        """Draws partners and weights for the rows of an epoch.

        Args:
            mixing: how rows are mixed.
            labels: class id of each row in the order of training, shape (n,).
            landmarks: number of landmarks of each class, shape (n_classes,).
            batch: size of the mini-batches.
            rng: random number generator.
        """
        starts = range(0, len(labels), batch)
        partners = np.concatenate([start + rng.permutation(len(labels[start : start + batch])) for start in starts])
        weights = rng.beta(mixing.alpha, mixing.alpha, len(labels))
        label_weights = mixing.label_weights(weights, landmarks[labels], landmarks[labels[partners]])
        return cls(partners, weights.astype(np.float32), label_weights.astype(np.float32))

    def select(self, part: slice) -> Mixture:
        """Returns the mixture of a part of the rows that consists of whole mini-batches."""
        return Mixture(self.partners[part] - part.start, self.weights[part], self.label_weights[part])

    def mix_features(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the mixed features, shape (n, ...)."""
        return _average(features, features[self.partners], self.weights)

    def mix_labels(self, one_hot: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the share of each class in the mixed labels, shape (n, n_classes)."""
        return _average(one_hot, one_hot[self.partners], self.label_weights)


def _average(
    first: NDArray[np.float32], second: NDArray[np.float32], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    weights = np.expand_dims(weights, tuple(range(1, first.ndim)))
    return weights * first + (1 - weights) * second


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < np.inf:  # written so that NaN is refused too
        raise ValueError(f"alpha must be positive and finite, got {alpha}")
