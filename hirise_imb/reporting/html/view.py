"""The views of pages: everything that templates show, with every number computed and every sentence written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hirise_imb.metrics.registry import METRICS, Metric, label_of
from hirise_imb.reporting.formatting import MISSING, percent, plural, score
from hirise_imb.reporting.html.arm_table import ArmTable
from hirise_imb.reporting.html.arm_tables import ArmTables, all_scores, reports_compared
from hirise_imb.reporting.html.panels import (
    ArmFigure,
    Panel,
    arm_figures,
    arm_panel,
    class_interval_words,
    fit_words,
)
from hirise_imb.reporting.html.parts import (
    Cell,
    Heading,
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
    parameters_table,
    shared_words,
    strategies_table,
)
from hirise_imb.reporting.pairing import PASSED
from hirise_imb.reporting.results import Contrast
from hirise_imb.reporting.summary.records import (
    ArmRecord,
    BaselineContent,
    CardRecord,
    Content,
    StudyContent,
    VerdictRecord,
)
from hirise_imb.reporting.terms import Terms, choose_terms

KINDS = {"study": "Study", "comparison": "Comparison of reports", "baseline": "Reference run"}
"""Descriptions of the kinds of reports."""


@dataclass(frozen=True)
class Extras:
    """Content of pages that is not part of the summary."""

    pictures: Mapping[str, str]
    """Figures by file name."""
    arm_pictures: Mapping[str, Mapping[str, str]]
    """File names of the figures about one arm, by their kind and the name of the arm."""
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
    alignment_doubt: str
    """Result of the check whether predictions and labels belong together, if it did not pass; otherwise empty."""
    most_seeds: int
    metrics: tuple[Metric, ...]
    rare_words: str
    """Sentence that says which classes are rare."""
    cards: Sequence[CardRecord]
    """Short facts at the top of the page."""
    focus: ArmRecord
    """The arm whose panel is shown first, and the only one without scripts and on paper."""
    panels: tuple[Panel, ...]
    """The panel of each arm, in the order of tables."""
    arm_figures: tuple[ArmFigure, ...]
    scores: Table
    data: Table
    fit_words: Mapping[str, str]
    """Sentences about the training of each arm, for Markdown."""


@dataclass(frozen=True)
class StudyView(PageView):
    """The content of the page of a study or a comparison."""

    compares: bool
    against: str
    """Name of the reference in sentences."""
    verdict: VerdictRecord
    reports: Table | None
    arm_table: Table
    chance: str
    """Sentence about the strategies that are distinguishable from chance."""
    given_split: Table | None
    """Scores of the given split, in the report of a nested cross-validation."""
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
    candidates = content["shown"][1:] or content["order"][1:] or content["order"]
    first = content["verdict"]["choice"] or next(name for name in content["order"] if name in candidates)
    common = _common(content, extras, first)
    arms, base = common["arms"], common["base"]
    against = content["reference"] if compares else "the baseline"
    tables, arm_table = ArmTables(content, arms), ArmTable(content, arms, against)
    omitted = [(breakable(s["name"]), s["summary"], s["reason"]) for s in content["omitted"]]
    return StudyView(
        **common,
        verdict=content["verdict"],
        cards=content["verdict"]["cards"],
        compares=compares,
        against=against,
        reports=reports_compared(content, arms) if compares else None,
        arm_table=arm_table.build(),
        chance=arm_table.describe_chance(),
        given_split=given_split_table(content),
        class_differences=class_differences(content, arms, arm_table.contrasts[0]),
        selection=selection_view(content, arms),
        intervals=tables.intervals(),
        contrasts=arm_table.contrasts,
        any_identical=any(arm["identical_to"] is not None for arm in arms),
        complete_share=percent(content["inference"]["complete_share"]),
        dash_words=_dash_words(content, arms),
        confidence=f"{base['decided']['confidence']:g}",
        searches=tables.searches(),
        failures=tables.failures(),
        cost=tables.cost(extras.seconds),
        omitted=text_table("Strategies without a result", ("strategy", "what it does", "reason"), omitted, (1, 2))
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
    common = _common(content, extras, content["reference"])
    return BaselineView(
        **common,
        cards=baseline_cards(content),
        published=_published(content),
        seeds=plural(len(common["base"]["seeds"]), "seed"),
    )


def _common(content: Content, extras: Extras, focus: str) -> dict[str, Any]:
    """Returns the fields that all kinds of pages have in common, except the cards."""
    arms_by_name = {arm["name"]: arm for arm in content["arms"]}
    arms = tuple(arms_by_name[name] for name in content["order"])
    majority = content.get("majority")
    return {
        "content": content,
        "extras": extras,
        "kind": KINDS[content["kind"]] + (", nested cross-validation" if content["outer_folds"] is not None else ""),
        "terms": choose_terms(nested=content["outer_folds"] is not None),
        "arms": arms,
        "base": arms_by_name[content["reference"]],
        "focus": arms_by_name[focus],
        "alignment_doubt": "" if content["pairing"].startswith(PASSED) else content["pairing"],
        "most_seeds": max(len(arm["seeds"]) for arm in arms),
        "metrics": tuple(METRICS.values()),
        "rare_words": f"Rare classes are all but {majority}."
        if majority
        else "No class dominates, so all classes count as rare.",
        "panels": tuple(arm_panel(content, arm, arms_by_name) for arm in arms),
        "arm_figures": arm_figures(extras.arm_pictures),
        "scores": all_scores(arms),
        "data": data_table(content),
        "fit_words": {arm["name"]: fit_words(content, arm) for arm in arms},
    }


def baseline_cards(content: BaselineContent) -> list[CardRecord]:
    """Returns the scores of the complete table, and how many published scores lie in the shuffled range."""
    cards: list[CardRecord] = []
    for row in content["comparison"]:
        if row["class"] != "all" or row["metric"] == "weighted_f1":
            continue
        text = f"{score(row['aligned'])} with aligned labels, {score(row['shuffled'])} with shuffled labels"
        if row["shuffled_low"] is not None and row["shuffled_high"] is not None:
            text += f" (95 % range {score(row['shuffled_low'])} to {score(row['shuffled_high'])})"
        term = label_of(row["metric"])
        cards.append({"title": f"{term[0].upper()}{term[1:]}", "text": f"{text}."})
    in_range = [row["published_in_range"] for row in content["comparison"] if row["published_in_range"] is not None]
    text = f"{sum(in_range)} of {len(in_range)} lie in the 95 % range of this model's predictions with shuffled labels."
    return [*cards, {"title": "Published scores", "text": text}]


def _dash_words(content: StudyContent, arms: Sequence[ArmRecord]) -> str:
    inference = content["inference"]
    if inference["sources"] < inference["least_sources"]:
        return f"With fewer than {inference['least_sources']} sources no interval can be estimated."
    differences = [arm["vs_baseline"]["interval"] for arm in arms if arm["name"] != content["reference"]]
    if None in differences or any(arm["uncertainty"]["score"] is None for arm in arms):
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
