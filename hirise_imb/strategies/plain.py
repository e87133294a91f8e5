"""The control."""

from typing import Any

from hirise_imb.strategies.base import CONTROL, RecipeContext, TrainedStrategy
from hirise_imb.strategies.parameters import Settings


class Plain(TrainedStrategy):
    """Cross-entropy as in the baseline: what tuning gives by itself is not credited to a remedy."""

    name = CONTROL
    summary = "no remedy: the baseline with the optimiser tuned"
    source = "control"

    def changes(self, settings: Settings, context: RecipeContext) -> dict[str, Any]:  # noqa: ARG002
        """Nothing more."""
        return {}
