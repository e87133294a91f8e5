"""The content of `summary.json` as typed records, from which its schema is generated.

Strings in `Annotated` become titles in the schema. Lists over classes are in the order of the classes, and lists over
seeds in the order of the seeds of the arm. Values that can't be estimated are None.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict, get_args

from hirise_imb.metrics.bootstrap import UndrawnClasses
from hirise_imb.metrics.registry import CLASS_METRICS
from hirise_imb.reporting.records import Role
from hirise_imb.reporting.summary.json_schema import Rule
from hirise_imb.reporting.summary.values import (
    PER_CLASS,
    ArmName,
    ClassCounts,
    ClassDifferences,
    ClassIntervals,
    ClassMeans,
    ClassSpreads,
    ClassSpreadsOrNone,
    Count,
    Difference,
    FreeIntervalRecord,
    IntervalRecord,
    Mean,
    Positive,
    Probability,
    Score,
    ScoreDifferences,
    ScoreSpreads,
    Share,
)
from hirise_imb.reporting.verdict import Outcome

SCHEMA_VERSION: Literal[6] = 6

WHOLE_TABLE = ("accuracy", "macro_f1", "weighted_f1", "kappa")
"""Scores of the complete table in the comparison of the reference run with the published table."""


class ClassScoresRecord(TypedDict):
    """Precision, recall and F1 of each class over seeds."""

    precision: ClassSpreads
    recall: ClassSpreads
    f1: ClassSpreads


class ClassDifferencesRecord(TypedDict):
    """Differences between the means over seeds of two arms, for each class."""

    precision: ClassDifferences
    recall: ClassDifferences
    f1: ClassDifferences


class TrialRecord(TypedDict):
    """A finished trial of a search."""

    state: Literal["complete", "fail"]
    value: Annotated[Share | None, "Macro F1 on validation; null where the trial failed"]
    params: NotRequired[Annotated[dict[str, str | float | int | bool], "Its hyperparameters"]]
    error: NotRequired[Annotated[str, "Why the trial failed"]]


class SpaceRecord(TypedDict):
    """The range of a hyperparameter: two ends, or choices."""

    low: NotRequired[float]
    high: NotRequired[float]
    log: NotRequired[Annotated[bool, "Whether the scale is logarithmic"]]
    integer: NotRequired[bool]
    choices: NotRequired[list[str | float | int | bool]]


class TallyRecord(TypedDict):
    """Counts of the trials of a search by their final state, and the best trial."""

    trials: Count
    complete: Count
    failed: Count
    best_trial: Positive | None
    best_value: Score | None


class FailureRecord(TypedDict):
    """A reason why trials failed, and how many did."""

    reason: str
    trials: Positive


class UndrawnRecord(TypedDict):
    """Confidence intervals of macro F1 over sources under each rule for classes without a drawn source."""

    others_mean: Annotated[IntervalRecord | None, "An undrawn class counts as the mean of the drawn ones"]
    own_f1: Annotated[IntervalRecord | None, "An undrawn class keeps its F1 on the whole test split"]


class UncertaintyRecord(TypedDict):
    """Confidence intervals of an arm's scores."""

    score: Annotated[FreeIntervalRecord | None, "Of the target metric over sources"]
    macro_f1_undrawn: UndrawnRecord
    macro_f1_by_image: Annotated[IntervalRecord | None, "Over images as if they were independent, under the same rule"]
    f1: Annotated[ClassIntervals, "Over the sources of each class"]
    f1_without_each_source: Annotated[ClassIntervals, "Lowest and highest F1 when one source of the class is left out"]


class OperatingPointRecord(TypedDict):
    """Predictions that are shown to users at the confidence threshold; means over seeds."""

    confidence: Share
    coverage: Share
    accuracy: Share | None
    landmarks: Annotated[ClassMeans, "Landmarks with a shown prediction, by true class"]
    shown: Annotated[ClassMeans, "Landmarks with a shown prediction, by predicted class"]
    right: Annotated[ClassMeans, "Those whose true class is the predicted class"]


class SwapTestRecord(TypedDict):
    """The source-level swap test between two arms, as one of a family."""

    p: Probability
    p_holm: Probability
    resolvable: Annotated[
        Annotated[float, Rule(exclusiveMinimum=0)] | None,
        "Minimum detectable difference; null if no difference could be significant",
    ]
    informative_sources: Count
    exact: bool


