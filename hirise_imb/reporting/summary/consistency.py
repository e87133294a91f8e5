"""Checks the figures of a summary against those computed again from the stored predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hirise_imb.forensics import METRICS
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import Results
from hirise_imb.reporting.summary.records import ArmRecord, Summary

_TOLERANCE = 1e-6
"""Largest difference between two values of a score, which other processors may sum in another order."""


def find_contradiction(summary: Summary, results: Results) -> str | None:
    """Returns the first figure of a summary that its predictions contradict, as a phrase; None if all agree.

    Counts, scores and choices are compared. Intervals and tests, which take much longer to compute, follow from the
    same predictions whenever a page is written, and are not read from the summary.
    """
    facts: dict[str, tuple[object, object]] = {
        "support": (summary["support"], results.support.tolist()),
        "sources": (summary["sources"], results.sources.tolist()),
        "control": (summary["control"], results.control.name if results.control else None),
        "chosen": (summary["chosen"], results.chosen.name if results.chosen else None),
        "order": (summary["order"], [arm.name for arm in results.ordered]),
    }
    for fact, (stored, computed) in facts.items():
        if stored != computed:
            return f"$.{fact}"
    for record, arm in zip(summary["arms"], results.arms, strict=True):
        if (key := _find_in_arm(record, results, arm)) is not None:
            return f"the {key} of {arm.name}"
    return _find_in_given_split(summary, results)


def _find_in_arm(stored: ArmRecord, results: Results, arm: Arm) -> str | None:
    """Returns the first score of an arm that its predictions contradict."""
    if not _equal(stored["val_score"], arm.val_score):
        return "val_score"
    if not np.allclose(stored["confusion"], results.confusion(arm.name), rtol=0, atol=_TOLERANCE):
        return "confusion"
    scores: Mapping[str, Any] = stored["scores"]
    # Earlier reports lack metrics that were registered later, and those of plug-ins may be unknown here.
    for key, spread in results.headline_scores(arm.name).items():
        if key in scores and not all(_equal(scores[key][end], value) for end, value in vars(spread).items()):
            return key
    for metric in METRICS:
        spreads = zip(stored["per_class"][metric], results.per_class(arm.name, metric), strict=True)  # type: ignore[literal-required]
        if not all(_equal(spread[end], value) for spread, other in spreads for end, value in vars(other).items()):
            return metric
    return None


def _find_in_given_split(summary: Summary, results: Results) -> str | None:
    """Returns the first score of the given split that its own report contradicts."""
    given, record = results.given_split, summary["given_split"]
    if given is None or record is None:
        return None
    if [arm["name"] for arm in record["arms"]] != [arm.name for arm in given.ordered]:
        return "$.given_split.arms"
    for stored, arm in zip(record["arms"], given.ordered, strict=True):
        if not _equal(stored["score"], given.main_score(arm.name).mean):
            return f"$.given_split, the score of {arm.name}"
    return None


def _equal(one: float, other: float) -> bool:
    return abs(one - other) <= _TOLERANCE * max(1.0, abs(other))
