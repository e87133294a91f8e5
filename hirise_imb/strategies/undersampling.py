"""Undersampling of the majority class by an ensemble of heads."""

from dataclasses import dataclass, replace

from hirise_imb.imbalance.sampling import Undersampling
from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import OptimiserParameters, TrainedStrategy
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.spaces import integer, number


@dataclass(frozen=True)
class UndersamplingParameters(OptimiserParameters):
    """Hyperparameters of undersampling."""

    ratio: float = number(
        0.5,
        10.0,
        log=True,
        default=3.0,
        help="images of the majority class that a head sees, as a multiple of those of the largest rare class",
        source="Liu et al. 2009",
    )
    members: int = integer(1, 6, default=4, help="number of heads", source="Liu et al. 2009")


class UndersamplingStrategy(TrainedStrategy[UndersamplingParameters]):
    """Each head sees all rare classes and a different part of the majority class; log probabilities are averaged."""

    name = "undersampling"
    summary = "predictions of heads that each see a part of the majority class are averaged"
    family = "data"
    source = "Liu et al. 2009"
    parameters = UndersamplingParameters

    def apply(self, recipe: Recipe, parameters: UndersamplingParameters) -> Recipe:
        """Returns the recipe with undersampling, and several heads, each with its own seed."""
        return replace(recipe, sampling=Undersampling(parameters.ratio), members=parameters.members)

    def initial_points(self) -> list[Settings]:
        """Returns as many images of the majority class as of the largest rare class."""
        return [{"ratio": 1.0}]
