"""The search for each strategy's best settings, shared by any number of processes through one database.

Proposals become trials, each trial is trained under a lease, the scheduler goes through the strategies of a study, and
the dashboard shows all searches.
"""

from hirise_imb.search.database import connect, database_path, lock_study, open_database
from hirise_imb.search.identifiers import SearchPlace, TrialId, TrialNumber
from hirise_imb.search.leases import Lease, Leases
from hirise_imb.search.result import SearchResult
from hirise_imb.search.scheduler import SearchScheduler, open_scheduler, strategies_to_search
from hirise_imb.search.search import Fit, Search
from hirise_imb.search.trial_store import PublishTrial, TrialStore, open_trial_store
from hirise_imb.search.workers import worker_pool

__all__ = [
    "Fit",
    "Lease",
    "Leases",
    "PublishTrial",
    "Search",
    "SearchPlace",
    "SearchResult",
    "SearchScheduler",
    "TrialId",
    "TrialNumber",
    "TrialStore",
    "connect",
    "database_path",
    "lock_study",
    "open_database",
    "open_scheduler",
    "open_trial_store",
    "strategies_to_search",
    "worker_pool",
]
