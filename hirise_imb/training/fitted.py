"""Fitted recipes: everything from features to log probabilities, as arrays that can be stored and loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hirise_imb.features.arrays import Features
from hirise_imb.imbalance.logit_adjustment import Correction, copy_logits, log_softmax
from hirise_imb.models.linear import LinearClassifier
from hirise_imb.models.preparation import Preparation, Standardisation
from hirise_imb.training.tail_network import Network

Floats = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A classifier on pooled features, of the frozen backbone or of a trained tail of it."""

    classifier: LinearClassifier
    tail: tuple[NDArray[np.float32], ...] | None = None
    """Trained weights of the backbone's tail in the order of its trainable variables; None for the frozen backbone."""

    def logits(self, features: Features, network: Network | None) -> Floats:
        """Computes logits, shape (n, n_classes).

        Args:
            features: pooled features, or feature maps at the cut of a trained tail.
            network: network of the tail; unused without one.
        """
        if self.tail is None:
            return self.classifier.logits(features.take(np.arange(len(features))))
        assert network is not None
        return self.classifier.logits(network.pooled(self.tail, features))


@dataclass(frozen=True, eq=False)
class FittedModel:
    """A recipe as it was fitted with one seed.

    Raises:
        ValueError: the parts do not fit each other.
    """

    heads: tuple[tuple[FittedHead, ...], ...]
    """Fits of each kind of head, by kind and member."""
    temperatures: tuple[float, ...]
    """Temperature of each kind of head, by which its log probabilities are divided before they are averaged with those
    of others, shape (n_kinds,)."""
    correction: Correction
    """Post-hoc adjustment of the averaged log probabilities."""
    temperature: float
    """The T of log p / T with the lowest negative log-likelihood on held-out landmarks, for calibrated probabilities
    (Guo et al. 2017)."""

    def __post_init__(self) -> None:
        """Checks that kinds, classes and temperatures agree."""
        if not self.heads or not all(self.heads) or len(self.temperatures) != len(self.heads):
            raise ValueError(f"{len(self.heads)} kinds of heads need as many temperatures, got {self.temperatures}")
        if not all(0 < value < np.inf for value in (*self.temperatures, self.temperature)):
            raise ValueError("temperatures must be positive and finite")
        sizes = {len(head.classifier.bias) for kind in self.heads for head in kind} | {len(self.correction.offsets)}
        if len(sizes) > 1:
            raise ValueError(f"all parts must have the same number of classes, got {sorted(sizes)}")

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.correction.offsets)

    def log_probabilities(self, views: Sequence[Features], network: Network | None = None) -> Floats:
        """Computes log probabilities as trained, after the adjustment, shape (n, n_classes).

        Args:
            views: features of the same images in each view.
            network: network of trained tails; unused without one.
        """
        by_kind = [
            mean_log_probabilities(heads, views, network) / temperature
            for heads, temperature in zip(self.heads, self.temperatures, strict=True)
        ]
        return log_softmax(self.correction(average_kinds(by_kind, [len(heads) for heads in self.heads])))

    def to_arrays(self) -> Arrays:
        """Returns the model as named arrays, from which `from_arrays` makes it again."""
        arrays: Arrays = {
            "temperatures": np.array(self.temperatures),
            "scale": np.array(self.correction.scale),
            "offsets": self.correction.offsets,
            "temperature": np.array(self.temperature),
        }
        for kind, heads in enumerate(self.heads):
            for member, head in enumerate(heads):
                arrays |= {f"heads.{kind}.{member}.{name}": array for name, array in _head_arrays(head)}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> FittedModel:
        """Returns the model that `to_arrays` stored.

        Raises:
            ValueError: an array is missing, superfluous, not of numbers, or of a shape that does not fit the others.
        """
        rest = dict(arrays)
        by_kind: list[list[FittedHead]] = []
        while f"heads.{len(by_kind)}.0.kernel" in rest:
            kind, members = len(by_kind), 0
            heads: list[FittedHead] = []
            while f"heads.{kind}.{members}.kernel" in rest:
                heads.append(_take_head(rest, f"heads.{kind}.{members}."))
                members += 1
            by_kind.append(heads)
        model = cls(
            heads=tuple(map(tuple, by_kind)),
            temperatures=tuple(_take(rest, "temperatures", 1).tolist()),
            correction=Correction(float(_take(rest, "scale", 0)), _take(rest, "offsets", 1)),
            temperature=float(_take(rest, "temperature", 0)),
        )
        if rest:
            raise ValueError(f"there are superfluous arrays: {', '.join(sorted(rest))}")
        return model


