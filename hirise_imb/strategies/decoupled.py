"""A new head on features that were trained before."""

from dataclasses import replace

from hirise_imb.imbalance.sampling import ClassSampling
from hirise_imb.recipe import Recipe, Retraining
from hirise_imb.strategies.base import OPTIMISER, RecipeContext, Strategy, optimiser
from hirise_imb.strategies.parameters import Float, Parameter, Settings


class Decoupled(Strategy):
    """The backbone's end as partial unfreezing trained it, then a head trained anew on rows drawn by class."""

    name = "decoupled"
    summary = "a new head, trained on drawn rows after the backbone's end was trained on natural ones"
    source = "Kang et al. 2020"
    after = ("partial_unfreeze",)
    trains_backbone = True
    own = (
        Float(
            name="power",
            low=0.0,
            high=0.9,
            default=0.0,
            help="a class is drawn in proportion to n^power; 0 draws all alike",
            source="Kang et al. 2020",
        ),
    )

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its own, then the optimiser's, for the second stage."""
        return (*self.own, *OPTIMISER)

    def recipe(self, settings: Settings, context: RecipeContext) -> Recipe:
        """The chosen recipe of partial unfreezing, and a second stage."""
        second = Retraining(sampling=ClassSampling(float(settings["power"])), **optimiser(settings))
        return replace(context.bases["partial_unfreeze"], retraining=second)

    def starts(self) -> list[Settings]:
        """Square-root sampling."""
        return [{"power": 0.5}]
