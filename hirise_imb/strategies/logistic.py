"""Logistic regression."""

from dataclasses import dataclass

from hirise_imb.models.closed_form import Logistic
from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import RecipeContext, Strategy
from hirise_imb.strategies.class_weights import ClassWeightsParameters
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.spaces import Parameters, number, reuse


@dataclass(frozen=True)
class LogisticParameters(Parameters):
    """Hyperparameters of logistic regression."""

    c: float = number(
        1e-4,
        1.0,
        log=True,
        default=1e-2,
        help="inverse strength of the penalty on squared weights, as in scikit-learn",
        source="Kirichenko et al. 2023",
    )
    power: float = reuse(ClassWeightsParameters, "power")


class LogisticStrategy(Strategy[LogisticParameters]):
    """A convex problem without seed and epochs, which separates the effect of the loss from that of the optimiser."""

    name = "logistic"
    summary = "logistic regression with class weights, solved to convergence"
    family = "heads and features"
    source = "King & Zeng 2001; Kirichenko et al. 2023"
    parameters = LogisticParameters

    def _recipe(self, parameters: LogisticParameters, context: RecipeContext) -> Recipe:  # noqa: ARG002
        return Recipe(head=Logistic(parameters.c, parameters.power))

    def initial_points(self) -> list[Settings]:
        """Returns no class weights, and their square root."""
        return [{"power": 0.0}, {"power": 0.5}]
