"""The result of a search: the settings and recipe of its best trial."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from hirise_imb.recipe import Recipe
from hirise_imb.search.identifiers import SearchPlace
from hirise_imb.strategies import RecipeContext, Strategy
from hirise_imb.utils.errors import FitFailed

HistoryEntry = dict[str, Any]


@dataclass(frozen=True)
class SearchResult:
    """The best trial of a search, and the history of all its trials."""

    recipe: Recipe
    settings: dict[str, str | float | int]
    place: SearchPlace
    """Place of the best trial."""
    score: float
    """Validation score of the best trial: the target metric by cross-validation, the mean over seeds."""
    history: list[HistoryEntry]
    """State, value and hyperparameters (`params`) of each finished trial, by place, with the reason (`error`) of a
    failed one."""
    space: dict[str, dict[str, Any]]
    """Range of each hyperparameter: `low`, `high`, `log` and `integer`, or `choices`."""
    seconds: float = field(compare=False)
    """Wall time of the finished trials in seconds, including those of earlier runs."""


def choose_best(trials: Mapping[SearchPlace, FrozenTrial], strategy: Strategy, context: RecipeContext) -> SearchResult:
    """Chooses the complete trial with the highest value, the earliest in case of ties.

    Args:
        trials: finished trials in the order of their places.
        strategy: strategy whose settings they tried.
        context: what recipes depend on in addition to settings.

    Raises:
        FitFailed: no trial is complete; the message says why.
    """
    complete = {place: trial for place, trial in trials.items() if trial.state is TrialState.COMPLETE}
    if not complete:
        raise FitFailed(_describe_failures(trials.values()))
    best = max(complete, key=lambda place: (complete[place].values[0], -place))
    settings = complete[best].params
    return SearchResult(
        recipe=strategy.recipe(settings, context),
        settings=settings,
        place=best,
        score=complete[best].values[0],
        history=[_history_entry(trial) for trial in trials.values()],
        space={
            name: _describe(distribution)
            for trial in trials.values()
            for name, distribution in trial.distributions.items()
        },
        seconds=sum(trial.user_attrs.get("seconds", 0.0) for trial in trials.values()),
    )


def _describe_failures(trials: Collection[FrozenTrial]) -> str:
    """Returns how many trials failed, and why, if there are none but failed ones."""
    if not trials:
        return "no trial was finished in time"
    reasons = Counter(str(trial.user_attrs["error"]) for trial in trials)
    [(reason, count)] = reasons.most_common(1)
    if len(trials) == 1:
        return reason
    return (
        f"all {len(trials)} trials failed{'' if len(reasons) == 1 else f', {count} of them for this reason'}: {reason}"
    )


def _history_entry(trial: FrozenTrial) -> HistoryEntry:
    entry: HistoryEntry = {"state": trial.state.name.lower(), "value": trial.value, "params": dict(trial.params)}
    return entry | ({"error": trial.user_attrs["error"]} if "error" in trial.user_attrs else {})


def _describe(distribution: BaseDistribution) -> dict[str, Any]:
    """Returns the range of a hyperparameter as plain data, so that reports keep it."""
    if isinstance(distribution, CategoricalDistribution):
        return {"choices": list(distribution.choices)}
    is_integer = isinstance(distribution, IntDistribution)
    ends = {"low": distribution.low, "high": distribution.high}  # type: ignore[attr-defined]
    return {**ends, "log": distribution.log, "integer": is_integer}  # type: ignore[attr-defined]