def mean_log_probabilities(
    heads: Sequence[FittedHead], views: Sequence[Features], network: Network | None = None
) -> Floats:
    """Returns mean log probabilities over heads and views, shape (n, n_classes).

    Args:
        heads: heads of one kind.
        views: features of the same images in each view.
        network: network of trained tails; unused without one.

    Raises:
        NotFinite: a logit is not finite.
    """
    parts = [log_softmax(copy_logits(head.logits(features, network))) for features in views for head in heads]
    return np.asarray(np.mean(parts, axis=0))


def average_kinds(by_kind: Floats | Sequence[Floats], members: Sequence[int]) -> Floats:
    """Returns log probabilities averaged over kinds of heads, each with the weight of its members."""
    return log_softmax(np.average(by_kind, axis=0, weights=members))


def _head_arrays(head: FittedHead) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yields the arrays of a head; parts that it does not have are left out."""
    classifier = head.classifier
    for name in ("kernel", "bias", "centre", "gain"):
        yield name, getattr(classifier, name)
    yield "unit", np.array(classifier.unit)
    if (standardisation := classifier.preparation.standardisation) is not None:
        yield "standardisation.centre", standardisation.centre
        yield "standardisation.gain", standardisation.gain
    if classifier.preparation.directions is not None:
        yield "directions", classifier.preparation.directions
    for number, weights in enumerate(head.tail or ()):
        yield f"tail.{number}", np.asarray(weights)


def _take_head(arrays: dict[str, NDArray[Any]], prefix: str) -> FittedHead:
    """Removes the arrays of a head from `arrays`, and returns the head."""
    standardisation = directions = None
    if f"{prefix}standardisation.centre" in arrays:
        centre = _take(arrays, f"{prefix}standardisation.centre", 1)
        standardisation = Standardisation(centre, _take(arrays, f"{prefix}standardisation.gain", 1))
    if f"{prefix}directions" in arrays:
        directions = _take(arrays, f"{prefix}directions", 2)
    unit = arrays.pop(f"{prefix}unit", None)
    if unit is None or unit.shape or unit.dtype != bool:
        raise ValueError(f"{prefix}unit is missing or not a truth value")
    classifier = LinearClassifier(
        kernel=_take(arrays, f"{prefix}kernel", 2),
        bias=_take(arrays, f"{prefix}bias", 1),
        centre=_take(arrays, f"{prefix}centre", 1),
        gain=_take(arrays, f"{prefix}gain", 1),
        unit=bool(unit),
        preparation=Preparation(standardisation, directions),
    )
    tail: list[NDArray[np.float32]] = []
    while (name := f"{prefix}tail.{len(tail)}") in arrays:
        weights = arrays.pop(name)
        if weights.dtype != np.float32 or not np.isfinite(weights).all():
            raise ValueError(f"{name} is not of finite numbers in float32")
        tail.append(weights)
    return FittedHead(classifier, tuple(tail) if tail else None)


def _take(arrays: dict[str, NDArray[Any]], name: str, ndim: int) -> Floats:
    """Removes an array of numbers from `arrays`, and returns it."""
    array = arrays.pop(name, None)
    if array is None or array.ndim != ndim or array.dtype != np.float64:
        raise ValueError(f"{name} is missing or not an array of float64 with {ndim} axes")
    return array
