"""Focal loss."""

from typing import Any

from hirise_imb.imbalance.class_weights import EffectiveNumber, InversePower
from hirise_imb.imbalance.losses import Focal
from hirise_imb.strategies.base import RecipeContext, TrainedStrategy
from hirise_imb.strategies.parameters import Categorical, Float, Settings


class FocalLoss(TrainedStrategy):
    """Rows that are classified well weigh less; classes may weigh by effective numbers."""

    name = "focal_loss"
    summary = "rows that are easy already weigh less in the loss"
    source = "Lin et al. 2017; Cui et al. 2019"
    own = (
        Float(
            name="gamma",
            low=0.0,
            high=5.0,
            default=2.0,
            help="how much less; 0 is cross-entropy",
            source="Lin et al. 2017",
        ),
        Categorical(
            name="weights",
            choices=("none", "effective_number"),
            default="none",
            help="of classes; with effective numbers it is class-balanced focal loss, in its softmax form",
            source="Cui et al. 2019",
        ),
        Float(
            name="one_minus_beta",
            low=1e-4,
            high=1e-1,
            log=True,
            default=1e-3,
            help="how far beta is from 1: the smaller, the nearer to inverse frequency of landmarks",
            source="Cui et al. 2019",
            when=("weights", ("effective_number",)),
        ),
    )

    def changes(self, settings: Settings, context: RecipeContext) -> dict[str, Any]:  # noqa: ARG002
        """The loss, and the weights beside it."""
        balanced = settings["weights"] == "effective_number"
        weights = EffectiveNumber(1 - float(settings["one_minus_beta"])) if balanced else InversePower()
        return {"loss": Focal(gamma=float(settings["gamma"])), "class_weights": weights}

    def starts(self) -> list[Settings]:
        """Class-balanced focal loss, with the gammas of Cui et al."""
        return [{"gamma": 1.0, "weights": "effective_number"}, {"gamma": 0.5, "weights": "effective_number"}]
