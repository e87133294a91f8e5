"""The prior inside the loss."""

from typing import Any

from hirise_imb.imbalance.losses import LogitAdjustedCrossEntropy
from hirise_imb.strategies.base import RecipeContext, TrainedStrategy
from hirise_imb.strategies.parameters import Float, Settings


class LogitAdjustedLossStrategy(TrainedStrategy):
    """The loss sees logits to which the log prior is added; predictions are made without it."""

    name = "logit_adjusted_loss"
    summary = "the loss expects the prior, so that logits need not learn it"
    source = "Menon et al. 2021; Ren et al. 2020"
    own = (
        Float(
            name="tau",
            low=0.0,
            high=2.0,
            default=1.0,
            help="weight of the log prior; 0 is cross-entropy, 1 is balanced softmax",
            source="Menon et al. 2021; Ren et al. 2020",
        ),
    )

    def changes(self, settings: Settings, context: RecipeContext) -> dict[str, Any]:  # noqa: ARG002
        """The loss."""
        return {"loss": LogitAdjustedCrossEntropy(float(settings["tau"]))}

    def starts(self) -> list[Settings]:
        """Half the prior: macro F1 asks for less than balanced error does."""
        return [{"tau": 0.5}]
