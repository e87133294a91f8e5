"""How figures and the page look: one place for colours, sizes and names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any colour vision; the baseline is always the grey one.
BASELINE_COLOUR = "#6b7280"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#B8A800")
SPLIT_COLOURS = {"train": "#0072B2", "val": "#D55E00", "test": "#009E73"}
MARKS = {"published": "#111827", "aligned": "#0072B2", "shuffled": "#D55E00"}
"""Of a published figure, a model's own, and the same with shuffled labels."""

METRIC_NAMES = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "macro_f1": "macro F1",
    "macro_f1_rare": "macro F1, rare classes",
    "weighted_f1": "weighted F1",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "kappa": "kappa",
    "log_loss": "log loss (nats)",
    "calibration_error": "calibration error",
}
"""How scores are called in words."""

_SETTINGS: dict[Any, Any] = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "legend.frameon": False,
}


def colours(arms: Sequence[str]) -> dict[str, str]:
    """A colour for each arm, the baseline's grey first."""
    return {arm: BASELINE_COLOUR if n == 0 else COLOURS[(n - 1) % len(COLOURS)] for n, arm in enumerate(arms)}


def score(value: float | None) -> str:
    """A score with three decimals, and no minus sign before a zero; a dash where there is none."""
    return "–" if value is None else f"{round(value, 3) + 0.0:.3f}"


def figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches, that belongs to no window system."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update(_SETTINGS)
    return Figure(figsize=(width, height), dpi=120, layout="constrained")
