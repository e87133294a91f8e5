"""The look of all tables in the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from hirise_imb.utils.terminal import SafeConsole


def make_console() -> Console:
    """Returns the console of results, standard output; names and paths are printed as they are."""
    return SafeConsole(highlight=False)


def empty_table(title: str, padding: int = 0) -> Table:
    """Returns a table without rows; `padding` is the space between columns in addition to one character."""
    return Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, padding),
        pad_edge=False,
        show_edge=False,
    )
