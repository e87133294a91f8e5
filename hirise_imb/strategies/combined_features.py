"""Compositions of remedies on features from below the top of the backbone."""

from collections.abc import Sequence
from dataclasses import replace

from hirise_imb.features.inputs import Inputs
from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import RecipeContext, Strategy
from hirise_imb.strategies.combined import CompositionParameters, compose
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.representation import RepresentationStrategy


class CombinedFeaturesStrategy(Strategy[CompositionParameters]):
    """The compositions of `combined` on the features that `representation` has chosen, from other initial points."""

    name = "combined_features"
    summary = "compositions of the other remedies on the features that representation selects"
    family = "heads and features"
    source = "Zhang et al. 2021 (bag of tricks)"
    parameters = CompositionParameters
    depends_on = (RepresentationStrategy.name,)

    def _recipe(self, parameters: CompositionParameters, context: RecipeContext) -> Recipe:
        inputs = context.bases[RepresentationStrategy.name].inputs
        return compose(replace(parameters.tune_baseline(), inputs=inputs), parameters)

    def inputs(self, layers: Sequence[str]) -> Inputs:
        """Returns the inputs among which `representation` chooses."""
        return RepresentationStrategy().inputs(layers)

    def initial_points(self) -> list[Settings]:
        """Returns averages of several fits or heads, each with a mild correction of the prior."""
        return [
            {"correction": "none", "adjustment": "logit_adjustment", "heads": "three", "members": 4},
            {"correction": "logit_adjusted_loss", "members": 4},
            {"correction": "oversampling", "members": 4},
            {"correction": "none", "adjustment": "class_bias", "heads": "three"},
        ]
