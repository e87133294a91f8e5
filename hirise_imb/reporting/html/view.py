"""The views of pages: everything that templates show, with every number computed and every sentence written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hirise_imb.metrics.registry import METRICS, Metric, label_of
from hirise_imb.reporting.formatting import MISSING, percent, plural, score
from hirise_imb.reporting.html.arm_tables import ArmTables, all_scores, reports_compared
from hirise_imb.reporting.html.details import (
    Detail,
    Panel,
    arm_detail,
    arm_panel,
    arm_title,
    class_interval_words,
    fit_words,
)
from hirise_imb.reporting.html.key_figures import baseline_keys, nested_keys, study_keys
from hirise_imb.reporting.html.parts import (
    Cell,
    Heading,
    KeyFigure,
    Row,
    Table,
    breakable,
    settings_text,
    text_table,
)
from hirise_imb.reporting.html.pictures import LandmarkPictures
from hirise_imb.reporting.html.selection_tables import SelectionView, class_differences, selection_view
from hirise_imb.reporting.html.study_tables import (
    data_table,
    given_split_table,
    operating_point_table,
    parameters_table,
    shared_words,
    strategies_table,
)
from hirise_imb.reporting.results import Contrast
from hirise_imb.reporting.summary.records import (
    ArmRecord,
    BaselineContent,
    Content,
    StudyContent,
)
from hirise_imb.reporting.terms import Terms, choose_terms

KINDS = {"study": "Study", "comparison": "Comparison of reports", "baseline": "Reference run"}
"""Descriptions of the kinds of reports."""


@dataclass(frozen=True)
class Extras:
    """Content of pages that is not part of the summary."""

    pictures: Mapping[str, str]
    """Figures as data addresses, by file name."""
    landmarks: LandmarkPictures | None
    """Pictures of landmarks; None for a page without any."""
    seconds: Mapping[str, float]
    """Wall time in seconds by arm."""
    study_toml: str
    environment: str


@dataclass(frozen=True)
class PageView:
    """The content that all kinds of pages have in common."""

    content: Content
    extras: Extras
    kind: str
    terms: Terms
    """Words of the design."""
    arms: tuple[ArmRecord, ...]
    """The arms in the order of tables."""
    base: ArmRecord
    """The reference arm."""
    most_seeds: int
    metrics: tuple[Metric, ...]
    rare_words: str
    """Sentence that says which classes are rare."""
    keys: tuple[KeyFigure, ...]
    scores: Table
    details: tuple[Detail, ...]
    data: Table
    fit_words: Mapping[str, str]
    """Sentences about the training of each arm, for Markdown."""


@dataclass(frozen=True)
class StudyView(PageView):
    """The content of the page of a study or a comparison."""

    compares: bool
    against: str
    """Name of the reference in sentences."""
    focus: ArmRecord
    """The arm whose classes are shown first."""
    focus_title: str
    focus_panel: Panel
    reports: Table | None
    every_arm: Table
    given_split: Table | None
    """Scores of the given split, in the report of a nested cross-validation."""
    class_f1: Table
    class_differences: Table | None
    """Differences from the control, or else the reference, in each class."""
    selection: SelectionView | None
    intervals: Table
    contrasts: tuple[Contrast, ...]
    """The comparisons with columns of their own, the primary one first."""
    any_identical: bool
    complete_share: str
    """Share of the resamples that draw all classes, in per cent."""
    dash_words: str
    """Sentence that says why intervals are missing; empty if none is."""
    operating_point: Table
    confidence: str
    searches: Table | None
    failures: Table | None
    cost: Table
    omitted: Table | None
    strategies: Table | None
    parameters: Table | None
    shared_words: tuple[str, ...]
    """Sentences about hyperparameters that several strategies share."""
    settings: Mapping[str, str]
    """Chosen hyperparameters by arm."""
    class_words: tuple[str, ...]
    """Reason why each class has no confidence interval, for Markdown."""


@dataclass(frozen=True)
class BaselineView(PageView):
    """The content of the page of a reference run."""

    published: Table
    seeds: str


def study_view(content: StudyContent, extras: Extras) -> StudyView:
    """Returns the view of the page of a study or a comparison."""
    compares = content["kind"] == "comparison"
    common = _common(content, extras)
    arms, base = common["arms"], common["base"]
    arms_by_name = {arm["name"]: arm for arm in arms}
    chosen = arms_by_name.get(content["chosen"] or "")
    candidates = content["shown"][1:] or content["order"][1:] or content["order"]
    focus = chosen or arms_by_name[next(arm["name"] for arm in arms if arm["name"] in candidates)]
    against = content["reference"] if compares else "the baseline"
    tables = ArmTables(content, arms, against)
    omitted = [(breakable(s["name"]), s["summary"], s["reason"]) for s in content["omitted"]]
    return StudyView(
        **common,
        keys=nested_keys(content, arms_by_name, tables.contrasts[0])
        if common["terms"].nested
        else study_keys(content, chosen, arms_by_name)
        if chosen
        else (),
        compares=compares,
        against=against,
        focus=focus,
        focus_title=arm_title(focus, base),
        focus_panel=arm_panel(content, focus, base, "Shown: "),
        reports=reports_compared(content, arms) if compares else None,
        every_arm=tables.every_arm(),
        given_split=given_split_table(content),
        class_f1=tables.class_f1(),
        class_differences=class_differences(content, arms, tables.contrasts[0]),
        selection=selection_view(content, arms),
        intervals=tables.intervals(),
        contrasts=tables.contrasts,
        any_identical=any(arm["identical_to"] is not None for arm in arms),
        complete_share=percent(content["inference"]["complete_share"]),
        dash_words=_dash_words(content, arms),
        operating_point=operating_point_table(content, [arm for arm in arms if arm["name"] in content["shown"]]),
        confidence=f"{base['decided']['confidence']:g}",
        searches=tables.searches(),
        failures=tables.failures(),
        cost=tables.cost(extras.seconds),
        omitted=text_table("Not applicable here", ("strategy", "what it does", "reason"), omitted, (1, 2))
        if omitted
        else None,
        strategies=strategies_table(content),
        parameters=parameters_table(content),
        shared_words=shared_words(content["shared_parameters"]),
        settings={arm["name"]: settings_text(arm) for arm in arms},
        class_words=tuple(class_interval_words(content, k) for k in range(len(content["classes"]))),
    )


def baseline_view(content: BaselineContent, extras: Extras) -> BaselineView:
    """Returns the view of the page of a reference run."""
    common = _common(content, extras)
    return BaselineView(
        **common,
        keys=baseline_keys(content),
        published=_published(content),
        seeds=plural(len(common["base"]["seeds"]), "seed"),
    )


def _common(content: Content, extras: Extras) -> dict[str, Any]:
    """Returns the fields that all kinds of pages have in common, except the key figures."""
    arms_by_name = {arm["name"]: arm for arm in content["arms"]}
    arms = tuple(arms_by_name[name] for name in content["order"])
    base = arms_by_name[content["reference"]]
    majority = content.get("majority")
    return {
        "content": content,
        "extras": extras,
        "kind": KINDS[content["kind"]] + (", nested cross-validation" if content["outer_folds"] is not None else ""),
        "terms": choose_terms(nested=content["outer_folds"] is not None),
        "arms": arms,
        "base": base,
        "most_seeds": max(len(arm["seeds"]) for arm in arms),
        "metrics": tuple(METRICS.values()),
        "rare_words": f"Rare classes are all but {majority}."
        if majority
        else "No class dominates, so all classes count as rare.",
        "scores": all_scores(arms),
        "details": tuple(arm_detail(content, arm, base, place) for place, arm in enumerate(arms, 1)),
        "data": data_table(content),
        "fit_words": {arm["name"]: fit_words(content, arm) for arm in arms},
    }


def _dash_words(content: StudyContent, arms: Sequence[ArmRecord]) -> str:
    inference = content["inference"]
    if inference["sources"] < inference["least_sources"]:
        return f"With fewer than {inference['least_sources']} sources no interval can be estimated."
    differences = [arm["vs_baseline"]["interval"] for arm in arms if arm["name"] != content["reference"]]
    if None in differences or any(arm["uncertainty"]["macro_f1"] is None for arm in arms):
        return "An interval is missing if all resamples are equal."
    return ""


def _published(content: BaselineContent) -> Table:
    """Returns the table of published, aligned and shuffled scores; the rows of a class share its heading."""
    titles = ("class", "metric", "published", "aligned", "shuffled", "95 % range", "in range")
    head = tuple(Heading(title, "", "name" if place < 2 else "") for place, title in enumerate(titles))
    sizes = Counter(row["class"] for row in content["comparison"])
    rows, previous = [], ""
    for row in content["comparison"]:
        low, high = row["shuffled_low"], row["shuffled_high"]
        between = MISSING if low is None or high is None else f"{score(low)} to {score(high)}"
        cells = (
            Cell(label_of(row["metric"]), css="name"),
            *(Cell(score(value)) for value in (row["published"], row["aligned"], row["shuffled"])),
            Cell(between),
            Cell({None: MISSING, True: "yes", False: "no"}[row["published_in_range"]]),
        )
        rows.append(Row(None if row["class"] == previous else row["class"], cells, rows=sizes[row["class"]]))
        previous = row["class"]
    return Table("Published, aligned and shuffled scores", "", (head,), tuple(rows))
