"""Representations from below the top of the backbone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hirise_imb.features.inputs import PLAIN, Input, Inputs, Pooling
from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import OptimiserParameters, RecipeContext, Strategy
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.spaces import choice, integer

MAX_DEPTH = 3


@dataclass(frozen=True)
class RepresentationParameters(OptimiserParameters):
    """Hyperparameters of the representation."""

    # Every backbone of this package has at least three layers for representations.
    depth: int = integer(
        1,
        MAX_DEPTH,
        default=2,
        help="layer whose output is pooled, counted from the backbone's end without the top",
        source="Yosinski et al. 2014 (the last layers are the most specific to the task they were trained on)",
    )
    pooling: Pooling = choice(
        default="mean_std",
        help="statistics over the map of each channel; gem is the generalised mean",
        source="Lin et al. 2015 (second order); Radenovic et al. 2019 (gem)",
    )
    partner: Literal["none", "last", "top"] = choice(
        default="last",
        help="features next to it: none, the means of the last layer below the top, or those of the top",
        source="Hariharan et al. 2015 (hypercolumns)",
    )


class RepresentationStrategy(Strategy[RepresentationParameters]):
    """The control on other features: statistics of layers below the top, which know less of ImageNet's classes."""

    name = "representation"
    summary = "layers below the top and their second-order statistics take the place of the top"
    family = "heads and features"
    source = "Yosinski et al. 2014; Lin et al. 2015"
    parameters = RepresentationParameters

    def _recipe(self, parameters: RepresentationParameters, context: RecipeContext) -> Recipe:
        layer = Input(layer=context.layers[parameters.depth - 1], pooling=parameters.pooling)
        partners = {"none": (), "last": (Input(layer=context.layers[0]),), "top": PLAIN}[parameters.partner]
        return replace(parameters.tune_baseline(), inputs=tuple(dict.fromkeys((*partners, layer))))

    def inputs(self, layers: Sequence[str]) -> Inputs:
        """Returns every layer with every pooling, and the top."""
        poolings: tuple[Pooling, ...] = ("mean_std_max", "gem")
        return *PLAIN, *(Input(layer=layer, pooling=pooling) for layer in layers[:MAX_DEPTH] for pooling in poolings)

    def initial_points(self) -> list[Settings]:
        """Returns one layer alone, the same next to the top, and the last layer."""
        return [{"partner": "none"}, {"partner": "top"}, {"depth": 1, "partner": "none"}]
