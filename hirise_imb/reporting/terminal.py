"""The tables that commands end with; they fit 80 columns."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from hirise_imb.landmarks import CLASSES
from hirise_imb.reporting.baseline import Baseline
from hirise_imb.reporting.results import BASELINE, Results
from hirise_imb.reporting.style import METRIC_NAMES, score

_PER_TABLE = 4
"""Strategies beside the baseline that fit 80 columns."""


def print_comparison(results: Results, console: Console) -> None:
    """F1 of each class for the baseline and each strategy, with the difference to the baseline."""
    names = [arm.name for arm in results.arms if arm.name != BASELINE]
    for start in range(0, len(names), _PER_TABLE):
        console.print(_table(results, names[start : start + _PER_TABLE]))
    _print_words(console, results.setting, results.headline(), results.pairing(), results.caution())


def print_baseline(baseline: Baseline, console: Console) -> None:
    """The published figures beside the reference run's, aligned and shuffled."""
    table = _empty(f"{baseline.results.name}: the published table and this model on the test split")
    for title in ("class", "metric"):
        table.add_column(title, no_wrap=True)
    for title in ("published", "aligned", "shuffled", "95 % range", "in\nrange"):
        table.add_column(title, justify="right", no_wrap=True)
    before = ""
    for entry in baseline.entries:
        if entry.name != before:
            table.add_section()
        law = entry.shuffled
        table.add_row(
            entry.name if entry.name != before else "",
            METRIC_NAMES[entry.metric],
            *(score(value) for value in (entry.published, entry.aligned, law.mean if law else None)),
            f"{score(law.low)} to {score(law.high)}" if law else "–",
            {None: "–", True: "yes", False: "no"}[entry.published_in_range],
        )
        before = entry.name
    console.print(table)
    results = baseline.results
    _print_words(
        console, results.setting, baseline.headline(), baseline.reading(), results.pairing(), baseline.caution()
    )


def _print_words(console: Console, *words: str) -> None:
    """Sentences below a table, the last of them, a caution, in the background."""
    for n, text in enumerate(words, 1):
        console.print(text, highlight=False, style="dim" if n == len(words) else "")


def _empty(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        pad_edge=False,
        show_edge=False,
    )


def _table(results: Results, names: list[str]) -> Table:
    table = _empty(f"{results.name}: F1 on the test split (difference to the baseline)")
    table.add_column("class", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    for name in (BASELINE, *names):
        table.add_column(name.replace("_", "\n"), justify="right")
    base = [spread.mean for spread in results.per_class(BASELINE, "f1")]
    for k, label in enumerate(CLASSES):
        if results.support[k] == 0:
            table.add_row(label, "0", *["–"] * (1 + len(names)))
            continue
        cells = [_cell(results.per_class(name, "f1")[k].mean, base[k], results.clear(name, "f1")[k]) for name in names]
        table.add_row(label, str(results.support[k]), f"{base[k]:.2f}", *cells)
    table.add_section()
    for metric in ("macro_f1", "macro_f1_rare", "weighted_f1", "accuracy"):
        before = results.headline_scores(BASELINE)[metric].mean
        cells = [_cell(results.headline_scores(name)[metric].mean, before, False) for name in names]
        table.add_row(metric.replace("_", " ").replace("f1", "F1"), "", f"{before:.2f}", *cells)
    return table


def _cell(value: float, base: float, clear: bool) -> str:
    """The value and its difference, in colour where the ranges over seeds lie apart."""
    difference = value - base
    colour = "dim" if not clear else "green" if difference > 0 else "red"
    return f"{value:.2f} [{colour}]{difference:+.2f}[/]"
