"""Figures of all arms together: what each reached, and how its search went there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hirise_imb.reporting import search_summary
from hirise_imb.reporting.figures.style import BACKGROUND, DIVERGING, SELECTION_COLOURS, figure, inks
from hirise_imb.reporting.records import SELECTIONS, Arm
from hirise_imb.reporting.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

_ACROSS = 4
"""Searches side by side."""


def f1_per_class(results: Results) -> Figure:
    """F1 of every arm and class, coloured by the difference to the reference; the majority class stands apart."""
    rows = results.ordered
    canvas = figure(3 + max(4, len(results.classes)), 1.4 + 0.3 * len(rows))
    axes = canvas.subplots()
    _classes(axes, results)
    axes.set_yticks(range(len(rows)), [arm.name for arm in rows])
    for name, arm in zip(axes.get_yticklabels(), rows, strict=True):
        name.set_fontweight("bold" if arm.name in results.preferred else "normal")
    return canvas


def best_so_far(results: Results) -> Figure:
    """The best validation macro F1 against finished trials, a panel a search, the others behind it."""
    searched = [arm for arm in results.ordered if arm.trials]
    down = -(-len(searched) // _ACROSS)
    canvas = figure(11, 1.3 + 1.6 * down, (0.7, 0.1, 0.55, 0.8))
    spaces = {"wspace": 0.06, "hspace": 0.25}
    panels = canvas.subplots(down, _ACROSS, sharex=True, sharey=True, squeeze=False, gridspec_kw=spaces)
    for axes in panels.flat[len(searched) :]:
        axes.remove()
    kinds = list(dict.fromkeys(arm.selection for arm in searched))
    behind = {kind: _together([_stairs(arm) for arm in searched if arm.selection == kind]) for kind in kinds}
    for n, (axes, arm) in enumerate(zip(panels.flat, searched, strict=False)):
        axes.plot(*behind[arm.selection], color=BACKGROUND, linewidth=0.8, zorder=1)
        _search(axes, arm)
        # What stands below an empty place has no axis of its own.
        axes.tick_params(labelbottom=n + _ACROSS >= len(searched))
    panels[0, 0].set_xlim(0, 1.22 * max(len(arm.trials) for arm in searched))
    panels[0, 0].xaxis.get_major_locator().set_params(integer=True)
    canvas.supxlabel("finished trials", fontsize=10)
    canvas.supylabel("macro F1", fontsize=10)
    scales = "; ".join(f"{_COLOUR_NAMES[kind]}: scored on {_GIVEN[kind]}" for kind in kinds)
    apart = ", which is another scale" if len(kinds) > 1 else ""
    marks = "Dot: the trial that was chosen. Grey: the other searches of that scale."
    title = f"Best validation macro F1 so far; {scales}{apart}.\n{marks}"
    canvas.suptitle(title, x=0.01, ha="left", fontsize=10)
    return canvas


_COLOUR_NAMES = {"grouped-cv": "blue", "val": "orange"}
_GIVEN = SELECTIONS | {"val": "the given validation split"}


def _classes(axes: Axes, results: Results) -> None:
    rows = results.ordered
    gains = np.array([results.difference(arm.name, "f1", results.reference) for arm in rows])
    gains[:, results.support == 0] = np.nan
    most = max(0.1, float(np.nanmax(np.abs(gains))))
    image = axes.imshow(gains, cmap=DIVERGING, vmin=-most, vmax=most, aspect="auto")
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
    bold = "; bold: preferred by validation" if results.preferred else ""
    axes.set_title(f"F1 of each class on the test split; colour: difference to {results.reference}{bold}", fontsize=10)
    axes.figure.colorbar(image, ax=axes, shrink=0.6, pad=0.02)


def _search(axes: Axes, arm: Arm) -> None:
    colour = SELECTION_COLOURS[arm.selection]
    numbers, best = _stairs(arm)
    axes.plot(numbers, best, color=colour, linewidth=2, zorder=3, marker="." if len(best) == 1 else None)
    found = search_summary.tally(arm)
    axes.set_title(arm.name, fontsize=9, color=colour, fontweight="bold", pad=3)
    if found["best_trial"] is None or found["best_value"] is None:
        return
    axes.plot(found["best_trial"], found["best_value"], "o", color=colour, markersize=4, zorder=4)
    style: dict[str, Any] = {"fontsize": 8, "color": colour, "va": "center"}
    axes.annotate(
        f"{found['best_value']:.3f}",
        (len(arm.trials), found["best_value"]),
        (4, 0),
        textcoords="offset points",
        **style,
    )


def _stairs(arm: Arm) -> tuple[Floats, Floats]:
    """The corners of its best so far: trials and values; nothing before the first complete trial."""
    best = search_summary.best_so_far(arm)
    rises = np.flatnonzero(np.isfinite(best) & (best != np.append(np.nan, best[:-1])))
    numbers, values = np.repeat(rises + 1.0, 2)[1:], np.repeat(best[rises], 2)[:-1]
    return (numbers, values) if not len(rises) else _until(numbers, values, len(best))


def _until(numbers: Floats, values: Floats, last: int) -> tuple[Floats, Floats]:
    return (numbers, values) if numbers[-1] == last else (np.append(numbers, last), np.append(values, values[-1]))


def _together(lines: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """Several lines as one, which breaks between them: one thing to draw."""
    numbers, values = (np.concatenate([np.append(line[n], np.nan) for line in lines]) for n in range(2))
    return numbers, values
