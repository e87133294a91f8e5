"""How figures and the page look: one place for colours, sizes and names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73")
SPLIT_COLOURS = {"train": "#0072B2", "val": "#D55E00", "test": "#009E73"}
MARKS = {"published": "#111827", "aligned": "#0072B2", "shuffled": "#D55E00"}
"""Of a published figure, a model's own, and the same with shuffled labels."""
ROLE_COLOURS = {"baseline": "#374151", "control": "#D55E00", "strategy": "#0072B2"}
SELECTION_COLOURS = {"grouped-cv": "#0072B2", "val": "#D55E00"}
BACKGROUND = "#d1d5db"
"""Of what a mark is to be seen against."""

METRIC_NAMES = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "macro_f1": "macro F1",
    "macro_f1_rare": "macro F1, rare classes",
    "macro_f1_several": "macro F1, classes of several sources",
    "weighted_f1": "weighted F1",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "kappa": "kappa",
    "log_loss": "log loss (nats)",
    "calibration_error": "calibration error",
    "calibration_error_tempered": "calibration error, with temperature",
    "risk_coverage_area": "area under risk and coverage",
}
"""How scores are called in words."""

SHORT = ("oth", "cra", "dar", "slo", "bri", "eje", "swi", "spi")
"""The classes where there is no room for their names."""

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
    # Without it, names inside an SVG are drawn by chance, and equal figures are not equal files.
    "svg.hashsalt": "hirise_imb",
}


def score(value: float | None) -> str:
    """A score with three decimals, and no minus sign before a zero; a dash where there is none."""
    return "–" if value is None else f"{round(value, 3) + 0.0:.3f}"


def signed(value: float | None) -> str:
    """A difference with three decimals and its sign, a plus before zero; a dash where there is none."""
    return "–" if value is None else f"{round(value, 3) + 0.0:+.3f}"


def figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches, that belongs to no window system."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update(_SETTINGS)
    return Figure(figsize=(width, height), dpi=120, layout="constrained")
