"""Pretrained networks whose features are cached: the embedded one, and every network of keras.applications."""

from hirise_imb.backbones.base import PRECISIONS, TOP, Backbone, BackboneCard, Trainable
from hirise_imb.backbones.efficientnet_lite0 import EFFICIENTNET_LITE0
from hirise_imb.backbones.keras_applications import NETWORKS, RESNET50V2, make_card

BACKBONES = {card.name: card for card in (EFFICIENTNET_LITE0, RESNET50V2, *map(make_card, NETWORKS.values()))}

__all__ = ["BACKBONES", "PRECISIONS", "TOP", "Backbone", "BackboneCard", "Trainable"]
