"""Class weights in the loss."""

from dataclasses import dataclass, replace
from typing import Literal

from hirise_imb.imbalance.class_weights import ClassWeights, EffectiveNumber, InversePower, Unit
from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import OptimiserParameters, TrainedStrategy
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.spaces import choice, number


@dataclass(frozen=True)
class ClassWeightsParameters(OptimiserParameters):
    """Hyperparameters of class weights."""

    scheme: Literal["inverse_power", "effective_number"] = choice(
        default="inverse_power",
        help="n^-power, or the inverse of the effective number",
        source="King & Zeng 2001; Cui et al. 2019",
    )
    unit: Unit = choice(
        default="landmarks", help="what n counts", source="Kish 1965: landmarks of one source are not independent"
    )
    power: float = number(
        0.0,
        1.5,
        default=1.0,
        help="exponent of n^-power: 0 weighs all classes equally, 1 by inverse frequency",
        source="King & Zeng 2001",
        when=("scheme", ("inverse_power",)),
    )
    # Searched as 1 - beta, because a logarithmic scale resolves values near 0, and beta is near 1.
    one_minus_beta: float = number(
        1e-4,
        1e-1,
        log=True,
        default=1e-3,
        help="1 - beta of effective numbers: the smaller, the nearer to inverse frequency",
        source="Cui et al. 2019",
        when=("scheme", ("effective_number",)),
    )


class ClassWeightsStrategy(TrainedStrategy[ClassWeightsParameters]):
    """Class weights, from none to beyond inverse frequency, or by effective numbers."""

    name = "class_weights"
    summary = "rows of rare classes weigh more in the loss"
    family = "loss"
    source = "King & Zeng 2001; Cui et al. 2019"
    parameters = ClassWeightsParameters

    def apply(self, recipe: Recipe, parameters: ClassWeightsParameters) -> Recipe:
        """Returns the recipe with class weights."""
        weights: ClassWeights = InversePower(parameters.power, parameters.unit)
        if parameters.scheme == "effective_number":
            weights = EffectiveNumber(1 - parameters.one_minus_beta, parameters.unit)
        return replace(recipe, class_weights=weights)

    def initial_points(self) -> list[Settings]:
        """Returns the square root of inverse frequency, and the effective numbers of Cui et al."""
        return [{"power": 0.5}, {"scheme": "effective_number"}]
