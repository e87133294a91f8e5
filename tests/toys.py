"""Settings with which the strategies of this package run on the toy task of `hirise_imb.testing`."""

from __future__ import annotations

from collections.abc import Mapping

from hirise_imb.recipe import Recipe
from hirise_imb.strategies import STRATEGIES, Settings, Strategy
from hirise_imb.testing.strategies import make_quick_recipe

TOY_SETTINGS: Mapping[str, Settings] = {
    # Four landmarks of the rarest class are left in some folds.
    "smote": {"neighbours": 1},
    # Training ends soon after all classes are told apart, with logits that can't spare all of the prior.
    "logit_adjustment": {"tau": 0.25},
    # The rest saves time.
    "undersampling": {"members": 2},
    "ensemble": {"kind": "heads", "members": 2},
    "ldam_drw": {"reweight_after": 3},
}


def quick_recipe(strategy: Strategy, given: Settings | None = None) -> Recipe:
    """The recipe of settings that suit the toy task, except for those that are given."""
    return make_quick_recipe(strategy, {**TOY_SETTINGS.get(strategy.name, {}), **(given or {})})


def recipe_for(name: str, **given: str | float) -> Recipe:
    """The same of a strategy by name."""
    return quick_recipe(STRATEGIES[name], given)
