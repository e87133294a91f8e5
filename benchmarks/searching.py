"""A search as a study makes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hirise_imb.search.search import Fit, SearchResult
    from hirise_imb.strategies import Strategy
    from hirise_imb.training.epoch_loop import Failed
    from hirise_imb.utils.progress import ProgressCallback


def searched(
    path: Path, strategy: Strategy, trials: int, seed: int, fit: Fit, show: ProgressCallback
) -> SearchResult | Failed:
    """Search with a new database at `path`, and choose; the strategy must start from no other."""
    from hirise_imb.search.database import connect
    from hirise_imb.search.leases import Leases
    from hirise_imb.search.search import Search, open_study
    from hirise_imb.strategies import RecipeContext

    store = connect(path)
    search = Search(open_study(store, "benchmark", {}), store, strategy, RecipeContext(()), trials, seed)
    leases = Leases(store.engine)
    while search.work(leases, fit, show):
        pass
    return search.choose()
