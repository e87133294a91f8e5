"""A new head on fine-tuned features."""

from dataclasses import dataclass, replace

from hirise_imb.imbalance.sampling import ClassSampling
from hirise_imb.recipe import Recipe, Retraining
from hirise_imb.strategies.base import OptimiserParameters, RecipeContext, Strategy
from hirise_imb.strategies.oversampling import OversamplingParameters
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.spaces import reuse


@dataclass(frozen=True)
class DecoupledParameters(OptimiserParameters):
    """Hyperparameters of the second stage; the optimiser is that of the new head."""

    power: float = reuse(
        OversamplingParameters, "power", default=0.0, reason="cRT draws all classes equally (Kang et al. 2020)"
    )


class DecoupledStrategy(Strategy[DecoupledParameters]):
    """The fine-tuned backbone of partial unfreezing, then a new head trained on rows drawn by class (cRT)."""

    name = "decoupled"
    summary = "a new head on rows drawn by class, after the last layers were trained on natural ones"
    source = "Kang et al. 2020"
    parameters = DecoupledParameters
    depends_on = ("partial_unfreeze",)
    trains_backbone = True

    def _recipe(self, parameters: DecoupledParameters, context: RecipeContext) -> Recipe:
        second = Retraining(ClassSampling(parameters.power), parameters.learning_rate, parameters.weight_decay)
        return replace(context.bases["partial_unfreeze"], retraining=second)

    def initial_points(self) -> list[Settings]:
        """Returns square-root sampling."""
        return [{"power": 0.5}]