class AgainstRecord(TypedDict):
    """The differences between an arm and another."""

    arm: Annotated[ArmName, "The other arm"]
    scores: ScoreDifferences
    per_class: ClassDifferencesRecord
    per_class_interval: Annotated[
        ClassIntervals,
        "Confidence interval of the difference in F1 over the sources of each class, not corrected for the number of "
        "comparisons",
    ]
    interval: Annotated[FreeIntervalRecord | None, "Confidence interval over sources of the difference in the target"]
    share_above: Annotated[Share | None, "Share of resamples in which this arm has the higher score"]
    test: Annotated[SwapTestRecord | None, "Null if the comparison is not one of its family"]


class StatisticRecord(TypedDict):
    """The hits of a fit compared with shuffled pairings."""

    observed: Mean
    mean: Mean
    deviation: Mean
    p_above: Share
    p_below: Share


class SelectionRecord(TypedDict):
    """What was selected for an arm in one division of the data."""

    division: Annotated[str, "The given split, or an outer fold"]
    settings: Annotated[dict[str, str | float | int | bool], "Hyperparameters that the search chose"]
    recipe: Annotated[
        dict[str, Any],
        "The complete recipe",
        Rule(
            required=["cut", "monitor"],
            properties={"cut": {"type": "string"}, "monitor": {"enum": ["val_loss", "val_macro_f1", "none"]}},
        ),
    ]
    val_score: Annotated[Score, "Validation score: the target metric in the cross-validation of this division"]
    trials: Annotated[list[TrialRecord], "Finished trials, in order"]
    space: NotRequired[Annotated[dict[str, SpaceRecord], "Range of each hyperparameter of the search"]]
    search: TallyRecord


class StabilityRecord(TypedDict):
    """The values that the divisions chose for a hyperparameter."""

    name: str
    values: Annotated[list[str | float | int | bool], "Different values, the most frequent first"]
    divisions: Annotated[list[Positive], "Number of divisions that chose each value"]


class SelectionCostRecord(TypedDict):
    """The scores by which the settings of an arm were chosen, next to those on sources that were not used for it."""

    best_trial: Annotated[
        Score | None, "Score by which the chosen trial was chosen, mean over divisions; null without a search"
    ]
    inner: Annotated[Score, "Score of the recipe with other seeds and folds, mean over divisions"]
    outer: Annotated[Score, "Score of the pooled predictions of the tested landmarks, mean over fits"]
    luck: Annotated[float | None, "Score of the chosen trial minus the inner score; null without a search"]
    gap: Annotated[float, "Inner minus outer score"]
    tuning_gain: Annotated[
        float | None, "Chosen trial minus the first one, which has the defaults; null without a search"
    ]
    control_gain_inner: Annotated[float | None, "Inner score minus that of its control; null for the control"]
    control_gain_outer: Annotated[float | None, "Outer score minus that of its control; likewise"]
    distinct_settings: Annotated[Positive, "Number of different settings that the divisions chose"]
    divisions_as_control: Annotated[
        Count | None, "Divisions in which all fits predict the same classes as those of the control; likewise"
    ]
    stability: Annotated[list[StabilityRecord], "Chosen values of each hyperparameter"]


class ArmRecord(TypedDict):
    """An arm: the baseline, a control or the chosen recipes of a strategy."""

    name: ArmName
    role: Annotated[str, Rule(enum=list(get_args(Role)))]
    members: Annotated[list[Positive], "Fits or heads whose log-probabilities are averaged, by division"]
    identical_to: Annotated[
        ArmName | None, "The arm it is compared with, if both predict the same classes for every seed"
    ]
    summary: str
    selections: Annotated[list[SelectionRecord], "One for each division of the data", Rule(minItems=1)]
    seeds: Annotated[list[Count], "Seeds of the fits, in the order of all lists over seeds", Rule(minItems=1)]
    has_epochs: Annotated[bool, "Whether the arm is trained in epochs; false for a closed-form head"]
    curves: NotRequired[Annotated[ArmName, "The arm whose file of learning curves is also that of this arm"]]
    best_epochs: Annotated[
        list[list[Count]],
        "Epochs of the final fits, or best epochs, by seed and division of its repeat; 0 for a closed-form head",
    ]
    capped: Annotated[list[list[bool]], "Whether the best epoch is the last one allowed, likewise"]
    notes: Annotated[list[str], "What the fits had to do differently from the recipe"]
    temperatures: Annotated[list[list[Annotated[float, Rule(exclusiveMinimum=0)]]], "Fitted temperatures, likewise"]
    val_score: Annotated[Score, "Validation score: mean over divisions"]
    selection_cost: SelectionCostRecord
    failures: list[FailureRecord]
    scores: ScoreSpreads
    per_class: ClassScoresRecord
    average_precision: Annotated[ClassSpreadsOrNone, "Null for a class without a test landmark"]
    uncertainty: UncertaintyRecord
    decided: OperatingPointRecord
    vs_control: Annotated[AgainstRecord | None, "Against the control that averages as many; the primary contrast"]
    vs_baseline: Annotated[AgainstRecord, "Against the reference"]
    pairing: Annotated[list[StatisticRecord], "One for each seed; empty if there are too few landmarks to shuffle"]
    confusion: Annotated[list[ClassMeans], "Mean counts over seeds; rows are true classes", PER_CLASS]


