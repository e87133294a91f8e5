"""The interface of strategies: a strategy is a family of recipes whose hyperparameters a search chooses."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Generic

from typing_extensions import TypeVar

from hirise_imb.config import CONTROL, Override, StudyDefinition
from hirise_imb.features.inputs import MAP, PLAIN, FeatureKey, Inputs, RequiredFeatures, feature_keys, with_view
from hirise_imb.recipe import PLAIN_VIEW, Recipe, Views
from hirise_imb.strategies.parameters import Settings, Value
from hirise_imb.strategies.spaces import Parameters, SearchSpace, number, search_space

__all__ = [
    "CONTROL",
    "NO_OVERRIDES",
    "OptimiserParameters",
    "PosthocStrategy",
    "RecipeContext",
    "Strategy",
    "TrainedStrategy",
]

MAX_EPOCHS = 100
PATIENCE = 10
"""Most epochs of a head, and epochs without improvement after which it stops: macro F1 rises in jumps where rare
classes have few landmarks, so a short patience would stop before the next one."""

NO_OVERRIDES = "none"
"""Value of the fact `overrides` in a study without overrides."""


@dataclass(frozen=True)
class OptimiserParameters(Parameters):
    """Hyperparameters of the optimiser, which all strategies that train a head search in the same ranges."""

    # The control has the same ranges, so that neither tuning nor regularisation is mistaken for the effect of a remedy.
    learning_rate: float = number(
        1e-4,
        1e-2,
        log=True,
        default=1e-3,
        help="Adam's learning rate for the head; the baseline uses 1e-4",
        source="common to all strategies that train a head",
    )
    weight_decay: float = number(
        1e-4,
        1.0,
        log=True,
        default=1e-2,
        help="shrinks the head's kernel by learning rate x weight decay per step; the baseline has none",
        source="Loshchilov & Hutter 2019; Alshammari et al. 2022 (it must be tuned for every strategy)",
    )

    def tune_baseline(self) -> Recipe:
        """Returns the baseline with this optimiser, and with epochs chosen by macro F1 under a cap that seldom binds.

        The cap of the baseline would end slow trainings early, and credit a remedy with being faster.
        """
        return Recipe(
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            monitor="val_macro_f1",
            max_epochs=MAX_EPOCHS,
            patience=PATIENCE,
        )


@dataclass(frozen=True)
class RecipeContext:
    """The facts that a recipe depends on in addition to the settings of its strategy."""

    cuts: Sequence[str]
    """The backbone's cut points; the one that leaves the fewest weights to train comes first."""
    bases: Mapping[str, Recipe] = field(default_factory=dict)
    """Chosen recipes of the strategies that this one depends on, by name."""
    layers: Sequence[str] = ()
    """The backbone's layers for representations, the last one first."""


# With a default, `Strategy` alone means a strategy of any parameters.
P = TypeVar("P", bound=Parameters, default=Any)
Q = TypeVar("Q", bound=OptimiserParameters, default=Any)


