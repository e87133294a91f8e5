"""Compositions of remedies."""

from typing import Any

from hirise_imb.imbalance.class_bias import ClassBias
from hirise_imb.imbalance.class_weights import EffectiveNumber, InversePower
from hirise_imb.imbalance.logit_adjustment import PosthocLogitAdjustment
from hirise_imb.imbalance.losses import Focal, LabelDistributionAwareMargin, LogitAdjustedCrossEntropy
from hirise_imb.imbalance.sampling import ClassSampling
from hirise_imb.models.closed_form import Discriminant, Logistic
from hirise_imb.models.projection import NuisanceProjection
from hirise_imb.recipe import Cosine
from hirise_imb.strategies.base import RecipeContext, TrainedStrategy
from hirise_imb.strategies.parameters import Categorical, Float, Integer, Settings

_OWN = "the strategy of that name"


class Combined(TrainedStrategy):
    """Remedies that go together: one for the features, one for the prior, several heads, offsets where none has any.

    The prior is corrected once: whatever corrects it in training leaves nothing to adjust afterwards.
    """

    name = "combined"
    summary = "compositions of the other remedies"
    source = "Zhang et al. 2021 (bag of tricks)"
    inputs = ("plain", "photometric")
    own = (
        Categorical(
            name="features",
            choices=("plain", "beside"),
            default="plain",
            help="plain images, or those with normalised contrast beside them",
            source=_OWN,
        ),
        Categorical(
            name="projection", choices=("none", "nuisance"), default="none", help="of the features", source=_OWN
        ),
        Integer(
            name="rank",
            low=1,
            high=20,
            default=5,
            help="directions taken out",
            source=_OWN,
            when=("projection", ("nuisance",)),
        ),
        Categorical(
            name="correction",
            choices=("none", "class_weights", "oversampling", "logit_adjusted_loss", "ldam_drw", "focal_loss"),
            default="class_weights",
            help="what is done about the prior in training",
            source=_OWN,
        ),
        Float(
            name="weight_power",
            low=0.0,
            high=1.5,
            default=0.5,
            help="classes weigh n^-power, n counting landmarks",
            source=_OWN,
            when=("correction", ("class_weights",)),
        ),
        Float(
            name="sampling_power",
            low=0.0,
            high=0.9,
            default=0.5,
            help="a class is drawn in proportion to n^power",
            source=_OWN,
            when=("correction", ("oversampling",)),
        ),
        Float(
            name="loss_tau",
            low=0.0,
            high=2.0,
            default=0.5,
            help="weight of the log prior in the loss",
            source=_OWN,
            when=("correction", ("logit_adjusted_loss",)),
        ),
        Float(
            name="max_margin",
            low=0.0,
            high=0.8,
            default=0.5,
            help="margin of the rarest class; weights come in after 8 epochs",
            source=_OWN,
            when=("correction", ("ldam_drw",)),
        ),
        Float(
            name="gamma",
            low=0.0,
            high=5.0,
            default=2.0,
            help="of focal loss",
            source=_OWN,
            when=("correction", ("focal_loss",)),
        ),
        Categorical(
            name="adjustment",
            choices=("none", "logit_adjustment", "class_bias"),
            default="none",
            help="of logits, where training has not corrected the prior",
            source=_OWN,
            when=("correction", ("none", "focal_loss")),
        ),
        Float(
            name="tau",
            low=0.0,
            high=2.0,
            default=0.5,
            help="weight of the log prior that is taken off",
            source=_OWN,
            when=("adjustment", ("logit_adjustment",)),
        ),
        Float(
            name="strength",
            low=1e-3,
            high=1.0,
            log=True,
            default=3e-2,
            help="how strongly offsets are drawn to logit adjustment",
            source=_OWN,
            when=("adjustment", ("class_bias",)),
        ),
        Categorical(
            name="heads",
            choices=("one", "three"),
            default="one",
            help="the trained one, or discriminant analysis and logistic regression beside it",
            source=_OWN,
        ),
        Integer(name="members", low=1, high=4, default=1, help="fits that are averaged", source=_OWN),
    )

    def changes(self, settings: Settings, context: RecipeContext) -> dict[str, Any]:  # noqa: ARG002
        """All that was composed."""
        changes: dict[str, Any] = {"members": int(settings["members"])}
        if settings["features"] == "beside":
            changes["inputs"] = ("plain", "photometric")
        if settings["projection"] == "nuisance":
            changes["projection"] = NuisanceProjection(int(settings["rank"]))
        if settings["heads"] == "three":
            changes["also"] = (Discriminant(0.1, 1.0), Logistic(1e-2, 0.5))
        return changes | _correction(settings) | _adjustment(settings)

    def starts(self) -> list[Settings]:
        """Good partners by what is published: features and heads beside a mild correction."""
        return [
            {"features": "beside", "correction": "class_weights"},
            {"features": "beside", "correction": "none", "adjustment": "class_bias", "heads": "three"},
            {"features": "beside", "correction": "oversampling", "members": 4},
            {"correction": "logit_adjusted_loss", "projection": "nuisance"},
        ]


def _correction(settings: Settings) -> dict[str, Any]:
    match settings["correction"]:
        case "class_weights":
            return {"class_weights": InversePower(float(settings["weight_power"]))}
        case "oversampling":
            return {"sampling": ClassSampling(float(settings["sampling_power"]))}
        case "logit_adjusted_loss":
            return {"loss": LogitAdjustedCrossEntropy(float(settings["loss_tau"]))}
        case "ldam_drw":
            return {
                "head": Cosine(15.0),
                "loss": LabelDistributionAwareMargin(float(settings["max_margin"])),
                "class_weights": EffectiveNumber(0.9999),
                "reweight_after": 8,
            }
        case "focal_loss":
            return {"loss": Focal(gamma=float(settings["gamma"]))}
        case _:
            return {}


def _adjustment(settings: Settings) -> dict[str, Any]:
    match settings.get("adjustment"):
        case "logit_adjustment":
            return {"adjustment": PosthocLogitAdjustment(float(settings["tau"]))}
        case "class_bias":
            return {"adjustment": ClassBias(float(settings["strength"]))}
        case _:
            return {}
