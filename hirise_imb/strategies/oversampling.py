"""Over-sampling of images."""

from collections.abc import Sequence

from optuna.trial import BaseTrial

from hirise_imb.recipe import Recipe
from hirise_imb.sampling import RandomOversampling, Sampling, SplitFileRows
from hirise_imb.strategies.base import Settings, Strategy


class Oversampling(Strategy):
    """The split file's own up-sampling, or random over-sampling to a searched ratio."""

    name = "oversampling"
    summary = "images of rare classes are seen more often"
    source = "Doran et al. 2020 (split file); Buda et al. 2018"

    def recipe(self, trial: BaseTrial, cuts: Sequence[str]) -> Recipe:  # noqa: ARG002
        """Scheme, then the ratio where it has one."""
        sampling: Sampling
        if trial.suggest_categorical("scheme", ["split_file", "random"]) == "split_file":
            sampling = SplitFileRows()
        else:
            sampling = RandomOversampling(trial.suggest_float("ratio", 0.02, 1.0, log=True))
        return Recipe(sampling=sampling, monitor="val_macro_f1")

    def starts(self, cuts: Sequence[str]) -> list[Settings]:  # noqa: ARG002
        """The official rows; every class at a tenth of the largest; full balance."""
        return [
            {"scheme": "split_file"},
            {"scheme": "random", "ratio": 0.1},
            {"scheme": "random", "ratio": 1.0},
        ]
