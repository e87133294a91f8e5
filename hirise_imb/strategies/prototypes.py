"""Classes as points in feature space."""

from typing import Any

from hirise_imb.models.closed_form import Discriminant, NearestMean
from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import RecipeContext, Strategy
from hirise_imb.strategies.parameters import Categorical, Float, Settings


class Prototypes(Strategy):
    """The nearest mean of per-source means, or linear discriminant analysis with a shrunk covariance."""

    name = "prototypes"
    summary = "classes are means of features: nothing is trained"
    source = "Kang et al. 2020; Wang et al. 2019; Ledoit & Wolf 2004"
    own = (
        Categorical(
            name="kind",
            choices=("discriminant", "nearest_mean"),
            default="discriminant",
            help="distance by the common covariance, or plain distance to means of per-source means",
            source="Hayes & Kanan 2020; Kang et al. 2020",
        ),
        Float(
            name="shrinkage",
            low=1e-3,
            high=1.0,
            log=True,
            default=0.1,
            help="of the covariance, towards equal variances",
            source="Ledoit & Wolf 2004",
            when=("kind", ("discriminant",)),
        ),
        Categorical(
            name="normalise",
            choices=("none", "unit", "centred_unit"),
            default="centred_unit",
            help="of features: none, length 1, or centred and then length 1",
            source="Wang et al. 2019",
            when=("kind", ("nearest_mean",)),
        ),
        Float(
            name="prior_power",
            low=0.0,
            high=2.0,
            default=1.0,
            help="weight of the log prior; 0 takes classes as equally frequent",
            source="Menon et al. 2021",
        ),
    )

    def recipe(self, settings: Settings, context: RecipeContext) -> Recipe:  # noqa: ARG002
        """The head."""
        prior_power = float(settings["prior_power"])
        if settings["kind"] == "discriminant":
            return Recipe(head=Discriminant(float(settings["shrinkage"]), prior_power))
        normalise: Any = settings["normalise"]
        return Recipe(head=NearestMean(normalise, prior_power))

    def starts(self) -> list[Settings]:
        """Equal priors; nearest means."""
        return [{"prior_power": 0.0}, {"kind": "nearest_mean"}, {"kind": "nearest_mean", "prior_power": 0.0}]
