"""The searches of a study: which strategies are tuned, in which order, and the result of each."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from optuna.trial import TrialState

from hirise_imb.config import GIVEN_SPLIT, StudyDefinition
from hirise_imb.data.manifest import Manifest
from hirise_imb.recipe import Recipe
from hirise_imb.search.dashboard import make_publisher, write_study_note
from hirise_imb.search.database import Storage, database_path, open_database
from hirise_imb.search.leases import Leases
from hirise_imb.search.result import SearchResult
from hirise_imb.search.search import Search
from hirise_imb.search.trial_store import open_trial_store
from hirise_imb.strategies import STRATEGIES, RecipeContext, Strategy, check_vectors_suffice, select_strategies
from hirise_imb.training.context import Division, TrainingContext
from hirise_imb.training.outcome import Outcome
from hirise_imb.utils.errors import FitFailed
from hirise_imb.utils.progress import ProgressCallback, show_stage
from hirise_imb.utils.study_progress import StudyProgress

_POLL_SECONDS = 0.5
"""Pause between attempts to get a trial, while other processes have leases on all of them."""


def strategies_to_search(definition: StudyDefinition) -> list[Strategy]:
    """Returns the strategies of a study in the order of their searches: the named ones, the control, their bases.

    Raises:
        UserError: a name is unknown, an override does not agree with its declared parameter, or a strategy needs more
            than the table of features has.
    """
    strategies = select_strategies(STRATEGIES, definition.strategies, definition.overrides)
    if definition.features:
        check_vectors_suffice(strategies, definition.strategies)
    return strategies


StudyPart = tuple[str, str]
"""Key of a division and name of a strategy: a search."""


@dataclass
class SearchScheduler:
    """The searches of a study, of each strategy in each division of the data.

    A strategy that depends on others is tuned once their searches in the same division are complete.
    """

    context: TrainingContext
    divisions: Sequence[Division]
    """Divisions of the data in the order in which they are searched."""
    strategies: Sequence[Strategy]
    """Strategies to search; each comes after those it depends on."""
    storage: Storage
    database: Path | str
    """File or address that `storage` connects to."""
    leases: Leases
    out: Path
    """Folder that contains `studies/`, where the pictures of trials are written."""
    _searches: dict[StudyPart, Search] = field(default_factory=dict, init=False)
    """Opened searches."""
    _results: dict[StudyPart, Outcome[SearchResult]] = field(default_factory=dict, init=False)
    """Results of searches that are complete or can't be started."""

    def open_independent_searches(self) -> None:
        """Opens the searches that depend on no other, so that a study that can't be continued is refused at once.

        Raises:
            UserError: a study was begun with other data, or with another version of this program.
        """
        for division in self.divisions:
            for strategy in self.strategies:
                if not strategy.depends_on:
                    self._get_search(division, strategy)

    def count_finished(self, progress: StudyProgress) -> None:
        """Tells the progress which searches, and which shares of others, were finished before this process."""
        for division, search in self._incomplete_searches(progress):
            step = division.search_step(search.strategy.name)
            progress.skip(step, len(search.finished_trials()) / search.n_trials)
            _count_trials(division, search, progress)

    def run(self, progress: StudyProgress, deadline: float | None = None, until: Division | None = None) -> None:
        """Trains trials until all searches are complete.

        Args:
            progress: shows how far the searches are.
            deadline: time of the monotonic clock after which no trial is started.
            until: division whose searches are to be completed; while other processes train its last trials, this one
                works on the divisions after it. None means all divisions.
        """
        needed = self.divisions if until is None else (until,)
        with _StepDisplay(progress) as display:
            while deadline is None or time.monotonic() < deadline:
                for division, search in self._incomplete_searches(progress):
                    if self._is_complete(needed):
                        return
                    if self._train_next_trial(division, search, display):
                        _count_trials(division, search, progress)
                        break  # look at the first search again: one of its trials may be free by now
                else:
                    if self._is_complete(needed):
                        return
                    time.sleep(_POLL_SECONDS)

    def choose_results(self, division: Division) -> Mapping[str, Outcome[SearchResult]]:
        """Returns the result of each search by strategy; an incomplete search chooses from its finished trials."""
        for strategy in self.strategies:
            part = division.key, strategy.name
            if part not in self._results:
                try:
                    self._results[part] = self._get_search(division, strategy).choose()
                except FitFailed as failure:
                    self._results[part] = Outcome(failure=failure)
        return {strategy.name: self._results[division.key, strategy.name] for strategy in self.strategies}

    def chosen_recipes(self, division: Division) -> dict[str, Recipe]:
        """Returns the chosen recipe of each complete search of a division by strategy, without those that failed."""
        results = {s.name: self._results.get((division.key, s.name), Outcome()) for s in self.strategies}
        return {name: result.value.recipe for name, result in results.items() if result.value is not None}

    def _is_complete(self, divisions: Sequence[Division]) -> bool:
        return all((division.key, s.name) in self._results for division in divisions for s in self.strategies)

    def _incomplete_searches(self, progress: StudyProgress) -> Iterator[tuple[Division, Search]]:
        """Yields the searches that can be worked on now, and stores the results of those that are complete."""
        for division in self.divisions:
            for strategy in self.strategies:
                part = division.key, strategy.name
                bases = [(division.key, base) for base in strategy.depends_on]
                if part in self._results or any(base not in self._results for base in bases):
                    continue
                try:
                    search = self._get_search(division, strategy)
                except FitFailed as failure:
                    self._results[part] = Outcome(failure=failure)
                    continue
                if search.is_complete():
                    self._results[part] = search.choose()
                    write_study_note(search)
                    _count_trials(division, search, progress)
                    progress.skip(division.search_step(strategy.name))
                else:
                    yield division, search

    def _get_search(self, division: Division, strategy: Strategy) -> Search:
        """Returns the search of a strategy in a division, created at the first request.

        Raises:
            FitFailed: a search that it depends on has failed.
        """
        part = division.key, strategy.name
        if part not in self._searches:
            bases = {}
            for name in strategy.depends_on:
                try:
                    bases[name] = self._results[division.key, name].get().recipe
                except FitFailed as failure:
                    raise FitFailed(f"it depends on {name}, whose search gave no recipe: {failure}") from failure
            self._searches[part] = self._open_search(division, strategy, bases)
        return self._searches[part]

    def _open_search(self, division: Division, strategy: Strategy, bases: Mapping[str, Recipe]) -> Search:
        definition = self.context.definition
        study_name = f"{definition.name}/{strategy.name}"
        if division.key != GIVEN_SPLIT:
            study_name = f"{definition.name}/{division.key}/{strategy.name}"
        if bases:
            # Trials that start from another recipe are other trials. With more trials, the search of a base may choose
            # another recipe; then this search begins anew, in a study named after it.
            recipes = json.dumps({name: recipe.to_dict() for name, recipe in bases.items()}, sort_keys=True)
            study_name += f" after {hashlib.sha256(recipes.encode()).hexdigest()[:8]}"
        facts = dict(division.facts) | {"overrides": strategy.describe_overrides()}
        return Search(
            open_trial_store(self.storage, study_name, facts, division.trainer.target.label),
            strategy,
            RecipeContext(self.context.cuts, bases, self.context.layers),
            strategy.max_trials(definition),
            definition.seed,
            self.context.manifest.spec.classes,
        )

    def _train_next_trial(self, division: Division, search: Search, display: _StepDisplay) -> bool:
        step = division.search_step(search.strategy.name)
        show = display.show(step, search.n_trials, len(search.finished_trials()))
        publish = make_publisher(
            self.storage, self.out, self.context.manifest.spec.classes, division.trainer.target.label
        )
        return search.train_next_trial(self.leases, division.score_trial, show, publish)


