"""How figures and the page look: one place for colours and sizes."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence, Sized

    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

# Okabe and Ito's colours, told apart with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73")
SPLIT_COLOURS = {"train": "#0072B2", "val": "#D55E00", "test": "#009E73"}
SPLIT_LINES = {"train": "-", "val": "--", "test": ":"}
MARKS = {"published": "#111827", "aligned": "#0072B2", "shuffled": "#D55E00"}
"""Of a published figure, a model's own, and the same with shuffled labels."""
ROLE_COLOURS = {"baseline": "#374151", "control": "#D55E00", "strategy": "#0072B2"}
SELECTION_COLOURS = {"grouped-cv": "#0072B2", "val": "#D55E00"}
_SHARED = (
    ("#374151", ":"),
    ("#D55E00", "--"),
    ("#0072B2", "-"),
    ("#009E73", "-."),
    ("#CC79A7", (0, (5, 1, 1, 1, 1, 1))),
)
_LINES: tuple[dict[str, Any], ...] = tuple(
    {"color": colour, "linestyle": _SHARED[(n + shift) % len(_SHARED)][1], "linewidth": 1.7}
    for shift in range(len(_SHARED))
    for n, (colour, _) in enumerate(_SHARED)
)
"""Of arms that share a panel, told apart without colour too; a sixth has the first colour with other dashes."""
INK = "#111827"
"""Of words."""
SOFT = "#4b5563"
"""Of words that explain."""
BACKGROUND = "#d1d5db"
"""Of what a mark is to be seen against."""
DIVERGING = "BrBG"
"""Brown to green-blue: told apart with any colour vision, as red and green are not."""
SHARES = "Blues"
"""From none to all."""

_PANELS_ACROSS = 4

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


def figure(width: float, height: float, margins: Sequence[float] | None = None) -> Figure:
    """An empty figure, sizes in inches, that belongs to no window system.

    Args:
        width: of all.
        height: of all.
        margins: left, right, bottom and top of what lies between axes and edge, in inches. Without them the layout is
            found from what is drawn, which takes longer than to draw it.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update(_SETTINGS)
    if margins is None:
        return Figure(figsize=(width, height), dpi=120, layout="constrained")
    left, right, bottom, top = margins
    canvas = Figure(figsize=(width, height), dpi=120)
    canvas.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)
    return canvas


def class_panels(classes: Sized) -> tuple[int, int]:
    """Rows and columns of a grid with a panel for each class."""
    columns = min(len(classes), _PANELS_ACROSS)
    return -(-len(classes) // columns), columns


def lines(arms: Sized) -> list[dict[str, Any]]:
    """How each of these arms is drawn; beyond 25 some look alike."""
    return [_LINES[n % len(_LINES)] for n in range(len(arms))]


def inks(image: AxesImage) -> NDArray[np.str_]:
    """What can be read on each cell of an image: dark words, or white ones. Of the image's shape."""
    colours = np.asarray(image.to_rgba(np.nan_to_num(np.asarray(image.get_array()))))
    return np.where(colours[..., :3] @ (0.299, 0.587, 0.114) > 0.55, INK, "white")


def fix_layout(canvas: Figure) -> None:
    """Places the axes of a figure for good, so that files written of it need not do so again.

    With a layout engine, even with matplotlib's placeholder "none", a figure is drawn once more for each file.
    """
    if (engine := canvas.get_layout_engine()) is not None:
        engine.execute(canvas)
        canvas.set_layout_engine(None)


def write_png(canvas: Figure, path: Path) -> None:
    """Write a figure as PNG, without the program's version; equal figures are equal files.

    Compressed less than usual, which makes the file a little larger and is done in half the time.
    """
    canvas.savefig(path, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 3})


def write_svg(canvas: Figure, path: Path) -> None:
    """Write a figure as SVG, without the program's version and the time; equal figures are equal files.

    Coordinates keep two digits behind the point, 1/7200 inch, and lines are not indented, so that a page with dozens of
    figures stays small.
    """
    buffer = BytesIO()
    canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = _PATH.sub(_shortened, _INDENT.sub("", buffer.getvalue().decode()))
    path.write_text(text, encoding="utf-8", newline="\n")


_PATH = re.compile(r' d="[^"]*"| [xy]="[-0-9.]+"')
_INDENT = re.compile(r"^ +", re.MULTILINE)
_DIGITS = re.compile(r"(\.[0-9]{2})[0-9]+")


def _shortened(path: re.Match[str]) -> str:
    return _DIGITS.sub(r"\1", path[0])
