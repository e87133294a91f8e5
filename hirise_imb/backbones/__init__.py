"""Pretrained networks whose features are cached: one file each, registered below."""

from hirise_imb.backbones.base import PRECISIONS, TOP, Backbone, BackboneCard
from hirise_imb.backbones.efficientnet_lite0 import EFFICIENTNET_LITE0
from hirise_imb.backbones.resnet50v2 import RESNET50V2

BACKBONES = {card.name: card for card in (EFFICIENTNET_LITE0, RESNET50V2)}

__all__ = ["BACKBONES", "PRECISIONS", "TOP", "Backbone", "BackboneCard"]
