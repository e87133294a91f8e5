"""Calibration by temperature scaling."""

from dataclasses import dataclass, replace
from typing import Literal

from hirise_imb.imbalance.temperature import Temperature
from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import PosthocStrategy
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.spaces import Parameters, choice


@dataclass(frozen=True)
class TemperatureParameters(Parameters):
    """The hyperparameter of temperature scaling."""

    kind: Literal["temperature", "bias_corrected"] = choice(
        default="temperature",
        help="a temperature alone changes no decision; with class offsets it may",
        source="Guo et al. 2017; Alexandari et al. 2020",
    )


class TemperatureStrategy(PosthocStrategy[TemperatureParameters]):
    """The control's logits are divided by a temperature fitted on validation; classes may have offsets too."""

    name = "temperature"
    summary = "the control's probabilities are calibrated"
    family = "after training"
    source = "Guo et al. 2017; Alexandari et al. 2020"
    parameters = TemperatureParameters

    def apply(self, recipe: Recipe, parameters: TemperatureParameters) -> Recipe:
        """Returns the recipe with temperature scaling."""
        return replace(recipe, adjustment=Temperature(bias=parameters.kind == "bias_corrected"))

    def initial_points(self) -> list[Settings]:
        """Returns the temperature with class offsets."""
        return [{"kind": "bias_corrected"}]
