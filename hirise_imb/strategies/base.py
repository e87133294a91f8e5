"""What a strategy is: one family of recipes, searched by Optuna."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from optuna.trial import BaseTrial

from hirise_imb.recipe import Recipe

Settings = Mapping[str, str | float | int]


class Strategy(ABC):
    """Turns an Optuna trial into a recipe."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line for help texts and reports."""
    source: ClassVar[str]
    """Paper and year."""
    trains_backbone: ClassVar[bool] = False
    """Whether recipes name cuts below `top`, whose features must then be cached."""

    @abstractmethod
    def recipe(self, trial: BaseTrial, cuts: Sequence[str]) -> Recipe:
        """Suggest settings and return the recipe they make.

        Args:
            trial: asked for values by name; `optuna.trial.FixedTrial` gives the recipe of known settings.
            cuts: the backbone's cut points, the one that leaves least to train first.
        """

    @abstractmethod
    def starts(self, cuts: Sequence[str]) -> list[Settings]:
        """Settings tried first: the well-known points of the family, which a random search might miss."""
