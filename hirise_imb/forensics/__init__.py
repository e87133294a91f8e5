"""Examination of published per-class tables.

From rounded precision, recall and F1 it infers the counts behind them, and tests whether predictions were paired with
their labels or with shuffled ones. `examine_table` and `alignment_test` take plain arrays and lists.
"""

from hirise_imb.forensics.examine import AVERAGES, LEVEL, Finding, JointRanges, Verdict, examine
from hirise_imb.forensics.null import SMALLEST_P, PermutationNull, Statistic
from hirise_imb.forensics.plain_arrays import AlignmentTest, alignment_test, examine_table
from hirise_imb.forensics.published import read_published
from hirise_imb.forensics.table import METRICS, PublishedTable, Rounded, read

__all__ = [
    "AVERAGES",
    "LEVEL",
    "METRICS",
    "SMALLEST_P",
    "AlignmentTest",
    "Finding",
    "JointRanges",
    "PermutationNull",
    "PublishedTable",
    "Rounded",
    "Statistic",
    "Verdict",
    "alignment_test",
    "examine",
    "examine_table",
    "read",
    "read_published",
]
