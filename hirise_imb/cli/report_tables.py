"""The tables at the end of a command's output; they fit 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from rich.console import Console

from hirise_imb.cli.tables import empty_table
from hirise_imb.data.dataset import ClassSet
from hirise_imb.metrics.registry import METRICS, label_of
from hirise_imb.reporting import narrative
from hirise_imb.reporting.baseline import Baseline
from hirise_imb.reporting.formatting import MISSING, p_digits, score, signed
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import Contrast, Results
from hirise_imb.reporting.summary.given_split import describe_given_split
from hirise_imb.reporting.summary.records import GivenSplitRecord

_MAIN_WIDTH = 52
"""Width of the main table without comparisons and classes, in characters."""
_CONTRAST_WIDTH = 14
"""Width of the two columns of a comparison, in characters."""
_CLASS_WIDTH = 6
"""Width of the column of an abbreviated class, in characters."""
_IDENTICAL = "="
"""Mark in the column of p of an arm that predicts the same classes as the other one."""
_SHOWN_BEFORE = ("macro_f1", "macro_f1_rare")
"""Scores that are in the tables above the one with all other scores."""
_ARM_WIDTH = 20
_HEADING_WIDTH = 12
"""Longest words of arms and headings that are not folded, in characters."""


@dataclass(frozen=True)
class _Column:
    heading: str
    """Heading; its words are placed below each other."""
    cells: Sequence[str]
    """Cell of each arm, in the order of tables."""


def print_comparison(results: Results, console: Console) -> None:
    """Prints a row for each arm: macro F1 with its uncertainty, F1 of each class, and all other scores.

    The classes have columns in the first table where the console is wide enough, and tables of their own otherwise.
    """
    main_width = _MAIN_WIDTH + _CONTRAST_WIDTH * len(results.contrasts)
    wide = console.width >= main_width + _CLASS_WIDTH * len(results.classes)
    terms = results.terms
    title = f"{results.name}: macro F1{', and F1 of each class' if wide else ''} {terms.where}, mean over seeds"
    table = empty_table(title)
    # The names of a comparison's arms are long: they continue on the next line.
    table.add_column("arm", overflow="fold")
    titles = [terms.inner_short, terms.outer, "95 %\ninterval"]
    for contrast in results.contrasts:
        titles += [contrast.replace("_", "\n"), "p\nHolm"]
    codes = _codes(results.classes)
    classes = _class_columns(results, codes if wide else list(results.classes))
    for heading in (*titles, *(column.heading for column in classes if wide)):
        table.add_column(heading, justify="right", no_wrap=True)
    for n, arm in enumerate(results.ordered):
        if n == _first_strategy(results):
            table.add_section()
        table.add_row(arm.name, *_cells(results, arm), *(column.cells[n] for column in classes if wide))
    console.print(table)
    if not wide:
        _print_columns(results, console, f"F1 of each class {terms.where}, mean over seeds", classes)
    _print_columns(results, console, f"Other scores {terms.where}, mean over seeds", _score_columns(results))
    given = describe_given_split(results)
    if given is not None:
        _print_given_split(given, results.contrasts[0], console)
    left_out = [f"{strategy.name} is not applicable here: {strategy.reason}" for strategy in results.omitted]
    _print_words(
        console,
        narrative.headline(results),
        *([f"{given['caution']} The report of the given split is in the folder {given['folder']}."] if given else []),
        _key(results, codes if wide else []),
        *left_out,
        results.setting,
        results.pairing(),
        narrative.caution(results),
    )


def _print_given_split(given: GivenSplitRecord, contrast: Contrast, console: Console) -> None:
    """Prints the scores of the given split next to those of the nested cross-validation."""
    table = empty_table("The published protocol: the given split", 1)
    table.add_column("arm", overflow="fold", max_width=_ARM_WIDTH)
    for heading in ("val", "test", contrast.replace("_", "\n"), "95 %\ninterval", "p\nHolm", "outer"):
        table.add_column(heading, justify="right", no_wrap=True)
    for arm in given["arms"]:
        interval = arm["interval"]
        table.add_row(
            arm["name"],
            score(arm["val_macro_f1"]),
            score(arm["macro_f1"]),
            signed(arm["difference"]),
            f"{signed(interval['low'])} to {signed(interval['high'])}" if interval else MISSING,
            MISSING if arm["p_holm"] is None else p_digits(arm["p_holm"]),
            score(arm["outer_macro_f1"]),
        )
    console.print()
    console.print(table)


def _key(results: Results, codes: Sequence[str]) -> str:
    """Returns what the columns show, and the classes of abbreviations."""
    terms = results.terms
    where = "of all arms on the same landmarks"
    if results.origins:
        where = f"{terms.inner_short} in each report on its own {'folds' if terms.nested else 'landmarks'}"
    text = (
        f"{terms.inner_short}, {terms.outer}: macro F1, {where}. 95 % interval: confidence interval over sources. "
        "p Holm: swap test, adjusted for the number of tests in the column."
    )
    if results.averaged_controls:
        text += " vs control: the control that averages as many fits."
    if results.identical:
        text += f" {_IDENTICAL}: every {terms.landmark} gets the same class from both arms, so they are not tested."
    if results.classes.majority is not None:
        text += f" rare: mean F1 of all classes but {results.classes.majority}."
    if codes:
        pairs = zip(codes, results.classes, strict=True)
        text += f" Classes: {', '.join(f'{code} {name}' for code, name in pairs)}."
    others = [metric for name, metric in METRICS.items() if name not in _SHOWN_BEFORE]
    shortened = [f"{metric.short} ({metric.label})" for metric in others if metric.short != metric.label]
    return f"{text} Scores: {', '.join(shortened)}."


def _cells(results: Results, arm: Arm) -> list[str]:
    interval = results.inference.resamples[arm.name].interval()
    cells = [
        score(arm.val_macro_f1),
        score(results.macro(arm.name).mean),
        f"{score(interval.low)}-{score(interval.high)}" if interval else MISSING,
    ]
    for contrast in results.contrasts:
        other, tested = results.other_of(arm, contrast), results.families[contrast].tests.get(arm.name)
        is_identical = other is not None and results.identical.get(arm.name) == other
        cells.append(MISSING if other is None else _gain(results, arm, other))
        cells.append(p_digits(tested.p_holm) if tested else _IDENTICAL if is_identical else MISSING)
    return cells


def _class_columns(results: Results, headings: Sequence[str]) -> list[_Column]:
    """Returns the mean F1 of the rare classes, if there is a majority class, and the F1 of each class."""
    columns = []
    if results.classes.majority is not None:
        columns.append(_Column("rare", _score_cells(results, "macro_f1_rare")))
    for k, heading in enumerate(headings):
        cells = [_class_cell(results, arm, k) if results.support[k] else MISSING for arm in results.ordered]
        columns.append(_Column(heading, cells))
    return columns


def _class_cell(results: Results, arm: Arm, label: int) -> str:
    """Returns the F1 of a class, in colour if the seeds of arm and reference give ranges that do not overlap."""
    text = score(results.per_class(arm.name, "f1")[label].mean)
    if not results.clear(arm.name, "f1", results.reference)[label]:
        return text
    return _coloured(text, float(results.difference(arm.name, "f1", results.reference)[label]), clear=True)


def _score_columns(results: Results) -> list[_Column]:
    others = [metric for name, metric in METRICS.items() if name not in _SHOWN_BEFORE]
    return [_Column(metric.short, _score_cells(results, metric.name)) for metric in others]


def _score_cells(results: Results, metric: str) -> list[str]:
    spreads = [results.headline_scores(arm.name).get(metric) for arm in results.ordered]
    return [score(spread.mean if spread else None) for spread in spreads]


def _print_columns(results: Results, console: Console, title: str, columns: Sequence[_Column]) -> None:
    """Prints columns next to the names of the arms, in as many tables as the width of the console requires."""
    names = [arm.name for arm in results.ordered]
    names_width = min(_ARM_WIDTH, max(map(len, names)))
    space, parts = 0, list[list[_Column]]()
    for column in columns:
        width = 1 + max(min(_HEADING_WIDTH, len(word)) for word in [*column.heading.split(), "0.000"])
        if width > space:
            space = console.width - names_width
            parts.append([])
        parts[-1].append(column)
        space -= width
    for n, part in enumerate(parts):
        table = empty_table(title if n == 0 else f"{title}, continued")
        table.add_column("arm", overflow="fold", max_width=names_width)
        for column in part:
            heading = "\n".join(column.heading.split())
            table.add_column(heading, justify="right", overflow="fold", max_width=_HEADING_WIDTH)
        for place, name in enumerate(names):
            if place == _first_strategy(results):
                table.add_section()
            table.add_row(name, *(column.cells[place] for column in part))
        console.print()
        console.print(table)


def _first_strategy(results: Results) -> int:
    """Returns the row in which the strategies begin."""
    return len(results.ordered) - len(results.strategies)


def _codes(classes: ClassSet) -> list[str]:
    """Returns a distinct abbreviation for each class: three letters, or more where names begin with the same ones."""
    codes = []
    for name in classes:
        others = [other for other in classes if other != name]
        sizes = (size for size in count(3) if size >= len(name) or not any(o[:size] == name[:size] for o in others))
        codes.append(name[: next(sizes)].strip())
    return codes


def _gain(results: Results, arm: Arm, other: str) -> str:
    """Returns the difference in macro F1 to another arm, in colour if the ranges over seeds do not overlap."""
    if arm.name == other:
        return MISSING
    value = results.gain(arm.name, "macro_f1", other)
    return _coloured(signed(value), value, clear=results.gain_is_clear(arm.name, "macro_f1", other))


def _coloured(text: str, gain: float, *, clear: bool) -> str:
    return f"[{'dim' if not clear else 'green' if gain > 0 else 'red'}]{text}[/]"


def print_baseline(baseline: Baseline, console: Console) -> None:
    """Prints the published scores next to those of the reference run, aligned and shuffled."""
    table = empty_table(f"{baseline.results.name}: the published table and this model on the test split", 1)
    for title in ("class", "metric"):
        table.add_column(title, no_wrap=True)
    for title in ("published", "aligned", "shuffled", "95 % range", "in\nrange"):
        table.add_column(title, justify="right", no_wrap=True)
    last_name = ""
    for entry in baseline.entries:
        if entry.name != last_name:
            table.add_section()
        shuffled = entry.shuffled
        table.add_row(
            entry.name if entry.name != last_name else "",
            label_of(entry.metric),
            *(score(value) for value in (entry.published, entry.aligned, shuffled.mean if shuffled else None)),
            f"{score(shuffled.low)} to {score(shuffled.high)}" if shuffled else MISSING,
            {None: MISSING, True: "yes", False: "no"}[entry.published_in_range],
        )
        last_name = entry.name
    console.print(table)
    results = baseline.results
    _print_words(
        console, results.setting, baseline.headline(), baseline.reading(), results.pairing(), baseline.caution()
    )


def _print_words(console: Console, *words: str) -> None:
    """Prints sentences below a table; the last one, a caution, is dimmed."""
    for n, text in enumerate(words, 1):
        console.print(text, highlight=False, markup=False, style="dim" if n == len(words) else "")
