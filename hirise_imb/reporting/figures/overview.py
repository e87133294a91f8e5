"""Figures of all arms: the F1 of each class, and the progress of the searches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hirise_imb.metrics.bootstrap import Interval
from hirise_imb.reporting import search_summary
from hirise_imb.reporting.figures.style import (
    BETTER,
    PALE,
    PAPER,
    ROLE_COLOURS,
    SOFT,
    WORSE,
    add_hover_text,
    difference_colour,
    draw_cells,
    emphasise,
    figure,
    name_width,
    text_colour,
    write_head,
)
from hirise_imb.reporting.formatting import plural, signed
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

_COLUMNS = 6
"""Number of searches in a row of panels."""


def f1_per_class(results: Results) -> Figure:
    """Draws the F1 of every arm and class, coloured by difference from the reference.

    A difference whose interval contains 0, or that has no interval, is faint whatever its size: otherwise the rarest
    classes, which vary most by chance, would have the strongest colours.
    """
    rows, classes = results.ordered, results.classes
    margins = (name_width((arm.name for arm in rows), 9), 0.1, 0.1, 1.35)
    column = max(0.98, name_width(classes, 8.5))
    width = margins[0] + 0.1 + max(4, len(classes)) * column
    canvas = figure(width, margins[2] + margins[3] + 0.2 * len(rows), margins)
    axes = canvas.subplots()
    scores = [results.per_class(arm.name, "f1") for arm in rows]
    gains = [results.difference(arm.name, "f1", results.reference) for arm in rows]
    intervals = [_intervals(results, arm) for arm in rows]

    def describe(row: int, column: int) -> str:
        text = f"{rows[row].name}, {classes[column]}: F1 {scores[row][column].mean:.3f}"
        if rows[row].name == results.reference or not results.support[column]:
            return text
        text += f", {signed(float(gains[row][column]))} against {results.reference}"
        if (interval := intervals[row][column]) is None:
            return f"{text}, no confidence interval"
        return f"{text}, 95 % confidence interval {signed(interval.low)} to {signed(interval.high)}"

    colours = [
        [
            _cell_colour(float(gain), interval) if n else PAPER
            for gain, interval, n in zip(line, ends, results.support, strict=True)
        ]
        for line, ends in zip(gains, intervals, strict=True)
    ]
    draw_cells(axes, colours, describe)
    for row in range(len(rows)):
        for k, spread in enumerate(scores[row]):
            text = f"{spread.mean:.2f}" if results.support[k] else "–"
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9}
            axes.text(k, row, text, color=text_colour(colours[row][k]), **style)
    axes.set_yticks(range(len(rows)), [arm.name for arm in rows])
    emphasise(axes.get_yticklabels(), [arm.name in results.preferred for arm in rows])
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(classes)), list(classes), fontsize=8.5, fontweight="bold", va="bottom")
    axes.tick_params(axis="x", pad=24)
    place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "center"}
    for k, (n, n_sources) in enumerate(zip(results.support, results.sources, strict=True)):
        for line, offset in ((f"n = {n}", 14), (plural(int(n_sources), "source"), 4)):
            axes.annotate(line, (k, 1), (0, offset), **place, fontsize=8, color=SOFT)
    notes = [
        f"Colour: difference from {results.reference}, blue better, orange worse; strong only where the 95 % "
        "confidence interval excludes 0."
    ]
    if results.preferred:
        notes.append(f"Bold: best {results.terms.best}.")
    write_head(canvas, f"F1 of each class {results.terms.where}", *notes)
    return canvas


def _intervals(results: Results, arm: Arm) -> Sequence[Interval | None]:
    if arm.name == results.reference:
        return [None] * len(results.classes)
    return results.inference.class_differences(arm.name, results.reference)


def _cell_colour(gain: float, interval: Interval | None) -> str:
    """Returns the colour of a difference: the faintest one of its direction unless the interval excludes 0."""
    colour = difference_colour(gain, gain > 0)
    if interval is not None and (interval.low > 0 or interval.high < 0):
        # The faintest colour is that of the uncertain differences.
        return {BETTER[0]: BETTER[1], WORSE[0]: WORSE[1]}.get(colour, colour)
    return colour if colour == PAPER else (BETTER if gain > 0 else WORSE)[0]


def best_so_far(results: Results) -> Figure:
    """Draws the best inner macro F1 against finished trials, one panel for each search over the others in grey."""
    arms = [arm for arm in results.ordered if arm.has_search]
    n_columns = min(len(arms), _COLUMNS)
    n_rows = -(-len(arms) // n_columns)
    margins = (0.5, 0.1, 0.5, 0.75)
    canvas = figure(11, margins[2] + margins[3] + 1.25 * n_rows, margins)
    spaces = {"wspace": 0.08, "hspace": 0.3}
    panels = canvas.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False, gridspec_kw=spaces)
    for axes in panels.flat[len(arms) :]:
        axes.remove()
    background = _join_lines([_step_line(arm) for arm in arms])
    for n, (axes, arm) in enumerate(zip(panels.flat, arms, strict=False)):
        axes.plot(*background, color=PALE, linewidth=0.8, zorder=1)
        _draw_search(axes, arm)
        # Shared axes label only the bottom row; a panel above an empty place needs labels too.
        axes.tick_params(labelbottom=n + n_columns >= len(arms))
    most = max(len(search_summary.mean_best_so_far(arm)) for arm in arms)
    panels[0, 0].set_xlim(0.5, most + 0.5)
    panels[0, 0].xaxis.get_major_locator().set_params(integer=True, nbins=4)
    panels[0, 0].yaxis.get_major_locator().set_params(nbins=4)
    low, high = panels[0, 0].get_ylim()
    panels[0, 0].set_ylim(low - 0.12 * (high - low), high)  # room for the best value below the lines
    canvas.text(0.5, 0.12 / canvas.get_figheight(), "finished trials", fontsize=9.5, ha="center")
    several = any(len(arm.selections) > 1 for arm in arms)
    detail = "mean over outer folds" if several else "dot: the chosen trial"
    write_head(
        canvas,
        f"Best {results.terms.inner} {results.target.label} so far",
        f"All panels have the same two axes; {detail}. Grey: the other searches.",
    )
    return canvas


def _draw_search(axes: Axes, arm: Arm) -> None:
    colour = ROLE_COLOURS["control" if arm.role == "control" else "strategy"]
    numbers, best = _step_line(arm)
    [line] = axes.plot(numbers, best, color=colour, linewidth=2, zorder=3, marker="." if len(best) == 1 else None)
    axes.set_title(arm.name, fontsize=8.5, color=colour, fontweight="bold", pad=3)
    if not len(best):
        return
    n_trials = plural(len(search_summary.mean_best_so_far(arm)), "trial")
    add_hover_text(line, f"{arm.name}: {best[0]:.3f} in trial {numbers[0]:.0f}, {best[-1]:.3f} after {n_trials}")
    if len(arm.selections) == 1:
        chosen = float(np.nanargmax(search_summary.values(arm.selections[0]))) + 1
        axes.plot(chosen, best[-1], "o", color=colour, markersize=4, zorder=4)
    axes.annotate(
        f"{best[-1]:.3f}",
        (1, 0),
        (-2, 4),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        fontsize=8.5,
        color=colour,
    )


def _step_line(arm: Arm) -> tuple[Floats, Floats]:
    """Returns the corners of the step line of the best value so far, from the first complete trial: trials, values."""
    best = search_summary.mean_best_so_far(arm)
    rises = np.flatnonzero(np.isfinite(best) & (best != np.append(np.nan, best[:-1])))
    numbers, values = np.repeat(rises + 1.0, 2)[1:], np.repeat(best[rises], 2)[:-1]
    if len(rises) and numbers[-1] < len(best):
        return np.append(numbers, len(best)), np.append(values, values[-1])
    return numbers, values


def _join_lines(lines: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """Joins lines into one with gaps (NaN) between them: drawing one line is faster than drawing many."""
    numbers, values = (np.concatenate([np.append(line[n], np.nan) for line in lines]) for n in range(2))
    return numbers, values
