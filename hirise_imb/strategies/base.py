"""What a strategy is: one family of recipes, searched by Optuna."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from hirise_imb.recipe import PLAIN, Inputs, Recipe
from hirise_imb.strategies.parameters import Float, Parameter, Settings

CONTROL = "plain"
"""The strategy that only tunes the optimiser: what others gain beyond it, their remedy gives."""

OPTIMISER = (
    Float(
        name="learning_rate",
        low=1e-4,
        high=1e-2,
        log=True,
        default=1e-3,
        help="Adam's, for the head; the baseline has 1e-4",
        source="methods in common: searched alike by every strategy that trains",
    ),
    Float(
        name="weight_decay",
        low=1e-4,
        high=1.0,
        log=True,
        default=1e-2,
        help="shrinks the head's kernel by learning rate x weight decay a step; the baseline has none",
        source="Loshchilov & Hutter 2019; that it must be tuned for every strategy, Alshammari et al. 2022",
    ),
)


def optimiser(settings: Settings) -> dict[str, float]:
    """The values of `OPTIMISER` among settings, by name."""
    return {parameter.name: float(settings[parameter.name]) for parameter in OPTIMISER}


@dataclass(frozen=True)
class RecipeContext:
    """What a recipe is made for."""

    cuts: Sequence[str]
    """The backbone's cut points, the one that leaves least to train first."""
    bases: Mapping[str, Recipe] = field(default_factory=dict)
    """Chosen recipes of the strategies that were searched before, by name."""


class Strategy(ABC):
    """Turns settings into recipes."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line for help texts and reports."""
    source: ClassVar[str]
    """Paper and year."""
    own: ClassVar[tuple[Parameter, ...]] = ()
    """Parameters of this strategy alone."""
    after: ClassVar[tuple[str, ...]] = ()
    """Strategies whose chosen recipes it starts from."""
    trains_backbone: ClassVar[bool] = False
    """Whether recipes name cuts below `top`, whose features must then be cached."""
    inputs: ClassVar[Inputs] = PLAIN
    """Views of all images whose features recipes take."""
    views: ClassVar[Inputs] = PLAIN
    """Views of the landmarks that are predicted."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All that a search chooses."""
        return self.own

    @abstractmethod
    def recipe(self, settings: Settings, context: RecipeContext) -> Recipe:
        """The recipe of settings, which have a value for each parameter that goes with them."""

    def starts(self) -> list[Settings]:
        """Settings tried first, beside the defaults: the well-known points of the family."""
        return []


class TrainedStrategy(Strategy):
    """A strategy that changes how a head is trained: the optimiser is searched with it."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its own, then the optimiser's."""
        return (*self.own, *OPTIMISER)

    def recipe(self, settings: Settings, context: RecipeContext) -> Recipe:
        """The baseline with another optimiser and stopping rule, and what the strategy changes."""
        changes = {**optimiser(settings), "monitor": "val_macro_f1", **self.changes(settings, context)}
        return replace(Recipe(), **changes)

    @abstractmethod
    def changes(self, settings: Settings, context: RecipeContext) -> dict[str, Any]:
        """Fields of the recipe."""


class PosthocStrategy(Strategy):
    """A strategy that changes what is done with the control's logits: it trains nothing."""

    after = (CONTROL,)

    def recipe(self, settings: Settings, context: RecipeContext) -> Recipe:
        """The control's chosen recipe, and what the strategy changes."""
        return replace(context.bases[CONTROL], **self.changes(settings))

    @abstractmethod
    def changes(self, settings: Settings) -> dict[str, Any]:
        """Fields of the recipe."""
