"""The look of all tables in the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table


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
