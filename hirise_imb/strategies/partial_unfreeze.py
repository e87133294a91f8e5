"""Training the end of the backbone."""

from collections.abc import Sequence

from optuna.trial import BaseTrial

from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import Settings, Strategy


class PartialUnfreeze(Strategy):
    """How much of the backbone's end is trained, and how fast. Its batch normalisation stays in inference mode."""

    name = "partial_unfreeze"
    summary = "the last layers of the backbone are trained too"
    source = "Kumar et al. 2022"
    trains_backbone = True

    def recipe(self, trial: BaseTrial, cuts: Sequence[str]) -> Recipe:
        """Cut point and the backbone's learning rate."""
        return Recipe(
            cut=trial.suggest_categorical("cut", list(cuts)),
            backbone_learning_rate=trial.suggest_float("backbone_learning_rate", 1e-6, 1e-3, log=True),
            monitor="val_macro_f1",
        )

    def starts(self, cuts: Sequence[str]) -> list[Settings]:
        """The least depth, at the head's own learning rate and at ten times it."""
        return [
            {"cut": cuts[0], "backbone_learning_rate": 1e-4},
            {"cut": cuts[0], "backbone_learning_rate": 1e-3},
        ]
