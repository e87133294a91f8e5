"""The panel of a page about one arm: its classes, its confusion matrices, and how it was selected and fitted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from hirise_imb.reporting.formatting import count_range, p_digits, p_value, percent, plural, score, signed, upper_first
from hirise_imb.reporting.html.parts import (
    Cell,
    Difference,
    Heading,
    Matrix,
    Row,
    Span,
    Table,
    columns,
    common_scale,
    interval_cell,
    matrix,
    matrix_difference,
    number,
    settings_text,
    signed_interval,
    spread_cell,
)
from hirise_imb.reporting.html.study_tables import operating_point_table
from hirise_imb.reporting.summary.records import AgainstRecord, ArmRecord, Content
from hirise_imb.reporting.summary.values import IntervalRecord
from hirise_imb.reporting.terms import choose_terms


@dataclass(frozen=True)
class Panel:
    """The content of a page about one arm, of which the page shows one at a time."""

    name: str
    summary: str
    other: str
    """Name of the arm that it is compared with; empty for an arm that is compared with none."""
    scores: str
    """Its macro F1 and the difference from the other arm, in a sentence."""
    words: str
    """Sentences about its hyperparameters, fits and tests."""
    classes: Table
    matrices: tuple[Matrix, ...]
    operating_point: Table


@dataclass(frozen=True)
class ArmFigure:
    """A figure about one arm, or about several arms that share a fit."""

    name: str
    """Name of its files."""
    kind: str
    """`curves` or `hyperparameters`."""
    arms: tuple[str, ...]


def arm_figures(pictures: Mapping[str, Mapping[str, str]]) -> tuple[ArmFigure, ...]:
    """Returns the figures of single arms, each with all arms that it belongs to.

    Args:
        pictures: names of figures by kind and arm.
    """
    figures: dict[tuple[str, str], list[str]] = {}
    for kind, by_arm in pictures.items():
        for arm, name in by_arm.items():
            figures.setdefault((kind, name), []).append(arm)
    return tuple(ArmFigure(name, kind, tuple(arms)) for (kind, name), arms in figures.items())


def arm_panel(content: Content, arm: ArmRecord, arms: Mapping[str, ArmRecord]) -> Panel:
    """Returns the panel of an arm.

    Args:
        content: content of the page.
        arm: the arm.
        arms: all arms by name.
    """
    against = _comparison(arm)
    other = arms[against["arm"]] if against else None
    name, classes, support = arm["name"], content["classes"], content["support"]
    matrices = [matrix(f"Confusion of {name}", name, classes, support, arm["confusion"])]
    if other is not None:
        minus = f"{name} minus {other['name']}"
        pair = arm["confusion"], other["confusion"]
        matrices.append(matrix_difference(f"Confusion of {minus}", f"Difference: {minus}", classes, support, pair))
    sentences = (fit_words(content, arm), _temperatures(arm), _test_words(content, arm))
    return Panel(
        name=name,
        summary=arm["summary"],
        other=other["name"] if other else "",
        scores=_score_words(content, arm, against),
        words=" ".join(filter(None, sentences)),
        classes=_class_table(content, arm, against),
        matrices=tuple(matrices),
        operating_point=operating_point_table(content, [arm] if other is None else [other, arm]),
    )


def _comparison(arm: ArmRecord) -> AgainstRecord | None:
    """Returns the comparison that a panel shows: with the control, or else with the reference."""
    return next((one for one in (arm["vs_control"], arm["vs_baseline"]) if one and one["arm"] != arm["name"]), None)


def _score_words(content: Content, arm: ArmRecord, against: AgainstRecord | None) -> str:
    terms = choose_terms(nested=content["outer_folds"] is not None)
    metric = content["metric"]
    key = metric["key"]
    text = f"{upper_first(metric['label'])} {score(arm['scores'][key]['mean'])} {terms.where}"
    if against is not None:
        interval = against["interval"]
        between = f" (95 % interval {signed_interval(interval)})" if interval else ""
        text += f", {signed(against['scores'][key])}{between} against {against['arm']}"
    return f"{text}."


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
    title = "Fitted temperatures" if len(values) > 1 else "Fitted temperature"
    return f"{title}: {', '.join(values)}." if values else ""


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
            texts.append(
                f"Its {content['metric']['label']} is higher in {percent(against['share_above'])} % of the resamples."
            )
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


def _class_table(content: Content, arm: ArmRecord, against: AgainstRecord | None) -> Table:
    """Returns the table of scores of each class, with the differences from the other arm."""
    difference = [Heading(f"F1 minus {against['arm']}", notes=("95 % interval",))] if against else []
    head = columns(
        Heading("class", "text"),
        *(Heading(title) for title in ("n", "sources", "precision", "recall", "F1")),
        Heading("F1: 95 % interval over sources"),
        *difference,
        Heading("average precision"),
        Heading("F1 without one source"),
    )
    scale = common_scale(against["per_class_interval"]) if against else (0.0, 0.0)
    rows = []
    for k, name in enumerate(content["classes"]):
        cells = [number(content["support"][k]), number(content["sources"][k])]
        if content["support"][k]:
            cells += _score_cells(arm, against, k, scale, _class_interval(content, arm["uncertainty"]["f1"][k], k))
        else:
            words = Cell(class_interval_words(content, k), css="wrap soft")
            cells += [Cell(), Cell(), Cell(), words, *(Cell() for _ in difference), Cell()]
        rows.append(Row(name, (*cells, interval_cell(arm["uncertainty"]["f1_without_each_source"][k]))))
    return Table(f"Classes of {arm['name']}", "sort sticky loose", (head,), tuple(rows))


def _score_cells(
    arm: ArmRecord, against: AgainstRecord | None, label: int, scale: tuple[float, float], interval: Cell
) -> list[Cell]:
    """Returns the scores of a class; only differences in F1 have intervals, so no other is emphasised."""
    seeds, scores = len(arm["seeds"]), arm["per_class"]
    gains = against["per_class"] if against else None
    precision, recall = (Difference.of(gains[metric][label]) if gains else None for metric in ("precision", "recall"))
    cells = [
        spread_cell(scores["precision"][label], seeds, precision),
        spread_cell(scores["recall"][label], seeds, recall),
        replace(spread_cell(scores["f1"][label], seeds), bold=True),
        interval,
    ]
    if against is not None:
        gain, ends = against["per_class"]["f1"][label], against["per_class_interval"][label]
        notes = (signed_interval(ends),) if ends else ()
        cells.append(
            Cell(
                "",
                gain,
                "gap",
                notes=notes,
                difference=Difference.with_interval(gain, ends),
                span=Span.of(ends, gain, scale),
            )
        )
    return [*cells, spread_cell(arm["average_precision"][label], seeds)]


def _class_interval(content: Content, interval: IntervalRecord | None, label: int) -> Cell:
    if interval is not None:
        return interval_cell(interval)
    few = content["sources"][label] < content["inference"]["least_sources"]
    return Cell("too few sources" if few else class_interval_words(content, label), css="wrap soft")
