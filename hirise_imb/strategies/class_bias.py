"""Class offsets tuned for macro F1."""

from dataclasses import dataclass, replace

from hirise_imb.imbalance.class_bias import ClassBias
from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import PosthocStrategy
from hirise_imb.strategies.spaces import Parameters, number


@dataclass(frozen=True)
class ClassBiasParameters(Parameters):
    """The hyperparameter of class offsets."""

    strength: float = number(
        1e-3,
        1.0,
        log=True,
        default=3e-2,
        help="strength of the penalty on distance from logit adjustment, in macro F1 per squared nat",
        source="Cawley & Talbot 2010: offsets tuned on few landmarks over-fit them",
    )


class ClassBiasStrategy(PosthocStrategy[ClassBiasParameters]):
    """Offsets of the control's logits, tuned for validation macro F1, and regularised towards logit adjustment."""

    name = "class_bias"
    summary = "offsets of the control's logits are tuned for macro F1"
    family = "after training"
    source = "Lipton et al. 2014"
    parameters = ClassBiasParameters

    def apply(self, recipe: Recipe, parameters: ClassBiasParameters) -> Recipe:
        """Returns the recipe with tuned class offsets."""
        return replace(recipe, adjustment=ClassBias(parameters.strength))
