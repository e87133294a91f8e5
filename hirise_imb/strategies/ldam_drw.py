"""Margins that grow with rarity, and deferred re-weighting."""

from dataclasses import dataclass, replace

from hirise_imb.imbalance.class_weights import EffectiveNumber
from hirise_imb.imbalance.losses import LabelDistributionAwareMargin
from hirise_imb.recipe import Cosine, Recipe
from hirise_imb.strategies.base import OptimiserParameters, TrainedStrategy
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.spaces import integer, number

_DEFERRED_BETA = 0.9999
"""Beta of the effective numbers in deferred re-weighting, as in the authors' code."""

FAST_SCALE = 15.0
FAST_REWEIGHT_AFTER = 8
"""Scale and epoch that suit a head on fixed features, which converges within a few epochs; the paper trains for 200."""


@dataclass(frozen=True)
class LdamDrwParameters(OptimiserParameters):
    """Hyperparameters of LDAM with deferred re-weighting."""

    max_margin: float = number(
        0.0,
        0.8,
        default=0.5,
        help="margin of the rarest class, as a difference of cosines",
        source="Cao et al. 2019",
    )
    scale: float = number(
        5.0,
        40.0,
        log=True,
        default=30.0,
        help="factor from cosines to logits",
        source="Cao et al. 2019",
    )
    reweight_after: int = integer(
        3,
        24,
        default=20,
        help="epochs, out of 30, before class weights take effect (effective numbers, beta 0.9999)",
        source="Cao et al. 2019",
    )


class LdamDrwStrategy(TrainedStrategy[LdamDrwParameters]):
    """A cosine head with margins that are wider for rare classes; class weights take effect after some epochs."""

    name = "ldam_drw"
    summary = "rare classes must win by a wider margin, and weigh more in late epochs"
    source = "Cao et al. 2019"
    parameters = LdamDrwParameters

    def apply(self, recipe: Recipe, parameters: LdamDrwParameters) -> Recipe:
        """Returns the recipe with a cosine head, margins and deferred class weights."""
        return replace(
            recipe,
            head=Cosine(parameters.scale),
            loss=LabelDistributionAwareMargin(parameters.max_margin),
            class_weights=EffectiveNumber(_DEFERRED_BETA),
            reweight_after=parameters.reweight_after,
        )

    def initial_points(self) -> list[Settings]:
        """Returns a smaller scale with weights that take effect early."""
        return [{"scale": FAST_SCALE, "reweight_after": FAST_REWEIGHT_AFTER}]
