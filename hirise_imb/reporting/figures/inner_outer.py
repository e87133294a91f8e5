"""The figure of the outer scores of the arms against their inner scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from hirise_imb.reporting.figures.style import PALE, ROLE_COLOURS, add_hover_text, figure, name_width, write_head
from hirise_imb.reporting.formatting import p_value, plural
from hirise_imb.reporting.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = {"baseline": "s", "baseline_to_the_end": "D", "control": "^", "strategy": "o"}
"""Marker of each role, so that roles also differ without colour."""

_LINE_HEIGHT = 0.035
"""Smallest distance between two names, as a share of the height of the axes."""


def inner_outer(results: Results, rows: pd.DataFrame) -> Figure:
    """Draws outer against inner macro F1, one mark for each arm, with the identity line and the rank correlation."""
    from matplotlib.ticker import MaxNLocator

    terms = results.terms
    right = name_width(_arms_with_names(results, rows), 8) + 0.2
    canvas = figure(5.7 + right, 5.9, (0.7, right, 0.55, 0.85))
    axes = canvas.subplots()
    scores = rows[["inner", "outer"]].to_numpy(float)
    ends = float(scores.min()), float(scores.max())
    margin = 0.08 * max(ends[1] - ends[0], 0.01)
    limits = ends[0] - margin, ends[1] + margin
    axes.plot(limits, limits, color=PALE, linewidth=1.2, zorder=1)
    for role, part in rows.groupby("role", sort=False):
        name = {"baseline_to_the_end": "baseline, to the end"}.get(str(role), str(role))
        style: dict[str, Any] = {"color": ROLE_COLOURS[str(role)], "marker": _MARKERS[str(role)]}
        marks = axes.scatter(part["inner"], part["outer"], 36, **style, linewidths=0, alpha=0.85, label=name, zorder=3)
        scores_of_arms = part[["arm", "inner", "outer"]].itertuples(index=False)
        texts = (f"{arm}: {terms.inner} score {x:.3f}, {terms.outer} score {y:.3f}" for arm, x, y in scores_of_arms)
        add_hover_text(marks, *texts)
    axes.set_xlim(limits)
    axes.set_ylim(limits)
    axes.set_aspect("equal")
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.yaxis.set_major_locator(MaxNLocator(7))
    axes.set_xlabel(f"{terms.inner} score: {results.target.label} with other seeds and folds than the trials")
    axes.set_ylabel(f"{terms.outer} score: {results.target.label} on sources not used for it")
    axes.legend(loc="best", handletextpad=0.2)
    _write_names(axes, results, rows, limits)
    write_head(
        canvas,
        f"Do {terms.inner} scores foretell {terms.outer} scores?",
        _describe_correlation(results),
        f"Grey line: equal scores; below it, {terms.inner} scores promise more.",
    )
    return canvas


def _write_names(axes: Axes, results: Results, rows: pd.DataFrame, limits: tuple[float, float]) -> None:
    """Writes the names of some arms to the right of the axes, ordered by height, with lines to their marks."""
    named = rows[rows["arm"].isin(_arms_with_names(results, rows))].sort_values("outer", ascending=False)
    heights = (named["outer"].to_numpy(float) - limits[0]) / (limits[1] - limits[0])
    # Names at equal heights move apart: first down from the top, then up from the bottom.
    for place in range(1, len(heights)):
        heights[place] = min(heights[place], heights[place - 1] - _LINE_HEIGHT)
    heights[-1] = max(heights[-1], 0.0)
    for place in range(len(heights) - 2, -1, -1):
        heights[place] = max(heights[place], heights[place + 1] + _LINE_HEIGHT)
    for height, row in zip(heights.tolist(), named.to_dict("records"), strict=True):
        axes.annotate(
            row["arm"],
            (row["inner"], row["outer"]),
            (1.03, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            fontweight="bold" if row["arm"] in results.preferred else "normal",
            color=ROLE_COLOURS[row["role"]],
            arrowprops={"arrowstyle": "-", "color": PALE, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 3},
        )


def _arms_with_names(results: Results, rows: pd.DataFrame) -> list[str]:
    """Returns the baselines, the control, and the strategies at the extremes of both scores and of their gap."""
    anchors = [arm.name for arm in (results.arms[0], results.to_the_end, results.control, results.chosen) if arm]
    strategies = rows[rows["role"] == "strategy"].sort_values
    ordered = [strategies(column)["arm"].tolist() for column in ("inner", "outer", "gap")]
    return [*anchors, *(name for names in ordered for name in (*names[:1], *names[-1:]))]


def _describe_correlation(results: Results) -> str:
    correlation = results.rank_correlation
    if correlation is None or correlation.rho is None or correlation.p is None:
        return "No rank correlation can be given."
    arms = plural(correlation.arms, "distinct arm")
    return f"Spearman rank correlation {correlation.rho:.2f} ({p_value(correlation.p)}) over {arms}."
