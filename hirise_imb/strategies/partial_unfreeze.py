"""Training the end of the backbone."""

from typing import Any

from hirise_imb.strategies.base import RecipeContext, TrainedStrategy
from hirise_imb.strategies.parameters import Float, Integer, Settings


class PartialUnfreeze(TrainedStrategy):
    """The head is trained first, then it and the backbone's end, whose batch normalisation stays in inference mode."""

    name = "partial_unfreeze"
    summary = "the last layers of the backbone are trained too, after the head"
    source = "Kumar et al. 2022"
    trains_backbone = True
    own = (
        Integer(
            name="depth",
            low=1,
            high=2,
            default=1,
            help="which of the backbone's cut points it is trained from, counted from its end",
            source="Kumar et al. 2022",
        ),
        Float(
            name="backbone_learning_rate",
            low=1e-6,
            high=1e-3,
            log=True,
            default=1e-4,
            help="Adam's, for what is trained of the backbone",
            source="Kumar et al. 2022; that light tuning serves rare classes better, Shi et al. 2024",
        ),
    )

    def changes(self, settings: Settings, context: RecipeContext) -> dict[str, Any]:
        """Cut point and learning rate."""
        return {
            "cut": context.cuts[int(settings["depth"]) - 1],
            "backbone_learning_rate": float(settings["backbone_learning_rate"]),
        }

    def starts(self) -> list[Settings]:
        """Slower, as the paper has it."""
        return [{"backbone_learning_rate": 1e-5}]
