"""Averages over fits and heads."""

from dataclasses import dataclass, replace
from typing import Literal

from hirise_imb.models.closed_form import Discriminant, Logistic
from hirise_imb.recipe import Direct, Recipe
from hirise_imb.strategies.base import PosthocStrategy
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.spaces import Parameters, choice, integer

FURTHER_HEADS: tuple[Direct, ...] = (Discriminant(0.1, 1.0), Logistic(1e-2, 0.5))
"""Closed-form heads that are averaged with the trained one.

They are not tuned here: shrinkage, prior and c have the defaults of the strategies `prototypes` and `logistic`; the
power 0.5 is the square root of inverse frequency.
"""


@dataclass(frozen=True)
class EnsembleParameters(Parameters):
    """Hyperparameters of the ensemble."""

    kind: Literal["seeds", "heads"] = choice(
        default="seeds",
        help="the control alone, or averaged with discriminant analysis and logistic regression",
        source="Lakshminarayanan et al. 2017; Dietterich 2000",
    )
    members: int = integer(
        2,
        8,
        default=5,
        help="fits of the control, each with its own seed",
        source="Lakshminarayanan et al. 2017",
        when=("kind", ("seeds",)),
    )


class EnsembleStrategy(PosthocStrategy[EnsembleParameters]):
    """Log probabilities are averaged over fits of the control with several seeds, or over heads of several kinds.

    With the kind `seeds` it is the control that averages as many fits, so a report finds it identical to that control.
    """

    name = "ensemble"
    summary = "the control's fits with several seeds, or heads of several kinds, are averaged"
    family = "heads and features"
    source = "Lakshminarayanan et al. 2017"
    parameters = EnsembleParameters

    def apply(self, recipe: Recipe, parameters: EnsembleParameters) -> Recipe:
        """Returns the recipe with several fits, and with closed-form heads if their kind is chosen."""
        if parameters.kind == "heads":
            return replace(recipe, also=FURTHER_HEADS)
        return replace(recipe, members=parameters.members)

    def initial_points(self) -> list[Settings]:
        """Returns heads of three kinds."""
        return [{"kind": "heads"}]
