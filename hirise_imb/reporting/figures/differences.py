"""The forest plot on a page's first screen: the difference of each arm from the control, or else from the reference."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import pandas as pd

from hirise_imb.metrics.permutation import ALPHA
from hirise_imb.reporting.figures.style import (
    BAD,
    GOOD,
    GRID,
    PAPER,
    SLATE,
    SOFT,
    WASH,
    add_hover_text,
    emphasise,
    figure,
    format_difference,
    name_width,
)
from hirise_imb.reporting.formatting import join_words, p_digits, p_value, score, signed
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import Results
from hirise_imb.reporting.verdict import verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROWS = (0.145, 0.22)
"""Smallest and largest height of a row in inches."""
_HEIGHT = 3.7
"""Height of all rows in inches, as far as the limits of a row allow: with it, the figure fits a first screen."""
_COLUMNS = (
    "arm",
    "other",
    "difference",
    "low",
    "high",
    "min_detectable_difference",
    "p_holm",
    "identical",
    "advised",
)


def table(results: Results) -> pd.DataFrame:
    """Returns a row for each baseline and strategy, the largest difference first, identical arms last.

    Columns: arm, other (the control that averages as many, or the reference without a control), difference in macro F1
    (means over seeds), low and high (interval over sources), minimum detectable difference, p after Holm, whether the
    arm predicts the same classes as the other, and whether the verdict advises it. Missing values are empty.
    """
    contrast = results.contrasts[0]
    advised = verdict(results).choice
    rows = []
    for arm, other in compared_arms(results):
        interval = results.inference.against(arm.name, other).interval
        test = results.families[contrast].tests.get(arm.name)
        rows.append(
            (
                arm.name,
                other,
                results.main_gain(arm.name, other),
                *((None, None) if interval is None else (interval.low, interval.high)),
                None if test is None else test.swap.min_detectable_difference,
                None if test is None else test.p_holm,
                results.identical.get(arm.name) == other,
                arm.name == advised,
            )
        )
    data = pd.DataFrame(rows, columns=_COLUMNS).astype(dict.fromkeys(_COLUMNS[2:7], float))
    return data.sort_values(["identical", "difference"], ascending=[True, False], kind="stable", ignore_index=True)


def compared_arms(results: Results) -> list[tuple[Arm, str]]:
    """Returns the baselines and strategies, each with the name of the arm that it is compared with."""
    pairs = [(arm, results.other_of(arm, results.contrasts[0])) for arm in results.ordered]
    return [
        (arm, other)
        for arm, other in pairs
        if other is not None and other != arm.name and (arm.role != "control" or results.origins)
    ]


def differences(results: Results, data: pd.DataFrame, *, narrow: bool = False) -> Figure:
    """Draws the differences with their intervals and minimum detectable differences.

    Args:
        results: results that are drawn.
        data: rows of `table`.
        narrow: whether the figure is for a screen of 360 pixels.
    """
    rows, size = data[~data["identical"]], 8 if narrow else 9
    twins = data.loc[data["identical"], "arm"].tolist()
    n_rows = len(rows) + bool(twins)
    notes = _notes(results, rows, narrow=narrow)
    names = name_width(rows["arm"], size)
    # To the right of the axes there are the difference, its interval and, if it is significant, its p value.
    numbers = 0.55 if narrow else 2.75 if (rows["p_holm"] <= ALPHA).any() else 1.95
    margins = (names, numbers, 0.42, 0.16 * len(notes) + 0.26)
    width = max(3.45, names + 2) if narrow else 11.4
    height = min(max(_HEIGHT / n_rows, _ROWS[0]), _ROWS[1])
    canvas = figure(width, margins[2] + margins[3] + height * (n_rows + 0.3), margins)
    axes = canvas.subplots()
    roles = {arm.name: arm for arm in results.arms}
    for place, row in enumerate(rows.to_dict("records")):
        _draw_row(axes, place, row, roles[row["arm"]], narrow=narrow)
    axes.axvline(0, color=SLATE, linewidth=1.2, zorder=2)
    axes.set_yticks(range(len(rows)), rows["arm"], fontsize=size)
    emphasise(axes.get_yticklabels(), rows["advised"])
    axes.set_ylim(n_rows - 0.2, -0.5)
    axes.grid(visible=False, axis="y")
    axes.locator_params(axis="x", nbins=4 if narrow else 10)
    axes.xaxis.set_major_formatter(format_difference)
    axes.set_xlabel(f"difference in {results.target.label}", fontsize=size)
    zero = _name_zero(results, advised=bool(data["advised"].any()))
    axes.annotate(
        zero,
        (0, 1),
        (0, 3),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="center",
        fontsize=size - 0.5,
        fontweight="bold",
        color=SLATE,
    )
    if twins:
        words = f"identical to {'the control' if results.control else results.reference}: {join_words(twins)}"
        text_style: dict[str, Any] = {
            "xycoords": ("figure points", "data"),
            "va": "center",
            "fontsize": size,
            "color": SOFT,
        }
        axes.annotate(words, (6, len(rows)), **text_style)
    for line, note in enumerate(notes):
        y = 1 - (0.14 + 0.16 * line) / canvas.get_figheight()
        canvas.text(0.08 / width, y, note, fontsize=size, color=SOFT, va="center")
    return canvas


def _draw_row(axes: Axes, place: int, row: Mapping[Hashable, Any], arm: Arm, *, narrow: bool) -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.transforms import blended_transform_factory

    significant = row["p_holm"] <= ALPHA
    colour = (GOOD if row["difference"] > 0 else BAD) if significant else SLATE
    text = _describe(row)
    if row["advised"]:
        across = blended_transform_factory(axes.figure.transFigure, axes.transData)
        span: dict[str, Any] = {"transform": across, "clip_on": False, "zorder": 0}
        axes.add_patch(Rectangle((0, place - 0.5), 1, 1, facecolor=WASH, linewidth=0, **span))
    if row["min_detectable_difference"] > 0:
        size = row["min_detectable_difference"]
        [band] = axes.barh(place, 2 * size, 0.62, -size, color=GRID, zorder=1)
        add_hover_text(band, text)
    if row["low"] <= row["high"]:
        [line] = axes.plot((row["low"], row["high"]), (place, place), color=colour, linewidth=1.5, zorder=3)
        add_hover_text(line, text)
    strategy = arm.role == "strategy"
    style: dict[str, Any] = {
        "color": colour if strategy else PAPER,
        "markeredgecolor": colour,
        "markersize": 5,
        "zorder": 4,
    }
    [mark] = axes.plot(row["difference"], place, "o" if strategy else "s", **style)
    add_hover_text(mark, text)
    number = signed(row["difference"])
    if not narrow and row["low"] <= row["high"]:
        number += f"  ({signed(row['low'])} to {signed(row['high'])})"
    axes.annotate(
        number + (f"  {p_value(row['p_holm'])}" if significant and not narrow else ""),
        (1, place),
        (6, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        fontsize=8 if narrow else 8.5,
        fontweight="bold" if row["advised"] else "normal",
        color=colour if significant else SOFT,
    )


def _describe(row: Mapping[Hashable, Any]) -> str:
    """Returns the hover text of a row of `table`."""
    text = f"{row['arm']}: {signed(row['difference'])} against {row['other']}"
    if row["low"] <= row["high"]:
        text += f", 95 % confidence interval {signed(row['low'])} to {signed(row['high'])}"
    if row["p_holm"] >= 0:
        text += f"; p {p_digits(row['p_holm'])} after Holm"
    if row["min_detectable_difference"] > 0:
        text += f"; minimum detectable difference {score(row['min_detectable_difference'])}"
    return text


def _name_zero(results: Results, *, advised: bool) -> str:
    name = f"control ({results.control.name})" if results.control else results.reference
    return name if advised or results.origins else f"{name}, advised"


def _notes(results: Results, rows: pd.DataFrame, *, narrow: bool) -> list[str]:
    """Returns the explanation of the marks, and how many differences are significant."""
    marks = []
    if rows["low"].notna().any():
        marks.append("line: 95 % confidence interval")
    if rows["min_detectable_difference"].notna().any():
        marks.append("grey band: too small to detect (both for one comparison)")
    if any(arm.role != "strategy" for arm in results.arms if arm.name in set(rows["arm"])):
        marks.append("squares: baselines" if not results.origins else "squares: baselines and controls")
    significant = int((rows["p_holm"] <= ALPHA).sum())
    tested = int(rows["p_holm"].notna().sum())
    words = f"{significant} of {tested} differences are statistically significant (coloured)"
    if not tested:
        words = ""
    elif not significant:
        lowest = rows.sort_values("p_holm").iloc[0]
        p = f"lowest p of {tested}: {p_digits(float(lowest['p_holm']))}, {lowest['arm']}"
        words = f"no difference is significant after Holm correction ({p})"
    if results.averaged_controls:
        marks.append("a strategy that averages fits is compared with a control that averages as many")
    text = "; ".join(filter(None, (*marks, words)))
    return wrap(f"{text[:1].upper()}{text[1:]}.", 46 if narrow else 175) if text else []
