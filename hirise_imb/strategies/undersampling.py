"""Heads that each see a part of `other`."""

from typing import Any

from hirise_imb.imbalance.sampling import Undersampling
from hirise_imb.strategies.base import RecipeContext, TrainedStrategy
from hirise_imb.strategies.parameters import Float, Integer, Settings


class UnderSampling(TrainedStrategy):
    """Each head sees all of the rare classes and its own part of `other`; log probabilities are averaged."""

    name = "undersampling"
    summary = "heads that each see a part of `other`, averaged"
    source = "Liu et al. 2009"
    own = (
        Float(
            name="ratio",
            low=0.5,
            high=10.0,
            log=True,
            default=3.0,
            help="images of `other` that a head sees, of those of the largest rare class",
            source="Liu et al. 2009",
        ),
        Integer(name="members", low=1, high=6, default=4, help="heads", source="Liu et al. 2009"),
    )

    def changes(self, settings: Settings, context: RecipeContext) -> dict[str, Any]:  # noqa: ARG002
        """The sampling, and heads of other seeds."""
        return {"sampling": Undersampling(float(settings["ratio"])), "members": int(settings["members"])}

    def starts(self) -> list[Settings]:
        """Balanced with the largest rare class."""
        return [{"ratio": 1.0}]
