"""The figures of each kind of report, by file name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from hirise_imb.reporting import search_summary, tables
from hirise_imb.reporting.baseline import Baseline
from hirise_imb.reporting.figures import forest, matrices, overview, probabilities, scores, sources
from hirise_imb.reporting.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawing:
    """A figure and the numbers that it shows."""

    figure: Figure
    data: pd.DataFrame


Draw = Callable[[], Drawing]
"""Draws when it is called, so that few figures are in memory at once."""


def of_study(results: Results) -> dict[str, Draw]:
    """The figures of a study's report, or of a comparison's."""
    drawn: dict[str, Draw] = {
        "figures/macro_f1": lambda: Drawing(forest.macro_f1(results), forest.table(results)),
        "figures/f1_per_class": lambda: Drawing(overview.f1_per_class(results), tables.per_class(results)),
        "figures/sources": partial(_drawn, results, sources.table, sources.sources),
        "figures/precision_recall": partial(
            _drawn, results, probabilities.precision_table, probabilities.precision_recall
        ),
        "figures/calibration": partial(_drawn, results, probabilities.reliability_table, probabilities.calibration),
        "figures/risk_coverage": partial(_drawn, results, probabilities.risk_table, probabilities.risk_coverage),
    }
    if (chosen := results.chosen) is not None:
        drawn["figures/confusion_difference"] = lambda: Drawing(
            matrices.confusion_difference(results, chosen.name), tables.confusion_difference(results, chosen.name)
        )
    if any(arm.trials for arm in results.arms):
        drawn["figures/best_so_far"] = lambda: Drawing(overview.best_so_far(results), search_summary.table(results))
    return drawn | _of_all(results)


def of_baseline(baseline: Baseline) -> dict[str, Draw]:
    """The figures of the reference run's report."""
    results = baseline.results
    return {
        "figures/published": lambda: Drawing(scores.published(baseline), baseline.table()),
        "figures/per_class": lambda: Drawing(
            scores.scores_per_class(results, results.reference), tables.per_class(results)
        ),
    } | _of_all(results)


def _of_all(results: Results) -> dict[str, Draw]:
    drawn: dict[str, Draw] = {
        "figures/class_distribution": lambda: Drawing(scores.class_distribution(results), results.data)
    }
    for arm in results.arms:
        drawn[f"confusion/{arm.name}"] = partial(_confusion, results, arm.name)
        if arm.has_epochs:
            drawn[f"figures/curves-{arm.name}"] = partial(_curves, results, arm.name)
    return drawn


def _drawn(
    results: Results, table: Callable[[Results], pd.DataFrame], draw: Callable[[Results, pd.DataFrame], Figure]
) -> Drawing:
    """A figure that draws the rows of its table."""
    data = table(results)
    return Drawing(draw(results, data), data)


def _confusion(results: Results, arm: str) -> Drawing:
    return Drawing(matrices.confusion(results, arm), tables.confusion(results, arm))


def _curves(results: Results, name: str) -> Drawing:
    arm = next(arm for arm in results.arms if arm.name == name)
    return Drawing(scores.curves(arm), tables.curves(arm))
