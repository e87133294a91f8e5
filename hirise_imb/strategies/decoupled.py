"""A second stage for the head on fine-tuned features."""

from dataclasses import dataclass, replace
from typing import Literal

from hirise_imb.imbalance.sampling import ClassSampling
from hirise_imb.models.weight_scaling import WeightScaling
from hirise_imb.recipe import Recipe, Retraining
from hirise_imb.strategies.base import OptimiserParameters, RecipeContext, Strategy
from hirise_imb.strategies.oversampling import OversamplingParameters
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.spaces import Parameters, choice, number, reuse


@dataclass(frozen=True)
class DecoupledParameters(Parameters):
    """Hyperparameters of the second stage."""

    kind: Literal["retrained", "scaled"] = choice(
        default="retrained",
        help="a new head (cRT), or the trained one with its weights scaled class by class (LWS)",
        source="Kang et al. 2020",
    )
    power: float = reuse(
        OversamplingParameters, "power", default=0.0, reason="the paper draws all classes equally (Kang et al. 2020)"
    )
    learning_rate: float = reuse(OptimiserParameters, "learning_rate", when=("kind", ("retrained",)))
    weight_decay: float = reuse(OptimiserParameters, "weight_decay", when=("kind", ("retrained",)))
    strength: float = number(
        1e-4,
        1.0,
        log=True,
        default=1e-2,
        help="strength of the penalty on scales other than 1",
        source="this project: training rows that are told apart would send the scales to infinity",
        when=("kind", ("scaled",)),
    )


class DecoupledStrategy(Strategy[DecoupledParameters]):
    """The fine-tuned backbone of partial unfreezing, with a head that a second stage balances on rows drawn by class.

    The second stage trains a new head (cRT), or learns a scale for the weights of each class (LWS).
    """

    name = "decoupled"
    summary = "the head is balanced on rows drawn by class, after fine-tuning on natural ones"
    family = "depth and schedule"
    source = "Kang et al. 2020"
    parameters = DecoupledParameters
    depends_on = ("partial_unfreeze",)
    trains_backbone = True

    def _recipe(self, parameters: DecoupledParameters, context: RecipeContext) -> Recipe:
        second: Retraining | WeightScaling = WeightScaling(parameters.power, parameters.strength)
        if parameters.kind == "retrained":
            sampling = ClassSampling(parameters.power)
            second = Retraining(sampling, parameters.learning_rate, parameters.weight_decay)
        return replace(context.bases["partial_unfreeze"], retraining=second)

    def initial_points(self) -> list[Settings]:
        """Returns learnable weight scaling, and square-root sampling."""
        return [{"kind": "scaled"}, {"power": 0.5}]
