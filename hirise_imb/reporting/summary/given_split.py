"""The results of the given split as the report of a nested cross-validation lists them."""

from __future__ import annotations

from hirise_imb.reporting.nested_narrative import OVERLAP
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import GIVEN_SPLIT_FOLDER, Results
from hirise_imb.reporting.summary.records import GivenSplitArmRecord, GivenSplitRecord


def describe_given_split(results: Results) -> GivenSplitRecord | None:
    """Returns the scores of the arms on the given split next to their outer scores; None without a given split."""
    given = results.given_split
    if given is None:
        return None
    outer = {arm.name: results.main_score(arm.name).mean for arm in results.arms}
    return {
        "folder": GIVEN_SPLIT_FOLDER,
        "landmarks": len(given.test),
        "sources": given.inference.total,
        "tests": len(given.families[given.contrasts[0]]),
        "caution": OVERLAP,
        "arms": [_describe_arm(given, arm, outer.get(arm.name)) for arm in given.ordered],
    }


def _describe_arm(given: Results, arm: Arm, outer: float | None) -> GivenSplitArmRecord:
    """Returns the scores of an arm; its difference is that of the primary contrast."""
    contrast = given.contrasts[0]
    other = given.other_of(arm, contrast)
    compared = other is not None and other != arm.name
    interval = given.inference.against(arm.name, other).interval if compared and other else None
    test = given.families[contrast].tests.get(arm.name)
    return {
        "name": arm.name,
        "val_score": arm.val_score,
        "score": given.main_score(arm.name).mean,
        "difference": given.main_gain(arm.name, other) if compared and other else None,
        "interval": None if interval is None else {"low": interval.low, "high": interval.high},
        "p_holm": None if test is None else test.p_holm,
        "outer_score": outer,
    }