@contextmanager
def open_scheduler(
    definition: StudyDefinition, manifest: Manifest, strategies: Sequence[Strategy], out: Path, address: str | None
) -> Iterator[SearchScheduler]:
    """Opens the searches of a study.

    Args:
        definition: definition of the study.
        manifest: data of the study.
        strategies: strategies to search, from `strategies_to_search`.
        out: folder that contains `studies/`.
        address: address of the database; None for the file below `out`.

    Raises:
        UserError: the database can't be opened, or fails while the block lasts; the features can't be computed; the
            study was begun with other data.
    """
    database = database_path(out) if address is None else address
    # Before the features: a wrong address is reported at once, not after an hour of extraction.
    with open_database(database) as storage:
        with show_stage("Preparing the features"):
            context = TrainingContext.prepare(definition, manifest, strategies)
        divisions = [division for design in definition.evaluation for division in context.divisions(design)]
        scheduler = SearchScheduler(context, divisions, strategies, storage, database, Leases(storage.engine), out)
        scheduler.open_independent_searches()
        yield scheduler


def _count_trials(division: Division, search: Search, progress: StudyProgress) -> None:
    """Tells the progress the best score of a search and the numbers of its trials."""
    trials = search.finished_trials().values()
    scores = [trial.values[0] for trial in trials if trial.state is TrialState.COMPLETE]
    step, strategy = division.search_step(search.strategy.name), search.strategy.name
    progress.count_trials(step, strategy, max(scores, default=None), len(trials), len(trials) - len(scores))


class _StepDisplay:
    """One step at a time: the search in progress."""

    def __init__(self, progress: StudyProgress) -> None:
        self._progress = progress
        self._stack = ExitStack()
        self._step = ""
        self._show: ProgressCallback

    def __enter__(self) -> _StepDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def show(self, step: str, n_trials: int, n_finished: int) -> ProgressCallback:
        """Returns the callback of a search; begins its step if that of another search is shown."""
        if step != self._step:
            self._stack.close()
            self._show = self._stack.enter_context(self._progress.step(step, n_trials, "trials", n_finished, "trial"))
            self._step = step
        return self._show
