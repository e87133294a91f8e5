"""Projection that removes differences between sources from the features."""

from dataclasses import dataclass, replace

from hirise_imb.models.projection import NuisanceProjection, Statistic
from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import OptimiserParameters, TrainedStrategy
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.spaces import choice, integer


@dataclass(frozen=True)
class NuisanceProjectionParameters(OptimiserParameters):
    """Hyperparameters of the nuisance projection."""

    rank: int = integer(1, 20, default=5, help="number of directions removed", source="Solomonoff et al. 2005")
    statistic: Statistic = choice(
        default="means",
        help="what is compared between sources: means of features, or their covariances (CORAL)",
        source="Solomonoff et al. 2005; Sun & Saenko 2016",
    )


class NuisanceProjectionStrategy(TrainedStrategy[NuisanceProjectionParameters]):
    """Directions in which sources of the majority class differ most are removed; rare classes are not used."""

    name = "nuisance_projection"
    summary = "directions in which sources differ are projected out of the features"
    family = "heads and features"
    source = "Solomonoff et al. 2005; Hatch et al. 2006; Sun & Saenko 2016"
    parameters = NuisanceProjectionParameters

    def apply(self, recipe: Recipe, parameters: NuisanceProjectionParameters) -> Recipe:
        """Returns the recipe with projected features."""
        return replace(recipe, projection=NuisanceProjection(parameters.rank, parameters.statistic))

    def initial_points(self) -> list[Settings]:
        """Returns one direction, as many as possible, and directions in which covariances differ."""
        return [{"rank": 1}, {"rank": 20}, {"statistic": "covariances"}]
