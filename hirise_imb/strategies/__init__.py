"""The remedies that are compared; one file each, one line each below."""

from hirise_imb.strategies.base import CONTROL, RecipeContext, Strategy
from hirise_imb.strategies.class_bias import ClassBiasing
from hirise_imb.strategies.class_weights import ClassWeighting
from hirise_imb.strategies.combined import Combined
from hirise_imb.strategies.decoupled import Decoupled
from hirise_imb.strategies.ensemble import Ensemble
from hirise_imb.strategies.focal_loss import FocalLoss
from hirise_imb.strategies.ldam_drw import LdamDrw
from hirise_imb.strategies.logistic import LogisticRegression
from hirise_imb.strategies.logit_adjusted_loss import LogitAdjustedLossStrategy
from hirise_imb.strategies.logit_adjustment import LogitAdjustmentStrategy
from hirise_imb.strategies.nuisance_projection import Projection
from hirise_imb.strategies.oversampling import Oversampling
from hirise_imb.strategies.parameters import Settings, complete_settings, suggest_settings
from hirise_imb.strategies.partial_unfreeze import PartialUnfreeze
from hirise_imb.strategies.photometric import Photometric
from hirise_imb.strategies.plain import Plain
from hirise_imb.strategies.prototypes import Prototypes
from hirise_imb.strategies.synthetic import Synthetic
from hirise_imb.strategies.tau_norm import TauNorm
from hirise_imb.strategies.temperature import TemperatureScaling
from hirise_imb.strategies.tta import TestTimeViews
from hirise_imb.strategies.undersampling import UnderSampling

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Plain(),
        Oversampling(),
        Synthetic(),
        UnderSampling(),
        ClassWeighting(),
        FocalLoss(),
        LogitAdjustedLossStrategy(),
        LdamDrw(),
        PartialUnfreeze(),
        Decoupled(),
        LogitAdjustmentStrategy(),
        TauNorm(),
        ClassBiasing(),
        TemperatureScaling(),
        Prototypes(),
        LogisticRegression(),
        Projection(),
        Photometric(),
        TestTimeViews(),
        Ensemble(),
        Combined(),
    )
}
"""By name; a strategy comes after those it starts from."""

__all__ = ["CONTROL", "STRATEGIES", "RecipeContext", "Settings", "Strategy", "complete_settings", "suggest_settings"]
