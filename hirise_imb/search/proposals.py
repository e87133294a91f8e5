"""The settings that a search tries: a round of trials follows from the seed and the finished rounds before it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from hirise_imb.search.identifiers import SearchPlace, place_range
from hirise_imb.strategies import RecipeContext, Settings, Strategy
from hirise_imb.training.epoch_loop import HEADS_PER_BATCH, Job, batch_key

TRIALS_PER_ROUND = HEADS_PER_BATCH
"""Number of trials in a round, so that a complete round can train in one pass."""


@dataclass(frozen=True)
class Proposal:
    """The settings to try at one place of a search."""

    settings: Settings
    distributions: Mapping[str, BaseDistribution]
    """The distribution that each setting was drawn from, by parameter."""
    job: Job
    """The training of the recipe that the settings give."""


def propose_round(
    strategy: Strategy, context: RecipeContext, seed: int, earlier_trials: Sequence[FrozenTrial]
) -> dict[SearchPlace, Proposal]:
    """Proposes the round after `earlier_trials`: initial points of the strategy first, then points of the sampler.

    The sampler keeps the trials of one round apart by assuming a bad value for each pending one ("constant liar";
    Ginsbourger et al. 2010).

    Args:
        strategy: strategy whose settings are proposed.
        context: what recipes depend on in addition to settings.
        seed: seed of the sampler and of every training.
        earlier_trials: the finished trials of all earlier rounds, by place.
    """
    initial_settings = strategy.initial_settings()
    space = strategy.space
    # A sampler that read the study itself would see the trials of this round that have finished by now, so that the
    # speed of workers would decide what is tried. In a study of its own it sees the earlier rounds and nothing else.
    shadow_study = optuna.create_study(direction="maximize")
    shadow_study.add_trials([_as_observation(trial) for trial in earlier_trials])
    proposals = {}
    for place in place_range(len(earlier_trials), len(earlier_trials) + TRIALS_PER_ROUND):
        fixed_settings: Settings = initial_settings[place] if place < len(initial_settings) else {}
        shadow_study.sampler = _create_sampler(seed, place, fixed_settings)
        trial = shadow_study.ask()
        settings = space.suggest(trial)
        job = Job(strategy.recipe(settings, context), seed)
        proposals[place] = Proposal(settings, trial.distributions, job)
    return proposals


def divide_into_batches(proposals: Mapping[SearchPlace, Proposal]) -> list[list[SearchPlace]]:
    """Divides the places of a round into batches, whose trials train together in one pass."""
    batches: dict[object, list[SearchPlace]] = {}
    for place, proposal in proposals.items():
        recipe = proposal.job.recipe
        trains_alone = not recipe.trained or recipe.cut != "top" or recipe.members > 1
        batches.setdefault(place if trains_alone else batch_key(proposal.job), []).append(place)
    return list(batches.values())


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
