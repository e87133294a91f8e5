"""Details of a single arm on a page: its classes, its confusion matrices, and how it was fitted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hirise_imb.reporting.formatting import count_range, p_digits, p_value, percent, plural, score
from hirise_imb.reporting.html.parts import (
    Cell,
    Difference,
    Heading,
    Matrix,
    Row,
    Table,
    columns,
    interval_cell,
    matrix,
    matrix_difference,
    number,
    settings_text,
    spread_cell,
)
from hirise_imb.reporting.records import Spread
from hirise_imb.reporting.summary.records import ArmRecord, Content
from hirise_imb.reporting.summary.values import IntervalRecord
from hirise_imb.reporting.terms import choose_terms


@dataclass(frozen=True)
class Panel:
    """The class scores of an arm in a table, and its confusion matrices."""

    table: Table
    matrices: tuple[Matrix, ...]


@dataclass(frozen=True)
class Detail:
    """The details of one arm."""

    number: int
    name: str
    summary: str
    macro_f1: str
    words: str
    title: str
    panel: Panel
    has_epochs: bool
    cross_validated: bool
    """Whether the curves of validation come from the cross-validation, as for all arms but the published baseline."""


def arm_title(arm: ArmRecord, base: ArmRecord) -> str:
    """Returns the title of an arm's panel."""
    return arm["name"] if arm["name"] == base["name"] else f"{arm['name']} against {base['name']}"


def arm_panel(content: Content, arm: ArmRecord, base: ArmRecord, before: str = "") -> Panel:
    """Returns the class scores of an arm and of the reference.

    Args:
        content: content of the page.
        arm: the arm.
        base: the reference.
        before: prefix of the labels of all regions; labels must be unique on a page for screen readers.
    """
    name, classes, support = arm["name"], content["classes"], content["support"]
    matrices = [matrix(f"{before}Confusion of {name}", name, classes, support, arm["confusion"])]
    if name != base["name"]:
        label = f"{before}Confusion of {base['name']}, next to {name}"
        matrices.insert(0, matrix(label, base["name"], classes, support, base["confusion"]))
        minus = f"{name} minus {base['name']}"
        pair = arm["confusion"], base["confusion"]
        label, title = f"{before}Confusion of {minus}", f"Difference: {minus}"
        matrices.append(matrix_difference(label, title, classes, support, pair))
    return Panel(_class_table(content, arm, base, f"{before}Classes of {name}"), tuple(matrices))


def arm_detail(content: Content, arm: ArmRecord, base: ArmRecord, place: int) -> Detail:
    """Returns the details of an arm; `place` counts from 1."""
    return Detail(
        number=place,
        name=arm["name"],
        summary=arm["summary"],
        macro_f1=score(arm["scores"]["macro_f1"]["mean"]),
        words=" ".join(filter(None, (fit_words(content, arm), _temperatures(arm), _test_words(content, arm)))),
        title=arm_title(arm, base),
        panel=arm_panel(content, arm, base),
        has_epochs=arm["has_epochs"],
        cross_validated=arm["role"] != "baseline",
    )


def fit_words(content: Content, arm: ArmRecord) -> str:
    """Returns sentences about the chosen hyperparameters and the fits of an arm."""
    terms = choose_terms(nested=content["outer_folds"] is not None)
    plural_s = "s" if len(arm["seeds"]) > 1 else ""
    seeds = f"seed{plural_s} {', '.join(map(str, arm['seeds']))}"
    chosen = ""
    if settings := settings_text(arm):
        trials = max(len(selection["trials"]) for selection in arm["selections"])
        chosen = f"{settings}; chosen from {plural(trials, 'trial')}{terms.division}. "
    if max(arm["members"]) > 1:
        chosen += f"Each prediction averages {count_range(arm['members'])} members. "
    notes = "".join(f" {note[0].upper()}{note[1:].rstrip('.')}." for note in arm["notes"])
    if arm["identical_to"] is not None:
        notes += (
            f" Identical to {name_twin(content, arm['identical_to'])}: both predict the same class for every "
            f"{terms.landmark} and seed, so it is not tested."
        )
    if not arm["has_epochs"]:
        return f"{chosen}Closed-form head, which has no epochs; {seeds}.{notes}"
    epochs = ", ".join(_fold_values(map(str, values)) for values in arm["best_epochs"])
    if arm["role"] == "baseline":
        monitor = arm["selections"][0]["recipe"]["monitor"]
        words = f"Early stopping monitored {monitor}; best epoch{plural_s} {epochs} of {seeds}."
    else:
        words = f"Fitted on {terms.pool}; epochs of {seeds}: {epochs}."
    return f"{chosen}{words}{notes}"


def _temperatures(arm: ArmRecord) -> str:
    values = [_fold_values(f"{value:.2f}" for value in of_seed) for of_seed in arm["temperatures"]]
    title = "Temperatures" if len(values) > 1 else "Temperature"
    return f"{title} fitted without the tested landmarks: {', '.join(values)}." if values else ""


def _fold_values(values: Iterable[str]) -> str:
    """Returns the value of the given split, or those of all outer folds in brackets."""
    texts = list(values)
    return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"


