"""Searches over strategies: one Optuna study each, in rounds of trials that follow from the rounds before.

What a trial tries depends on the seed, on its place in the search and on the finished rounds before its own; so do the
epochs at which it is pruned. Who runs it, and beside what, plays no part: a search that was interrupted, asked for more
trials later, or shared by many processes ends as an undisturbed one does.

A round is cut into units, trials that train together. A process takes a unit by a lease, so a unit has one worker, and
another one after that has died.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from hirise_imb.data.hirise import CLASSES
from hirise_imb.metrics.classification import per_class_scores
from hirise_imb.recipe import Recipe
from hirise_imb.search.database import Storage
from hirise_imb.search.leases import Lease, Leases
from hirise_imb.strategies import NO_OVERRIDES, RecipeContext, Settings, Strategy
from hirise_imb.training.epoch_loop import HEADS_PER_BATCH, Failed, Job, OnEpoch, batch_key
from hirise_imb.training.trainer import Run
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import ensure_folder
from hirise_imb.utils.progress import ProgressCallback

Fit = Callable[[Sequence[Job]], list[Run | Failed]]
"""Trains jobs, calling back after each epoch."""

PublishTrial = Callable[[FrozenTrial, Run], None]
"""Shows more of a running trial than its numbers."""

VERSION = 2
"""Of how searches are made: trials of another version are no part of one of this."""

_LIVES = 3
"""Workers that may die in a trial before it counts as failed."""


@dataclass(frozen=True)
class SearchResult:
    """What a search decided."""

    recipe: Recipe
    settings: dict[str, str | float | int]
    trial: int
    """Its place in the search, counted from 0."""
    val_macro_f1: float
    history: list[dict[str, str | float | None]]
    """One entry a finished trial, in order: state, value, and the reason of a failure."""
    seconds: float = field(compare=False)
    """Wall time of the finished trials, those of earlier runs included."""


@contextmanager
def lock_study(path: Path) -> Iterator[None]:
    """Keep other runs out of the study whose files are named after `path`, there already or not.

    Raises:
        UserError: another process runs this study.
    """
    ensure_folder(path.parent)
    lock = FileLock(path.with_name(f"{path.name}.lock"), timeout=0)  # a name may have dots
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"{path} is in use by another `study run`: wait for it, or give this study another name."
        ) from error
    try:
        yield
    finally:
        lock.release()


def open_study(store: Storage, name: str, facts: Mapping[str, str | int]) -> optuna.Study:
    """Create the study `name`, or open it to go on.

    Args:
        store: holds all studies of a run.
        name: of the Optuna study.
        facts: what the trials depend on beside their settings.

    Raises:
        UserError: the study exists and was made with other facts.
    """
    study = optuna.create_study(storage=store, study_name=name, direction="maximize", load_if_exists=True)
    known = {"search": VERSION, **facts}
    before = study.user_attrs.get("facts", {} if study.get_trials(deepcopy=False) else known)
    before = {"overrides": NO_OVERRIDES, **before}  # studies of earlier versions had none
    for key, value in known.items():
        if before.get(key) != value:
            raise UserError(
                f"The study {name} was made with {key} {before.get(key, 'of an earlier version')}, not {value}: give "
                f"this one another --name, or another folder with --out."
            )
    study.set_user_attr("facts", known)
    with _experimental():
        study.set_metric_names(["validation macro F1"])  # what the dashboard calls the value
    return study


@dataclass(frozen=True)
class Search:
    """The search of one strategy, in a study from `open_study`."""

    study: optuna.Study
    store: Storage
    strategy: Strategy
    context: RecipeContext
    trials: int
    """Trials to be finished: complete, pruned, or failed for a reason of their own."""
    seed: int
    """Of the sampler, and of every fit: what differs between trials is the recipe."""
    _rounds: dict[int, dict[int, _Proposal]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What rounds try, by their first place."""

    def work(self, leases: Leases, fit: Fit, show: ProgressCallback, publish: PublishTrial | None = None) -> bool:
        """Take one unit and do it; False if there is none to be had now.

        Args:
            leases: in the database of the study.
            fit: trains the jobs of a unit.
            show: called with the number of finished trials, and shares of those that train, as they grow.
            publish: called with each run before its trial ends.
        """
        there = finished_trials(self.study)
        rounds = range(0, self.trials, HEADS_PER_BATCH)
        first = next((start for start in rounds if not _all(there, start, start + HEADS_PER_BATCH, self.trials)), None)
        if first is None:
            return False
        known = [there[place] for place in range(first)]
        if first not in self._rounds:
            self._rounds[first] = self._proposals(known)
        proposals = self._rounds[first]
        for unit in _units(proposals):
            places = [place for place in unit if place < self.trials and place not in there]
            if not places:
                continue
            lease = leases.take(f"{self.study.study_name}/{unit[0]}")
            if lease is not None:
                with lease:
                    self._unit(lease, known, {place: proposals[place] for place in places}, fit, show, publish)
                return True
        return False

    @property
    def _id(self) -> int:
        return self.store.get_study_id_from_name(self.study.study_name)

    def done(self) -> bool:
        """Whether all trials are finished."""
        return _all(finished_trials(self.study), 0, self.trials, self.trials)

    def choose(self) -> SearchResult | Failed:
        """The best of the first trials: complete, highest value, earliest of equals.

        Later ones, from a run that asked for more, are left aside, so that a definition always gives the same choice.
        """
        there = finished_trials(self.study)
        first = {place: there[place] for place in range(self.trials) if place in there}
        complete = {place: trial for place, trial in first.items() if trial.state is TrialState.COMPLETE}
        if not complete:
            reasons = [trial.user_attrs["error"] for trial in first.values() if "error" in trial.user_attrs]
            return Failed(reasons[0] if reasons else "no trial was finished in time")
        best = max(complete, key=lambda place: (complete[place].values[0], -place))
        settings = complete[best].params
        return SearchResult(
            recipe=self.strategy.recipe(settings, self.context),
            settings=settings,
            trial=best,
            val_macro_f1=complete[best].values[0],
            history=[_entry(trial) for trial in first.values()],
            seconds=sum(trial.user_attrs.get("seconds", 0.0) for trial in first.values()),
        )

    def _proposals(self, known: Sequence[FrozenTrial]) -> dict[int, _Proposal]:
        """What the round after the `known` trials tries, by place: starts of the strategy, then the sampler's ideas.

        They follow from the known trials alone. The sampler keeps them apart by taking each as a bad one until it is
        told better ("constant liar"; Ginsbourger et al. 2010).
        """
        starts = self.strategy.initial_settings()
        # A study of its own: the sampler sees the rounds before and nothing that the round under way has found.
        aside = optuna.create_study(direction="maximize")
        aside.add_trials([_taken(trial) for trial in known])
        proposals = {}
        for place in range(len(known), len(known) + HEADS_PER_BATCH):
            # A sampler's state is not stored: with one seed for all, a resumed search would repeat its first points.
            state = np.random.SeedSequence((self.seed, place)).generate_state(1)[0]
            with _experimental():
                # Grouped: parameters that are there under a condition only are modelled with it.
                tree = optuna.samplers.TPESampler(
                    seed=int(state), n_startup_trials=HEADS_PER_BATCH, multivariate=True, group=True, constant_liar=True
                )
                start: Settings = starts[place] if place < len(starts) else {}
                aside.sampler = optuna.samplers.PartialFixedSampler(dict(start), tree)
            trial = aside.ask()
            settings = self.strategy.space.suggest(trial)
            recipe = self.strategy.recipe(settings, self.context)
            proposals[place] = _Proposal(settings, trial.distributions, Job(recipe, self.seed))
        return proposals

    def _unit(
        self,
        lease: Lease,
        known: Sequence[FrozenTrial],
        proposals: Mapping[int, _Proposal],
        fit: Fit,
        show: ProgressCallback,
        publish: PublishTrial | None,
    ) -> None:
        """Trials with these settings; the value of each is the validation macro F1 of its best epoch, pruned or not."""
        lost = self._bury(proposals)
        if any(lost.values()):  # one at a time, so that a trial that kills its worker takes no other with it
            proposals = dict([next(iter(proposals.items()))])
        there = finished_trials(self.study)  # another may have finished some between our look and our lease
        trials: dict[int, int] = {}
        try:
            for place, proposal in proposals.items():
                if place in there:
                    continue
                trials[place] = self._begun(place, proposal)
                if lost[place] >= _LIVES:
                    self._fail(trials.pop(place), f"{lost[place]} workers died in this trial")
            runs = fit(self._jobs(trials, proposals, known, show, len(there)))
            for trial, run in zip(trials.values(), runs, strict=True):
                if not lease.is_ours():  # suspended for so long that another has taken over: what it finds counts
                    return
                self._end(trial, run, publish)
        except UpdateFinishedTrialError:
            return  # likewise
        except BaseException:
            for trial in trials.values():
                if not self.store.get_trial(trial).state.is_finished():
                    self.store.set_trial_state_values(trial, TrialState.FAIL)
            raise
        show(len(finished_trials(self.study)))

    def _jobs(
        self,
        trials: Mapping[int, int],
        proposals: Mapping[int, _Proposal],
        known: Sequence[FrozenTrial],
        show: ProgressCallback,
        done: int,
    ) -> list[Job]:
        """What trains the trials of a unit: each reports its epochs, and ends where its search would prune it."""
        shares = dict.fromkeys(trials, 0.0)

        def note(place: int, share: float) -> None:
            shares[place] = share
            show(done + sum(shares.values()))

        # Pruning too looks at the rounds before only; which trials of this one end first is chance. It starts once
        # five trials tell what an epoch is worth, and never in the first five epochs, where slow starters look bad.
        pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=6)
        aside = optuna.create_study(direction="maximize", pruner=pruner)
        aside.add_trials(known)
        jobs = []
        for place, trial in trials.items():
            job = proposals[place].job
            watch = _reporter(self.store, trial, aside.ask(), job.recipe.max_epochs, partial(note, place))
            jobs.append(Job(job.recipe, job.seed, watch))
        return jobs

    def _bury(self, places: Mapping[int, object]) -> dict[int, int]:
        """Close trials that a dead worker has left running; return how many workers have died at each place."""
        lost = dict.fromkeys(places, 0)
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.FAIL)):
            place = trial.user_attrs.get("place")
            if place in lost and "error" not in trial.user_attrs:
                if trial.state is TrialState.RUNNING:
                    number = self.store.get_trial_id_from_study_id_trial_number(self._id, trial.number)
                    with suppress(UpdateFinishedTrialError):  # it has ended since we looked, and counts
                        self.store.set_trial_user_attr(number, "lost", "its worker died")
                        self.store.set_trial_state_values(number, TrialState.FAIL)
                        lost[place] += 1
                else:
                    lost[place] += "lost" in trial.user_attrs
        return lost

    def _begun(self, place: int, proposal: _Proposal) -> int:
        """A running trial, made whole in one step."""
        trial = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=dict(proposal.settings),
            distributions=dict(proposal.distributions),
            user_attrs={"place": place, "recipe": proposal.job.recipe.to_dict()},
        )
        return self.store.create_new_trial(self._id, trial)

    def _end(self, trial: int, run: Run | Failed, publish: PublishTrial | None) -> None:
        if isinstance(run, Failed):
            self._fail(trial, run.reason)
            return
        facts: dict[str, Any] = {"seconds": round(run.seconds, 2), "best_epoch": run.best_epoch}
        facts |= {f"f1/{CLASSES[k]}": float(f1) for k, f1 in enumerate(per_class_scores(run.val_confusion)["f1"])}
        for key, value in facts.items():
            self.store.set_trial_user_attr(trial, key, value)
        if publish is not None:
            publish(self.store.get_trial(trial), run)
        state = TrialState.PRUNED if run.cut_short else TrialState.COMPLETE
        self.store.set_trial_state_values(trial, state, [run.val_macro_f1])

    def _fail(self, trial: int, reason: str) -> None:
        self.store.set_trial_user_attr(trial, "error", reason)
        self.store.set_trial_state_values(trial, TrialState.FAIL)


