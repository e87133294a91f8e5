"""Projection that removes differences between sources from the features."""

from dataclasses import dataclass, replace

from hirise_imb.models.projection import NuisanceProjection
from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import OptimiserParameters, TrainedStrategy
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.spaces import integer


@dataclass(frozen=True)
class NuisanceProjectionParameters(OptimiserParameters):
    """Hyperparameters of the nuisance projection."""

    rank: int = integer(1, 20, default=5, help="number of directions removed", source="Solomonoff et al. 2005")


class NuisanceProjectionStrategy(TrainedStrategy[NuisanceProjectionParameters]):
    """Directions in which sources of the majority class differ most are removed; rare classes are not used."""

    name = "nuisance_projection"
    summary = "directions in which sources differ are projected out of the features"
    source = "Solomonoff et al. 2005; Hatch et al. 2006"
    parameters = NuisanceProjectionParameters

    def apply(self, recipe: Recipe, parameters: NuisanceProjectionParameters) -> Recipe:
        """Returns the recipe with projected features."""
        return replace(recipe, projection=NuisanceProjection(parameters.rank))

    def initial_points(self) -> list[Settings]:
        """Returns one direction, and as many as possible."""
        return [{"rank": 1}, {"rank": 20}]
