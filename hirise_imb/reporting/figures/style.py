"""Colours and sizes of all figures."""

from __future__ import annotations

from bisect import bisect
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hirise_imb.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence, Sized

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

INK = "#111827"
"""Colour of text."""
SOFT = "#4b5563"
"""Colour of explanatory text."""
GRID = "#e5e7eb"
PAPER = "#ffffff"
"""Colour of the background, and of what is drawn as a gap."""
PALE = "#d1d5db"
"""Colour of what is drawn behind marks."""
GREY = "#9ca3af"
"""Colour of marks that are only there to compare."""
SLATE = "#374151"
# By Okabe and Ito: they can be distinguished with any colour vision.
BLUE, ORANGE, GREEN, PINK = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
WASH = "#fdf3d7"
"""Colour behind the row of the advised arm."""

GOOD, BAD = BLUE, ORANGE
"""Colours of differences that are for the better and for the worse."""
SPLIT_COLOURS = {"train": BLUE, "val": ORANGE, "test": GREEN}
ROLE_COLOURS = {"baseline": SLATE, "baseline_to_the_end": SLATE, "control": ORANGE, "strategy": BLUE}
"""Colours of arms by their role."""

SHARES = ("#edf4fa", "#d9e8f4", "#bfd9ec", "#9cc5e1", "#75afd6", "#2a6fa8", "#175c95", "#0d477b", "#08335d")
"""Colours of shares from 0 to 1, as in the tables of pages."""
BETTER = ("#e8f1f9", "#c9dff1", "#9cc6e6", "#6cabd9", "#1b66a5")
WORSE = ("#fdf0e2", "#fbdcb8", "#f5bd80", "#e8954a", "#9c4a03")
"""Colours of cells whose difference is for the better or for the worse, from small to large."""
ON_STRONG = "#fefefe"
"""Colour of text on the strongest colours, from the sixth share and the fifth difference on."""
_SHARE_STEPS = (0.02, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.92)
_STEPS = (0.05, 0.1, 0.2, 0.35)
"""Shares and sizes of differences from which the next colour is used."""

CSS_COLOURS = {
    INK: "currentColor",
    SOFT: "var(--soft)",
    GRID: "var(--line)",
    PAPER: "var(--paper)",
    PALE: "var(--pale)",
    GREY: "var(--grey)",
    SLATE: "var(--slate)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    GREEN: "var(--green)",
    PINK: "var(--pink)",
    WASH: "var(--accent-wash)",
    ON_STRONG: "var(--on-strong)",
    **{colour: f"var(--s{n})" for n, colour in enumerate(SHARES, 1)},
    **{colour: f"var(--p{n})" for n, colour in enumerate(BETTER, 1)},
    **{colour: f"var(--m{n})" for n, colour in enumerate(WORSE, 1)},
}
"""The colour in a page, which may be dark, that stands for each colour of a figure; see `figures.css.jinja`."""

FONTS = "DejaVu Sans, Verdana, sans-serif"
"""Fonts of a file; Verdana is as wide. Those of a page are at most as wide, so what fits here also fits there."""

HOVER, NEXT = "hover ", " ¦ "
"""What the id of an artist with hover text starts with, and what separates the texts of its marks."""

_LINE_STYLES: tuple[tuple[str, Any], ...] = (
    (SLATE, ":"),
    (ORANGE, "--"),
    (BLUE, "-"),
    (GREEN, "-."),
    (PINK, (0, (5, 1, 1, 1, 1, 1))),
)
_LINES: tuple[dict[str, Any], ...] = tuple(
    {"color": colour, "linestyle": _LINE_STYLES[(n + shift) % len(_LINE_STYLES)][1], "linewidth": 1.7}
    for shift in range(len(_LINE_STYLES))
    for n, (colour, _) in enumerate(_LINE_STYLES)
)
"""Lines of arms that share a panel; they also differ without colour; the sixth has the first colour in other dashes."""

_PANEL_COLUMNS = 4
"""Most panels in a row of a figure with a panel for each class."""

_SETTINGS: dict[Any, Any] = {
    "font.size": 9.5,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "lines.solid_capstyle": "butt",
    "legend.frameon": False,
    "legend.fontsize": 9,
    # Letters stay text in an SVG: the file is small, and a page shows them in its own font.
    "svg.fonttype": "none",
    # A `$` in the name of a class is no formula.
    "text.parse_math": False,
    # Without a salt, ids inside an SVG are random, and equal figures would not be equal files.
    "svg.hashsalt": "hirise_imb",
}


@contextmanager
def figure_settings() -> Iterator[None]:
    """Lets figures of reports look the same everywhere, whatever a `matplotlibrc` or a calling program has set.

    What was set before is restored at the end of the block.

    Raises:
        UserError: matplotlib can't be imported with the settings of the user.
    """
    try:
        import matplotlib as mpl
    except ValueError as error:  # UnicodeDecodeError, too
        raise UserError(
            f"matplotlib can't be imported ({error}): fix or remove the file matplotlibrc that it finds, and unset "
            f"MPLBACKEND."
        ) from error
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