@dataclass(frozen=True)
class _Proposal:
    settings: Settings
    distributions: Mapping[str, optuna.distributions.BaseDistribution]
    job: Job


def _taken(trial: FrozenTrial) -> FrozenTrial:
    """A finished trial as the sampler takes it: what can't work is as bad as can be, or it would be tried for ever."""
    if trial.state is not TrialState.FAIL:
        return trial
    return optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=0.0)


def finished_trials(study: optuna.Study) -> dict[int, FrozenTrial]:
    """Finished trials by place, in order: complete, pruned, or failed for a reason of their own."""
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    found = {
        trial.user_attrs["place"]: trial
        for trial in study.get_trials(deepcopy=False, states=states)
        if trial.state is not TrialState.FAIL or "error" in trial.user_attrs
    }
    return dict(sorted(found.items()))


def run_round_robin(
    searches: Callable[[], Iterator[Search]], work: Callable[[Search], bool], over: Callable[[], bool]
) -> None:
    """Work on searches, the first first, until all that can be done is done.

    Args:
        searches: those that can be worked on now; asked again after each unit.
        work: does a unit of a search, and tells whether there was one.
        over: whether to begin nothing more.
    """
    while not over():
        waiting = False
        for search in searches():
            waiting = True
            if work(search):
                break
        else:
            if not waiting:
                return
            time.sleep(_PAUSE)


