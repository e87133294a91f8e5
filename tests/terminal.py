"""The end of a command's output, as it is printed to a narrow terminal."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from hirise_imb.cli.report_tables import MAX_LINES, print_comparison
from hirise_imb.reporting.results import Results

PAGE = Path("reports/[red]demo/report.html")


def print_end(results: Results, width: int = 80) -> list[str]:
    """Returns the printed lines, after checking what holds for all of them: their number, their width and the path."""
    console = Console(width=width, record=True, file=io.StringIO(), force_terminal=False, markup=False)
    print_comparison(results, PAGE, console)
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    assert len(lines) <= MAX_LINES
    assert max(map(len, lines)) <= width
    assert lines[-1] == f"Report: {PAGE}"
    return lines
