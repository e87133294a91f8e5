"""The control."""

from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import CONTROL, OptimiserParameters, TrainedStrategy


class PlainStrategy(TrainedStrategy[OptimiserParameters]):
    """The baseline with its optimiser tuned, so that the effect of tuning alone is not credited to a remedy."""

    name = CONTROL
    summary = "no remedy: the baseline with the optimiser tuned"
    source = "control"
    parameters = OptimiserParameters

    def apply(self, recipe: Recipe, parameters: OptimiserParameters) -> Recipe:  # noqa: ARG002
        """Returns the recipe as it is."""
        return recipe
