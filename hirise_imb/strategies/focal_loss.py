"""Focal loss."""

from dataclasses import dataclass, replace
from typing import Literal

from hirise_imb.imbalance.class_weights import EffectiveNumber, InversePower
from hirise_imb.imbalance.losses import Focal
from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import OptimiserParameters, TrainedStrategy
from hirise_imb.strategies.class_weights import ClassWeightsParameters
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.spaces import choice, number, reuse


@dataclass(frozen=True)
class FocalLossParameters(OptimiserParameters):
    """Hyperparameters of focal loss."""

    gamma: float = number(
        0.0,
        5.0,
        default=2.0,
        help="focusing exponent: the larger, the less well-classified rows weigh; 0 is cross-entropy",
        source="Lin et al. 2017",
    )
    weights: Literal["none", "effective_number"] = choice(
        default="none",
        help="class weights; with effective numbers it is class-balanced focal loss, in its softmax form",
        source="Cui et al. 2019",
    )
    one_minus_beta: float = reuse(ClassWeightsParameters, "one_minus_beta", when=("weights", ("effective_number",)))


class FocalLossStrategy(TrainedStrategy[FocalLossParameters]):
    """Well-classified rows weigh less in the loss; classes may be weighted by effective numbers."""

    name = "focal_loss"
    summary = "well-classified rows weigh less in the loss"
    family = "loss"
    source = "Lin et al. 2017; Cui et al. 2019"
    parameters = FocalLossParameters

    def apply(self, recipe: Recipe, parameters: FocalLossParameters) -> Recipe:
        """Returns the recipe with focal loss and its class weights."""
        balanced = parameters.weights == "effective_number"
        weights = EffectiveNumber(1 - parameters.one_minus_beta) if balanced else InversePower()
        return replace(recipe, loss=Focal(gamma=parameters.gamma), class_weights=weights)

    def initial_points(self) -> list[Settings]:
        """Returns class-balanced focal loss with the gammas of Cui et al."""
        return [{"gamma": 1.0, "weights": "effective_number"}, {"gamma": 0.5, "weights": "effective_number"}]
