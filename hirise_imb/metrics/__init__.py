"""Scores of predictions, their calibration, and their uncertainty over sources.

`registry` lists every score that is a single number; reports show whatever is registered there.
"""

from hirise_imb.metrics.bootstrap import Interval, SourceCounts, bootstrap_sources
from hirise_imb.metrics.classification import Predictions
from hirise_imb.metrics.permutation import SwapTest, holm, swap_test
from hirise_imb.metrics.registry import METRICS, Evaluation, Metric, register

__all__ = [
    "METRICS",
    "Evaluation",
    "Interval",
    "Metric",
    "Predictions",
    "SourceCounts",
    "SwapTest",
    "bootstrap_sources",
    "holm",
    "register",
    "swap_test",
]
