"""The prior taken off the logits."""

from typing import Any

from hirise_imb.imbalance.logit_adjustment import PosthocLogitAdjustment
from hirise_imb.strategies.base import PosthocStrategy
from hirise_imb.strategies.parameters import Float, Settings


class LogitAdjustmentStrategy(PosthocStrategy):
    """tau times the log prior is taken off the control's logits."""

    name = "logit_adjustment"
    summary = "the prior is taken off the control's logits"
    source = "Menon et al. 2021"
    own = (
        Float(
            name="tau",
            low=0.0,
            high=2.0,
            default=1.0,
            help="weight of the log prior; 0 is the control, 1 aims at balanced error, less at macro F1",
            source="Menon et al. 2021",
        ),
    )

    def changes(self, settings: Settings) -> dict[str, Any]:
        """The adjustment."""
        return {"adjustment": PosthocLogitAdjustment(float(settings["tau"]))}

    def starts(self) -> list[Settings]:
        """Less than the balanced error asks for."""
        return [{"tau": 0.25}, {"tau": 0.5}]
