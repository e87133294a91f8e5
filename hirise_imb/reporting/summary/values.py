"""Numbers, lists over classes and scores by metric, as `summary.json` holds them, with their limits."""

from __future__ import annotations

from typing import Annotated, TypedDict

from hirise_imb.metrics.registry import METRICS, Metric
from hirise_imb.reporting.summary.json_schema import Rule, Schema

PER_CLASS_COMMENT = "one entry for each class"
"""Marks lists over classes: their length, which no schema can compare, is checked when a summary is read."""

_SHARE = Rule(minimum=0, maximum=1)
_DIFFERENCE = Rule(minimum=-1, maximum=1)
_COUNT = Rule(minimum=0)
_POSITIVE = Rule(minimum=1)
PER_CLASS = Rule(**{"$comment": PER_CLASS_COMMENT})
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"

Share = Annotated[float, _SHARE]
Difference = Annotated[float, _DIFFERENCE]
Count = Annotated[int, _COUNT]
Positive = Annotated[int, _POSITIVE]
Mean = Annotated[float, _COUNT]
Probability = Annotated[float, Rule(exclusiveMinimum=0, maximum=1)]
ArmName = Annotated[str, Rule(pattern=f"^{_NAME}(/{_NAME})?$")]
"""As in the paths of its files; in a comparison, with the name of its report before a slash."""


def _scores(values: dict[str, Schema], unknown: Schema) -> Rule:
    """The rule for a value of each registered metric.

    Earlier reports lack the metrics that were registered after them, and reports of other programs may have more, so
    all but macro F1 may be missing, and names that are not known take any value of the right form.
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
    most = None if metric.high is None or metric.low is None else metric.high - metric.low
    return _number(None if most is None else -most, most)


class SpreadRecord(TypedDict):
    """Mean, lowest and highest score over seeds."""

    mean: Share
    low: Share
    high: Share


class FreeSpreadRecord(TypedDict):
    """Mean, lowest and highest value over seeds of a metric with limits of its own."""

    mean: float
    low: float
    high: float


class IntervalRecord(TypedDict):
    """A confidence interval over sources, or the lowest and highest of some scores."""

    low: Difference
    high: Difference


ClassCounts = Annotated[list[Count], PER_CLASS]
ClassMeans = Annotated[list[Mean], PER_CLASS]
ClassSpreads = Annotated[list[SpreadRecord], PER_CLASS]
ClassSpreadsOrNone = Annotated[list[SpreadRecord | None], PER_CLASS]
ClassIntervals = Annotated[list[IntervalRecord | None], PER_CLASS]
ClassDifferences = Annotated[list[Difference], PER_CLASS]
ClassFlags = Annotated[list[bool], PER_CLASS]

ScoreSpreads = Annotated[
    dict[str, FreeSpreadRecord],
    "Registered scores on the test split",
    _scores({m.name: _spread(m.low, m.high) for m in METRICS.values()}, _spread(None, None)),
]
ScoreDifferences = Annotated[
    dict[str, float],
    "Differences of means over seeds",
    _scores({m.name: _gain(m) for m in METRICS.values()}, {"type": "number"}),
]
ScoreFlags = Annotated[
    dict[str, bool],
    "Whether the ranges over seeds lie apart",
    _scores({m.name: {"type": "boolean"} for m in METRICS.values()}, {"type": "boolean"}),
]
