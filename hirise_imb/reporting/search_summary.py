"""Summaries of the searches of a study, trial by trial."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.reporting.records import STATES, Arm, Selection
from hirise_imb.reporting.results import Results
from hirise_imb.reporting.summary.records import FailureRecord, TallyRecord


def values(selection: Selection) -> NDArray[np.float64]:
    """Returns the values of the finished trials, shape (n_trials,); NaN if not complete, as only those are chosen."""
    complete = [trial["value"] if trial["state"] == "complete" else None for trial in selection.trials]
    return np.array([np.nan if value is None else float(value) for value in complete], np.float64)


def best_so_far(selection: Selection) -> NDArray[np.float64]:
    """Returns the best value up to each trial, shape (n_trials,); NaN before the first complete trial."""
    return np.asarray(np.fmax.accumulate(values(selection)), np.float64)


def mean_best_so_far(arm: Arm) -> NDArray[np.float64]:
    """Returns the best value up to each trial, mean over divisions, as far as the shortest search has trials.

    NaN until every search has a complete trial.
    """
    lines = [best_so_far(selection) for selection in arm.selections]
    shortest = min(map(len, lines))
    return np.asarray(np.mean([line[:shortest] for line in lines], axis=0), np.float64)


def table(results: Results) -> pd.DataFrame:
    """Returns a table with a row for each finished trial.

    Columns: arm, division, number of the trial from 1, state, value (validation score) and best value so far.
    """
    columns = ["arm", "division", "trial", "state", "value", "best_so_far"]
    rows = [
        (arm.name, selection.division, number, STATES[str(trial["state"])], trial["value"], best)
        for arm in results.ordered
        for selection in arm.selections
        for number, (trial, best) in enumerate(zip(selection.trials, best_so_far(selection).tolist(), strict=True), 1)
    ]
    return pd.DataFrame(rows, columns=columns)


def tally(selection: Selection) -> TallyRecord:
    """Counts the trials of a search by their final state, and finds the best one.

    `best_trial` counts from 1 and is the earliest of equal trials; without a complete trial, the best is None.
    """
    states = Counter(STATES[str(trial["state"])] for trial in selection.trials)
    scores = values(selection)
    any_complete = bool(np.isfinite(scores).any())
    return {
        "trials": len(selection.trials),
        "complete": states["complete"],
        "failed": states["failed"],
        "best_trial": int(np.nanargmax(scores)) + 1 if any_complete else None,
        "best_value": float(np.nanmax(scores)) if any_complete else None,
    }


def failures(arm: Arm) -> list[FailureRecord]:
    """Returns the reasons why trials failed with the number of trials, the most frequent first."""
    trials = [trial for selection in arm.selections for trial in selection.trials]
    reasons = Counter(str(trial.get("error", "no reason is known")) for trial in trials if trial["state"] == "fail")
    return [{"reason": reason, "trials": count} for reason, count in reasons.most_common()]
