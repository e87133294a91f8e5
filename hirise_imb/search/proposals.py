"""The settings that a search tries: a round of trials follows from the seed and the finished rounds before it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, Trial, TrialState

from hirise_imb.recipe import Recipe
from hirise_imb.search.identifiers import SearchPlace, place_range
from hirise_imb.strategies import RecipeContext, Settings, Strategy

TRIALS_PER_ROUND = 8
"""Number of trials in a round, which is also the number of processes that can work on a search at once. It is fixed, so
that what is proposed does not depend on how many there are, or how fast they are."""


@dataclass(frozen=True)
class Proposal:
    """The settings to try at one place of a search."""

    settings: Settings
    distributions: Mapping[str, BaseDistribution]
    """The distribution that each setting was drawn from, by parameter."""
    recipe: Recipe
    """The recipe that the settings give."""


def propose_round(
    strategy: Strategy, context: RecipeContext, seed: int, earlier_trials: Sequence[FrozenTrial]
) -> dict[SearchPlace, Proposal]:
    """Proposes the round after `earlier_trials`: initial points of the strategy first, then points of the sampler.

    The sampler keeps the trials of one round apart by assuming a bad value for each pending one ("constant liar";
    Ginsbourger et al. 2010). If the number of distinct settings is finite, none is proposed twice, and the last round
    is shorter.

    Args:
        strategy: strategy whose settings are proposed.
        context: what recipes depend on in addition to settings.
        seed: seed of the sampler.
        earlier_trials: the finished trials of all earlier rounds, by place.
    """
    initial_settings = strategy.initial_settings()
    space = strategy.space
    tried: list[Settings] = [trial.params for trial in earlier_trials]
    # A sampler that read the study itself would see the trials of this round that have finished by now, so that the
    # speed of workers would decide what is tried. In a study of its own it sees the earlier rounds and nothing else.
    shadow_study = optuna.create_study(direction="maximize")
    shadow_study.add_trials([_as_observation(trial) for trial in earlier_trials])

    def ask(place: SearchPlace, fixed_settings: Settings) -> tuple[Trial, Settings]:
        shadow_study.sampler = _create_sampler(seed, place, fixed_settings)
        trial = shadow_study.ask()
        return trial, space.suggest(trial)

    proposals = {}
    for place in place_range(len(earlier_trials), len(earlier_trials) + TRIALS_PER_ROUND):
        fixed_settings: Settings = initial_settings[place] if place < len(initial_settings) else {}
        trial, settings = ask(place, fixed_settings)
        distinct_settings = space.distinct_settings()
        if distinct_settings is not None and settings in tried:
            # The sampler is free to repeat itself; the first settings that are untried take the place of a repetition.
            untried = next((one for one in distinct_settings if one not in tried), None)
            if untried is None:
                break
            shadow_study.tell(trial, state=TrialState.FAIL)  # no longer pending
            trial, settings = ask(place, untried)
        tried.append(settings)
        proposals[place] = Proposal(settings, trial.distributions, strategy.recipe(settings, context))
    return proposals


def _create_sampler(seed: int, place: SearchPlace, fixed_settings: Settings) -> optuna.samplers.BaseSampler:
    # The state of a sampler is not stored. With the same seed at every place, a resumed search would draw its first
    # points again; with a seed for each place, it draws the same point whether or not the search was interrupted.
    sampler_seed = np.random.SeedSequence((seed, place)).generate_state(1)[0]
    # The upper bound on Optuna's version guards against changes of its experimental parts; users need no warning.
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        tpe = optuna.samplers.TPESampler(
            seed=int(sampler_seed),
            n_startup_trials=TRIALS_PER_ROUND,
            multivariate=True,
            group=True,  # models conditional parameters jointly with those they depend on
            constant_liar=True,
        )
        return optuna.samplers.PartialFixedSampler(dict(fixed_settings), tpe)


def _as_observation(trial: FrozenTrial) -> FrozenTrial:
    """Returns a finished trial as the sampler sees it, a failed one with the lowest possible value.

    If failed trials were left out, settings that always fail would be proposed again and again.
    """
    if trial.state is not TrialState.FAIL:
        return trial
    return optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=0.0)
