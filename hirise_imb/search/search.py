"""The search of one strategy: rounds of trials, which several processes may train.

What a trial tries depends on the seed, on its place in the search and on the finished rounds before its own. Which
process runs it, and next to which other trials, plays no part: a search that was interrupted, extended with more trials
later, or shared by many processes ends exactly as an undisturbed one does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial

from hirise_imb.data.dataset import ClassSet
from hirise_imb.recipe import Recipe
from hirise_imb.search.identifiers import SearchPlace, place_range
from hirise_imb.search.leases import Lease, Leases
from hirise_imb.search.proposals import TRIALS_PER_ROUND, Proposal, propose_round
from hirise_imb.search.result import SearchResult, choose_best
from hirise_imb.search.trial_store import PublishTrial, TrialStore
from hirise_imb.strategies import RecipeContext, Strategy
from hirise_imb.training.epoch_loop import OnEpoch
from hirise_imb.training.outcome import Outcome, attempt
from hirise_imb.training.trainer import CrossValidation
from hirise_imb.utils.errors import FitFailed
from hirise_imb.utils.progress import ProgressCallback

Fit = Callable[[Recipe, OnEpoch], CrossValidation]
"""Cross-validates a recipe, calling the function after every epoch; raises `FitFailed` if the recipe can't be fitted.

The seeds are the same for all recipes of a search, so that trials differ by their recipes alone.
"""

_MAX_DEATHS = 3
"""Number of workers that may die in a trial before it counts as failed."""


@dataclass(frozen=True)
class Search:
    """The search of one strategy for its best settings."""

    trial_store: TrialStore
    strategy: Strategy
    context: RecipeContext
    max_trials: int
    """Number of trials to finish, unless the strategy has fewer distinct settings."""
    seed: int
    """Seed of the sampler."""
    classes: ClassSet
    _rounds: dict[int, dict[SearchPlace, Proposal]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Proposals of each round, by the first place of the round."""

    @cached_property
    def n_trials(self) -> int:
        """Number of trials to finish: complete, or failed because of their recipe."""
        return self.strategy.space.count_settings(self.max_trials)

    def train_next_trial(
        self, leases: Leases, fit: Fit, show: ProgressCallback, publish: PublishTrial | None = None
    ) -> bool:
        """Takes a place of the current round that no other process works on, and trains its trial.

        Args:
            leases: leases of trials, in the database of the study.
            fit: cross-validates the recipe of the trial.
            show: function that is called with the number of finished trials plus the fraction of the one in training.
            publish: function that is called with the scores of the recipe before its trial is closed.

        Returns:
            Whether there was a trial to train.
        """
        finished = self.trial_store.finished_trials()
        start = self._current_round(finished)
        if start is None:
            return False
        if start not in self._rounds:
            earlier_trials = [finished[place] for place in place_range(0, start)]
            self._rounds[start] = propose_round(self.strategy, self.context, self.seed, earlier_trials)
        for place, proposal in self._rounds[start].items():
            if place in finished or place >= self.n_trials:
                continue
            lease = leases.acquire(f"{self.trial_store.study.study_name}/{place}")
            if lease is not None:
                with lease:
                    self._train_trial(lease, place, proposal, fit, show, publish)
                return True
        return False

    def finished_trials(self) -> dict[SearchPlace, FrozenTrial]:
        """Returns the finished trials of this search in the order of their places.

        Trials at later places, from a run with more trials, are left out, so that the same definition
        always gives the same result.
        """
        trials = self.trial_store.finished_trials()
        return {place: trial for place, trial in trials.items() if place < self.n_trials}

    def is_complete(self) -> bool:
        """Returns whether all trials are finished."""
        return len(self.finished_trials()) == self.n_trials

    def choose(self) -> Outcome[SearchResult]:
        """Chooses the best of the trials finished so far."""
        return attempt(lambda: choose_best(self.finished_trials(), self.strategy, self.context))

    def _current_round(self, finished: Mapping[SearchPlace, FrozenTrial]) -> int | None:
        """Returns the first place of the earliest round with unfinished trials, or None if there is none."""
        for start in range(0, self.n_trials, TRIALS_PER_ROUND):
            end = min(start + TRIALS_PER_ROUND, self.n_trials)
            if any(place not in finished for place in place_range(start, end)):
                return start
        return None

    def _train_trial(
        self,
        lease: Lease,
        place: SearchPlace,
        proposal: Proposal,
        fit: Fit,
        show: ProgressCallback,
        publish: PublishTrial | None,
    ) -> None:
        deaths = self.trial_store.reap_dead_trials(place)
        finished = self.finished_trials()
        if place in finished:
            return  # another process has finished it between our look at the database and our lease
        trial = self.trial_store.start_trial(place, proposal)

        def report(epoch: int, best_score: float) -> None:
            show(len(finished) + min(1.0, epoch / proposal.recipe.max_epochs))
            self.trial_store.report_epoch(trial, epoch, best_score)

        try:
            try:
                if deaths >= _MAX_DEATHS:
                    raise FitFailed(f"{deaths} workers died in this trial")
                validation = fit(proposal.recipe, report)
            except FitFailed as failure:  # fails this trial, not the search
                if lease.renew():
                    self.trial_store.fail_trial(trial, str(failure))
            else:
                # If the lease is lost, this process was suspended for so long that another one has taken the trial
                # over. That one has closed ours, and its result counts.
                if lease.renew():
                    self.trial_store.finish_trial(trial, validation, self.classes, publish)
        except UpdateFinishedTrialError:
            pass  # for the same reason: another process has closed our trial
        except BaseException:
            # Interrupted, not dead: the trial is closed at once, so it does not count as lost, and needs no grace.
            self.trial_store.interrupt_trial(trial)
            raise
        show(len(self.finished_trials()))
