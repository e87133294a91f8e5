"""Recipe: everything that is varied between runs, as plain data. The baseline is `Recipe()`.

Fields come in the order in which a run uses them: what it sees, what it learns from, how it learns, and what happens to
its logits afterwards. Recipes that differ in the last part alone share their training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

from hirise_imb.features.views import DIHEDRAL, VIEWS
from hirise_imb.imbalance.class_weights import ClassWeights, InversePower
from hirise_imb.imbalance.logit_adjustment import Adjustment, NoAdjustment
from hirise_imb.imbalance.losses import CrossEntropy, LabelDistributionAwareMargin, Loss
from hirise_imb.imbalance.sampling import EveryImage, Sampling
from hirise_imb.imbalance.smote import SyntheticOversampling
from hirise_imb.models.closed_form import Discriminant, Logistic, NearestMean
from hirise_imb.models.projection import NuisanceProjection

Monitor = Literal["val_loss", "val_macro_f1"]
Inputs = tuple[str, ...]
"""Views of an image whose features stand side by side."""

PLAIN: Inputs = ("plain",)


@dataclass(frozen=True)
class Linear:
    """Batch normalisation, dropout and a dense layer of 8 logits, trained by Adam: the reference run's head."""


@dataclass(frozen=True)
class Cosine:
    """The same without scales and bias: logits are `scale` times the cosine between features and class weights."""

    scale: float = 30.0

    def __post_init__(self) -> None:
        """Refuse a scale that is not positive."""
        if not self.scale > 0:
            raise ValueError(f"scale must be positive, got {self.scale}")


Direct = NearestMean | Discriminant | Logistic
"""Heads that are computed from one image a landmark, without epochs and seeds."""

Head = Linear | Cosine | Direct


_OF_FROZEN = frozenset({"inputs", "projection", "synthesis", "also", "weight_norm", "views"})
"""What needs features of a backbone that is not trained."""

_OF_TRAINING = frozenset(
    {"sampling", "class_weights", "reweight_after", "loss", "cut", "backbone_learning_rate", "learning_rate"}
    | {"weight_decay", "batch_size", "dropout", "max_epochs", "monitor", "patience", "retraining"}
)
"""What has no effect on a head that is computed."""


@dataclass(frozen=True)
class Retraining:
    """A second stage: a new head, trained on features as the first stage left them (cRT; Kang et al. 2020)."""

    sampling: Sampling
    learning_rate: float
    weight_decay: float


