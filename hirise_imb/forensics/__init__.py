"""What a published per-class table implies: counts behind rounded figures, and whether predictions met their labels."""

from hirise_imb.forensics.examine import AVERAGES, LEVEL, Finding, Joined, Verdict, examine
from hirise_imb.forensics.null import SMALLEST_P, Null, Statistic
from hirise_imb.forensics.published import read_published
from hirise_imb.forensics.table import METRICS, PublishedTable, Rounded, read

__all__ = [
    "AVERAGES",
    "LEVEL",
    "METRICS",
    "SMALLEST_P",
    "Finding",
    "Joined",
    "Null",
    "PublishedTable",
    "Rounded",
    "Statistic",
    "Verdict",
    "examine",
    "read",
    "read_published",
]
