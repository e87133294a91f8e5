"""Fine-tuning of the last layers of the backbone."""

from dataclasses import dataclass, replace

from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import OptimiserParameters, RecipeContext, Strategy
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.spaces import integer, number


@dataclass(frozen=True)
class PartialUnfreezeParameters(OptimiserParameters):
    """Hyperparameters of partial unfreezing."""

    # Every backbone of this package has at least two cuts.
    depth: int = integer(
        1,
        2,
        default=1,
        help="cut point of the backbone above which layers are trained, counted from the backbone's end",
        source="Kumar et al. 2022",
    )
    backbone_learning_rate: float = number(
        1e-6,
        1e-3,
        log=True,
        default=1e-4,
        help="Adam's learning rate for the unfrozen layers",
        source="Kumar et al. 2022; Shi et al. 2024 (light tuning serves rare classes better)",
    )


class PartialUnfreezeStrategy(Strategy[PartialUnfreezeParameters]):
    """The head is trained first, then the head with the last layers; batch normalisation stays in inference mode."""

    name = "partial_unfreeze"
    summary = "the last layers of the backbone are trained too, after the head"
    family = "depth and schedule"
    source = "Kumar et al. 2022"
    parameters = PartialUnfreezeParameters
    trains_backbone = True

    def _recipe(self, parameters: PartialUnfreezeParameters, context: RecipeContext) -> Recipe:
        return replace(
            parameters.tune_baseline(),
            cut=context.cuts[parameters.depth - 1],
            backbone_learning_rate=parameters.backbone_learning_rate,
        )

    def initial_points(self) -> list[Settings]:
        """Returns a lower learning rate, as in the paper."""
        return [{"backbone_learning_rate": 1e-5}]
