"""The figures of each kind of report, by file name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from hirise_imb.reporting import search_summary, selection, tables
from hirise_imb.reporting.baseline import Baseline
from hirise_imb.reporting.figures import (
    class_differences,
    curves,
    differences,
    forest,
    hyperparameters,
    inner_outer,
    matrices,
    overview,
    probabilities,
    scores,
    sources,
)
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawing:
    """A figure and the table of the numbers that it shows."""

    figure: Figure
    data: pd.DataFrame
    narrow: Figure | None = None
    """The same for a narrow screen, in the page only; None if the figure is legible there too."""
    has_png: bool = True
    """Whether the figure is also written as PNG; not if there are many of its kind, since that takes as long again."""


Draw = Callable[[], Drawing]
"""Function that draws a figure when it is called, so that only one figure at a time is in memory."""


def of_study(results: Results) -> dict[str, Draw]:
    """Returns the figures of the report of a study or a comparison, by file name."""
    figures: dict[str, Draw] = {
        "figures/macro_f1": lambda: Drawing(forest.macro_f1(results), forest.table(results)),
        "figures/f1_per_class": lambda: Drawing(overview.f1_per_class(results), tables.per_class(results)),
        "figures/sources": partial(_draw_table, results, sources.table, sources.sources),
        "figures/precision_recall": partial(
            _draw_table, results, probabilities.precision_table, probabilities.precision_recall
        ),
        "figures/calibration": partial(
            _draw_table, results, probabilities.reliability_table, probabilities.calibration
        ),
        "figures/risk_coverage": partial(_draw_table, results, probabilities.risk_table, probabilities.risk_coverage),
    }
    if differences.compared_arms(results):
        figures["figures/differences"] = partial(_differences, results)
    if (chosen := results.chosen) is not None:
        figures["figures/confusion_difference"] = lambda: Drawing(
            matrices.confusion_difference(results, chosen.name), tables.confusion_difference(results, chosen.name)
        )
    if class_differences.classes_with_intervals(results):
        figures["figures/class_differences"] = partial(
            _draw_table, results, class_differences.table, class_differences.class_differences
        )
    if results.rank_correlation is not None:
        figures["figures/selection_scores"] = partial(_draw_table, results, selection.table, inner_outer.inner_outer)
    if any(arm.has_search for arm in results.arms):
        figures["figures/best_so_far"] = lambda: Drawing(overview.best_so_far(results), search_summary.table(results))
    return figures | _common_figures(results)


def of_baseline(baseline: Baseline) -> dict[str, Draw]:
    """Returns the figures of the report of a reference run, by file name."""
    results = baseline.results
    return {
        "figures/published": lambda: Drawing(scores.published(baseline), baseline.table()),
        "figures/per_class": lambda: Drawing(
            scores.scores_per_class(results, results.reference), tables.per_class(results)
        ),
    } | _common_figures(results)


def _common_figures(results: Results) -> dict[str, Draw]:
    """Returns the figures of all kinds of reports."""
    figures: dict[str, Draw] = {
        "figures/class_distribution": lambda: Drawing(scores.class_distribution(results), results.data)
    }
    for arm in results.arms:
        figures[f"confusion/{arm.name}"] = partial(_confusion, results, arm.name)
    for arm in results.arms:
        if hyperparameters.can_be_drawn(arm):
            figures[f"figures/hyperparameters-{arm.name}"] = partial(_hyperparameters, results, arm)
    owners = tables.share_curves(results.arms)
    for name in dict.fromkeys(owners.values()):
        figures[f"figures/curves-{name}"] = partial(_curves, results, name, owners)
    return figures


def _draw_table(
    results: Results, table: Callable[[Results], pd.DataFrame], draw: Callable[[Results, pd.DataFrame], Figure]
) -> Drawing:
    """Computes a table and draws its rows, so that the figure and its data file can't disagree."""
    data = table(results)
    return Drawing(draw(results, data), data)


def _differences(results: Results) -> Drawing:
    data = differences.table(results)
    wide, narrow = (differences.differences(results, data, narrow=narrow) for narrow in (False, True))
    return Drawing(wide, data, narrow)


def _hyperparameters(results: Results, arm: Arm) -> Drawing:
    data = hyperparameters.table(arm)
    return Drawing(hyperparameters.hyperparameters(arm, data, results.terms), data, has_png=False)


def _confusion(results: Results, arm: str) -> Drawing:
    return Drawing(matrices.confusion(results, arm), tables.confusion(results, arm))


def _curves(results: Results, name: str, owners: Mapping[str, str]) -> Drawing:
    arm = next(arm for arm in results.arms if arm.name == name)
    others = [other for other, owner in owners.items() if owner == name and other != name]
    return Drawing(curves.curves(arm, results.terms, others), tables.curves(arm))
