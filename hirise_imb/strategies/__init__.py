"""Strategies: families of recipes against class imbalance, each with the hyperparameters that a search chooses.

Each strategy is one file. To add one, subclass `TrainedStrategy`, `PosthocStrategy` or `Strategy` and add an instance
to the list below, or offer it from another package by an entry point of the group `hirise_imb.strategies`.
"""

from hirise_imb.strategies.augmentation import AugmentationStrategy
from hirise_imb.strategies.base import (
    CONTROL,
    NO_OVERRIDES,
    OptimiserParameters,
    PosthocStrategy,
    RecipeContext,
    Strategy,
    TrainedStrategy,
)
from hirise_imb.strategies.class_bias import ClassBiasStrategy
from hirise_imb.strategies.class_weights import ClassWeightsStrategy
from hirise_imb.strategies.combined import CombinedStrategy
from hirise_imb.strategies.combined_features import CombinedFeaturesStrategy
from hirise_imb.strategies.decoupled import DecoupledStrategy
from hirise_imb.strategies.ensemble import EnsembleStrategy
from hirise_imb.strategies.feature_reweighting import FeatureReweightingStrategy
from hirise_imb.strategies.focal_loss import FocalLossStrategy
from hirise_imb.strategies.ldam_drw import LdamDrwStrategy
from hirise_imb.strategies.light_tuning import LightTuningStrategy
from hirise_imb.strategies.logistic import LogisticStrategy
from hirise_imb.strategies.logit_adjusted_loss import LogitAdjustedLossStrategy
from hirise_imb.strategies.logit_adjustment import LogitAdjustmentStrategy
from hirise_imb.strategies.nuisance_projection import NuisanceProjectionStrategy
from hirise_imb.strategies.oversampling import OversamplingStrategy
from hirise_imb.strategies.parameters import Categorical, Float, Integer, Parameter, Settings, Value
from hirise_imb.strategies.partial_unfreeze import PartialUnfreezeStrategy
from hirise_imb.strategies.photometric import PhotometricStrategy
from hirise_imb.strategies.plain import PlainStrategy
from hirise_imb.strategies.prototypes import PrototypesStrategy
from hirise_imb.strategies.registry import (
    ENTRY_POINT_GROUP,
    StrategyRegistry,
    check_vectors_suffice,
    select_strategies,
)
from hirise_imb.strategies.representation import RepresentationStrategy
from hirise_imb.strategies.smote import SmoteStrategy
from hirise_imb.strategies.spaces import Parameters, SearchSpace, choice, integer, number, reuse, search_space
from hirise_imb.strategies.tau_norm import TauNormStrategy
from hirise_imb.strategies.temperature import TemperatureStrategy
from hirise_imb.strategies.tta import TtaStrategy
from hirise_imb.strategies.undersampling import UndersamplingStrategy

STRATEGIES = StrategyRegistry(
    (
        PlainStrategy(),
        OversamplingStrategy(),
        SmoteStrategy(),
        UndersamplingStrategy(),
        ClassWeightsStrategy(),
        FocalLossStrategy(),
        LogitAdjustedLossStrategy(),
        LdamDrwStrategy(),
        PartialUnfreezeStrategy(),
        DecoupledStrategy(),
        LightTuningStrategy(),
        AugmentationStrategy(),
        LogitAdjustmentStrategy(),
        TauNormStrategy(),
        ClassBiasStrategy(),
        TemperatureStrategy(),
        PrototypesStrategy(),
        LogisticStrategy(),
        FeatureReweightingStrategy(),
        NuisanceProjectionStrategy(),
        PhotometricStrategy(),
        RepresentationStrategy(),
        TtaStrategy(),
        EnsembleStrategy(),
        CombinedStrategy(),
        CombinedFeaturesStrategy(),
    )
)
"""All strategies by name; a strategy comes after those it depends on."""

__all__ = [
    "CONTROL",
    "ENTRY_POINT_GROUP",
    "NO_OVERRIDES",
    "STRATEGIES",
    "Categorical",
    "Float",
    "Integer",
    "OptimiserParameters",
    "Parameter",
    "Parameters",
    "PosthocStrategy",
    "RecipeContext",
    "SearchSpace",
    "Settings",
    "Strategy",
    "StrategyRegistry",
    "TrainedStrategy",
    "Value",
    "check_vectors_suffice",
    "choice",
    "integer",
    "number",
    "reuse",
    "search_space",
    "select_strategies",
]