_PAUSE = 0.5
"""Seconds between looks for a unit, while others have all there are."""


def _all(there: Mapping[int, object], start: int, end: int, trials: int) -> bool:
    return all(place in there for place in range(start, min(end, trials)))


def _units(proposals: Mapping[int, _Proposal]) -> list[list[int]]:
    """Places of a round that train together."""
    units: dict[object, list[int]] = {}
    for place, proposal in proposals.items():
        recipe = proposal.job.recipe
        alone = not recipe.trained or recipe.cut != "top" or recipe.members > 1
        units.setdefault(place if alone else batch_key(proposal.job), []).append(place)
    return list(units.values())


def _entry(trial: FrozenTrial) -> dict[str, str | float | None]:
    entry: dict[str, str | float | None] = {"state": trial.state.name.lower(), "value": trial.value}
    return entry | ({"error": trial.user_attrs["error"]} if "error" in trial.user_attrs else {})


def _reporter(store: Storage, trial: int, judged: optuna.Trial, most: int, note: ProgressCallback) -> OnEpoch:
    """Report to a trial, and end its run when its double among the known trials would be pruned.

    Args:
        store: holds the trial.
        trial: its id.
        judged: its double, beside the trials that it is compared with.
        most: epochs it may take.
        note: told the share of them that is done.
    """

    def on_epoch(epoch: int, best: float) -> bool:
        note(min(1.0, epoch / most))
        store.set_trial_intermediate_value(trial, epoch, best)
        judged.report(best, epoch)
        return not judged.should_prune()

    return on_epoch


@contextmanager
def _experimental() -> Iterator[None]:
    """Use a part of Optuna that may change; the upper bound on its version guards us, the user needs no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
