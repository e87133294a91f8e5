"""The inputs of a head: a view of the pixels, a layer of the backbone, and how the output of the layer is pooled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

from hirise_imb.backbones import TOP, Trainable
from hirise_imb.features.views import VIEWS

MAP = "map"
"""The `statistic` of feature maps as they are, at a cut point."""

Pooling = Literal["mean", "mean_std", "mean_std_max", "gem"]

POOLINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"mean": ("mean",), "mean_std": ("mean", "std"), "mean_std_max": ("mean", "std", "max"), "gem": ("gem",)}
)
"""Statistics over the feature map of each channel, by pooling: mean, standard deviation, maximum, and the generalised
mean (Radenovic et al. 2019) of the positive part with the exponent `GEM_EXPONENT`."""

GEM_EXPONENT = 3.0
"""The initial value of the paper, where it is trained along with the network."""


class FeatureKey(NamedTuple):
    """Identifies features that are extracted and cached together."""

    view: str
    """One of `VIEWS`."""
    layer: str
    """`top`, the name of a Keras layer, or, for feature maps, the name of a cut point."""
    statistic: str
    """A statistic of `POOLINGS`, or `MAP`."""

    @property
    def is_trunk_output(self) -> bool:
        """Whether the features are what `Backbone.trunk` gives: a feature map at a cut, or the means at the top."""
        return self.statistic == MAP or (self.layer, self.statistic) == (TOP, "mean")


TOP_MEAN = FeatureKey("plain", TOP, "mean")
"""The features of the published recipe."""


@dataclass(frozen=True)
class RequiredFeatures:
    """The features that the recipes of a strategy use, or of several strategies."""

    images: tuple[FeatureKey, ...]
    """Features of all images: those of the published recipe first, feature maps at cut points last."""
    canonical_images: tuple[FeatureKey, ...]
    """Further features of canonical images. They serve for prediction alone, and canonical images are a seventh of the
    official archive."""

    @classmethod
    def union(cls, parts: Iterable[RequiredFeatures]) -> RequiredFeatures:
        """Returns the features that one or more of the parts require, each once."""
        parts = tuple(parts)
        images = dict.fromkeys((TOP_MEAN, *(key for part in parts for key in part.images)))
        canonical = dict.fromkeys(key for part in parts for key in part.canonical_images if key not in images)
        return cls(tuple(sorted(images, key=lambda key: key.statistic == MAP)), tuple(canonical))


@dataclass(frozen=True)
class Input:
    """Features that a head takes as input; the default is the published one.

    Statistics below the top describe texture and are narrower than those of the top (for second-order statistics of
    feature maps, see Lin et al. 2015).

    Raises:
        ValueError: there is no such view or pooling.
    """

    view: str = "plain"
    layer: str = TOP
    """`top`, or the name of a layer in the Keras model of the backbone."""
    pooling: Pooling = "mean"

    def __post_init__(self) -> None:
        """Checks view and pooling; whether a backbone has the layer is not known here."""
        if self.view not in VIEWS:
            raise ValueError(f"view must be one of {', '.join(VIEWS)}, got {self.view!r}")
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {self.pooling!r}")

    @property
    def keys(self) -> tuple[FeatureKey, ...]:
        """The features that are concatenated."""
        return tuple(FeatureKey(self.view, self.layer, statistic) for statistic in POOLINGS[self.pooling])


Inputs = tuple[Input, ...]
"""Inputs whose features are concatenated."""

PLAIN: Inputs = (Input(),)
"""The means of the last feature map of plain images."""


def feature_keys(inputs: Sequence[Input]) -> tuple[FeatureKey, ...]:
    """Returns the keys of all inputs, each once."""
    return tuple(dict.fromkeys(key for entry in inputs for key in entry.keys))


def have_one_scale(inputs: Sequence[Input]) -> bool:
    """Returns whether all features are means at the top, whose scale is the same; others need standardisation."""
    return all(entry.layer == TOP and entry.pooling == "mean" for entry in inputs)


def with_view(inputs: Sequence[Input], view: str) -> Inputs:
    """Returns the inputs from another view of the pixels."""
    return tuple(replace(entry, view=view) for entry in inputs)


@dataclass(frozen=True)
class FeatureSpec:
    """The features from which a fitted recipe predicts.

    Raises:
        ValueError: there is no such view, or no such choice of trained weights.
    """

    inputs: Inputs
    """Views, layers and poolings that are concatenated; without effect at a cut below the top."""
    views: tuple[str, ...]
    """Views of an image whose log probabilities are averaged."""
    cut: str
    """Cut point whose feature maps go through a trained tail, or `top`."""
    trainable: Trainable
    """Weights of the tail that were trained; without effect at the top."""

    def __post_init__(self) -> None:
        """Checks the names of views and of the trained weights."""
        if unknown := set(self.views) - set(VIEWS):
            raise ValueError(f"views must be some of {', '.join(VIEWS)}, got {min(unknown)!r}")
        if self.trainable not in get_args(Trainable):
            raise ValueError(f"trainable must be one of {', '.join(get_args(Trainable))}, got {self.trainable!r}")

    def inputs_of(self, view: str) -> Inputs:
        """Returns the inputs in a view of `views`."""
        # Inputs may name views of their own, which only the plain view leaves as they are.
        return self.inputs if view == "plain" else with_view(self.inputs, view)

    def keys_of(self, view: str) -> tuple[FeatureKey, ...]:
        """Returns the keys of the features in a view of `views`, in the order in which they are concatenated."""
        return feature_keys(self.inputs_of(view)) if self.cut == TOP else (FeatureKey(view, self.cut, MAP),)

    @property
    def keys(self) -> tuple[FeatureKey, ...]:
        """The keys of all features, each once."""
        return tuple(dict.fromkeys(key for view in self.views for key in self.keys_of(view)))