DataRecord = TypedDict(
    "DataRecord",
    {
        "split": Literal["train", "val", "test"],
        "class": str,
        "sources": Count,
        "landmarks": Count,
        "images": Count,
        "rows": Count,
    },
)
"""The counts of a class in a split."""


class FamilyRecord(TypedDict):
    """A family of tests, whose p values are adjusted together."""

    tests: Count
    resolvable: Annotated[FreeIntervalRecord | None, "Minimum detectable differences: lowest and highest over arms"]


class RankCorrelationRecord(TypedDict):
    """Spearman's rank correlation between validation score and test score over distinct arms."""

    arms: Count
    rho: Annotated[Difference | None, "Null for fewer than three arms or equal scores"]
    p: Annotated[Probability | None, "Two-sided, from random orders"]


class OuterFoldRecord(TypedDict):
    """The outer fold of a source in a nested cross-validation."""

    repeat: Positive
    fold: Positive
    source: str


class GivenSplitArmRecord(TypedDict):
    """The scores of an arm on the given split, next to its score in the nested cross-validation."""

    name: ArmName
    val_score: Annotated[Score, "Validation score"]
    score: Annotated[Score, "Target metric on the test split, mean over seeds"]
    difference: Annotated[float | None, "Difference of the primary contrast; null for the control"]
    interval: Annotated[FreeIntervalRecord | None, "Its confidence interval over the test sources"]
    p_holm: Annotated[Probability | None, "p of the swap test, adjusted for the family; null if it is not tested"]
    outer_score: Annotated[Score | None, "Target metric in the outer folds; null if the arm is not in the other report"]


class GivenSplitRecord(TypedDict):
    """The results of the given split, whose complete report is in a folder inside that of the nested report."""

    folder: Literal["given-split"]
    landmarks: Annotated[Positive, "Landmarks of the test split"]
    sources: Annotated[Positive, "Sources of the test split"]
    tests: Annotated[Count, "Tests of the primary contrast"]
    caution: str
    arms: Annotated[list[GivenSplitArmRecord], "Arms in the order of the tables of that report", Rule(minItems=1)]


class InferenceRecord(TypedDict):
    """How uncertainty was estimated."""

    level: Share
    alpha: Share
    draws: Positive
    sources: Positive
    least_sources: Positive
    no_sources: NotRequired[Annotated[str, "What follows from a data set that names no sources"]]
    undrawn: Annotated[
        str, "Rule of intervals for classes without a drawn source", Rule(enum=list(get_args(UndrawnClasses)))
    ]
    complete_share: Annotated[Share, "Share of the resamples that draw all classes of the test split"]
    vs_control: Annotated[FamilyRecord, "Strategies against the control that averages as many"]
    vs_baseline: Annotated[FamilyRecord, "The control and the strategies against the reference"]


class OmittedRecord(TypedDict):
    """A strategy that could not be used on this data."""

    name: str
    summary: str
    reason: str


class OriginRecord(TypedDict):
    """A report that a comparison takes arms from."""

    name: str
    study: str
    setting: str
    arms: list[ArmName]
    chosen: ArmName | None


class ParameterRecord(TypedDict):
    """A hyperparameter of a search, as declared."""

    name: str
    range: str
    default: str | float | bool | None
    help: str
    source: str
    when: str | None
    strategies: NotRequired[list[str]]


class StrategyRecord(TypedDict):
    """A strategy, as declared."""

    name: str
    summary: str
    source: str
    family: NotRequired[Annotated[str, "Group in tables; empty without one, missing in earlier reports"]]
    starts_from: list[str]
    parameters: list[ParameterRecord]


FigureRecord = TypedDict(
    "FigureRecord",
    {
        "class": str,
        "metric": Annotated[str, Rule(enum=[*CLASS_METRICS, *WHOLE_TABLE])],
        "published": Difference | None,
        "aligned": Difference | None,
        "shuffled": Difference | None,
        "shuffled_low": Difference | None,
        "shuffled_high": Difference | None,
        "published_in_range": bool | None,
    },
)
"""A published score, and the scores of this model with aligned and with shuffled labels."""


