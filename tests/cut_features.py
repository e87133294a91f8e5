"""Features at cuts, by the name of the cut: the published features at the top, and feature maps below it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.features.arrays import Features
from hirise_imb.features.extraction import extract_features
from hirise_imb.features.inputs import MAP, FeatureKey


def cut_key(cut: str, view: str = "plain") -> FeatureKey:
    """Returns the key of the features at a cut."""
    return FeatureKey(view, cut, "mean" if cut == TOP else MAP)


def extract_at(
    backbone: Backbone, cuts: Sequence[str], paths: Sequence[Path], cache: Path, *, view: str = "plain"
) -> dict[str, Features]:
    """Extracts features at cuts."""
    features = extract_features(backbone, [cut_key(cut, view) for cut in cuts], paths, cache)
    return {key.layer: values for key, values in features.items()}
