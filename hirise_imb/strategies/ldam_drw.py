"""Margins by rarity, and class weights that come late."""

from typing import Any

from hirise_imb.imbalance.class_weights import EffectiveNumber
from hirise_imb.imbalance.losses import LabelDistributionAwareMargin
from hirise_imb.recipe import Cosine
from hirise_imb.strategies.base import RecipeContext, TrainedStrategy
from hirise_imb.strategies.parameters import Float, Integer, Settings


class LdamDrw(TrainedStrategy):
    """A cosine head must win by a margin, wider for rare classes; class weights come in after some epochs."""

    name = "ldam_drw"
    summary = "rare classes must win by a wider margin, and weigh more in late epochs"
    source = "Cao et al. 2019"
    own = (
        Float(
            name="max_margin",
            low=0.0,
            high=0.8,
            default=0.5,
            help="margin of the rarest class, as a difference of cosines",
            source="Cao et al. 2019",
        ),
        Float(
            name="scale",
            low=5.0,
            high=40.0,
            log=True,
            default=30.0,
            help="logits are this times a cosine",
            source="Cao et al. 2019",
        ),
        Integer(
            name="reweight_after",
            low=3,
            high=24,
            default=20,
            help="epochs, of 30, before class weights come in (effective numbers, beta 0.9999)",
            source="Cao et al. 2019",
        ),
    )

    def changes(self, settings: Settings, context: RecipeContext) -> dict[str, Any]:  # noqa: ARG002
        """Head, loss and late weights."""
        return {
            "head": Cosine(float(settings["scale"])),
            "loss": LabelDistributionAwareMargin(float(settings["max_margin"])),
            "class_weights": EffectiveNumber(0.9999),
            "reweight_after": int(settings["reweight_after"]),
        }

    def starts(self) -> list[Settings]:
        """A head converges in few epochs: weights that come early."""
        return [{"scale": 15.0, "reweight_after": 8}]