class Strategy(ABC, Generic[P]):
    """Turns settings into recipes."""

    name: ClassVar[str]
    summary: ClassVar[str]
    """One line for help texts and reports."""
    family: ClassVar[str] = ""
    """What a group of strategies has in common, such as `loss`; reports list a family together."""
    source: ClassVar[str]
    """Paper and year."""
    parameters: type[P]
    """The class that declares the hyperparameters."""
    depends_on: ClassVar[tuple[str, ...]] = ()
    """Names of the strategies whose chosen recipes it starts from."""
    trains_backbone: ClassVar[bool] = False
    """Whether recipes name cuts below `top`, whose features must then be cached."""
    training_views: ClassVar[Views] = PLAIN_VIEW
    """Views of all images that recipes train on at the backbone's first cut point, the only one whose features are
    cached for them: they would take too much disk at all cut points."""
    views: ClassVar[Views] = PLAIN_VIEW
    """Views of the predicted landmarks that recipes average over."""
    overrides: Mapping[str, Override] = MappingProxyType({})
    """Overrides of parameters by name, from the study definition."""

    @property
    def space(self) -> SearchSpace[P]:
        """The search space: the declared parameters, narrowed by the overrides."""
        return search_space(self.parameters).narrow(self.overrides, f"strategies.{self.name}")

    def inputs(self, layers: Sequence[str]) -> Inputs:  # noqa: ARG002
        """Returns all inputs that recipes may take, so that their features can be extracted.

        Args:
            layers: the backbone's layers for representations.
        """
        return PLAIN

    def required_features(self, layers: Sequence[str], cuts: Sequence[str]) -> RequiredFeatures:
        """Returns the features that recipes use: those of the inputs, of the views of predictions, and at cuts.

        Args:
            layers: the backbone's layers for representations.
            cuts: the backbone's cut points.
        """
        inputs = self.inputs(layers)
        views = [view for view in self.views if view not in PLAIN_VIEW]
        maps = []
        if self.trains_backbone:
            maps = [FeatureKey("plain", cut, MAP) for cut in cuts]
            maps += [FeatureKey(view, cut, MAP) for cut in cuts[:1] for view in self.training_views]
        images = RequiredFeatures((*feature_keys(inputs), *maps), ())
        predicted = RequiredFeatures((), tuple(key for view in views for key in feature_keys(with_view(inputs, view))))
        return RequiredFeatures.union((images, predicted))

    def narrow(self, overrides: Mapping[str, Override]) -> Strategy[P]:
        """Returns the strategy with the overrides of a study definition in place of its own.

        Raises:
            UserError: an override does not agree with the declared parameters; the message names its key.
        """
        narrowed = copy.copy(self)
        narrowed.overrides = overrides
        _ = narrowed.space  # so that a wrong override is refused here
        return narrowed

    def max_trials(self, definition: StudyDefinition) -> int:
        """Returns the number of trials that a search finishes, unless there are fewer distinct settings."""
        return min(definition.trials, definition.fine_tuning_trials) if self.trains_backbone else definition.trials

    def describe_overrides(self) -> str:
        """Returns the overrides in the syntax of the study definition, or `NO_OVERRIDES` if they change nothing."""
        return self.space.describe_changes(search_space(self.parameters)) or NO_OVERRIDES

    def recipe(self, settings: Settings, context: RecipeContext) -> Recipe:
        """Returns the recipe for some settings; all other parameters have their defaults.

        Raises:
            ValueError: the settings do not fit the search space.
        """
        return self._recipe(self.space.parse(settings), context)

    @abstractmethod
    def _recipe(self, parameters: P, context: RecipeContext) -> Recipe:
        """Returns the recipe of checked parameters."""

    def initial_points(self) -> list[Settings]:
        """Returns settings that a search tries right after the defaults: the well-known points of the family."""
        return []

    def initial_settings(self) -> list[dict[str, Value]]:
        """Returns the complete settings that a search tries first: the defaults, then the initial points.

        Points that the overrides exclude are left out, and so are those that the overrides make equal to an earlier
        one.
        """
        declared, space = search_space(self.parameters), self.space
        points = [space.complete({})]
        for point in self.initial_points():
            declared.complete(point)  # raises here if the strategy itself is wrong
            try:
                settings = space.complete(point)
            except ValueError:
                continue
            if not self.overrides or settings not in points:
                points.append(settings)
        return points


class TrainedStrategy(Strategy[Q]):
    """A strategy that changes how a head is trained; the optimiser is tuned along with it."""

    def _recipe(self, parameters: Q, context: RecipeContext) -> Recipe:  # noqa: ARG002
        return self.apply(parameters.tune_baseline(), parameters)

    @abstractmethod
    def apply(self, recipe: Recipe, parameters: Q) -> Recipe:
        """Returns the recipe with this strategy's remedy."""


class PosthocStrategy(Strategy[P]):
    """A strategy that changes how the control's fits are used to predict; at most it adds fits with other seeds."""

    depends_on = (CONTROL,)

    def _recipe(self, parameters: P, context: RecipeContext) -> Recipe:
        return self.apply(context.bases[CONTROL], parameters)

    @abstractmethod
    def apply(self, recipe: Recipe, parameters: P) -> Recipe:
        """Returns the recipe with this strategy's remedy."""
