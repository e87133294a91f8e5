"""Class weights in the loss."""

from collections.abc import Sequence

from optuna.trial import BaseTrial

from hirise_imb.losses import ClassWeights, EffectiveNumber, InversePower
from hirise_imb.recipe import Recipe
from hirise_imb.strategies.base import Settings, Strategy


class ClassWeighting(Strategy):
    """Weights from none to beyond inverse frequency, or by effective numbers."""

    name = "class_weights"
    summary = "rows of rare classes weigh more in the loss"
    source = "King & Zeng 2001; Cui et al. 2019"

    def recipe(self, trial: BaseTrial, cuts: Sequence[str]) -> Recipe:  # noqa: ARG002
        """Scheme, then its one parameter."""
        weights: ClassWeights
        if trial.suggest_categorical("scheme", ["inverse_power", "effective_number"]) == "inverse_power":
            weights = InversePower(trial.suggest_float("power", 0.0, 1.5))
        else:
            # beta is searched by its distance from 1: 0.9 to 0.9999.
            weights = EffectiveNumber(1 - trial.suggest_float("one_minus_beta", 1e-4, 1e-1, log=True))
        return Recipe(class_weights=weights, monitor="val_macro_f1")

    def starts(self, cuts: Sequence[str]) -> list[Settings]:  # noqa: ARG002
        """Inverse frequency; its square root; the effective numbers of Cui et al."""
        return [
            {"scheme": "inverse_power", "power": 1.0},
            {"scheme": "inverse_power", "power": 0.5},
            {"scheme": "effective_number", "one_minus_beta": 1e-3},
        ]