class MetricRecord(TypedDict):
    """The target metric of a study, which searches maximise, and which intervals and tests are of."""

    key: Annotated[str, "Key among the scores of arms", Rule(pattern="^[a-z][a-z0-9_]*$")]
    name: Annotated[str, "Value of `metric` in the definition"]
    label: Annotated[str, "Name in headings"]
    costs: Annotated[list[str], "Value of `costs` in the definition"]


class Facts(TypedDict):
    """The content that all kinds of pages have in common."""

    schema_version: Literal[6]
    study: Annotated[str, "Name of the study, or of the comparison", Rule(minLength=1)]
    setting: Annotated[str, "What was run"]
    pairing: Annotated[str, "Whether predictions and labels belong together"]
    classes: Annotated[list[str], "The classes, in the order of their ids", Rule(minItems=2, uniqueItems=True)]
    majority: Annotated[str | None, "The majority class; null if there is none"]
    support: Annotated[ClassCounts, "Number of test landmarks of each class"]
    sources: Annotated[ClassCounts, "Number of test sources of each class"]
    data: Annotated[list[DataRecord], "Counts by split and class"]
    metric: MetricRecord
    reference: Annotated[ArmName, "The arm that all others are compared with"]
    control: Annotated[ArmName | None, "The tuned recipe without a remedy; null if it is not among the arms"]
    chosen: Annotated[ArmName | None, "The strategy with the best validation score"]
    order: Annotated[list[ArmName], "Arms in the order of tables"]
    shown: Annotated[list[ArmName], "Arms in figures with a line for each arm"]
    outer_folds: Annotated[list[OuterFoldRecord] | None, "Outer fold of each source; null for the given split"]
    given_split: Annotated[
        GivenSplitRecord | None, "Results of the given split, if the study also evaluated it; null in its own report"
    ]
    trial_seeds: Annotated[Positive | None, "Seeds of the cross-validation that scores a recipe; null if unknown"]
    inference: InferenceRecord
    rank_correlation: Annotated[RankCorrelationRecord | None, "Null for a comparison of reports"]
    arms: Annotated[list[ArmRecord], "The arms, the reference first", Rule(minItems=1)]
    omitted: Annotated[list[OmittedRecord], "Strategies that could not be used on this data"]
    origins: Annotated[list[OriginRecord], "The reports that are compared"]


class CardRecord(TypedDict):
    """One reason why the results are as certain as they are."""

    title: str
    text: str


class VerdictRecord(TypedDict):
    """The answer of a report."""

    outcome: Annotated[
        str,
        "Whether a strategy beats the control significantly, none does, or the best one is worse",
        Rule(enum=list(get_args(Outcome))),
    ]
    headline: Annotated[str, "The answer in a sentence"]
    advice: Annotated[str, "Which arm to choose, with its difference from the control; empty if nothing was compared"]
    choice: Annotated[ArmName | None, "The arm that the advice names; null in a comparison"]
    cards: Annotated[list[CardRecord], "The reasons, the most important first"]


class StudyContent(Facts):
    """The content of the page of a study or a comparison."""

    kind: Literal["study", "comparison"]
    verdict: VerdictRecord
    headline: str
    caution: str
    protocol: list[str]
    strategies: list[StrategyRecord]
    shared_parameters: list[ParameterRecord]


class BaselineContent(Facts):
    """The content of the page of a reference run."""

    kind: Literal["baseline"]
    headline: str
    caution: str
    reading: str
    comparison: list[FigureRecord]


Content = StudyContent | BaselineContent
"""The content of the pages of a report as plain values, without times."""


class Summary(Facts):
    """The `summary.json` of any kind of report; `schema` adds which keys each kind has."""

    kind: Annotated[Literal["study", "comparison", "baseline"], "Kind of report"]
    verdict: NotRequired[Annotated[VerdictRecord, "The answer in short"]]
    headline: Annotated[str, "The answer"]
    caution: Annotated[str, "Limits of the numbers"]
    protocol: NotRequired[Annotated[list[str], "How choices were made"]]
    strategies: NotRequired[Annotated[list[StrategyRecord], "The strategies as declared"]]
    shared_parameters: NotRequired[Annotated[list[ParameterRecord], "Hyperparameters that several strategies share"]]
    reading: NotRequired[Annotated[str, "What the published table is"]]
    comparison: NotRequired[Annotated[list[FigureRecord], "Published scores and scores of this model"]]
    files: Annotated[
        dict[str, Annotated[str, Rule(pattern="^[0-9a-f]{64}$")]],
        "SHA-256 of each file of the report except this one",
        Rule(propertyNames={"pattern": "^[^/]"}),
    ]
