"""The audit of a table given as lists, and the check of predictions against labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike
from sklearn import metrics

from hirise_imb.forensics import Finding, Rounded, Verdict, alignment_test, examine, examine_table, read_published

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


def test_numpy_arrays_are_read_as_lists_are() -> None:
    precision, recall = np.array([0.75, 0.5]), np.array(["0.60", "0.67"])
    arrays: dict[str, Any] = {"precision": precision, "recall": recall, "f1": None, "supports": np.array([5, 3])}
    lists: dict[str, Any] = {name: None if column is None else column.tolist() for name, column in arrays.items()}
    assert examine_table(**arrays).table == examine_table(**lists).table


def test_decimals_restore_the_zeros_of_strings() -> None:
    table = examine_table(["0.5", "1"], None, None, [50, 50], decimals=2).table
    assert table.figures["precision"] == (Rounded(50, 2), Rounded(100, 2))


@pytest.mark.parametrize("decimals", [0, 10])
def test_fewest_and_most_decimals_are_accepted(decimals: int) -> None:
    table = examine_table([1.0, None], None, None, [3, 3], decimals=decimals).table
    assert table.figures["precision"] == (Rounded(10**decimals, decimals), None)


@pytest.mark.parametrize("supports", [[0, 2], [1, 1], [999_993, 7], [7] * 150])
def test_the_smallest_and_the_largest_tables_are_accepted(supports: list[int]) -> None:
    # The last recall is no possible share, so the slow examination of all classes together is left out.
    columns: dict[str, Any] = {"precision": None, "recall": [None] * (len(supports) - 1) + ["0.33"], "f1": None}
    finding = examine_table(**columns, supports=supports)
    assert finding.verdict is Verdict.INCONSISTENT
    assert finding.table.support == tuple(supports)


def test_the_seed_of_a_table_chooses_the_pairings() -> None:
    columns: dict[str, Any] = {"precision": [0.75, 0.6], "recall": [0.75, 0.6], "f1": None, "supports": [8, 5]}
    ranges = [
        finding.joint_ranges
        for finding in (examine_table(**columns), *(examine_table(**columns, seed=s) for s in (0, 1)))
    ]
    by_default, zero, one = (entry.lowest.trace.p_above for entry in ranges if entry is not None)
    assert by_default == zero
    assert one != zero


def test_averages_are_used() -> None:
    columns: dict[str, Any] = {"precision": ["0.9", "0.5"], "recall": None, "f1": None}
    assert examine_table(**columns, supports=[90, 10]).verdict is not Verdict.INCONSISTENT
    for accuracy in (0.2, "0.20"):
        finding = examine_table(**columns, supports=[90, 10], averages={"accuracy": accuracy})
        assert finding.verdict is Verdict.INCONSISTENT
        assert finding.reason.startswith(f"accuracy {accuracy} is out of reach")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recall": ["0.5"]}, "recall must have one entry for each of 2 supports, got 1"),
        ({"classes": ["a"]}, "^classes must have one entry for each of 2 supports, got 1$"),
        ({"precision": None}, r"^Give at least one of precision, recall and f1\.$"),
        ({"precision": ["1.5", "0.5"]}, "the precision of class 0, '1.5', is above 1"),
        ({"precision": [0.123, 0.5], "decimals": 2}, "the precision of class 0, 0.123, has more than 2 decimals"),
        ({"supports": [3, -1]}, "the support of class 1 must be a count of labels, got -1"),
        ({"supports": [0, 1]}, r"^supports must add up to 2 to 1,000,000 labels, got 1$"),
        ({"supports": [999_999, 2]}, r"^supports must add up to 2 to 1,000,000 labels, got 1,000,001$"),
        ({"precision": ["0.5"] * 151, "supports": [1] * 151}, "^a table may have up to 150 classes, got 151$"),
        ({"classes": ["a", "a"]}, "^classes must be two or more different names$"),
        ({"decimals": 11}, "^decimals must be from 0 to 10, got 11$"),
        ({"decimals": -1}, "^decimals must be from 0 to 10, got -1$"),
        ({"averages": {"f1": "0.5"}}, "averages must be among accuracy, macro_precision"),
        ({"averages": {"accuracy": "1.5"}}, "^accuracy, '1.5', is above 1"),
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


def test_classes_that_do_not_occur_change_nothing() -> None:
    y_true, y_pred = list("aaaaabbbcc"), list("aaaabbbaca")
    occurring = alignment_test(y_true, y_pred, labels=list("abc"))
    more = alignment_test(y_true, y_pred, labels=list("abcd"))
    assert (more.hits.observed, more.rare_hits.observed) == (7, 3)
    assert (more.hits.mean, more.rare_hits.mean) == (occurring.hits.mean, occurring.rare_hits.mean)
    assert more.kappa == pytest.approx(metrics.cohen_kappa_score(y_true, y_pred))
    # The last class is never right.
    assert alignment_test(y_true, list("aaaabbbaab")).rare_hits.observed == 2


def test_the_seed_and_the_number_of_permutations_decide_the_pairings() -> None:
    y_true, y_pred = list("aaaaabbbcc"), list("aaaabbbaca")
    by_default, zero, one = (alignment_test(y_true, y_pred), *(alignment_test(y_true, y_pred, seed=s) for s in (0, 1)))
    assert by_default == zero
    assert one.hits.p_above != zero.hits.p_above
    assert one.rare_hits.p_above != zero.rare_hits.p_above
    few = alignment_test(y_true, y_pred, n_permutations=7)
    for statistic in (few.hits, few.rare_hits):
        assert statistic.p_above * 8 == pytest.approx(round(statistic.p_above * 8))
    perfect = alignment_test(["a", "b"] * 50, ["a", "b"] * 50, n_permutations=7)
    assert (perfect.hits.p_above, perfect.rare_hits.p_above) == (1 / 8, 1 / 8)


def test_two_rows_are_enough_to_align() -> None:
    assert alignment_test(["a", "b"], ["a", "b"]).hits.observed == 2


@pytest.mark.parametrize(
    ("y_true", "y_pred", "message"),
    [
        (["a"], ["a"], r"^y_true and y_pred must have the shape \(n,\), n >= 2, got \(1,\) and \(1,\)$"),
        ([["a", "b"]] * 2, [["a", "b"]] * 2, r"got \(2, 2\) and \(2, 2\)$"),
        (["a", "b"], ["a", "b", "a"], r"got \(2,\) and \(3,\)$"),
        (["a", "x"], ["a", "b"], "^y_true has the class 'x', which labels do not name"),
        (["a", "b"], ["a", "x"], "^y_pred has the class 'x', which labels do not name"),
    ],
)
def test_labels_that_do_not_belong_together_are_refused(y_true: ArrayLike, y_pred: ArrayLike, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        alignment_test(y_true, y_pred, labels=["a", "b"])
