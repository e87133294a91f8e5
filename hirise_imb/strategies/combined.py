"""Compositions of remedies."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hirise_imb.features.inputs import PLAIN, Inputs
from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import OptimiserParameters, TrainedStrategy
from hirise_imb.strategies.class_bias import ClassBiasParameters, ClassBiasStrategy
from hirise_imb.strategies.class_weights import ClassWeightsParameters, ClassWeightsStrategy
from hirise_imb.strategies.ensemble import FURTHER_HEADS, EnsembleParameters
from hirise_imb.strategies.focal_loss import FocalLossParameters, FocalLossStrategy
from hirise_imb.strategies.ldam_drw import FAST_SCALE, LdamDrwParameters, LdamDrwStrategy
from hirise_imb.strategies.logit_adjusted_loss import LogitAdjustedLossParameters, LogitAdjustedLossStrategy
from hirise_imb.strategies.logit_adjustment import LogitAdjustmentParameters, LogitAdjustmentStrategy
from hirise_imb.strategies.nuisance_projection import NuisanceProjectionParameters, NuisanceProjectionStrategy
from hirise_imb.strategies.oversampling import OversamplingParameters, OversamplingStrategy
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.photometric import PhotometricParameters, PhotometricStrategy
from hirise_imb.strategies.spaces import choice, reuse

_SOURCE = "the strategy of that name"
_MILD = "a mild correction leaves something for the other remedies to gain"


@dataclass(frozen=True)
class CompositionParameters(OptimiserParameters):
    """Which remedies are composed, and the hyperparameters of each."""

    projection: Literal["none", "nuisance"] = choice(default="none", help="projection of the features", source=_SOURCE)
    rank: int = reuse(NuisanceProjectionParameters, "rank", when=("projection", ("nuisance",)))
    correction: Literal["none", "class_weights", "oversampling", "logit_adjusted_loss", "ldam_drw", "focal_loss"] = (
        choice(default="class_weights", help="how training corrects for the class prior", source=_SOURCE)
    )
    weight_power: float = reuse(
        ClassWeightsParameters, "power", default=0.5, reason=_MILD, when=("correction", ("class_weights",))
    )
    sampling_power: float = reuse(OversamplingParameters, "power", when=("correction", ("oversampling",)))
    loss_tau: float = reuse(
        LogitAdjustedLossParameters, "tau", default=0.5, reason=_MILD, when=("correction", ("logit_adjusted_loss",))
    )
    max_margin: float = reuse(LdamDrwParameters, "max_margin", when=("correction", ("ldam_drw",)))
    gamma: float = reuse(FocalLossParameters, "gamma", when=("correction", ("focal_loss",)))
    adjustment: Literal["none", "logit_adjustment", "class_bias"] = choice(
        default="none",
        help="adjustment of logits, if training has not corrected the prior",
        source=_SOURCE,
        when=("correction", ("none", "focal_loss")),
    )
    tau: float = reuse(
        LogitAdjustmentParameters, "tau", default=0.5, reason=_MILD, when=("adjustment", ("logit_adjustment",))
    )
    strength: float = reuse(ClassBiasParameters, "strength", when=("adjustment", ("class_bias",)))
    heads: Literal["one", "three"] = choice(
        default="one",
        help="the trained head, or averaged with discriminant analysis and logistic regression",
        source=_SOURCE,
    )
    members: int = reuse(
        EnsembleParameters, "members", low=1, high=4, default=1, reason="each fit costs as much as a trial"
    )


@dataclass(frozen=True)
class CombinedParameters(CompositionParameters):
    """A composition, and the features that it acts on."""

    features: Literal["plain", "concatenated"] = choice(
        default="plain",
        help="features of plain images, or these concatenated with features of images with normalised contrast",
        source=_SOURCE,
    )


class CombinedStrategy(TrainedStrategy[CombinedParameters]):
    """At most one remedy each for the features, the prior and the heads.

    The prior is corrected only once: if training corrects it, nothing is left to adjust afterwards.
    """

    name = "combined"
    summary = "compositions of the other remedies"
    family = "heads and features"
    source = "Zhang et al. 2021 (bag of tricks)"
    parameters = CombinedParameters

    def apply(self, recipe: Recipe, parameters: CombinedParameters) -> Recipe:
        """Returns the recipe with every remedy of the composition."""
        if parameters.features == "concatenated":
            recipe = PhotometricStrategy().apply(recipe, PhotometricParameters(features="concatenated"))
        return compose(recipe, parameters)

    def inputs(self, layers: Sequence[str]) -> Inputs:
        """Returns the plain view, and the photometric one unless overrides rule it out."""
        return PhotometricStrategy().inputs(layers) if self.space["features"].allows("concatenated") else PLAIN

    def initial_points(self) -> list[Settings]:
        """Returns partners that published results suggest: features and heads with a mild correction."""
        return [
            {"features": "concatenated", "correction": "class_weights"},
            {"features": "concatenated", "correction": "none", "adjustment": "class_bias", "heads": "three"},
            {"features": "concatenated", "correction": "oversampling", "members": 4},
            {"correction": "logit_adjusted_loss", "projection": "nuisance"},
        ]


def compose(recipe: Recipe, parameters: CompositionParameters) -> Recipe:
    """Returns a recipe, whose features are chosen already, with the remedies of a composition."""
    also = FURTHER_HEADS if parameters.heads == "three" else ()
    recipe = replace(recipe, members=parameters.members, also=also)
    if parameters.projection == "nuisance":
        recipe = NuisanceProjectionStrategy().apply(recipe, NuisanceProjectionParameters(rank=parameters.rank))
    return _adjust_logits(_correct_prior(recipe, parameters), parameters)


def _correct_prior(recipe: Recipe, parameters: CompositionParameters) -> Recipe:
    match parameters.correction:
        case "class_weights":
            return ClassWeightsStrategy().apply(recipe, ClassWeightsParameters(power=parameters.weight_power))
        case "oversampling":
            return OversamplingStrategy().apply(recipe, OversamplingParameters(power=parameters.sampling_power))
        case "logit_adjusted_loss":
            return LogitAdjustedLossStrategy().apply(recipe, LogitAdjustedLossParameters(tau=parameters.loss_tau))
        case "ldam_drw":
            margins = LdamDrwParameters(max_margin=parameters.max_margin, scale=FAST_SCALE)
            return LdamDrwStrategy().apply(recipe, margins)
        case "focal_loss":
            return FocalLossStrategy().apply(recipe, FocalLossParameters(gamma=parameters.gamma))
        case "none":
            return recipe


def _adjust_logits(recipe: Recipe, parameters: CompositionParameters) -> Recipe:
    match parameters.adjustment:
        case "logit_adjustment":
            return LogitAdjustmentStrategy().apply(recipe, LogitAdjustmentParameters(parameters.tau))
        case "class_bias":
            return ClassBiasStrategy().apply(recipe, ClassBiasParameters(parameters.strength))
        case "none":
            return recipe
