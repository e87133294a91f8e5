"""Scikit-learn estimators on feature vectors: closed-form heads, a nuisance projection, and post-hoc adjustments.

Each is one of the suite's own building blocks with scikit-learn's interface. Everything that knows about sources (the
observations that rows were cut from) takes them as `groups` in `fit`; without them, each row is a source of its own.
Cross-validation passes them on as `cross_validate(..., groups=groups, params={"groups": groups})`.
"""

from hirise_imb.estimators.adjustments import (
    ClassBiasClassifier,
    LogitAdjustmentClassifier,
    TemperatureScalingClassifier,
)
from hirise_imb.estimators.heads import (
    ClassWeightedLogisticRegression,
    FeatureReweightingClassifier,
    NearestMeanClassifier,
    ShrunkDiscriminantClassifier,
)
from hirise_imb.estimators.projection import NuisanceProjection
from hirise_imb.estimators.tau_normalisation import TauNormalisedClassifier

__all__ = [
    "ClassBiasClassifier",
    "ClassWeightedLogisticRegression",
    "FeatureReweightingClassifier",
    "LogitAdjustmentClassifier",
    "NearestMeanClassifier",
    "NuisanceProjection",
    "ShrunkDiscriminantClassifier",
    "TauNormalisedClassifier",
    "TemperatureScalingClassifier",
]
