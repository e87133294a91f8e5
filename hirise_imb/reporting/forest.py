"""How sure the scores of all arms are: macro F1 with its intervals, and its difference to the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from hirise_imb.reporting.arms import Arm
from hirise_imb.reporting.results import Results
from hirise_imb.reporting.style import ROLE_COLOURS, figure
from hirise_imb.uncertainty import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_IMAGES = "#9ca3af"
"""Of the interval that takes images for independent."""


def table(results: Results) -> pd.DataFrame:
    """One row an arm, all of macro F1 on the test split.

    Columns: mean, range over seeds, the interval over sources and the one over images; the difference to the
    reference, its interval over sources, the smallest resolvable difference, p and p after Holm. Empty where there is
    none.
    """
    return pd.DataFrame([_row(results, arm) for arm in results.ordered])


def _row(results: Results, arm: Arm) -> dict[str, Any]:
    found, spread = results.inference, results.macro(arm.name)
    interval, image = found.resamples[arm.name].interval(), found.by_image[arm.name]
    row: dict[str, Any] = {"arm": arm.name, "macro_f1": spread.mean, "seeds_low": spread.low}
    row |= {"seeds_high": spread.high, **_ends("sources", interval), **_ends("images", image)}
    if arm.name == results.reference:
        return row
    tested = found.tests[arm.name]
    return row | {
        "difference": tested.swap.difference,
        **_ends("difference", found.against(arm.name, results.reference).interval),
        "resolvable": tested.swap.resolvable,
        "p": tested.swap.p,
        "p_holm": tested.p_holm,
    }


def _ends(name: str, interval: Interval | None) -> dict[str, Any]:
    return {f"{name}_{end}": getattr(interval, end, None) for end in ("low", "high")}


def macro_f1(results: Results) -> Figure:
    """Macro F1 of each arm with its intervals, beside its difference to the reference."""
    rows = table(results)
    canvas = figure(11, 1.5 + 0.34 * len(rows))
    left, right = canvas.subplots(1, 2, sharey=True, width_ratios=(1, 1.15))
    for place, arm in enumerate(results.ordered):
        row = _row(results, arm)
        colour = ROLE_COLOURS[_role(results, str(row["arm"]))]
        _lines(left, place + 0.26, row, "images", _IMAGES, 1.2)
        _lines(left, place, row, "sources", colour, 1.2)
        _lines(left, place, row, "seeds", colour, 4)
        left.plot(row["macro_f1"], place, "o", color="white", markeredgecolor=colour, markersize=6, zorder=4)
        if row["arm"] != results.reference:
            _difference(right, place, row, colour)
    _frame(left, right, results, rows)
    return canvas


def _role(results: Results, arm: str) -> str:
    if arm == results.reference:
        return "baseline"
    return "control" if results.control is not None and arm == results.control.name else "strategy"


def _difference(axes: Axes, place: int, row: dict[str, Any], colour: str) -> None:
    if row["resolvable"] is not None:
        axes.barh(place, 2 * row["resolvable"], 0.7, -row["resolvable"], color="#e5e7eb", zorder=1)
    _lines(axes, place, row, "difference", colour, 1.2)
    axes.plot(row["difference"], place, "o", color=colour, markersize=6, zorder=4)
    text = f"p {row['p_holm']:.3f}" if row["p_holm"] < 0.1 else f"p {row['p_holm']:.2f}"
    axes.annotate(text, (1.01, place), xycoords=("axes fraction", "data"), fontsize=8, va="center")


def _lines(axes: Axes, place: float, row: dict[str, Any], name: str, colour: str, width: float) -> None:
    ends = row[f"{name}_low"], row[f"{name}_high"]
    if ends[0] is not None:
        axes.plot(ends, (place, place), color=colour, linewidth=width, solid_capstyle="butt", zorder=3)


def _frame(left: Axes, right: Axes, results: Results, rows: pd.DataFrame) -> None:
    left.axvline(rows["macro_f1"][0], color=ROLE_COLOURS["baseline"], linewidth=1, linestyle=":", zorder=0)
    right.axvline(0, color=ROLE_COLOURS["baseline"], linewidth=1, linestyle=":", zorder=2)
    left.set_yticks(range(len(rows)), list(rows["arm"]))
    left.set_ylim(len(rows) - 0.4, -0.6)
    for axes in (left, right):
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
    left.set_xlabel("macro F1 on the test split")
    right.set_xlabel(f"difference to {results.reference}")
    below = "Grey below: if images were independent, which they are not."
    left.set_title(f"Thick: range over seeds. Thin: 95 % over sources.\n{below}", fontsize=9)
    band = "Band: too small to be told from chance in one test."
    right.set_title(f"Line: 95 % over sources; at its right p after Holm.\n{band}", fontsize=9)
