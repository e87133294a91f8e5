"""The end of a command's output: the answer of a report in at most twelve lines, which fit 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from hirise_imb.metrics.targets import MACRO_F1
from hirise_imb.reporting.baseline import ALL, Baseline
from hirise_imb.reporting.formatting import MISSING, score
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import Results
from hirise_imb.reporting.verdict import verdict

MAX_LINES = 12
"""Number of lines of the end of a command's output."""
_NAME_WIDTH = 24
"""Width of the name of a class or an arm, in characters; longer ones are shortened."""


def print_comparison(results: Results, page: Path, console: Console) -> None:
    """Prints the verdict, the F1 of each rare class for the arms that it is about, and the path of the page."""
    answer = verdict(results)
    lines = [line for line in (answer.headline, answer.advice) if line]
    arms = _choose_arms(results, answer.choice, console.width)
    table = _arrange_by_arm(results, arms)
    if Measurement.get(console, console.options.update(width=10 * console.width), table).maximum > console.width:
        table = _arrange_by_class(results, arms, _count_free_lines([*lines, _describe(page)], console) - 1)
    for n, line in enumerate(lines):
        console.print(line, style="bold" if n == 0 else None)
    console.print(table)
    print_path(page, console)


def print_baseline(baseline: Baseline, page: Path, console: Console) -> None:
    """Prints the published F1 of each class next to that of the reference run, and the path of the page."""
    results, sentence = baseline.results, baseline.verdict()
    table = _make_table("F1", ("published", "this model", "shuffled pairing", "in range"))
    entries = [entry for entry in baseline.entries if entry.metric == "f1" and entry.name != ALL]
    if len(entries) > _count_free_lines([sentence, _describe(page)], console) - 1:
        entries = [entry for entry in entries if entry.name != results.classes.majority]
    for entry in entries:
        shuffled = entry.shuffled
        table.add_row(
            entry.name,
            score(entry.published),
            score(entry.aligned),
            f"{score(shuffled.low)} to {score(shuffled.high)}" if shuffled else MISSING,
            {None: MISSING, True: "yes", False: "no"}[entry.published_in_range],
        )
    console.print(sentence, style="bold")
    console.print(table)
    print_path(page, console)


def print_path(page: Path, console: Console) -> None:
    """Prints the path of a page in one piece, so that it can be copied."""
    console.print(_describe(page), soft_wrap=True)


def _describe(page: Path) -> str:
    return f"Report: {page}"


def _count_free_lines(lines: Sequence[str], console: Console) -> int:
    """Returns how many lines are left next to some that are broken at the width of the console."""
    return MAX_LINES - sum(len(Text(line).wrap(console, console.width)) for line in lines)


def _choose_arms(results: Results, choice: str | None, width: int) -> list[Arm]:
    """Returns the reference, the control, and the strategy that the verdict or else validation prefers.

    A comparison has the preferred arms of all its reports, as far as they fit the width.
    """
    names = {arm.name for arm in results.shown} if choice is None else {results.reference, choice}
    if choice is not None and results.control is not None:
        names.add(results.control.name)
    if results.chosen is not None and len(names) < 3:
        names.add(results.chosen.name)
    return [arm for arm in results.ordered if arm.name in names][: max(2, (width - 2 * _NAME_WIDTH) // 16 + 1)]


def _arrange_by_arm(results: Results, arms: Sequence[Arm]) -> Table:
    """Returns a table with a column for each rare class; the words of headings are below each other."""
    rare = results.classes.rare_ids
    table = _make_table(
        "F1" if results.target is MACRO_F1 else "F1 of classes",
        ["\n".join(name.split()) for name in (results.target.label, *(results.classes[k] for k in rare))],
    )
    table.add_row("landmarks", str(len(results.test)), *(str(results.support[k]) for k in rare))
    for arm in arms:
        table.add_row(
            arm.name, score(results.main_score(arm.name).mean), *(_class_score(results, arm, k) for k in rare)
        )
    return table


def _arrange_by_class(results: Results, arms: Sequence[Arm], n_rows: int) -> Table:
    """Returns a table with a row for each rare class; where they do not fit, for the rarest ones.

    Args:
        results: results to show.
        arms: arms to show.
        n_rows: largest number of rows.
    """
    table = _make_table("F1", ["landmarks", *(arm.name for arm in arms)])
    rare = list(results.classes.rare_ids)
    if len(rare) < n_rows:
        macro = (score(results.main_score(arm.name).mean) for arm in arms)
        table.add_row(results.target.label, str(len(results.test)), *macro)
    n_left_out = 0 if len(rare) <= n_rows else len(rare) - (n_rows - 1)
    by_support = sorted(rare, key=lambda label: results.support[label])
    for label in sorted(by_support[: len(rare) - n_left_out]):
        cells = (_class_score(results, arm, label) for arm in arms)
        table.add_row(results.classes[label], str(results.support[label]), *cells)
    if n_left_out:
        table.add_row(f"{n_left_out} more on the page")
    return table


def _class_score(results: Results, arm: Arm, label: int) -> str:
    return score(results.per_class(arm.name, "f1")[label].mean) if results.support[label] else MISSING


def _make_table(first: str, headings: Sequence[str]) -> Table:
    """Returns a table without rows and lines."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True, overflow="ellipsis", max_width=_NAME_WIDTH, vertical="bottom")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True, overflow="ellipsis", max_width=_NAME_WIDTH)
    return table
