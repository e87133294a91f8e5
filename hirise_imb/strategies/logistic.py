"""Logistic regression."""

from hirise_imb.models.closed_form import Logistic
from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import RecipeContext, Strategy
from hirise_imb.strategies.parameters import Float, Settings


class LogisticRegression(Strategy):
    """A convex problem: no seed, no epochs, so that what the loss gives is told from what the optimiser gives."""

    name = "logistic"
    summary = "logistic regression with class weights, solved to the end"
    source = "King & Zeng 2001; Kirichenko et al. 2023"
    own = (
        Float(
            name="c",
            low=1e-4,
            high=1.0,
            log=True,
            default=1e-2,
            help="inverse strength of the penalty on squared weights, as scikit-learn has it",
            source="Kirichenko et al. 2023",
        ),
        Float(
            name="power",
            low=0.0,
            high=1.5,
            default=1.0,
            help="classes weigh n^-power; 1 is scikit-learn's balanced",
            source="King & Zeng 2001",
        ),
    )

    def recipe(self, settings: Settings, context: RecipeContext) -> Recipe:  # noqa: ARG002
        """The head."""
        return Recipe(head=Logistic(float(settings["c"]), float(settings["power"])))

    def starts(self) -> list[Settings]:
        """Without weights, and with their square root."""
        return [{"power": 0.0}, {"power": 0.5}]
