"""SMOTE: synthetic rows between landmarks of rare classes."""

from dataclasses import dataclass, replace

from hirise_imb.imbalance.smote import Method, SyntheticOversampling
from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import OptimiserParameters, TrainedStrategy
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.spaces import choice, integer, number


@dataclass(frozen=True)
class SmoteParameters(OptimiserParameters):
    """Hyperparameters of SMOTE and its variants."""

    kind: Method = choice(
        default="smote",
        help="between any neighbours; only from landmarks near other classes; more where other classes are near",
        source="Chawla et al. 2002; Han et al. 2005; He et al. 2008",
    )
    neighbours: int = integer(
        1,
        7,
        default=2,
        help="nearest landmarks of its class to interpolate with, as many as a class has if it has fewer",
        source="Chawla et al. 2002",
    )
    ratio: float = number(
        0.05,
        1.0,
        log=True,
        default=0.5,
        help="images and synthetic rows of each class as a share of the images of the largest class",
        source="Chawla et al. 2002",
    )


class SmoteStrategy(TrainedStrategy[SmoteParameters]):
    """SMOTE, Borderline-SMOTE or ADASYN on pooled features: rows between landmarks of a fold, added to its images."""

    name = "smote"
    summary = "synthetic features of rare classes are interpolated between landmarks"
    family = "data"
    source = "Chawla et al. 2002; Han et al. 2005; He et al. 2008"
    parameters = SmoteParameters

    def apply(self, recipe: Recipe, parameters: SmoteParameters) -> Recipe:
        """Returns the recipe with synthetic rows."""
        synthesis = SyntheticOversampling(parameters.kind, parameters.ratio, parameters.neighbours)
        return replace(recipe, synthesis=synthesis)

    def initial_points(self) -> list[Settings]:
        """Returns the variants, and the papers' five neighbours."""
        return [{"kind": "borderline_smote"}, {"kind": "adasyn"}, {"neighbours": 5}]
