"""Turned and mirrored views of a landmark, predicted together."""

from typing import Any

from hirise_imb.features.views import DIHEDRAL
from hirise_imb.strategies.base import PosthocStrategy
from hirise_imb.strategies.parameters import Categorical, Settings

_VIEWS = {
    "mirror": ("plain", "fh"),
    "rotations": ("plain", "r90", "r180", "r270"),
    "dihedral": DIHEDRAL,
}


class TestTimeViews(PosthocStrategy):
    """Log probabilities of the control are averaged over views of a landmark."""

    name = "tta"
    summary = "the control's predictions are averaged over turned and mirrored views"
    source = "Shanmugam et al. 2021"
    views = DIHEDRAL
    own = (
        Categorical(
            name="views",
            choices=tuple(_VIEWS),
            default="dihedral",
            help="as it is and mirrored; four rotations; all eight",
            source="Shanmugam et al. 2021",
        ),
    )

    def changes(self, settings: Settings) -> dict[str, Any]:
        """The views."""
        return {"views": _VIEWS[str(settings["views"])]}

    def starts(self) -> list[Settings]:
        """Each of them."""
        return [{"views": "rotations"}, {"views": "mirror"}]
