"""Test-time augmentation: predictions averaged over rotated and mirrored views of a landmark."""

from dataclasses import dataclass, replace
from typing import Literal

from hirise_imb.features.views import DIHEDRAL
from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import PosthocStrategy
from hirise_imb.strategies.parameters import Settings
from hirise_imb.strategies.spaces import Parameters, choice

_VIEWS = {
    "mirror": ("plain", "fh"),
    "rotations": ("plain", "r90", "r180", "r270"),
    "dihedral": DIHEDRAL,
}


@dataclass(frozen=True)
class TtaParameters(Parameters):
    """The hyperparameter of test-time augmentation."""

    views: Literal["mirror", "rotations", "dihedral"] = choice(
        default="dihedral",
        help="the plain view and its mirror image; four rotations; all eight rotations and reflections",
        source="Shanmugam et al. 2021",
    )


class TtaStrategy(PosthocStrategy[TtaParameters]):
    """Log probabilities of the control are averaged over views of a landmark."""

    name = "tta"
    summary = "the control's predictions are averaged over rotated and mirrored views"
    family = "heads and features"
    source = "Shanmugam et al. 2021"
    parameters = TtaParameters
    views = DIHEDRAL

    def apply(self, recipe: Recipe, parameters: TtaParameters) -> Recipe:
        """Returns the recipe with these views."""
        return replace(recipe, views=_VIEWS[parameters.views])

    def initial_points(self) -> list[Settings]:
        """Returns the other sets of views."""
        return [{"views": "rotations"}, {"views": "mirror"}]
