"""Types of the values in `summary.json`: numbers with their limits, lists over classes, and scores by metric."""

from __future__ import annotations

from typing import Annotated, TypedDict

from hirise_imb.metrics.registry import METRICS, Metric
from hirise_imb.reporting.summary.json_schema import Rule, Schema

PER_CLASS_COMMENT = "one entry for each class"
"""Comment that marks lists over classes in the schema.

No schema can compare the lengths of two lists, so a validator for the number of classes checks the marked lists.
"""

_SHARE = Rule(minimum=0, maximum=1)
_DIFFERENCE = Rule(minimum=-1, maximum=1)
_COUNT = Rule(minimum=0)
_POSITIVE = Rule(minimum=1)
PER_CLASS = Rule(**{"$comment": PER_CLASS_COMMENT})
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"

Share = Annotated[float, _SHARE]
Difference = Annotated[float, _DIFFERENCE]
Score = Annotated[float, Rule(maximum=1)]
"""A target metric, which may be below 0: savings are, if predictions cost more than those of a constant."""
Count = Annotated[int, _COUNT]
Positive = Annotated[int, _POSITIVE]
Mean = Annotated[float, _COUNT]
Probability = Annotated[float, Rule(exclusiveMinimum=0, maximum=1)]
ArmName = Annotated[str, Rule(pattern=f"^{_NAME}(/{_NAME})?$")]
"""Name of an arm, part of the paths of its files; in a comparison, the label of its report and a slash precede it."""


def _scores(values: dict[str, Schema], unknown: Schema) -> Rule:
    """Returns the rule for an object with a value for each registered metric.

    Earlier reports lack metrics that were registered later, and reports of programs with plug-ins may have more. So all
    metrics but macro F1 are optional, and unknown names may have any value of the right form.
    """
    pattern = {"^[a-z][a-z0-9_]*$": unknown}
    return Rule(required=["macro_f1"], properties=values, patternProperties=pattern, additionalProperties=False)


def _number(low: float | None, high: float | None) -> Schema:
    limits = {"minimum": low, "maximum": high}
    return {"type": "number"} | {key: limit for key, limit in limits.items() if limit is not None}


def _spread(low: float | None, high: float | None) -> Schema:
    ends = ("mean", "low", "high")
    properties = {end: _number(low, high) for end in ends}
    return {"type": "object", "required": list(ends), "properties": properties, "additionalProperties": False}


def _gain(metric: Metric) -> Schema:
    largest = None if metric.high is None or metric.low is None else metric.high - metric.low
    return _number(None if largest is None else -largest, largest)


class SpreadRecord(TypedDict):
    """Mean, lowest and highest score over seeds."""

    mean: Share
    low: Share
    high: Share


class FreeSpreadRecord(TypedDict):
    """Mean, lowest and highest value over seeds of a metric that has its own limits."""

    mean: float
    low: float
    high: float


class IntervalRecord(TypedDict):
    """A confidence interval over sources, or a range of scores."""

    low: Difference
    high: Difference


class FreeIntervalRecord(TypedDict):
    """A confidence interval of the target metric, or of a difference in it."""

    low: float
    high: float


ClassCounts = Annotated[list[Count], PER_CLASS]
ClassMeans = Annotated[list[Mean], PER_CLASS]
ClassSpreads = Annotated[list[SpreadRecord], PER_CLASS]
ClassSpreadsOrNone = Annotated[list[SpreadRecord | None], PER_CLASS]
ClassIntervals = Annotated[list[IntervalRecord | None], PER_CLASS]
ClassDifferences = Annotated[list[Difference], PER_CLASS]

ScoreSpreads = Annotated[
    dict[str, FreeSpreadRecord],
    "Registered scores on the test split",
    _scores({m.name: _spread(m.low, m.high) for m in METRICS.values()}, _spread(None, None)),
]
ScoreDifferences = Annotated[
    dict[str, float],
    "Differences between means over seeds",
    _scores({m.name: _gain(m) for m in METRICS.values()}, {"type": "number"}),
]
