"""Light tuning: only the normalisation layers at the end of the backbone are trained."""

from dataclasses import dataclass, replace
from typing import Literal

from hirise_imb.imbalance.losses import LogitAdjustedCrossEntropy
from hirise_imb.recipe import Cosine, Recipe
from hirise_imb.strategies.base import OptimiserParameters, RecipeContext, Strategy
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.partial_unfreeze import PartialUnfreezeParameters
from hirise_imb.strategies.spaces import choice, number, reuse

_SCALE = 25.0
"""Scale of the cosine head, as in the authors' code."""


@dataclass(frozen=True)
class LightTuningParameters(OptimiserParameters):
    """Hyperparameters of light tuning."""

    head: Literal["class_means", "trained"] = choice(
        default="class_means",
        help="initial head: a cosine head at the class means, or the linear head trained on the frozen backbone first",
        source="Shi et al. 2024; this project (without a bias, cosines of centred features serve the majority badly)",
    )
    depth: int = reuse(PartialUnfreezeParameters, "depth")
    backbone_learning_rate: float = reuse(
        PartialUnfreezeParameters,
        "backbone_learning_rate",
        low=1e-4,
        high=1e-2,
        default=1e-3,
        reason="scales and shifts are few, and take ten times the rate of all weights",
    )
    tau: float = number(
        0.0,
        1.0,
        default=0.5,
        help="weight of the log prior in the loss; 0 is cross-entropy, 1 is balanced softmax",
        source="Shi et al. 2024; Menon et al. 2021; less than 1 as macro F1 needs less correction than balanced error",
    )


class LightTuningStrategy(Strategy[LightTuningParameters]):
    """Scales and shifts of normalisation are trained, below a head that starts at class means or a trained one.

    The loss is adjusted by the class prior. Training all weights distorts the features of rare classes, which have too
    few images to hold them in place (Shi et al. 2024, "Long-tail learning with foundation model: heavy fine-tuning
    hurts").
    """

    name = "light_tuning"
    summary = "normalisation layers alone are tuned, below a head started at class means or trained"
    family = "depth and schedule"
    source = "Shi et al. 2024"
    parameters = LightTuningParameters
    trains_backbone = True

    def _recipe(self, parameters: LightTuningParameters, context: RecipeContext) -> Recipe:
        recipe = parameters.tune_baseline()
        return replace(
            recipe,
            head=Cosine(_SCALE) if parameters.head == "class_means" else recipe.head,
            loss=LogitAdjustedCrossEntropy(parameters.tau),
            cut=context.cuts[parameters.depth - 1],
            backbone_learning_rate=parameters.backbone_learning_rate,
            trainable="norms",
            start=parameters.head,
        )

    def initial_points(self) -> list[Settings]:
        """Returns a trained head, and the loss of the paper."""
        return [{"head": "trained"}, {"tau": 1.0}]
