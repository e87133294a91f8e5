"""The class prior inside the loss."""

from dataclasses import dataclass, replace

from hirise_imb.imbalance.losses import LogitAdjustedCrossEntropy
from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import OptimiserParameters, TrainedStrategy
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.spaces import number


@dataclass(frozen=True)
class LogitAdjustedLossParameters(OptimiserParameters):
    """Hyperparameters of the logit-adjusted loss."""

    tau: float = number(
        0.0,
        2.0,
        default=1.0,
        help="weight of the log prior in the loss; 0 is cross-entropy, 1 is balanced softmax",
        source="Menon et al. 2021; Ren et al. 2020",
    )


class LogitAdjustedLossStrategy(TrainedStrategy[LogitAdjustedLossParameters]):
    """The log prior is added to the logits in the loss, and left out in prediction."""

    name = "logit_adjusted_loss"
    summary = "the loss contains the prior, so that logits need not learn it"
    family = "loss"
    source = "Menon et al. 2021; Ren et al. 2020"
    parameters = LogitAdjustedLossParameters

    def apply(self, recipe: Recipe, parameters: LogitAdjustedLossParameters) -> Recipe:
        """Returns the recipe with the logit-adjusted loss."""
        return replace(recipe, loss=LogitAdjustedCrossEntropy(parameters.tau))

    def initial_points(self) -> list[Settings]:
        """Returns half the prior, since macro F1 needs less correction than balanced error."""
        return [{"tau": 0.5}]
