"""Classes represented by means of features."""

from dataclasses import dataclass
from typing import Literal

from hirise_imb.models.closed_form import Discriminant, NearestMean, Normalisation
from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import RecipeContext, Strategy
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.spaces import Parameters, choice, number


@dataclass(frozen=True)
class PrototypesParameters(Parameters):
    """Hyperparameters of prototypes."""

    kind: Literal["discriminant", "nearest_mean"] = choice(
        default="discriminant",
        help="distance by the common covariance, or Euclidean distance to means of per-source means",
        source="Hayes & Kanan 2020; Kang et al. 2020",
    )
    shrinkage: float = number(
        1e-3,
        1.0,
        log=True,
        default=0.1,
        help="shrinkage of the covariance towards equal variances",
        source="Ledoit & Wolf 2004",
        when=("kind", ("discriminant",)),
    )
    normalise: Normalisation = choice(
        default="centred_unit",
        help="normalisation of features: none, to length 1, or centred and then to length 1",
        source="Wang et al. 2019",
        when=("kind", ("nearest_mean",)),
    )
    prior_power: float = number(
        0.0,
        2.0,
        default=1.0,
        help="weight of the log prior; 0 treats classes as equally frequent",
        source="Menon et al. 2021",
    )


class PrototypesStrategy(Strategy[PrototypesParameters]):
    """The nearest mean of per-source means, or linear discriminant analysis with a shrunk covariance."""

    name = "prototypes"
    summary = "classes are means of features: nothing is trained"
    family = "heads and features"
    source = "Kang et al. 2020; Wang et al. 2019; Ledoit & Wolf 2004"
    parameters = PrototypesParameters

    def _recipe(self, parameters: PrototypesParameters, context: RecipeContext) -> Recipe:  # noqa: ARG002
        if parameters.kind == "discriminant":
            return Recipe(head=Discriminant(parameters.shrinkage, parameters.prior_power))
        return Recipe(head=NearestMean(parameters.normalise, parameters.prior_power))

    def initial_points(self) -> list[Settings]:
        """Returns equal priors, and nearest means with and without the class prior."""
        return [{"prior_power": 0.0}, {"kind": "nearest_mean"}, {"kind": "nearest_mean", "prior_power": 0.0}]
