"""Colours, sizes and file formats of all figures."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence, Sized

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

# Colours by Okabe and Ito, which can be distinguished with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73")
SPLIT_COLOURS = {"train": "#0072B2", "val": "#D55E00", "test": "#009E73"}
SPLIT_LINES = {"train": "-", "val": "--", "test": ":"}
MARKS = {"published": "#111827", "aligned": "#0072B2", "shuffled": "#D55E00"}
"""Colours of a published score, the score of a model, and the same with shuffled labels."""
ROLE_COLOURS = {"baseline": "#374151", "baseline_to_the_end": "#374151", "control": "#D55E00", "strategy": "#0072B2"}
"""Colours of arms by their role."""
_LINE_STYLES = (
    ("#374151", ":"),
    ("#D55E00", "--"),
    ("#0072B2", "-"),
    ("#009E73", "-."),
    ("#CC79A7", (0, (5, 1, 1, 1, 1, 1))),
)
_LINES: tuple[dict[str, Any], ...] = tuple(
    {"color": colour, "linestyle": _LINE_STYLES[(n + shift) % len(_LINE_STYLES)][1], "linewidth": 1.7}
    for shift in range(len(_LINE_STYLES))
    for n, (colour, _) in enumerate(_LINE_STYLES)
)
"""Lines of arms that share a panel; they also differ without colour; the sixth has the first colour in other dashes."""
INK = "#111827"
"""Colour of text."""
SOFT = "#4b5563"
"""Colour of explanatory text."""
BACKGROUND = "#d1d5db"
"""Colour of what is drawn behind marks."""
DIVERGING = "BrBG"
"""Colour map of differences, from brown to blue-green, which are distinguishable with any colour vision."""
SHARES = "Blues"
"""Colour map of shares from 0 to 1."""

_PANEL_COLUMNS = 4
"""Most panels in a row of a figure with a panel for each class."""

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
    # Without a salt, ids inside an SVG are random, and equal figures would not be equal files.
    "svg.hashsalt": "hirise_imb",
}


def figure(width: float, height: float, margins: Sequence[float] | None = None) -> Figure:
    """Returns an empty figure that does not need a window system.

    Args:
        width: width of the figure in inches.
        height: height of the figure in inches.
        margins: left, right, bottom and top margin around the axes in inches. Without margins, the layout is computed
            from what is drawn, which takes longer than drawing.
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


def class_panels(classes: Sized, row_height: float) -> tuple[Figure, list[Axes]]:
    """Returns a figure with a panel for each class, and the panels; all have the same axes.

    Args:
        classes: the classes.
        row_height: height of a row of panels in inches.
    """
    n_columns = min(len(classes), _PANEL_COLUMNS)
    n_rows = -(-len(classes) // n_columns)
    canvas = figure(11, n_rows * row_height)
    grid = canvas.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
    panels, unused = list(grid.flat)[: len(classes)], grid.flat[len(classes) :]
    for axes in unused:
        axes.remove()
    for label, axes in enumerate(panels):
        # Shared axes label only the bottom row; a panel above an empty place needs labels too.
        axes.tick_params(labelbottom=label + n_columns >= len(classes))
    return canvas, panels


def lines(arms: Sized) -> list[dict[str, Any]]:
    """Returns the line style of each arm; with more than 25 arms, styles repeat."""
    return [_LINES[n % len(_LINES)] for n in range(len(arms))]


def inks(image: AxesImage) -> NDArray[np.str_]:
    """Returns the text colour, dark or white, that is legible on each cell of an image, in the shape of the image."""
    colours = np.asarray(image.to_rgba(np.nan_to_num(np.asarray(image.get_array()))))
    luminance = colours[..., :3] @ (0.299, 0.587, 0.114)  # weights of red, green and blue after ITU-R BT.601
    return np.where(luminance > 0.55, INK, "white")


def fix_layout(canvas: Figure) -> None:
    """Places the axes of a figure for good, so that files written of it need not do so again.

    With a layout engine, even with matplotlib's placeholder "none", a figure is drawn once more for each file.
    """
    if (engine := canvas.get_layout_engine()) is not None:
        engine.execute(canvas)
        canvas.set_layout_engine(None)


def write_png(canvas: Figure, path: Path) -> None:
    """Writes a figure as PNG without the version of the program, so that equal figures are equal files.

    The compression level is lower than usual: files are slightly larger, and writing takes half the time.
    """
    canvas.savefig(path, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 3})


def write_svg(canvas: Figure, path: Path) -> None:
    """Writes a figure as SVG without the version of the program and the time, so that equal figures are equal files.

    Coordinates keep two decimals (1/7200 inch) and lines are not indented, so that a page with dozens of figures stays
    small.
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
