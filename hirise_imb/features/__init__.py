"""Features of images: extraction through a backbone, the cache on disk, and views of the pixels."""

from hirise_imb.features.arrays import Features
from hirise_imb.features.inputs import PLAIN, POOLINGS, FeatureKey, Input, Inputs
from hirise_imb.features.training_features import TrainingFeatures
from hirise_imb.features.views import DIHEDRAL, VIEWS

__all__ = [
    "DIHEDRAL",
    "PLAIN",
    "POOLINGS",
    "VIEWS",
    "FeatureKey",
    "Features",
    "Input",
    "Inputs",
    "TrainingFeatures",
]
