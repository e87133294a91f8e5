"""What selection costs: the scores by which the recipes of the arms were chosen, next to those on unseen sources.

The best trial of a search was chosen by its score, which is therefore the luckiest of all trials. The inner score of an
arm is the macro F1 of its recipe in another cross-validation of the same pool, with other seeds and other folds, mean
over divisions; the difference is the luck in the choice. Its outer score is the macro F1 of the predictions of all
divisions together, mean over fits. Both pool the predictions of their folds, and in a nested cross-validation both are
about the same landmarks, so that their gap is not one between two samples. For the given split, which is a single
division, they are the validation and the test score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hirise_imb.reporting import search_summary
from hirise_imb.reporting.records import Arm, Selection
from hirise_imb.reporting.results import Results

Setting = str | float | int


@dataclass(frozen=True)
class Stability:
    """The values of a hyperparameter in the divisions that chose one."""

    name: str
    counts: tuple[tuple[Setting, int], ...]
    """Chosen values with the number of divisions that chose each, the most frequent first."""


@dataclass(frozen=True)
class SelectionCost:
    """The inner and outer scores of an arm, and how its chosen settings differ between divisions."""

    arm: str
    inner: float
    """Mean over divisions of the macro F1 in the inner cross-validation that scores arms."""
    outer: float
    """Macro F1 of the tested landmarks, mean over fits."""
    best_trial: float | None
    """Score of the chosen trial, by which it was chosen; mean over divisions. None without a search."""
    tuning_gain: float | None
    """Score of the chosen trial minus that of the first one, which has the defaults; mean over divisions. None without
    a search, or if a first trial failed."""
    control_gain_inner: float | None
    """Inner score minus that of the control; None for the control itself, and without one."""
    control_gain_outer: float | None
    """Outer score minus that of the control; likewise."""
    distinct_settings: int
    """Number of different settings that the divisions chose."""
    divisions_as_control: int | None
    """Number of divisions in which all fits predict the same classes as those of the control; None as above."""
    stability: tuple[Stability, ...]
    """The chosen values of each hyperparameter; empty without a search."""

    @property
    def luck(self) -> float | None:
        """Score of the chosen trial minus the inner score; None without a search."""
        return None if self.best_trial is None else self.best_trial - self.inner

    @property
    def gap(self) -> float:
        """Inner minus outer score."""
        return self.inner - self.outer

    def scores(self) -> dict[str, float | None]:
        """Returns the scores and their differences by the names that files use."""
        return {
            "best_trial": self.best_trial,
            "inner": self.inner,
            "outer": self.outer,
            "luck": self.luck,
            "gap": self.gap,
            "tuning_gain": self.tuning_gain,
            "control_gain_inner": self.control_gain_inner,
            "control_gain_outer": self.control_gain_outer,
        }


def selection_cost(results: Results, arm: Arm) -> SelectionCost:
    """Returns what the selection of an arm cost."""
    control = results.control_for(arm)
    inner, outer = arm.val_score, results.main_score(arm.name).mean
    compared = control is not None and control.name != arm.name
    return SelectionCost(
        arm=arm.name,
        inner=inner,
        outer=outer,
        best_trial=_mean_over_divisions(arm, _best_trial),
        tuning_gain=_mean_over_divisions(arm, _tuning_gain),
        control_gain_inner=inner - control.val_score if control and compared else None,
        control_gain_outer=outer - results.main_score(control.name).mean if control and compared else None,
        distinct_settings=len({tuple(sorted(selection.settings.items())) for selection in arm.selections}),
        divisions_as_control=_count_equal_divisions(results, arm, control) if control and compared else None,
        stability=tuple(_stabilities(arm)),
    )


def table(results: Results) -> pd.DataFrame:
    """Returns a row for each arm, with macro F1 and its differences.

    Columns: arm, role, best_trial, inner, outer, luck, gap, tuning_gain, control_gain_inner, control_gain_outer,
    divisions, distinct_settings, divisions_as_control, settings (values with the number of divisions that chose each).
    Missing values are empty.
    """
    rows: list[dict[str, Any]] = []
    for arm in results.ordered:
        cost = selection_cost(results, arm)
        rows.append(
            {
                "arm": arm.name,
                "role": arm.role,
                **cost.scores(),
                "divisions": len(arm.selections),
                "distinct_settings": cost.distinct_settings,
                "divisions_as_control": cost.divisions_as_control,
                "settings": "; ".join(
                    f"{one.name}: {', '.join(f'{value} ({count})' for value, count in one.counts)}"
                    for one in cost.stability
                ),
            }
        )
    return pd.DataFrame(rows).astype({"divisions_as_control": "Int64"})


def _mean_over_divisions(arm: Arm, measure: Callable[[Selection], float | None]) -> float | None:
    """Returns the mean of a number over divisions; None if a division has none."""
    values = [measure(selection) for selection in arm.selections]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _best_trial(selection: Selection) -> float | None:
    return search_summary.tally(selection)["best_value"]


def _tuning_gain(selection: Selection) -> float | None:
    best, values = _best_trial(selection), search_summary.values(selection)
    return best - float(values[0]) if best is not None and np.isfinite(values[0]) else None


def _count_equal_divisions(results: Results, arm: Arm, control: Arm) -> int:
    """Counts the divisions whose tested landmarks get the same classes from both arms for every seed."""
    if arm.seeds != control.seeds:
        return 0
    seeds_per_repeat = len(arm.seeds) // results.repeats
    equal = np.stack(
        [one.labels() == other.labels() for one, other in zip(arm.predictions, control.predictions, strict=True)]
    )
    n_equal = 0
    for repeat, folds in enumerate(results.fold_of_landmark):
        fits = equal[repeat * seeds_per_repeat : (repeat + 1) * seeds_per_repeat]
        n_equal += sum(bool(fits[:, folds == fold].all()) for fold in np.unique(folds))
    return n_equal


def _stabilities(arm: Arm) -> Iterator[Stability]:
    names = dict.fromkeys(name for selection in arm.selections for name in selection.settings)
    for name in names:
        values = Counter(selection.settings[name] for selection in arm.selections if name in selection.settings)
        yield Stability(name, tuple(values.most_common()))
