"""The class prior subtracted from the logits after training."""

from dataclasses import dataclass, replace

from hirise_imb.imbalance.logit_adjustment import PosthocLogitAdjustment
from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import PosthocStrategy
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.spaces import Parameters, number


@dataclass(frozen=True)
class LogitAdjustmentParameters(Parameters):
    """The hyperparameter of post-hoc logit adjustment."""

    tau: float = number(
        0.0,
        2.0,
        default=1.0,
        help="weight of the subtracted log prior; 0 is the control, 1 aims at balanced error, less at macro F1",
        source="Menon et al. 2021",
    )


class LogitAdjustmentStrategy(PosthocStrategy[LogitAdjustmentParameters]):
    """tau times the log prior is subtracted from the control's logits."""

    name = "logit_adjustment"
    summary = "the log prior is subtracted from the control's logits"
    family = "after training"
    source = "Menon et al. 2021"
    parameters = LogitAdjustmentParameters

    def apply(self, recipe: Recipe, parameters: LogitAdjustmentParameters) -> Recipe:
        """Returns the recipe with post-hoc logit adjustment."""
        return replace(recipe, adjustment=PosthocLogitAdjustment(parameters.tau))

    def initial_points(self) -> list[Settings]:
        """Returns weights below 1, the best for balanced error: macro F1 needs less correction."""
        return [{"tau": 0.25}, {"tau": 0.5}]
