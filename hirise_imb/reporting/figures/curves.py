"""Learning curves: loss, accuracy and macro F1 over the epochs of an arm, and which arms share them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from hirise_imb.data.dataset import SPLITS
from hirise_imb.reporting.figures.style import PALE, SOFT, SPLIT_COLOURS, add_hover_text, figure, write_head
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.terms import Terms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES: Mapping[str, Any] = {"train": "-", "val": "--", "test": ":"}
_PANELS = {"loss": "cross-entropy (nats)", "accuracy": "accuracy", "macro_f1": "macro F1"}
_MONITORED = {"val_loss": "loss", "val_macro_f1": "macro_f1"}
"""The panel of the score that early stopping monitors."""
_NAME_SPACE = 0.1
"""Distance between names of lines, as a share of the height of the axes."""


def curves(arm: Arm, terms: Terms, others: Sequence[str] = ()) -> Figure:
    """Draws loss, accuracy and macro F1 over epochs; thin lines are seeds after the first.

    Args:
        arm: the arm.
        terms: words of the design.
        others: names of arms that have the same curves.
    """
    names = {"train": "train", "val": terms.inner_curve, "test": terms.outer_curve}
    monitors = {_MONITORED.get(str(selection.recipe.get("monitor"))) for selection in arm.selections}
    quantities = [quantity for quantity in _PANELS if _columns(arm.histories[0], quantity)]
    canvas = figure(3.55 * len(quantities) + 0.35, 2.95, (0.55, 0.9, 0.5, 0.85))
    panels = canvas.subplots(1, len(quantities), squeeze=False, gridspec_kw={"wspace": 0.62})[0]
    for axes, quantity in zip(panels, quantities, strict=True):
        for split in _columns(arm.histories[0], quantity):
            _draw_curve(axes, arm.histories, f"{split}_{quantity}", split, names[split])
        _name_curves(axes, arm.histories[0], quantity, names)
        if len(arm.selections) == 1:
            best = arm.best_epochs[0][0]
            axes.axvline(best, color=PALE, linewidth=4, zorder=0)
            if axes is panels[0]:
                style = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "fontsize": 8}
                axes.annotate("best epoch", (best, 1), (-4, -1), **style, color=SOFT, ha="right", va="top")
        stopped = ", monitored by early stopping" if quantity in monitors else ""
        axes.set_title(_PANELS[quantity] + stopped, fontsize=9)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=6)
        axes.yaxis.get_major_locator().set_params(nbins=5)
    notes = ["Thick lines: the first seed."] if len(arm.histories) > 1 else []
    write_head(canvas, ", ".join((arm.name, *others)), *notes)
    return canvas


def _columns(history: pd.DataFrame, quantity: str) -> list[str]:
    """Returns the splits that have this quantity."""
    return [split for split in SPLITS if f"{split}_{quantity}" in history]


def _draw_curve(axes: Axes, histories: Sequence[pd.DataFrame], column: str, split: str, name: str) -> None:
    for n, history in enumerate(histories):
        first = n == 0
        [line] = axes.plot(
            history["epoch"],
            history[column],
            color=SPLIT_COLOURS[split],
            linestyle=_LINES[split],
            linewidth=1.8 if first else 0.7,
            alpha=1 if first else 0.5,
            marker="o" if len(history) == 1 else None,
        )
        if first:
            add_hover_text(line, f"{name}: {history[column].iloc[-1]:.3f} after epoch {history['epoch'].iloc[-1]}")


def _name_curves(axes: Axes, history: pd.DataFrame, quantity: str, names: Mapping[str, str]) -> None:
    """Writes the name of each line to the right of its end, as close to its height as the names have room."""
    low, high = axes.get_ylim()
    ends = sorted(
        ((float(history[f"{split}_{quantity}"].iloc[-1]) - low) / (high - low), split)
        for split in _columns(history, quantity)
    )
    heights = [height for height, _ in ends]
    for place in range(1, len(heights)):
        heights[place] = max(heights[place], heights[place - 1] + _NAME_SPACE)
    overflow = max(heights[-1] - 1.0, 0.0)
    axes.set_ylim(low, high)
    for height, (_, split) in zip(heights, ends, strict=True):
        style: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "center"}
        axes.annotate(names[split], (1, height - overflow), (4, 0), **style, fontsize=8.5, color=SPLIT_COLOURS[split])
