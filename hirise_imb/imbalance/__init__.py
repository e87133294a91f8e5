"""Building blocks against class imbalance: sampling, synthetic features, losses, class weights, adjusted logits.

Each is a small frozen dataclass that a recipe names; none of them knows how a classifier is trained.
"""

from hirise_imb.imbalance.class_bias import ClassBias
from hirise_imb.imbalance.class_weights import ClassCounts, ClassWeights, EffectiveNumber, InversePower
from hirise_imb.imbalance.logit_adjustment import Adjustment, Correction, NoAdjustment, PosthocLogitAdjustment
from hirise_imb.imbalance.losses import (
    CrossEntropy,
    Focal,
    LabelDistributionAwareMargin,
    LogitAdjustedCrossEntropy,
    Loss,
)
from hirise_imb.imbalance.mixing import Mixing, Mixup, Remix
from hirise_imb.imbalance.sampling import (
    ClassSampling,
    EveryImage,
    RandomOversampling,
    Sampling,
    SplitFileRows,
    Undersampling,
)
from hirise_imb.imbalance.smote import SyntheticOversampling
from hirise_imb.imbalance.temperature import Temperature

__all__ = [
    "Adjustment",
    "ClassBias",
    "ClassCounts",
    "ClassSampling",
    "ClassWeights",
    "Correction",
    "CrossEntropy",
    "EffectiveNumber",
    "EveryImage",
    "Focal",
    "InversePower",
    "LabelDistributionAwareMargin",
    "LogitAdjustedCrossEntropy",
    "Loss",
    "Mixing",
    "Mixup",
    "NoAdjustment",
    "PosthocLogitAdjustment",
    "RandomOversampling",
    "Remix",
    "Sampling",
    "SplitFileRows",
    "SyntheticOversampling",
    "Temperature",
    "Undersampling",
]
