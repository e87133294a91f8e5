"""Classifiers on pooled features: trainable heads, closed-form heads, and the projection before them."""

from hirise_imb.models.closed_form import Discriminant, Logistic, NearestMean
from hirise_imb.models.linear import LinearClassifier
from hirise_imb.models.projection import NuisanceProjection
from hirise_imb.models.reweighting import DeepFeatureReweighting
from hirise_imb.models.weight_scaling import WeightScaling

__all__ = [
    "DeepFeatureReweighting",
    "Discriminant",
    "LinearClassifier",
    "Logistic",
    "NearestMean",
    "NuisanceProjection",
    "WeightScaling",
]
