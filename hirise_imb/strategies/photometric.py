"""Contrast of each image made alike."""

from typing import Any

from hirise_imb.strategies.base import RecipeContext, TrainedStrategy
from hirise_imb.strategies.parameters import Categorical, Settings

_INPUTS = {"alone": ("photometric",), "beside": ("plain", "photometric")}


class Photometric(TrainedStrategy):
    """Mean and spread of an image's grey values, black borders aside, are made alike before the backbone."""

    name = "photometric"
    summary = "the contrast of each image is normalised before the backbone"
    source = "Reinhard et al. 2001"
    inputs = ("plain", "photometric")
    own = (
        Categorical(
            name="features",
            choices=("alone", "beside"),
            default="beside",
            help="normalised images alone, or beside the plain ones",
            source="this project",
        ),
    )

    def changes(self, settings: Settings, context: RecipeContext) -> dict[str, Any]:  # noqa: ARG002
        """What the head sees."""
        return {"inputs": _INPUTS[str(settings["features"])]}

    def starts(self) -> list[Settings]:
        """Alone."""
        return [{"features": "alone"}]