@dataclass(frozen=True)
class Recipe:
    """One way to make a classifier; the defaults are the published reference run on unique images.

    Batch normalisation, dropout and a dense layer of 8 logits stand on pooled backbone features; Adam trains them.

    Raises:
        ValueError: parts that can't go together, named.
    """

    inputs: Inputs = PLAIN
    projection: NuisanceProjection | None = None
    """Directions taken out of the features."""

    sampling: Sampling = field(default_factory=EveryImage)
    synthesis: SyntheticOversampling | None = None
    """Rows made up between landmarks; then one image a landmark is learnt from, and these."""

    head: Head = field(default_factory=Linear)
    also: tuple[Direct, ...] = ()
    """Further heads on the same features, whose log probabilities are averaged with those of `head`."""
    members: int = 1
    """Fits with seeds of their own whose log probabilities are averaged."""

    class_weights: ClassWeights = field(default_factory=InversePower)
    reweight_after: int = 0
    """Epochs without class weights before they come in (deferred re-weighting; Cao et al. 2019)."""
    loss: Loss = field(default_factory=CrossEntropy)
    cut: str = "top"
    """Cut point of the backbone: what lies above it is trained, after the head alone; `top` trains nothing of it."""
    backbone_learning_rate: float = 1e-5
    """Adam's learning rate for what is trained of the backbone; without effect at the cut `top`."""
    learning_rate: float = 1e-4
    """Adam's learning rate for the head."""
    weight_decay: float = 0.0
    """Of the head's kernel, decoupled from the loss (Loshchilov and Hutter 2019)."""
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
    retraining: Retraining | None = None

    weight_norm: float = 0.0
    """tau of tau-normalisation (Kang et al. 2020): the norm of a class's weights is divided by itself to this power."""
    keep_bias: bool = False
    """Whether tau-normalisation divides biases likewise, rather than drop them."""
    views: Inputs = PLAIN
    """Views of a landmark whose logits are averaged in prediction."""
    adjustment: Adjustment = field(default_factory=NoAdjustment)
    """What is done to the logits; what it learns, it learns on validation."""

    def __post_init__(self) -> None:
        """Refuse what can't go together, or would be without effect."""
        for what, wrong in self._faults():
            if wrong:
                raise ValueError(what)

    def _faults(self) -> Iterator[tuple[str, bool]]:
        """What is wrong with it, and whether it is."""
        direct = not self.trained
        below = self.cut != "top"
        many = f"members must be 1 or more, and 1 with a head that is computed, got {self.members}"
        yield many, self.members < 1 or (direct and self.members > 1)
        for name in ("learning_rate", "backbone_learning_rate", "weight_decay", "weight_norm"):
            value = getattr(self, name)
            yield f"{name} must not be negative, got {value}", not 0 <= value < math.inf
        for name in ("batch_size", "max_epochs", "patience"):
            yield f"{name} must be 1 or more, got {getattr(self, name)}", getattr(self, name) < 1
        yield f"dropout must be in [0, 1), got {self.dropout}", not 0 <= self.dropout < 1
        yield f"inputs must be some of {', '.join(VIEWS)}", not (self.inputs and set(self.inputs) <= set(VIEWS))
        late = f"reweight_after must leave some of {self.max_epochs} epochs, got {self.reweight_after}"
        yield late, not 0 <= self.reweight_after < self.max_epochs
        margins = isinstance(self.loss, LabelDistributionAwareMargin)
        yield "LabelDistributionAwareMargin needs a Cosine head", margins and not isinstance(self.head, Cosine)
        moved = ", ".join(self._changed(_OF_TRAINING))
        yield f"{type(self.head).__name__} is computed, not trained: leave {moved}", direct and bool(moved)
        moved = ", ".join(self._changed(_OF_FROZEN))
        yield f"below the cut top, leave {moved}", below and bool(moved)
        yield "retraining needs a cut below top", self.retraining is not None and not below
        norms = isinstance(self.head, Linear) and not self.also
        yield "weight_norm needs a Linear head and no other", self.weight_norm > 0 and not norms
        yield "keep_bias needs a weight_norm", self.keep_bias and not self.weight_norm
        yield f"views must be some of {', '.join(DIHEDRAL)}", not (self.views and set(self.views) <= set(DIHEDRAL))
        yield "views turn plain images: leave inputs", self.views != PLAIN and self.inputs != PLAIN
        made = self.synthesis is not None
        yield "synthesis makes the rows: leave sampling", made and self.sampling != EveryImage()
        sourceless = [*self.also, *([self.head] if direct else [])]
        wrong = made and not all(isinstance(head, Logistic) for head in sourceless)
        yield "synthetic rows have no source, which NearestMean and Discriminant ask for", wrong

    def _changed(self, names: frozenset[str]) -> list[str]:
        """Those of `names` that do not have their default."""
        defaults = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(self)}
        return [name for name, value in defaults.items() if name in names and getattr(self, name) != value]

    def training(self) -> Recipe:
        """The same, with nothing done to its logits: recipes with the same training share their fits."""
        return replace(self, weight_norm=0.0, keep_bias=False, views=PLAIN, adjustment=NoAdjustment())

    @property
    def trained(self) -> bool:
        """Whether it goes through epochs."""
        return isinstance(self.head, Linear | Cosine)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an ingredient becomes a dict with its class name under `kind`."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    if not is_dataclass(value):
        return value
    return {"kind": type(value).__name__} | {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