def figure(width: float, height: float, margins: tuple[float, float, float, float]) -> Figure:
    """Returns an empty figure that does not need a window system.

    Margins are fixed: computing a layout from what is drawn takes longer than drawing.

    Args:
        width: width of the figure in inches; a page is 11 inches wide.
        height: height of the figure in inches.
        margins: left, right, bottom and top margin around the axes in inches.
    """
    from matplotlib.figure import Figure

    left, right, bottom, top = margins
    canvas = Figure(figsize=(width, height), dpi=120)
    canvas.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)
    return canvas


def class_panels(
    classes: Sized, panel: float, bottom: float, left: float, top: float = 0.85
) -> tuple[Figure, list[Axes]]:
    """Returns a figure with a panel for each class, and the panels; all have the same axes.

    Args:
        classes: the classes.
        panel: height of the axes of a panel in inches.
        bottom: height below the axes of the lowest panels in inches.
        left: width to the left of the axes in inches.
        top: height above the axes of the highest panels in inches.
    """
    n_columns = min(len(classes), _PANEL_COLUMNS)
    n_rows = -(-len(classes) // n_columns)
    gap = 0.5
    width = left + 0.15 + (10.85 - left) * (n_columns / _PANEL_COLUMNS if n_columns > 1 else 0.5)
    height = bottom + top + n_rows * panel + (n_rows - 1) * gap
    canvas = figure(width, height, (left, 0.15, bottom, top))
    spaces = {"wspace": 0.1, "hspace": gap / panel}
    grid = canvas.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False, gridspec_kw=spaces)
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


def share_colour(share: float) -> str:
    """Returns the colour of a cell that shows a share from 0 to 1."""
    return SHARES[bisect(_SHARE_STEPS, share)] if share > 0 else PAPER


def difference_colour(difference: float, better: bool) -> str:
    """Returns the colour of a cell that shows a difference; `better` says whether it is for the better."""
    if abs(difference) < 0.005:  # is written as 0 in hundredths
        return PAPER
    return (BETTER if better else WORSE)[bisect(_STEPS, abs(difference))]


def text_colour(cell: str) -> str:
    """Returns the colour of text that is legible on a cell of this colour."""
    return ON_STRONG if cell in (*SHARES[5:], BETTER[4], WORSE[4]) else INK


def add_hover_text(artist: Artist, *texts: str) -> None:
    """Adds text that a page shows under the pointer: one for an artist, or one for each of its marks in order."""
    artist.set_gid(HOVER + NEXT.join(texts))


def draw_cells(axes: Axes, colours: Sequence[Sequence[str]], describe: Callable[[int, int], str] | None = None) -> None:
    """Draws a matrix of cells with a gap between them, row 0 at the top.

    Args:
        axes: axes in which a cell is 1 wide and high, and the first has its centre at 0, 0.
        colours: colour of each cell by row.
        describe: returns the hover text of a cell from its row and column.
    """
    from matplotlib.collections import PolyCollection

    n_rows, n_columns = len(colours), len(colours[0])
    places = [(row, column) for row in range(n_rows) for column in range(n_columns)]
    corners = ((-0.48, -0.47), (0.48, -0.47), (0.48, 0.47), (-0.48, 0.47))
    shapes = [[(column + x, row + y) for x, y in corners] for row, column in places]
    faces = [colour for line in colours for colour in line]
    # Of one collection, because drawing many patches takes several times as long.
    cells = PolyCollection(shapes, facecolors=faces, linewidths=0, clip_on=False)
    if describe is not None:
        add_hover_text(cells, *(describe(row, column) for row, column in places))
    axes.add_collection(cells, autolim=False)
    axes.set_xlim(-0.5, n_columns - 0.5)
    axes.set_ylim(n_rows - 0.5, -0.5)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)


def write_head(canvas: Figure, title: str, *notes: str) -> None:
    """Writes what a figure shows above it, and below that how to read it; 0.24 and 0.18 inch a line."""
    height = canvas.get_figheight()
    canvas.text(0.08 / canvas.get_figwidth(), 1 - 0.19 / height, title, fontsize=10.5, fontweight="bold")
    for place, note in enumerate(notes):
        y = 1 - (0.41 + 0.18 * place) / height
        canvas.text(0.08 / canvas.get_figwidth(), y, note, fontsize=9, color=SOFT)


def name_width(names: Iterable[str], size: float) -> float:
    """Returns the width in inches of a margin that holds names in a font of some size, in points."""
    return 0.2 + 0.61 * size / 72 * max(map(len, names), default=0)


def format_difference(value: float, _place: float | None = None) -> str:
    """Formats the label of an axis of differences: with its sign, and zero as 0."""
    return f"{value:+.3g}".replace("-", "−") if abs(value) > 1e-9 else "0"


def emphasise(names: Sequence[Text], emphasised: Iterable[bool]) -> None:
    """Writes some names, such as those of rows, in bold."""
    for name, bold in zip(names, emphasised, strict=True):
        name.set_fontweight("bold" if bold else "normal")


def write_png(canvas: Figure, path: Path) -> None:
    """Writes a figure as PNG without the version of the program, so that equal figures are equal files.

    The compression level is lower than usual: files are slightly larger, and writing takes half the time.
    """
    canvas.savefig(path, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 3})
