"""Offsets of classes, tuned for macro F1."""

from typing import Any

from hirise_imb.imbalance.class_bias import ClassBias
from hirise_imb.strategies.base import PosthocStrategy
from hirise_imb.strategies.parameters import Float, Settings


class ClassBiasing(PosthocStrategy):
    """Offsets of the control's logits, tuned for macro F1 on validation and drawn towards logit adjustment."""

    name = "class_bias"
    summary = "offsets of the control's logits are tuned for macro F1"
    source = "Lipton et al. 2014"
    own = (
        Float(
            name="strength",
            low=1e-3,
            high=1.0,
            log=True,
            default=3e-2,
            help="how strongly offsets are drawn to logit adjustment, in macro F1 a squared nat",
            source="Cawley & Talbot 2010: what is tuned on few landmarks over-fits them",
        ),
    )

    def changes(self, settings: Settings) -> dict[str, Any]:
        """The adjustment."""
        return {"adjustment": ClassBias(float(settings["strength"]))}
