"""The search of one strategy: rounds of trials, divided into batches that several processes may train.

What a trial tries depends on the seed, on its place in the search and on the finished rounds before its own; so do the
epochs at which it is pruned. Which process runs it, and next to which other trials, plays no part: a search that was
interrupted, extended with more trials later, or shared by many processes ends exactly as an undisturbed one does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial

from hirise_imb.data.dataset import ClassSet
from hirise_imb.search.identifiers import SearchPlace, TrialId, place_range
from hirise_imb.search.leases import Lease, Leases
from hirise_imb.search.proposals import TRIALS_PER_ROUND, Proposal, divide_into_batches, propose_round
from hirise_imb.search.pruning import RoundPruner
from hirise_imb.search.result import SearchResult, choose_best
from hirise_imb.search.trial_store import PublishTrial, TrialStore
from hirise_imb.strategies import RecipeContext, Strategy
from hirise_imb.training.epoch_loop import Job
from hirise_imb.training.outcome import Outcome, attempt
from hirise_imb.training.trainer import Run
from hirise_imb.utils.errors import FitFailed
from hirise_imb.utils.progress import ProgressCallback

Fit = Callable[[Sequence[Job]], list[Outcome[Run]]]
"""Trains jobs, calling each one's `on_epoch` after every epoch."""

_MAX_DEATHS = 3
"""Number of workers that may die in a trial before it counts as failed."""


@dataclass(frozen=True)
class Search:
    """The search of one strategy for its best settings."""

    trial_store: TrialStore
    strategy: Strategy
    context: RecipeContext
    n_trials: int
    """Number of trials to finish: complete, pruned, or failed because of their recipe."""
    seed: int
    """Seed of the sampler and of every training, so that trials differ by their recipes alone."""
    classes: ClassSet
    _rounds: dict[int, dict[SearchPlace, Proposal]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Proposals of each round, by the first place of the round."""

    def train_next_batch(
        self, leases: Leases, fit: Fit, show: ProgressCallback, publish: PublishTrial | None = None
    ) -> bool:
        """Takes a batch of the current round that no other process works on, and trains its trials.

        Args:
            leases: leases of batches, in the database of the study.
            fit: trains the jobs of a batch.
            show: function that is called with the number of finished trials plus the fractions of those in training.
            publish: function that is called with each run before its trial is closed.

        Returns:
            Whether there was a batch to train.
        """
        finished = self.trial_store.finished_trials()
        start = self._current_round(finished)
        if start is None:
            return False
        earlier_trials = [finished[place] for place in place_range(0, start)]
        if start not in self._rounds:
            self._rounds[start] = propose_round(self.strategy, self.context, self.seed, earlier_trials)
        proposals = self._rounds[start]
        for batch in divide_into_batches(proposals):
            pending = {place: proposals[place] for place in batch if place < self.n_trials and place not in finished}
            if not pending:
                continue
            lease = leases.acquire(f"{self.trial_store.study.study_name}/{batch[0]}")
            if lease is not None:
                with lease:
                    self._train_batch(lease, earlier_trials, pending, fit, show, publish)
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

    def _train_batch(
        self,
        lease: Lease,
        earlier_trials: Sequence[FrozenTrial],
        proposals: Mapping[SearchPlace, Proposal],
        fit: Fit,
        show: ProgressCallback,
        publish: PublishTrial | None,
    ) -> None:
        deaths = self.trial_store.reap_dead_trials(proposals)
        if any(deaths.values()):  # one trial at a time, so that one that kills its worker takes no other with it
            place, proposal = next(iter(proposals.items()))
            proposals = {place: proposal}
        # Another process may have finished some of these between our look at the database and our lease.
        finished = self.finished_trials()
        trials: dict[SearchPlace, TrialId] = {}
        try:
            for place, proposal in proposals.items():
                if place in finished:
                    continue
                trials[place] = self.trial_store.start_trial(place, proposal)
                if deaths[place] >= _MAX_DEATHS:
                    self.trial_store.fail_trial(trials.pop(place), f"{deaths[place]} workers died in this trial")
            outcomes = fit(self._watched_jobs(trials, proposals, earlier_trials, show, len(finished)))
            for trial, outcome in zip(trials.values(), outcomes, strict=True):
                if not lease.renew():
                    # This process was suspended for so long that another one has taken the batch over. That one has
                    # closed our trials, and its results count.
                    return
                try:
                    self.trial_store.finish_trial(trial, outcome.get(), self.classes, publish)
                except FitFailed as failure:  # fails this trial, not the search
                    self.trial_store.fail_trial(trial, str(failure))
        except UpdateFinishedTrialError:
            return  # for the same reason: another process has closed our trials
        except BaseException:
            # Interrupted, not dead: the trials are closed at once, so they do not count as lost, and need no grace.
            self.trial_store.interrupt_trials(trials.values())
            raise
        show(len(self.finished_trials()))

    def _watched_jobs(
        self,
        trials: Mapping[SearchPlace, TrialId],
        proposals: Mapping[SearchPlace, Proposal],
        earlier_trials: Sequence[FrozenTrial],
        show: ProgressCallback,
        n_finished: int,
    ) -> list[Job]:
        """Returns the jobs of the trials, whose epochs are stored and shown, and may end the training."""
        pruner = RoundPruner(earlier_trials)
        fractions = dict.fromkeys(trials, 0.0)

        def report(place: SearchPlace, epoch: int, best_f1: float) -> None:
            fractions[place] = min(1.0, epoch / proposals[place].job.recipe.max_epochs)
            show(n_finished + sum(fractions.values()))
            self.trial_store.report_epoch(trials[place], epoch, best_f1)

        return [replace(proposals[place].job, on_epoch=pruner.watch(partial(report, place))) for place in trials]
