"""Focal loss."""

from collections.abc import Sequence

from optuna.trial import BaseTrial

from hirise_imb.losses import Focal
from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import Settings, Strategy


class FocalLoss(Strategy):
    """Rows that are classified well weigh less; alpha weighs classes."""

    name = "focal_loss"
    summary = "rows that are easy already weigh less in the loss"
    source = "Lin et al. 2017"

    def recipe(self, trial: BaseTrial, cuts: Sequence[str]) -> Recipe:  # noqa: ARG002
        """Gamma and the power of alpha."""
        loss = Focal(
            gamma=trial.suggest_float("gamma", 0.0, 5.0),
            alpha_power=trial.suggest_float("alpha_power", 0.0, 1.5),
        )
        return Recipe(loss=loss, monitor="val_macro_f1")

    def starts(self, cuts: Sequence[str]) -> list[Settings]:  # noqa: ARG002
        """The paper's gamma, without and with class weights."""
        return [{"gamma": 2.0, "alpha_power": 0.0}, {"gamma": 2.0, "alpha_power": 1.0}]
