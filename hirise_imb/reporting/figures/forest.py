"""The forest plot: macro F1 of each arm with its intervals, and its difference from the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from hirise_imb.metrics.bootstrap import Interval
from hirise_imb.reporting.figures.style import ROLE_COLOURS, figure
from hirise_imb.reporting.formatting import p_digits, plural
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_IMAGES = "#9ca3af"
"""Colour of the interval over images, which are not independent."""


def table(results: Results) -> pd.DataFrame:
    """Returns a table with a row for each arm, all about macro F1 on the test split.

    Columns: mean, range over seeds, interval over sources and interval over images; difference from the reference with
    its interval over sources, minimum detectable difference, p and p after Holm. Missing values are empty.
    """
    return pd.DataFrame([_row(results, arm) for arm in results.ordered])


def _row(results: Results, arm: Arm) -> dict[str, Any]:
    inference, spread = results.inference, results.macro(arm.name)
    interval, image = inference.resamples[arm.name].interval(), inference.by_image[arm.name]
    row: dict[str, Any] = {"arm": arm.name, "macro_f1": spread.mean, "seeds_low": spread.low}
    row |= {"seeds_high": spread.high, **_ends("sources", interval), **_ends("images", image)}
    if arm.name == results.reference:
        return row
    test = inference.tests[arm.name]
    return row | {
        "difference": test.swap.difference,
        **_ends("difference", inference.against(arm.name, results.reference).interval),
        "resolvable": test.swap.min_detectable_difference,
        "p": test.swap.p,
        "p_holm": test.p_holm,
    }


def _ends(name: str, interval: Interval | None) -> dict[str, Any]:
    return {f"{name}_{end}": getattr(interval, end, None) for end in ("low", "high")}


def macro_f1(results: Results) -> Figure:
    """Draws macro F1 of each arm with its intervals and, if there are several, its difference from the reference."""
    rows = [_row(results, arm) for arm in results.ordered]
    # Inches: a constant height for the axis and the title, and one for each arm.
    canvas = figure(11, 1.9 + 0.36 * len(rows))
    sides = canvas.subplots(1, 2 if len(rows) > 1 else 1, sharey=True, squeeze=False)[0]
    for place, (arm, row) in enumerate(zip(results.ordered, rows, strict=True)):
        colour = ROLE_COLOURS[_role(results, arm.name)]
        _lines(sides[0], place + 0.26, row, "images", _IMAGES, 1.2)
        _lines(sides[0], place, row, "sources", colour, 1.2)
        _lines(sides[0], place, row, "seeds", colour, 4)
        sides[0].plot(row["macro_f1"], place, "o", color="white", markeredgecolor=colour, markersize=6, zorder=4)
        if arm.name != results.reference:
            _difference(sides[1], place, row, results.inference.tests[arm.name].swap.informative_sources, colour)
    _frame(sides, results, rows)
    canvas.suptitle(_explain_marks(results, rows), x=0.01, ha="left", fontsize=9)
    return canvas


def _role(results: Results, arm: str) -> str:
    if arm == results.reference:
        return "baseline"
    return "control" if results.control is not None and arm == results.control.name else "strategy"


def _difference(axes: Axes, place: int, row: dict[str, Any], informative: int, colour: str) -> None:
    if row["resolvable"] is not None:
        axes.barh(place, 2 * row["resolvable"], 0.7, -row["resolvable"], color="#e5e7eb", zorder=1)
    _lines(axes, place, row, "difference", colour, 1.2)
    axes.plot(row["difference"], place, "o", color=colour, markersize=6, zorder=4)
    text = f"p {p_digits(row['p_holm'])}"
    if row["resolvable"] is None:
        text += "\nno source differs" if informative == 0 else "\nnone detectable"
    axes.annotate(text, (1.01, place), xycoords=("axes fraction", "data"), fontsize=8, va="center")


def _lines(axes: Axes, place: float, row: dict[str, Any], name: str, colour: str, width: float) -> None:
    ends = row[f"{name}_low"], row[f"{name}_high"]
    if ends[0] is not None:
        axes.plot(ends, (place, place), color=colour, linewidth=width, solid_capstyle="butt", zorder=3)


def _frame(sides: Sequence[Axes], results: Results, rows: Sequence[dict[str, Any]]) -> None:
    sides[0].axvline(rows[0]["macro_f1"], color=ROLE_COLOURS["baseline"], linewidth=1, linestyle=":", zorder=0)
    sides[0].set_yticks(range(len(rows)), [row["arm"] for row in rows])
    for name, arm in zip(sides[0].get_yticklabels(), results.ordered, strict=True):
        name.set_fontweight("bold" if arm.name in results.preferred else "normal")
    sides[0].set_ylim(len(rows) - 0.4, -0.6)
    sides[0].set_xlabel("macro F1 on the test split")
    for axes in sides:
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
    for axes in sides[1:]:
        axes.axvline(0, color=ROLE_COLOURS["baseline"], linewidth=1, linestyle=":", zorder=2)
        axes.set_xlabel(f"difference from {results.reference}")


def _explain_marks(results: Results, rows: Sequence[dict[str, Any]]) -> str:
    """Returns the explanation of the marks, for above both axes: long names of arms leave no room for a legend."""
    several_seeds = any(len(arm.seeds) > 1 for arm in results.arms)
    seeds = "thick: range over seeds; " if several_seeds else ""
    n_sources = plural(results.inference.total, "source")
    any_interval = any(row["sources_low"] is not None for row in rows)
    lines = [
        f"Circle: mean; {seeds}thin: 95 % confidence interval over {n_sources}; grey below: if images were "
        "independent, which they are not."
        if any_interval
        else f"Circle: mean; {seeds}no interval over {n_sources} can be given; grey: if images were independent, "
        "which they are not."
    ]
    if len(rows) > 1:
        lines.append("Right, band: too small to detect in one test; p after Holm over all tests.")
    if results.preferred:
        lines.append("Bold: best on validation.")
    return "\n".join(lines)
