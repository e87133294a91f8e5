"""Scores of predictions, their calibration, and their uncertainty over sources.

The functions of `scores` and `uncertainty` take plain arrays, with labels and sources of any type. `registry` lists
every score that is a single number; reports show whatever is registered there.
"""

from hirise_imb.metrics.bootstrap import Interval, SourceCounts, bootstrap_sources
from hirise_imb.metrics.classification import Predictions
from hirise_imb.metrics.detectable import DetectableDifference
from hirise_imb.metrics.permutation import SwapTest, holm, swap_test
from hirise_imb.metrics.registry import METRICS, Evaluation, Metric, register
from hirise_imb.metrics.scores import calibration_error, class_scores, macro_f1_score
from hirise_imb.metrics.uncertainty import (
    CONFUSION_METRICS,
    SourceInterval,
    minimum_detectable_difference,
    paired_source_bootstrap,
    source_bootstrap,
    source_swap_test,
)

__all__ = [
    "CONFUSION_METRICS",
    "METRICS",
    "DetectableDifference",
    "Evaluation",
    "Interval",
    "Metric",
    "Predictions",
    "SourceCounts",
    "SourceInterval",
    "SwapTest",
    "bootstrap_sources",
    "calibration_error",
    "class_scores",
    "holm",
    "macro_f1_score",
    "minimum_detectable_difference",
    "paired_source_bootstrap",
    "register",
    "source_bootstrap",
    "source_swap_test",
    "swap_test",
]
