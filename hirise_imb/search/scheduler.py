"""All searches of a study: what is searched after what, by whom, and what came of it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hirise_imb.config import StudyDefinition
from hirise_imb.data.manifest import Manifest
from hirise_imb.data.splits import Selection
from hirise_imb.search import database, search
from hirise_imb.search.dashboard import make_publisher, write_study_note
from hirise_imb.search.leases import Leases
from hirise_imb.search.search import Search, SearchResult
from hirise_imb.search.workers import is_orphaned
from hirise_imb.strategies import STRATEGIES, RecipeContext, Strategy, select_strategies
from hirise_imb.training.context import TrainingContext
from hirise_imb.training.epoch_loop import Failed
from hirise_imb.utils.progress import ProgressCallback, track


def strategies_to_search(definition: StudyDefinition) -> list[Strategy]:
    """The strategies a study searches, in order: the named ones, the control, and what they start from.

    Raises:
        UserError: one is unknown, or an override does not agree with its declared parameters.
    """
    return select_strategies(STRATEGIES, definition.strategies, definition.overrides)


@dataclass
class SearchScheduler:
    """The searches of a study. A strategy that starts from another is searched once that one is done."""

    bench: TrainingContext
    strategies: Sequence[Strategy]
    store: database.Storage
    place: Path | str
    leases: Leases
    out: Path
    ended: dict[str, SearchResult | Failed] = field(default_factory=dict)
    opened: dict[str, Search] = field(default_factory=dict)

    def open(self) -> None:
        """Open what starts from nothing else: a study of other data is refused before any work is done."""
        for strategy in self.strategies:
            if not strategy.depends_on:
                self._search(strategy)

    def work(self, timeout: float | None) -> None:
        """Work until nothing is left, or the time is over."""
        until = None if timeout is None else time.monotonic() + timeout
        with _Bars() as bars:
            search.run_round_robin(self._ready, lambda one: self._unit(one, bars), partial(_over, until))

    def found(self) -> Mapping[str, SearchResult | Failed]:
        """What each search came to; a search whose time ran out chooses from what it has."""
        for strategy in self.strategies:
            if strategy.name not in self.ended:
                one = self._search(strategy)
                self.ended[strategy.name] = one.choose() if isinstance(one, Search) else one
        return self.ended

    def _ready(self) -> Iterator[Search]:
        for strategy in self.strategies:
            if strategy.name in self.ended or any(base not in self.ended for base in strategy.depends_on):
                continue
            one = self._search(strategy)
            if isinstance(one, Failed):
                self.ended[strategy.name] = one
            elif one.done():
                self.ended[strategy.name] = one.choose()
                write_study_note(self.store, one)
            else:
                yield one

    def _search(self, strategy: Strategy) -> Search | Failed:
        bases = {}
        for name in strategy.depends_on:
            base = self.ended[name]
            if isinstance(base, Failed):
                return Failed(f"it starts from {name}, which came to nothing: {base.reason}")
            bases[name] = base.recipe
        if strategy.name not in self.opened:
            definition = self.bench.definition
            name = f"{definition.name}/{strategy.name}"
            if bases:
                # Trials on another recipe are other trials: more of a base's may choose another one.
                text = json.dumps({name: recipe.to_dict() for name, recipe in bases.items()}, sort_keys=True)
                name += f" after {hashlib.sha256(text.encode()).hexdigest()[:8]}"
            selection = selection_of(definition, strategy)
            facts = self.bench.facts | {"selection": selection, "overrides": strategy.describe_overrides()}
            study = search.open_study(self.store, name, facts)
            context = RecipeContext(self.bench.cuts, bases)
            trials, seed = definition.trials, definition.seed
            self.opened[strategy.name] = Search(study, self.store, strategy, context, trials, seed)
        return self.opened[strategy.name]

    def _unit(self, one: Search, bars: _Bars) -> bool:
        chosen_by = selection_of(self.bench.definition, one.strategy)
        fit = partial(self.bench.trainer.select, selection=chosen_by)
        show = bars.of(one.strategy.name, one.trials, len(search.finished_trials(one.study)))
        return one.work(self.leases, fit, show, make_publisher(self.store, self.out))


@contextmanager
def open_scheduler(
    definition: StudyDefinition, images: Manifest, strategies: Sequence[Strategy], out: Path, address: str | None
) -> Iterator[SearchScheduler]:
    """Open the searches of a study, in the file below `out` or at an address.

    The database comes before the features: an address that is wrong is told at once, not after an hour of them.
    """
    place = database.database_path(out) if address is None else address
    store = database.connect(place)
    try:
        bench = TrainingContext.of(definition, images, strategies)
        searches = SearchScheduler(bench, strategies, store, place, Leases(store.engine), out)
        searches.open()
        yield searches
    finally:
        store.engine.dispose()


class _Bars:
    """One progress bar at a time, of the strategy that is worked on."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._name = ""
        self._show: ProgressCallback

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def of(self, name: str, trials: int, done: int) -> ProgressCallback:
        """The bar of a strategy; that of another is closed."""
        if name != self._name:
            self._stack.close()
            self._show = self._stack.enter_context(track(name, trials, "trials", already=min(done, trials)))
            self._name = name
        return self._show


def _over(until: float | None) -> bool:
    """Whether to begin nothing more."""
    return is_orphaned() or (until is not None and time.monotonic() >= until)


def selection_of(definition: StudyDefinition, strategy: Strategy) -> Selection:
    """A backbone trained anew for each fold is a matter of hours: such strategies are chosen on the given split."""
    return "val" if definition.selection == "val" or strategy.trains_backbone else "grouped-cv"
