"""Recipe: everything that is varied between runs, as plain data. The baseline is `Recipe()`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

from hirise_imb.losses import ClassWeights, CrossEntropy, InversePower, Loss
from hirise_imb.sampling import EveryImage, Sampling

Monitor = Literal["val_loss", "val_macro_f1"]


@dataclass(frozen=True)
class Recipe:
    """One way to train a classifier; the defaults are the published reference run on unique images.

    Batch normalisation, dropout and a dense layer of 8 logits stand on pooled backbone features; Adam trains them.
    """

    sampling: Sampling = field(default_factory=EveryImage)
    class_weights: ClassWeights = field(default_factory=InversePower)
    loss: Loss = field(default_factory=CrossEntropy)
    cut: str = "top"
    """Cut point of the backbone: what lies above it is trained; `top` trains nothing of the backbone."""
    backbone_learning_rate: float = 1e-5
    """Adam's learning rate for what is trained of the backbone; without effect at the cut `top`."""
    learning_rate: float = 1e-4
    """Adam's learning rate for the head."""
    batch_size: int = 32
    dropout: float = 0.2
    max_epochs: int = 30
    monitor: Monitor = "val_loss"
    """What early stopping watches on validation; the weights of the best epoch are kept.

    Validation cross-entropy is the reference run's choice. It works against re-weighted losses, whose aim is not a low
    cross-entropy, so strategies watch macro F1.
    """
    patience: int = 4
    """Epochs without improvement after which training stops."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an ingredient becomes a dict with its class name under `kind`."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}


def _plain(value: object) -> object:
    if not is_dataclass(value):
        return value
    return {"kind": type(value).__name__} | {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
