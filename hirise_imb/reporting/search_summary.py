"""What the searches of a study came to, trial by trial."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.reporting.records import STATES, Arm
from hirise_imb.reporting.results import Results
from hirise_imb.reporting.summary.records import FailureRecord, TallyRecord


def values(arm: Arm) -> NDArray[np.float64]:
    """What each finished trial counts for, shape (n_trials,): NaN unless it is complete, since no other is chosen."""
    complete = [trial["value"] if trial["state"] == "complete" else None for trial in arm.trials]
    return np.array([np.nan if value is None else float(value) for value in complete], np.float64)


def best_so_far(arm: Arm) -> NDArray[np.float64]:
    """The highest value of the trials up to each, shape (n_trials,); NaN before the first complete one."""
    return np.asarray(np.fmax.accumulate(values(arm)), np.float64)


def table(results: Results) -> pd.DataFrame:
    """One row a finished trial: arm, what it was scored on, number from 1, state, macro F1, and the best so far.

    The value of a pruned trial is that of its best epoch up to then; it is not among the best so far.
    """
    columns = ["arm", "selection", "trial", "state", "value", "best_so_far"]
    rows = [
        (arm.name, arm.selection, number, STATES[str(trial["state"])], trial["value"], best)
        for arm in results.ordered
        for number, (trial, best) in enumerate(zip(arm.trials, best_so_far(arm).tolist(), strict=True), 1)
    ]
    return pd.DataFrame(rows, columns=columns)


def tally(arm: Arm) -> TallyRecord:
    """How its trials ended, and which one was best: the earliest of equals, counted from 1.

    Keys: `trials`, `complete`, `pruned`, `failed`, `best_trial` and `best_value` (None without a complete trial).
    """
    ended = Counter(STATES[str(trial["state"])] for trial in arm.trials)
    reached = values(arm)
    some = bool(np.isfinite(reached).any())
    return {
        "trials": len(arm.trials),
        "complete": ended["complete"],
        "pruned": ended["pruned"],
        "failed": ended["failed"],
        "best_trial": int(np.nanargmax(reached)) + 1 if some else None,
        "best_value": float(np.nanmax(reached)) if some else None,
    }


def failures(arm: Arm) -> list[FailureRecord]:
    """Reasons for which trials failed, and how many did, the most frequent first."""
    reasons = Counter(str(trial.get("error", "no reason is known")) for trial in arm.trials if trial["state"] == "fail")
    return [{"reason": reason, "trials": count} for reason, count in reasons.most_common()]
