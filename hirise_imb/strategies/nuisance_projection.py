"""What differs between sources, taken out of the features."""

from typing import Any

from hirise_imb.models.projection import NuisanceProjection
from hirise_imb.strategies.base import RecipeContext, TrainedStrategy
from hirise_imb.strategies.parameters import Integer, Settings


class Projection(TrainedStrategy):
    """Directions in which sources of `other` differ most are removed; labels of rare classes play no part."""

    name = "nuisance_projection"
    summary = "directions in which sources differ are taken out of the features"
    source = "Solomonoff et al. 2005; Hatch et al. 2006"
    own = (Integer(name="rank", low=1, high=20, default=5, help="directions", source="Solomonoff et al. 2005"),)

    def changes(self, settings: Settings, context: RecipeContext) -> dict[str, Any]:  # noqa: ARG002
        """The projection."""
        return {"projection": NuisanceProjection(int(settings["rank"]))}

    def starts(self) -> list[Settings]:
        """One direction, and many."""
        return [{"rank": 1}, {"rank": 20}]
