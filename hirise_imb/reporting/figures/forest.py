"""The forest plot: macro F1 of each arm with its intervals, and its differences from its control and the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from hirise_imb.metrics.bootstrap import Interval
from hirise_imb.metrics.permutation import ALPHA
from hirise_imb.reporting.figures.style import (
    GREY,
    GRID,
    PAPER,
    ROLE_COLOURS,
    SLATE,
    add_hover_text,
    emphasise,
    figure,
    format_difference,
    name_width,
    write_head,
)
from hirise_imb.reporting.formatting import p_digits, p_value, plural, score, signed
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import Contrast, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
    contrasts = results.contrasts if len(rows) > 1 else []
    notes = _explain_marks(results, rows)
    margins = (name_width((row["arm"] for row in rows), 9), 0.65 if contrasts else 0.2, 0.5, 0.4 + 0.18 * len(notes))
    canvas = figure(11 if contrasts else 7, margins[2] + margins[3] + 0.2 * len(rows), margins)
    spaces = {"wspace": 0.2 if len(contrasts) > 1 else 0.05}
    sides = canvas.subplots(1, 1 + len(contrasts), sharey=True, squeeze=False, gridspec_kw=spaces)[0]
    for place, (arm, row) in enumerate(zip(results.ordered, rows, strict=True)):
        # A comparison has arms of several reports; only its reference is drawn as a baseline.
        colour = ROLE_COLOURS["strategy" if results.origins and place else arm.role]
        text = _describe(row)
        _lines(sides[0], place + 0.28, row, "images", GREY, 1.0, text)
        _lines(sides[0], place, row, "sources", colour, 1.2, text)
        _lines(sides[0], place, row, "seeds", colour, 4, text)
        _mark(sides[0], row["macro_f1"], place, colour, PAPER, text)
        for axes, contrast in zip(sides[1:], contrasts, strict=True):
            if f"{contrast}_difference" in row:
                _difference(axes, place, row, contrast, colour)
                axes.annotate(_describe_test(results, arm, contrast), (1.01, place), **_MARGIN)
    _frame(sides, results, rows, contrasts)
    write_head(canvas, f"Macro F1 {results.terms.where}", *notes)
    return canvas


_MARGIN: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "fontsize": 8, "va": "center"}
"""Place and size of the text to the right of the axes."""


def _describe(row: dict[str, Any]) -> str:
    text = f"{row['arm']}: macro F1 {score(row['macro_f1'])}"
    if row["sources_low"] is None:
        return text
    return f"{text}, 95 % confidence interval {score(row['sources_low'])} to {score(row['sources_high'])}"


def _difference(axes: Axes, place: int, row: dict[str, Any], contrast: Contrast, colour: str) -> None:
    text = f"{row['arm']}: {signed(row[f'{contrast}_difference'])} against {row[f'{contrast}_arm']}"
    if row[f"{contrast}_low"] is not None:
        text += f", 95 % confidence interval {signed(row[f'{contrast}_low'])} to {signed(row[f'{contrast}_high'])}"
    if (p := row.get(f"{contrast}_p_holm")) is not None:
        text += f"; p {p_digits(p)} after Holm"
    if (size := row.get(f"{contrast}_resolvable")) is not None:
        [band] = axes.barh(place, 2 * size, 0.7, -size, color=GRID, zorder=1)
        add_hover_text(band, f"{text}; minimum detectable difference {score(size)}")
    _lines(axes, place, row, contrast, colour, 1.2, text)
    _mark(axes, row[f"{contrast}_difference"], place, colour, colour, text)


def _describe_test(results: Results, arm: Arm, contrast: Contrast) -> str:
    """Returns the p value of a significant difference, or why there is none; empty for all others."""
    test = results.families[contrast].tests.get(arm.name)
    if test is None:
        return "identical" if results.identical.get(arm.name) == results.other_of(arm, contrast) else ""
    if test.swap.min_detectable_difference is None:
        return "no source differs" if test.swap.informative_sources == 0 else "none detectable"
    return p_value(test.p_holm) if test.p_holm <= ALPHA else ""


def _mark(axes: Axes, value: float, place: int, colour: str, face: str, text: str) -> None:
    [mark] = axes.plot(value, place, "o", color=face, markeredgecolor=colour, markersize=5.5, zorder=4)
    add_hover_text(mark, text)


def _lines(axes: Axes, place: float, row: dict[str, Any], name: str, colour: str, width: float, text: str) -> None:
    ends = row[f"{name}_low"], row[f"{name}_high"]
    if ends[0] is not None:
        [line] = axes.plot(ends, (place, place), color=colour, linewidth=width, zorder=3)
        add_hover_text(line, text)


def _frame(
    sides: Sequence[Axes], results: Results, rows: Sequence[dict[str, Any]], contrasts: Sequence[Contrast]
) -> None:
    sides[0].axvline(rows[0]["macro_f1"], color=SLATE, linewidth=1, linestyle=":", zorder=0)
    sides[0].set_yticks(range(len(rows)), [row["arm"] for row in rows])
    emphasise(sides[0].get_yticklabels(), [arm.name in results.preferred for arm in results.ordered])
    sides[0].set_ylim(len(rows) - 0.4, -0.6)
    sides[0].set_xlabel(f"macro F1 {results.terms.where}")
    for axes in sides:
        axes.grid(visible=False, axis="y")
    for axes, contrast in zip(sides[1:], contrasts, strict=True):
        axes.axvline(0, color=SLATE, linewidth=1, zorder=2)
        axes.locator_params(axis="x", nbins=6)  # more labels, with three decimals and a sign, would overlap
        axes.xaxis.set_major_formatter(format_difference)
        control = "its control" if results.averaged_controls else "the control"
        axes.set_xlabel(f"difference from {control if contrast == 'vs_control' else results.reference}")


def _explain_marks(results: Results, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the explanation of the marks, for above all axes: long names of arms leave no room for a legend."""
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
        lines.append(
            "Differences, band: too small to detect in one test; p where significant, after Holm over all tests of the "
            "panel."
        )
    if results.preferred:
        lines.append(f"Bold: best {results.terms.best}.")
    return lines
