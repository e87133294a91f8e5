"""The forest plot: macro F1 of each arm with its intervals, and its differences from its control and the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from hirise_imb.metrics.bootstrap import Interval
from hirise_imb.reporting.figures.style import ROLE_COLOURS, figure
from hirise_imb.reporting.formatting import p_digits, plural
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import Contrast, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_IMAGES = "#9ca3af"
"""Colour of the interval over images, which are not independent."""


def table(results: Results) -> pd.DataFrame:
    """Returns a table with a row for each arm, all about macro F1 of the tested landmarks.

    Columns: mean, range over seeds, interval over sources and interval over images; then for the control and for the
    reference, with the contrast before the name: the other arm, the difference with its interval over sources, minimum
    detectable difference, p and p after Holm. Missing values are empty.
    """
    return pd.DataFrame([_row(results, arm) for arm in results.ordered])


def _row(results: Results, arm: Arm) -> dict[str, Any]:
    inference, spread = results.inference, results.macro(arm.name)
    interval, image = inference.resamples[arm.name].interval(), inference.by_image[arm.name]
    row: dict[str, Any] = {"arm": arm.name, "macro_f1": spread.mean, "seeds_low": spread.low}
    row |= {"seeds_high": spread.high, **_ends("sources", interval), **_ends("images", image)}
    for contrast in results.contrasts:
        other = results.other_of(arm, contrast)
        if other is None or other == arm.name:
            continue
        row |= {f"{contrast}_arm": other, f"{contrast}_difference": results.gain(arm.name, "macro_f1", other)}
        row |= _ends(contrast, inference.against(arm.name, other).interval)
        if (test := results.families[contrast].tests.get(arm.name)) is not None:
            row[f"{contrast}_resolvable"] = test.swap.min_detectable_difference
            row |= {f"{contrast}_p": test.swap.p, f"{contrast}_p_holm": test.p_holm}
    return row


def _ends(name: str, interval: Interval | None) -> dict[str, Any]:
    return {f"{name}_{end}": getattr(interval, end, None) for end in ("low", "high")}


def macro_f1(results: Results) -> Figure:
    """Draws macro F1 of each arm with its intervals and, if there are several, its differences from other arms."""
    rows = [_row(results, arm) for arm in results.ordered]
    # Inches: a constant height for the axis and the title, and one for each arm.
    contrasts = results.contrasts if len(rows) > 1 else []
    canvas = figure(7 + 4 * len(contrasts), 1.9 + 0.36 * len(rows))
    sides = canvas.subplots(1, 1 + len(contrasts), sharey=True, squeeze=False)[0]
    for place, (arm, row) in enumerate(zip(results.ordered, rows, strict=True)):
        # A comparison has arms of several reports; only its reference is drawn as a baseline.
        colour = ROLE_COLOURS["strategy" if results.origins and place else arm.role]
        _lines(sides[0], place + 0.26, row, "images", _IMAGES, 1.2)
        _lines(sides[0], place, row, "sources", colour, 1.2)
        _lines(sides[0], place, row, "seeds", colour, 4)
        sides[0].plot(row["macro_f1"], place, "o", color="white", markeredgecolor=colour, markersize=6, zorder=4)
        for axes, contrast in zip(sides[1:], contrasts, strict=True):
            if f"{contrast}_difference" in row:
                _difference(axes, place, row, contrast, colour)
                axes.annotate(_describe_test(results, arm, contrast), (1.01, place), **_MARGIN)
    _frame(sides, results, rows, contrasts)
    canvas.suptitle(_explain_marks(results, rows), x=0.01, ha="left", fontsize=9)
    return canvas


_MARGIN: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "fontsize": 8, "va": "center"}
"""Place and size of the text to the right of the axes."""


def _difference(axes: Axes, place: int, row: dict[str, Any], contrast: Contrast, colour: str) -> None:
    if (size := row.get(f"{contrast}_resolvable")) is not None:
        axes.barh(place, 2 * size, 0.7, -size, color="#e5e7eb", zorder=1)
    _lines(axes, place, row, contrast, colour, 1.2)
    axes.plot(row[f"{contrast}_difference"], place, "o", color=colour, markersize=6, zorder=4)


def _describe_test(results: Results, arm: Arm, contrast: Contrast) -> str:
    test = results.families[contrast].tests.get(arm.name)
    if test is None:
        return "identical" if results.identical.get(arm.name) == results.other_of(arm, contrast) else ""
    text = f"p {p_digits(test.p_holm)}"
    if test.swap.min_detectable_difference is None:
        text += "\nno source differs" if test.swap.informative_sources == 0 else "\nnone detectable"
    return text


def _lines(axes: Axes, place: float, row: dict[str, Any], name: str, colour: str, width: float) -> None:
    ends = row[f"{name}_low"], row[f"{name}_high"]
    if ends[0] is not None:
        axes.plot(ends, (place, place), color=colour, linewidth=width, solid_capstyle="butt", zorder=3)


def _frame(
    sides: Sequence[Axes], results: Results, rows: Sequence[dict[str, Any]], contrasts: Sequence[Contrast]
) -> None:
    sides[0].axvline(rows[0]["macro_f1"], color=ROLE_COLOURS["baseline"], linewidth=1, linestyle=":", zorder=0)
    sides[0].set_yticks(range(len(rows)), [row["arm"] for row in rows])
    for name, arm in zip(sides[0].get_yticklabels(), results.ordered, strict=True):
        name.set_fontweight("bold" if arm.name in results.preferred else "normal")
    sides[0].set_ylim(len(rows) - 0.4, -0.6)
    sides[0].set_xlabel(f"macro F1 {results.terms.where}")
    for axes in sides:
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
    for axes, contrast in zip(sides[1:], contrasts, strict=True):
        axes.axvline(0, color=ROLE_COLOURS["baseline"], linewidth=1, linestyle=":", zorder=2)
        axes.locator_params(axis="x", nbins=6)  # more labels, with three decimals and a sign, would overlap
        control = "the control with as many members" if results.averaged_controls else "the control"
        axes.set_xlabel(f"difference from {control if contrast == 'vs_control' else results.reference}")


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
        lines.append("Differences, band: too small to detect in one test; p after Holm over all tests of the panel.")
    if results.preferred:
        lines.append(f"Bold: best {results.terms.best}.")
    return "\n".join(lines)
