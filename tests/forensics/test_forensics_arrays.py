"""The audit of a table given as lists, and the check of predictions against labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hirise_imb.forensics import Finding, Verdict, alignment_test, examine, examine_table, read_published

SUPPORTS = [1482, 89, 66, 49, 16, 7, 42, 42]


def essence(finding: Finding) -> tuple[object, ...]:
    assert finding.joint_ranges is not None
    return finding.table, finding.verdict, finding.reason, finding.joint_ranges.hits, finding.joint_ranges.kappa


def test_lists_of_strings_and_of_numbers_are_the_table_itself() -> None:
    table = read_published()
    expected = examine(table)
    columns: dict[str, Any] = {metric: [str(figure) for figure in figures] for metric, figures in table.figures.items()}
    strings = examine_table(**columns, supports=SUPPORTS, classes=table.classes)
    assert essence(strings) == essence(expected)
    numbers: dict[str, Any] = {metric: [float(figure) for figure in figures] for metric, figures in columns.items()}
    for decimals in (3, None):  # the longest number has three decimals, so that 0.84 is 0.840
        finding = examine_table(**numbers, supports=SUPPORTS, classes=table.classes, decimals=decimals)
        assert essence(finding) == essence(expected)
    assert expected.verdict is Verdict.SHUFFLED


def test_averages_are_used() -> None:
    columns: dict[str, Any] = {"precision": ["0.9", "0.5"], "recall": None, "f1": None}
    assert examine_table(**columns, supports=[90, 10]).verdict is not Verdict.INCONSISTENT
    finding = examine_table(**columns, supports=[90, 10], averages={"accuracy": 0.2})
    assert finding.verdict is Verdict.INCONSISTENT


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recall": ["0.5"]}, "recall must have one entry for each of 2 supports, got 1"),
        ({"precision": None}, "Give at least one of precision, recall and f1"),
        ({"precision": ["1.5", "0.5"]}, "the precision of class 0, '1.5', is above 1"),
        ({"precision": [0.123, 0.5], "decimals": 2}, "the precision of class 0, 0.123, has more than 2 decimals"),
        ({"supports": [3, -1]}, "the support of class 1 must be a count of labels, got -1"),
        ({"classes": ["a", "a"]}, "classes must be two or more different names"),
        ({"averages": {"f1": "0.5"}}, "averages must be among accuracy, macro_precision"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"precision": ["0.5", "0.5"], "recall": None, "f1": None, "supports": [5, 5], **changes}
    with pytest.raises(ValueError, match=message):
        examine_table(**arguments)


def test_shifted_predictions_are_not_aligned() -> None:
    rng = np.random.default_rng(0)
    y_true = rng.choice(["other", "crater", "dune"], 400, p=[0.8, 0.1, 0.1])
    y_pred = np.where(rng.random(400) < 0.8, y_true, rng.permutation(y_true))
    aligned, shifted = alignment_test(y_true, y_pred), alignment_test(y_true, np.roll(y_pred, 1))
    assert aligned.is_aligned
    assert aligned.kappa > 0.5
    assert aligned.hits.observed == np.sum(y_true == y_pred)
    assert aligned.rare_hits.observed == np.sum((y_true == y_pred) & (y_true != "other"))
    assert not shifted.is_aligned
    assert shifted.hits.observed > 200  # a frequent class makes accuracy look fair
    with pytest.raises(ValueError, match="n >= 2"):
        alignment_test(["a"], ["a"])
