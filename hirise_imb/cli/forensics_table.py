"""The result of forensics for the terminal, within 80 columns."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hirise_imb.cli.tables import empty_table
from hirise_imb.forensics import METRICS, SMALLEST_P, Finding, JointRanges


def print_finding(finding: Finding, console: Console) -> None:
    """Prints the counts behind each row, what they have in common, and the verdict."""
    console.print(_row_table(finding))
    fewest, most = finding.table.decimals
    if fewest < most:
        console.print(
            f"Figures have {fewest} to {most} decimals and are used as they are. If trailing zeros were dropped, "
            f"--decimals {most} restores them.",
            highlight=False,
        )
    if finding.joint_ranges is not None:
        console.print(_joint_table(finding.joint_ranges, len(finding.table.classes)))
    console.print(f"Verdict: {finding.verdict}.", style="bold")
    # Class names are the user's: brackets in them are not markup.
    console.print(f"{finding.reason[0].upper()}{finding.reason[1:]}.")


def _row_table(finding: Finding) -> Table:
    table = finding.table
    margins = finding.joint_ranges.margins if finding.joint_ranges else finding.margins
    title = "Hits and predictions that print as each row does"
    grid = empty_table(
        f"{title}, together {table.total:,} predictions" if finding.joint_ranges else f"{title}, row by row"
    )
    grid.add_column("class", overflow="fold")
    for head in ("n", "prec.", "recall", "F1", "hits", "predictions", "hits if\nshuffled"):
        grid.add_column(head, justify="right", no_wrap=True)
    for k, name in enumerate(table.classes):
        printed = [str(figure) if (figure := table.figures[metric][k]) else "–" for metric in METRICS]
        row = margins[k]
        counts = ["none"] * 2 + ["–"]
        if len(row.predicted):
            chance = [table.support[k] * m / table.total for m in row.predictions]
            counts = [
                _range(*row.hits),
                _range(*row.predictions),
                _range(chance[0], chance[1], 0 if chance[1] >= 100 else 1),  # four characters at most
            ]
        grid.add_row(Text(name), f"{table.support[k]:,}", *printed, *counts)
    return grid


def _joint_table(ranges: JointRanges, classes: int) -> Table:
    grid = empty_table("All joint solutions, next to random pairings of predictions and labels")
    for head in ("", "the table", "shuffled", "deviation", "p"):
        grid.add_column(head, justify="right" if head else "left", no_wrap=True)
    low, high = ranges.lowest, ranges.highest
    for name, hits, chance, sides in (
        ("hits", ranges.hits, ranges.chance, (low.trace, high.trace)),
        ("rare hits", ranges.rare_hits, ranges.rare_chance, (low.rare, high.rare)),
    ):
        one, other = sides
        p_values = sorted((one.p_above, other.p_above))
        deviation = f"{max(one.deviation, other.deviation):.1f}"
        p = f"<= {SMALLEST_P:.4f}" if p_values[1] <= SMALLEST_P else _range(p_values[0], p_values[1], 4)
        grid.add_row(name, _range(*hits), _range(chance[0], chance[1], 1), deviation, p)
    deviation = f"{max(low.kappa_deviation, high.kappa_deviation):.3f}"
    grid.add_row("kappa", _range(*ranges.kappa, 3), "0", deviation, "")
    grid.add_row("macro recall", _range(*ranges.macro_recall, 3), f"{1 / classes:.3f}", "", "")
    return grid


def _range(low: float, high: float, decimals: int = 0) -> str:
    one, other = (f"{value:z,.{decimals}f}" for value in (low, high))
    # A dash would read as a minus before a negative number.
    return one if one == other else f"{one} to {other}" if one.startswith("-") else f"{one}–{other}"
