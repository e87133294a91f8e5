"""The tables that commands end with; they fit 80 columns."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from hirise_imb.data.hirise import CLASSES
from hirise_imb.reporting import narrative
from hirise_imb.reporting.baseline import Baseline
from hirise_imb.reporting.figures.style import METRIC_NAMES, SHORT, chance, score, signed
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import Results

_WIDE = 120
"""Columns from which on every class has one."""


def print_comparison(results: Results, console: Console) -> None:
    """One row an arm: macro F1 on validation and test, how sure, and F1 of what it may cost and is to gain."""
    wide = console.width >= _WIDE
    table = _empty(f"{results.name}: macro F1, and F1 on the test split, mean over seeds", 0 if wide else 1)
    # The names of a comparison's arms are long: they go on in the next line.
    table.add_column("arm", overflow="fold")
    titles = ["val", "test", "95 %\ninterval", "vs\nbaseline", *(["vs\ncontrol"] if results.control else []), "p\nHolm"]
    for title in (*titles, *(("rare", *SHORT) if wide else ["other"])):
        table.add_column(title, justify="right", no_wrap=True)
    for n, arm in enumerate(results.ordered):
        if n == len(results.ordered) - len(results.strategies):
            table.add_section()
        table.add_row(arm.name, *_cells(results, arm, wide))
    console.print(table)
    where = "val in each report on its own landmarks" if results.origins else "of all arms on the same landmarks"
    key = (
        f"val, test: macro F1, {where}. 95 % interval: over sources. p Holm: swap test against the baseline, adjusted "
        "for the number of arms."
    )
    if wide:
        names = ", ".join(f"{short} {name}" for short, name in zip(SHORT, CLASSES, strict=True))
        key += f" rare: mean F1 of the seven classes that are not other. Classes: {names}."
    left_out = [f"{strategy.name} is not applicable here: {strategy.reason}" for strategy in results.omitted]
    _print_words(
        console,
        narrative.headline(results),
        key,
        *left_out,
        results.setting,
        results.pairing(),
        narrative.caution(results),
    )


def _cells(results: Results, arm: Arm, wide: bool) -> list[str]:
    f1, interval = results.per_class(arm.name, "f1"), results.inference.resamples[arm.name].interval()
    tested = results.inference.tests.get(arm.name)
    cells = [
        score(arm.val_macro_f1),
        score(results.macro(arm.name).mean),
        f"{score(interval.low)}-{score(interval.high)}" if interval else "–",
        *(_gain(results, arm, other) for other in results.references.values() if other is not None),
        chance(tested.p_holm) if tested else "–",
    ]
    if wide:
        cells.append(score(results.headline_scores(arm.name)["macro_f1_rare"].mean))
    clear = results.clear(arm.name, "f1", results.reference)
    gains = results.difference(arm.name, "f1", results.reference)
    for k in range(len(CLASSES) if wide else 1):
        text = score(f1[k].mean) if results.support[k] else "–"
        cells.append(_coloured(text, float(gains[k]), clear[k]) if clear[k] else text)
    return cells


def _gain(results: Results, arm: Arm, other: str) -> str:
    """The difference in macro F1 to another arm, in colour where the ranges over seeds lie apart."""
    if arm.name == other:
        return "–"
    value = results.gain(arm.name, "macro_f1", other)
    return _coloured(signed(value), value, results.gain_is_clear(arm.name, "macro_f1", other))


def _coloured(text: str, gain: float, clear: bool) -> str:
    return f"[{'dim' if not clear else 'green' if gain > 0 else 'red'}]{text}[/]"


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
        console.print(text, highlight=False, markup=False, style="dim" if n == len(words) else "")


def _empty(title: str, padding: int = 1) -> Table:
    """A table without rows; `padding` is the room between columns beyond one character."""
    return Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, padding),
        pad_edge=False,
        show_edge=False,
    )
