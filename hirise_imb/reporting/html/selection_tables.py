"""The parts of a page about the differences of each class, and about what selection cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hirise_imb.reporting.formatting import join_words, p_value, plural, score, signed
from hirise_imb.reporting.html.parts import (
    Cell,
    Difference,
    Heading,
    Table,
    arm_row,
    columns,
    number,
    signed_interval,
)
from hirise_imb.reporting.results import Contrast
from hirise_imb.reporting.summary.records import AgainstRecord, ArmRecord, StabilityRecord, StudyContent
from hirise_imb.reporting.terms import choose_terms


@dataclass(frozen=True)
class SelectionView:
    """What selection cost, as a table and in sentences."""

    title: str
    inner: str
    """Name of the scores in a cross-validation of the pool."""
    outer: str
    """Name of the scores on sources that were not used for it."""
    words: tuple[str, ...]
    table: Table


def class_differences(content: StudyContent, arms: Sequence[ArmRecord], contrast: Contrast) -> Table | None:
    """Returns the differences in F1 from another arm for each class; None if no arm is compared.

    The majority class comes first. Differences whose interval excludes 0 are emphasised.
    """
    order = sorted(range(len(content["classes"])), key=lambda k: content["classes"][k] != content["majority"])
    headings = []
    for place, k in enumerate(order):
        name = content["classes"][k]
        cost = ("the cost",) if name == content["majority"] else ()
        notes = (*cost, f"n = {content['support'][k]}", plural(content["sources"][k], "source"))
        # A line separates the majority class from the others.
        css = "edge" if place == 0 or (place == 1 and content["majority"] is not None) else ""
        headings.append(Heading(name, css=css, notes=notes))
    rows = []
    for arm in arms:
        against = arm[contrast]
        if against is None or against["arm"] == arm["name"]:
            continue
        cells = [
            _class_cell(against, k, heading.css) if content["support"][k] else Cell(css=heading.css)
            for k, heading in zip(order, headings, strict=True)
        ]
        rows.append(arm_row(arm, cells))
    head = columns(Heading("arm", "text"), *headings)
    return Table("Differences of each class", "sort sticky loose", (head,), tuple(rows)) if rows else None


def _class_cell(against: AgainstRecord, label: int, css: str) -> Cell:
    gain, interval = against["per_class"]["f1"][label], against["per_class_interval"][label]
    notes = (signed_interval(interval),) if interval else ()
    return Cell("", gain, css=css, notes=notes, difference=Difference.with_interval(gain, interval))


def selection_view(content: StudyContent, arms: Sequence[ArmRecord]) -> SelectionView | None:
    """Returns what selection cost; None for a comparison, whose reports may have chosen on different landmarks."""
    if content["kind"] == "comparison":
        return None
    terms = choose_terms(nested=content["outer_folds"] is not None)
    inner, outer = terms.inner, terms.outer
    words = (
        *_correlation_words(content, inner, outer),
        *_gain_words(content, arms, inner, outer),
        *_gap_words(content, arms, inner),
        *_unchanged_words(arms),
    )
    return SelectionView("What selection cost", inner, outer, words, _selection_table(content, arms, inner, outer))


def _selection_table(content: StudyContent, arms: Sequence[ArmRecord], inner: str, outer: str) -> Table:
    nested = content["outer_folds"] is not None
    first_row = [
        Heading("arm", "text", "name", rows=2),
        Heading(content["metric"]["label"], "", "group edge", columns=3),
        Heading("difference", "", "group edge", columns=2),
        Heading("gain of tuning", "", "group edge"),
    ]
    second_row = [
        Heading("best trial", css="edge"),
        Heading(inner),
        Heading(outer),
        Heading("luck", css="edge", notes=(f"best trial - {inner}",), ascending=True),
        Heading("gap", notes=(f"{inner} - {outer}",), ascending=True),
        Heading("best trial", css="edge", notes=("over the defaults",)),
    ]
    if content["control"]:
        first_row.append(Heading("gain over its control", "", "group edge", columns=2))
        second_row += [Heading(inner, css="edge"), Heading(outer)]
    if nested:
        first_row.append(Heading("chosen settings", "", "group edge", columns=3 if content["control"] else 2))
        second_row.append(
            Heading(
                "different", css="edge", notes=(f"of {plural(len(arms[0]['selections']), 'fold')}",), ascending=True
            )
        )
        if content["control"]:
            second_row.append(Heading("no change", notes=("predicts as its control",), ascending=True))
        second_row.append(Heading("values (folds)", "", "name"))
    rows = []
    for arm in arms:
        cost = arm["selection_cost"]
        cells = [
            Cell(score(cost["best_trial"]), cost["best_trial"]).edge(),
            Cell(score(cost["inner"]), cost["inner"]),
            Cell(score(cost["outer"]), cost["outer"]),
            _signed_cell(cost["luck"]).edge(),
            _signed_cell(cost["gap"]),
            _signed_cell(cost["tuning_gain"]).edge(),
        ]
        if content["control"]:
            cells += [_signed_cell(cost["control_gain_inner"]).edge(), _signed_cell(cost["control_gain_outer"])]
        if nested:
            cells.append((number(cost["distinct_settings"]) if _was_searched(arm) else Cell()).edge())
            if content["control"]:
                cells.append(_share_cell(cost["divisions_as_control"], arm))
            cells.append(Cell(_stability_text(cost["stability"], len(arm["selections"])), css="settings narrow"))
        rows.append(arm_row(arm, cells))
    head = (tuple(first_row), columns(*second_row, start=1))
    return Table("What selection cost", "sort sticky loose", head, tuple(rows))


def _signed_cell(value: float | None) -> Cell:
    return Cell(signed(value), value)


def _share_cell(count: int | None, arm: ArmRecord) -> Cell:
    return Cell() if count is None else Cell(f"{count} of {len(arm['selections'])}", count)


def _stability_text(stabilities: Sequence[StabilityRecord], divisions: int) -> str:
    """Returns the chosen values, with the number of divisions that chose each where it is not all of them."""
    texts = []
    for stability in stabilities:
        values = [value if isinstance(value, str) else f"{value:.4g}" for value in stability["values"]]
        if stability["divisions"] != [divisions]:
            pairs = zip(values, stability["divisions"], strict=True)
            values = [f"{value} ({count})" for value, count in pairs]
        texts.append(f"{stability['name']} = {', '.join(values)}")
    return "; ".join(texts)


def _was_searched(arm: ArmRecord) -> bool:
    return any(selection["trials"] for selection in arm["selections"])


def _correlation_words(content: StudyContent, inner: str, outer: str) -> Iterator[str]:
    correlation = content["rank_correlation"]
    if correlation is not None and correlation["rho"] is not None and correlation["p"] is not None:
        yield (
            f"Over {correlation['arms']} distinct arms, the Spearman rank correlation between {inner} and {outer} "
            f"scores is {correlation['rho']:.2f} ({p_value(correlation['p'])})."
        )


def _gain_words(content: StudyContent, arms: Sequence[ArmRecord], inner: str, outer: str) -> Iterator[str]:
    tuning = [gain for arm in arms if (gain := arm["selection_cost"]["tuning_gain"]) is not None]
    if tuning:
        yield (
            f"The chosen trials score {signed(_mean(tuning))} against the first ones, which have the defaults (mean of "
            f"{plural(len(tuning), 'arm')})."
        )
    luck = [one for arm in arms if (one := arm["selection_cost"]["luck"]) is not None]
    if luck:
        yield (
            f"With other seeds and other folds, their recipes score {signed(-_mean(luck))}: that much of it was the "
            f"luck of the best trial. All arms are compared by these {inner} scores."
        )
    by_name = {arm["name"]: arm for arm in arms}
    control = by_name.get(content["control"] or "")
    longest = next((arm for arm in arms if arm["role"] == "baseline_to_the_end"), None)
    if control is not None and longest is not None:
        cost = longest["selection_cost"]
        assert cost["control_gain_inner"] is not None
        assert cost["control_gain_outer"] is not None
        yield (
            f"The tuned control differs from {longest['name']}, which is not tuned, by "
            f"{signed(-cost['control_gain_inner'])} on the {inner} and {signed(-cost['control_gain_outer'])} on the "
            f"{outer} score."
        )
    chosen = by_name.get(content["chosen"] or "")
    if chosen is not None and (gain := chosen["selection_cost"]["control_gain_inner"]) is not None:
        yield (
            f"The strategy with the best {inner} score, {chosen['name']}, differs from its control by {signed(gain)} "
            f"on the {inner} and {signed(chosen['selection_cost']['control_gain_outer'])} on the {outer} score."
        )


def _gap_words(content: StudyContent, arms: Sequence[ArmRecord], inner: str) -> Iterator[str]:
    gaps = [arm["selection_cost"]["gap"] for arm in arms if _was_searched(arm)]
    longest = next((arm for arm in arms if arm["role"] == "baseline_to_the_end"), None)
    if not gaps:
        return
    if content["outer_folds"] is not None:
        yield (
            "Inner scores pool the inner folds of all landmarks outside an outer fold, and outer scores pool the outer "
            "folds: both are about the same landmarks, apart from one fold."
        )
    else:
        yield "The two scores are about different landmarks, so a gap also measures how the splits differ."
    text = (
        f"{inner.capitalize()} scores are of settings that were chosen on the same landmarks, which raises them, and "
        "of fits on fewer sources, which lowers them."
    )
    if longest is not None:
        fixed = longest["selection_cost"]["gap"]
        text += (
            f" The gap of {longest['name']}, {signed(fixed)}, has no part from a search; that of the arms with a "
            f"search is {signed(_mean(gaps))} on average, a difference of {signed(_mean(gaps) - fixed)}."
        )
    yield text


def _unchanged_words(arms: Sequence[ArmRecord]) -> Iterator[str]:
    if all(len(arm["selections"]) == 1 for arm in arms):
        return
    unchanged = [
        f"{arm['name']} ({count} of {len(arm['selections'])})"
        for arm in arms
        if arm["role"] == "strategy" and (count := arm["selection_cost"]["divisions_as_control"])
    ]
    if unchanged:
        yield f"In some outer folds the choice changes no prediction of the control: {join_words(unchanged)}."


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
