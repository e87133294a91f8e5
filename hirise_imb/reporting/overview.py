"""Figures of all arms together: what each reached, and how its search went there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hirise_imb.landmarks import CLASSES
from hirise_imb.reporting import searches
from hirise_imb.reporting.arms import SELECTIONS, Arm
from hirise_imb.reporting.results import Results
from hirise_imb.reporting.style import BACKGROUND, SELECTION_COLOURS, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ACROSS = 4
"""Searches side by side."""


def f1_per_class(results: Results) -> Figure:
    """F1 of every arm and class, coloured by the difference to the reference; `other` stands apart as the cost."""
    rows = results.ordered
    canvas = figure(11, 1.4 + 0.3 * len(rows))
    axes = canvas.subplots()
    _classes(axes, results)
    axes.set_yticks(range(len(rows)), [arm.name for arm in rows])
    return canvas


def best_so_far(results: Results) -> Figure:
    """The best validation macro F1 against finished trials, a panel a search, the others behind it."""
    searched = [arm for arm in results.ordered if arm.trials]
    down = -(-len(searched) // _ACROSS)
    canvas = figure(11, 0.8 + 1.6 * down)
    panels = canvas.subplots(down, _ACROSS, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(searched) :]:
        axes.set_visible(False)
    for n, (axes, arm) in enumerate(zip(panels.flat, searched, strict=False)):
        _search(axes, arm, [other for other in searched if other.selection == arm.selection])
        # What stands below an empty place has no axis of its own.
        axes.tick_params(labelbottom=n + _ACROSS >= len(searched))
    panels[0, 0].set_xlim(0, 1.22 * max(len(arm.trials) for arm in searched))
    panels[0, 0].xaxis.get_major_locator().set_params(integer=True)
    canvas.supxlabel("finished trials", fontsize=10)
    canvas.supylabel("macro F1", fontsize=10)
    kinds = list(dict.fromkeys(arm.selection for arm in searched))
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
    # Brown to green-blue: told apart with any colour vision, as red and green are not.
    image = axes.imshow(gains, cmap="BrBG", vmin=-most, vmax=most, aspect="auto")
    for place, arm in enumerate(rows):
        for k, spread in enumerate(results.per_class(arm.name, "f1")):
            text = f"{spread.mean:.2f}" if results.support[k] else "–"
            colour = "white" if abs(gains[place, k]) > 0.7 * most else "#111827"
            axes.text(k, place, text, ha="center", va="center", fontsize=8, color=colour)
    axes.axvline(0.5, color="white", linewidth=6)
    axes.grid(visible=False)
    names = [
        f"{name}\nn = {n}"
        for name, n in zip((name.replace(" ", "\n") for name in CLASSES), results.support, strict=True)
    ]
    axes.set_xticks(range(len(CLASSES)), names, fontsize=8)
    axes.tick_params(length=0)
    axes.set_title("F1 of each class; colour: difference to the baseline")
    axes.figure.colorbar(image, ax=axes, shrink=0.6, pad=0.02)


def _search(axes: Axes, arm: Arm, alike: list[Arm]) -> None:
    for other in alike:
        if other is not arm:
            _steps(axes, other, BACKGROUND, 0.8, 1)
    colour = SELECTION_COLOURS[arm.selection]
    _steps(axes, arm, colour, 2, 3)
    found = searches.tally(arm)
    axes.set_title(arm.name, fontsize=9, color=colour, fontweight="bold")
    if found["best_trial"] is None:
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


def _steps(axes: Axes, arm: Arm, colour: str, width: float, level: int) -> None:
    best = searches.best_so_far(arm)
    marker = "." if len(best) == 1 else None
    numbers = np.arange(1, len(best) + 1)
    axes.step(numbers, best, where="post", color=colour, linewidth=width, zorder=level, marker=marker)
