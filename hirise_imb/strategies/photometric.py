"""Photometric normalisation of images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hirise_imb.features.inputs import PLAIN, Input, Inputs
from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import OptimiserParameters, TrainedStrategy
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.spaces import choice


@dataclass(frozen=True)
class PhotometricParameters(OptimiserParameters):
    """Hyperparameters of photometric normalisation."""

    features: Literal["alone", "concatenated"] = choice(
        default="concatenated",
        help="features of normalised images alone, or next to those of the plain images",
        source="this project",
    )


class PhotometricStrategy(TrainedStrategy[PhotometricParameters]):
    """Mean and spread of an image's grey values are normalised, without its black borders."""

    name = "photometric"
    summary = "the contrast of each image is normalised before the backbone"
    family = "heads and features"
    source = "Reinhard et al. 2001"
    parameters = PhotometricParameters

    def apply(self, recipe: Recipe, parameters: PhotometricParameters) -> Recipe:
        """Returns the recipe with the normalised view as input."""
        photometric = (Input("photometric"),)
        return replace(recipe, inputs=PLAIN + photometric if parameters.features == "concatenated" else photometric)

    def inputs(self, layers: Sequence[str]) -> Inputs:  # noqa: ARG002
        """Returns the plain and the photometric view."""
        return *PLAIN, Input("photometric")

    def initial_points(self) -> list[Settings]:
        """Returns the normalised images alone."""
        return [{"features": "alone"}]
