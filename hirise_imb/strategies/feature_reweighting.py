"""A last layer fitted on subsets that are balanced over classes and sources."""

from dataclasses import dataclass

from hirise_imb.models.reweighting import DeepFeatureReweighting
from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import RecipeContext, Strategy
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.spaces import Parameters, number


@dataclass(frozen=True)
class FeatureReweightingParameters(Parameters):
    """Hyperparameters of deep feature reweighting."""

    c: float = number(
        1e-3,
        10.0,
        log=True,
        default=1e-1,
        help="inverse strength of the penalty on squared weights, as in scikit-learn",
        source="Kirichenko et al. 2023, who search 0.01 to 1 with a penalty on absolute weights",
    )
    subset_size: float = number(
        0.0,
        0.75,
        default=0.75,
        help="rows of each class, on a log scale from those of the smallest class (0) to those of the largest (1)",
        source="Kirichenko et al. 2023 (0); more rows for classes of a few landmarks",
    )


class FeatureReweightingStrategy(Strategy[FeatureReweightingParameters]):
    """Subsets whose classes have the same number of rows, each spread evenly over sources; weights are averaged."""

    name = "feature_reweighting"
    summary = "logistic regressions on subsets balanced over class and source, averaged"
    family = "heads and features"
    source = "Kirichenko et al. 2023"
    parameters = FeatureReweightingParameters

    def _recipe(self, parameters: FeatureReweightingParameters, context: RecipeContext) -> Recipe:  # noqa: ARG002
        return Recipe(head=DeepFeatureReweighting(parameters.c, parameters.subset_size))

    def initial_points(self) -> list[Settings]:
        """Returns the paper's subsets with a weaker penalty, and subsets of a size in between."""
        return [{"subset_size": 0.0, "c": 1.0}, {"subset_size": 0.5}]
