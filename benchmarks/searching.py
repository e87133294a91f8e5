"""A search as a study makes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hirise_imb.search import Fit, SearchResult
    from hirise_imb.strategies import Strategy
    from hirise_imb.utils.progress import ProgressCallback


def run_search(
    path: Path, strategy: Strategy, trials: int, seed: int, fit: Fit, show: ProgressCallback
) -> SearchResult:
    """Searches with a new database at `path`; the strategy must depend on no other."""
    from hirise_imb.data.hirise import HIRISE
    from hirise_imb.search import Leases, Search, connect, open_trial_store
    from hirise_imb.strategies import RecipeContext

    storage = connect(path)
    trial_store = open_trial_store(storage, "benchmark", {})
    search = Search(trial_store, strategy, RecipeContext(()), trials, seed, HIRISE.classes)
    leases = Leases(storage.engine)
    while search.train_next_trial(leases, fit, show):
        pass
    return search.choose().get()
