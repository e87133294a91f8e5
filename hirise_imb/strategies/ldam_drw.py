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
"""Scale that suits a head on fixed features, which converges within a few epochs; the paper trains for 200."""


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
    epochs: int = integer(
        10,
        60,
        default=30,
        help="length of the schedule, all of which is trained",
        source="Cao et al. 2019, who train a complete network for 200 epochs",
    )
    reweight_after: float = number(
        0.5,
        0.9,
        default=0.8,
        help="share of the epochs after which class weights take effect (effective numbers, beta 0.9999); the learning "
        "rate falls to a hundredth then, and once more half way from there to the end",
        source="Cao et al. 2019 (epochs 160 and 180 of 200)",
    )


class LdamDrwStrategy(TrainedStrategy[LdamDrwParameters]):
    """A cosine head with margins that are wider for rare classes; class weights take effect in the last epochs."""

    name = "ldam_drw"
    summary = "rare classes must win by a wider margin, and weigh more in late epochs"
    family = "loss"
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
            rate_drops=(parameters.reweight_after, (1 + parameters.reweight_after) / 2),
            # The best epoch could be one before the weights take effect: then nothing would be re-weighted.
            monitor="none",
            max_epochs=parameters.epochs,
        )

    def initial_points(self) -> list[Settings]:
        """Returns a smaller scale, with weights that take effect early."""
        return [{"scale": FAST_SCALE, "reweight_after": 0.5}]