def _test_words(content: Content, arm: ArmRecord) -> str:
    """Returns sentences about the tests against the control and the reference; empty for the reference itself."""
    texts = []
    for against in (arm["vs_control"], arm["vs_baseline"]):
        if against is None or (test := against["test"]) is None:
            continue
        exchanges = "every exchange" if test["exact"] else f"{content['inference']['draws']:,} random exchanges"
        texts.append(
            f"Hits and predictions differ from those of {against['arm']} in {test['informative_sources']} of "
            f"{content['inference']['sources']} sources; the swap test used {exchanges} of them ({p_value(test['p'])}, "
            f"{p_digits(test['p_holm'])} after Holm)."
        )
        if test["informative_sources"] and against["share_above"] is not None:
            texts.append(f"Its macro F1 is higher in {percent(against['share_above'])} % of the resamples.")
    return " ".join(texts)


def name_twin(content: Content, twin: str) -> str:
    """Returns the name of an arm that others are identical to: `the control`, `the baseline`, or its own."""
    return {content["control"]: "the control", content["reference"]: "the baseline"}.get(twin, twin)


def class_interval_words(content: Content, label: int) -> str:
    """Returns why a class has no confidence interval."""
    support, sources = content["support"][label], content["sources"][label]
    if not support:
        return f"no {choose_terms(nested=content['outer_folds'] is not None).landmark}"
    if sources < content["inference"]["least_sources"]:
        return f"n = {support} from {plural(sources, 'source')}: no interval can be estimated"
    return "no interval: all resamples are equal"


def _class_table(content: Content, arm: ArmRecord, base: ArmRecord, label: str) -> Table:
    """Returns the table of scores of each class, compared with the reference."""
    has_reference = arm["name"] != base["name"]
    reference = [Heading(f"F1, {base['name']}")] if has_reference else []
    head = columns(
        Heading("class", "text"),
        *(Heading(title) for title in ("n", "sources", "precision", "recall", "average precision")),
        *reference,
        Heading(f"F1, {arm['name']}" if has_reference else "F1"),
        *([Heading("difference")] if has_reference else []),
        Heading("F1: 95 % interval over sources"),
        Heading("F1 without one source"),
    )
    rows = [
        Row(
            name,
            (
                number(content["support"][k]),
                number(content["sources"][k]),
                *(_score_cells(arm, base, k) if content["support"][k] else _no_scores(has_reference)),
                _class_interval(content, arm["uncertainty"]["f1"][k], k),
                interval_cell(arm["uncertainty"]["f1_without_each_source"][k]),
            ),
        )
        for k, name in enumerate(content["classes"])
    ]
    return Table(label, "sort sticky loose", (head,), tuple(rows))


def _score_cells(arm: ArmRecord, base: ArmRecord, label: int) -> list[Cell]:
    seeds, gains, has_reference = len(arm["seeds"]), arm["vs_baseline"], arm["name"] != base["name"]

    def difference(gain: float, clear: bool) -> Difference | None:
        return Difference.of(gain, clear) if has_reference else None

    scores, base_f1 = arm["per_class"], base["per_class"]["f1"][label]
    per_class, clear = gains["per_class"], gains["per_class_clear"]
    f1 = spread_cell(scores["f1"][label], seeds)
    f1 = Cell(f1.text, f1.value, bold=True, notes=f1.notes)
    cells = [
        spread_cell(
            scores["precision"][label], seeds, difference(per_class["precision"][label], clear["precision"][label])
        ),
        spread_cell(scores["recall"][label], seeds, difference(per_class["recall"][label], clear["recall"][label])),
        _average_precision(arm, base, label),
        *([spread_cell(base_f1, len(base["seeds"])).edge(), f1] if has_reference else [f1.edge()]),
    ]
    if has_reference:
        gain = per_class["f1"][label]
        cells.append(Cell("", gain, difference=Difference.of(gain, clear["f1"][label])))
    return cells


def _average_precision(arm: ArmRecord, base: ArmRecord, label: int) -> Cell:
    """Returns the average precision of a class, with its difference from the reference (means over seeds)."""
    spread, base_spread = arm["average_precision"][label], base["average_precision"][label]
    if spread is None or base_spread is None:
        return Cell()
    if arm["name"] == base["name"]:
        return spread_cell(spread, len(arm["seeds"]))
    several = len(arm["seeds"]) > 1 and len(base["seeds"]) > 1
    clear = several and Spread(**spread).apart(Spread(**base_spread))
    return spread_cell(spread, len(arm["seeds"]), Difference.of(spread["mean"] - base_spread["mean"], clear))


def _no_scores(has_reference: bool) -> list[Cell]:
    f1 = [Cell().edge(), Cell(), Cell()] if has_reference else [Cell().edge()]
    return [Cell(), Cell(), Cell(), *f1]


def _class_interval(content: Content, interval: IntervalRecord | None, label: int) -> Cell:
    if interval is not None and content["support"][label]:
        return interval_cell(interval).edge()
    return Cell(class_interval_words(content, label), css="edge wrap soft")
