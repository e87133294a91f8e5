"""Figures of all arms: the F1 of each class, and the progress of the searches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hirise_imb.reporting import search_summary
from hirise_imb.reporting.figures.style import BACKGROUND, DIVERGING, ROLE_COLOURS, figure, inks
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

_COLUMNS = 4
"""Number of searches in a row of panels."""


def f1_per_class(results: Results) -> Figure:
    """Draws the F1 of every arm and class, coloured by difference from the reference; gaps mark the majority class."""
    rows = results.ordered
    canvas = figure(3 + max(4, len(results.classes)), 1.4 + 0.3 * len(rows))
    axes = canvas.subplots()
    _draw_class_scores(axes, results)
    axes.set_yticks(range(len(rows)), [arm.name for arm in rows])
    for name, arm in zip(axes.get_yticklabels(), rows, strict=True):
        name.set_fontweight("bold" if arm.name in results.preferred else "normal")
    return canvas


def best_so_far(results: Results) -> Figure:
    """Draws the best inner macro F1 against finished trials, one panel for each search over the others in grey."""
    arms = [arm for arm in results.ordered if arm.has_search]
    n_rows = -(-len(arms) // _COLUMNS)
    canvas = figure(11, 1.3 + 1.6 * n_rows, (0.7, 0.1, 0.55, 0.8))
    spaces = {"wspace": 0.06, "hspace": 0.25}
    panels = canvas.subplots(n_rows, _COLUMNS, sharex=True, sharey=True, squeeze=False, gridspec_kw=spaces)
    for axes in panels.flat[len(arms) :]:
        axes.remove()
    background = _join_lines([_step_line(arm) for arm in arms])
    for n, (axes, arm) in enumerate(zip(panels.flat, arms, strict=False)):
        axes.plot(*background, color=BACKGROUND, linewidth=0.8, zorder=1)
        _draw_search(axes, arm)
        # Shared axes label only the bottom row; a panel above an empty place needs labels too.
        axes.tick_params(labelbottom=n + _COLUMNS >= len(arms))
    # The best score is written to the right of the last trial.
    panels[0, 0].set_xlim(0, 1.22 * max(len(search_summary.mean_best_so_far(arm)) for arm in arms))
    panels[0, 0].xaxis.get_major_locator().set_params(integer=True)
    canvas.supxlabel("finished trials", fontsize=10)
    canvas.supylabel("macro F1", fontsize=10)
    several = any(len(arm.selections) > 1 for arm in arms)
    detail = "mean over outer folds" if several else "dot: the chosen trial"
    title = f"Best {results.terms.inner} score so far ({detail}). Grey: the other searches."
    canvas.suptitle(title, x=0.01, ha="left", fontsize=10)
    return canvas


def _draw_class_scores(axes: Axes, results: Results) -> None:
    rows = results.ordered
    gains = np.array([results.difference(arm.name, "f1", results.reference) for arm in rows])
    gains[:, results.support == 0] = np.nan
    # Without a lower limit of the scale, differences of a few thousandths would get strong colours.
    limit = max(0.1, float(np.nanmax(np.abs(gains))))
    image = axes.imshow(gains, cmap=DIVERGING, vmin=-limit, vmax=limit, aspect="auto")
    colours = inks(image)
    for place, arm in enumerate(rows):
        for k, spread in enumerate(results.per_class(arm.name, "f1")):
            text = f"{spread.mean:.2f}" if results.support[k] else "–"
            axes.text(k, place, text, ha="center", va="center", fontsize=9, color=str(colours[place, k]))
    if (majority := results.classes.majority_id) is not None:
        for edge in (majority - 0.5, majority + 0.5):
            if 0 < edge < len(results.classes) - 1:
                axes.axvline(edge, color="white", linewidth=6)
    axes.grid(visible=False)
    names = [
        f"{name}\nn = {n}"
        for name, n in zip((name.replace(" ", "\n") for name in results.classes), results.support, strict=True)
    ]
    axes.set_xticks(range(len(names)), names, fontsize=9)
    axes.tick_params(length=0)
    bold = f"; bold: best {results.terms.best}" if results.preferred else ""
    axes.set_title(
        f"F1 of each class {results.terms.where}; colour: difference from {results.reference}{bold}", fontsize=10
    )
    axes.figure.colorbar(image, ax=axes, shrink=0.6, pad=0.02)


def _draw_search(axes: Axes, arm: Arm) -> None:
    colour = ROLE_COLOURS["control" if arm.role == "control" else "strategy"]
    numbers, best = _step_line(arm)
    axes.plot(numbers, best, color=colour, linewidth=2, zorder=3, marker="." if len(best) == 1 else None)
    axes.set_title(arm.name, fontsize=9, color=colour, fontweight="bold", pad=3)
    if not len(best):
        return
    if len(arm.selections) == 1:
        chosen = float(np.nanargmax(search_summary.values(arm.selections[0]))) + 1
        axes.plot(chosen, best[-1], "o", color=colour, markersize=4, zorder=4)
    style: dict[str, Any] = {"fontsize": 8, "color": colour, "va": "center"}
    axes.annotate(
        f"{best[-1]:.3f}",
        (len(search_summary.mean_best_so_far(arm)), best[-1]),
        (4, 0),
        textcoords="offset points",
        **style,
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
