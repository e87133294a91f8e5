"""The remedies that are compared; one file each, one line each below."""

from hirise_imb.strategies.base import Settings, Strategy
from hirise_imb.strategies.class_weights import ClassWeighting
from hirise_imb.strategies.focal_loss import FocalLoss
from hirise_imb.strategies.oversampling import Oversampling
from hirise_imb.strategies.partial_unfreeze import PartialUnfreeze

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy for strategy in (ClassWeighting(), Oversampling(), FocalLoss(), PartialUnfreeze())
}

__all__ = ["STRATEGIES", "Settings", "Strategy"]
