"""The recipe: everything that is varied between runs, as plain data. The baseline is `Recipe()`.

Fields come in the order in which a run uses them: features, rows, training, and the treatment of logits
afterwards. Recipes that differ only in the last part share their training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, get_args

from hirise_imb.backbones import Trainable
from hirise_imb.features.inputs import PLAIN, FeatureSpec, Inputs
from hirise_imb.features.views import DIHEDRAL, VIEWS
from hirise_imb.imbalance.class_weights import ClassWeights, InversePower
from hirise_imb.imbalance.logit_adjustment import Adjustment, NoAdjustment
from hirise_imb.imbalance.losses import (
    CrossEntropy,
    LabelDistributionAwareMargin,
    LogitAdjustedCrossEntropy,
    Loss,
)
from hirise_imb.imbalance.mixing import Mixup, Remix
from hirise_imb.imbalance.sampling import ClassSampling, EveryImage, Sampling
from hirise_imb.imbalance.smote import SyntheticOversampling
from hirise_imb.models.closed_form import Discriminant, Logistic, NearestMean
from hirise_imb.models.projection import NuisanceProjection
from hirise_imb.models.reweighting import DeepFeatureReweighting
from hirise_imb.models.weight_scaling import WeightScaling

Monitor = Literal["val_loss", "val_macro_f1", "none"]
Views = tuple[str, ...]
"""Views of the pixels; see `features.views`."""
Start = Literal["trained", "class_means"]

PLAIN_VIEW: Views = ("plain",)


@dataclass(frozen=True)
class Linear:
    """Batch normalisation, dropout and a dense layer with one logit per class, trained by Adam: the reference head."""


@dataclass(frozen=True)
class Cosine:
    """A linear head without norms and bias: logits are `scale` times the cosine of features and class weights."""

    scale: float = 30.0

    def __post_init__(self) -> None:
        """Checks that the scale is positive."""
        if not self.scale > 0:
            raise ValueError(f"scale must be positive, got {self.scale}")


Direct = NearestMean | Discriminant | Logistic | DeepFeatureReweighting
"""Closed-form heads, computed without epochs and seeds."""

Head = Linear | Cosine | Direct


_FROZEN_BACKBONE_FIELDS = frozenset({"inputs", "projection", "synthesis", "also", "weight_norm", "views"})
"""Fields that need the features of a frozen backbone."""

FINE_TUNING_FIELDS = frozenset({"trainable", "start", "training_views", "mixing"})
"""Fields without effect on the head of a frozen backbone."""

_TRAINING_FIELDS = FINE_TUNING_FIELDS | frozenset(
    {"sampling", "class_weights", "reweight_after", "loss", "cut", "backbone_learning_rate", "learning_rate"}
    | {"rate_drops", "weight_decay", "batch_size", "dropout", "max_epochs", "monitor", "patience", "retraining"}
)
"""Fields without effect on a closed-form head."""


@dataclass(frozen=True)
class Retraining:
    """A second stage: a new head, trained on the fine-tuned features of the first stage (cRT; Kang et al. 2020)."""

    sampling: Sampling
    learning_rate: float
    weight_decay: float


RATE_DROP = 0.01
"""Factor of the learning rate at each of a recipe's `rate_drops`, as in the code of Cao et al. (2019)."""

FINE_TUNING_EPOCHS = 20
FINE_TUNING_PATIENCE = 3
"""Most epochs of fine-tuning, and epochs without improvement after which it stops, where those of the recipe are more.
It starts from a trained head and soon fits its rows, and an epoch of it costs as much as hundreds of a head."""


@dataclass(frozen=True)
class Recipe:
    """One way to fit a classifier; the defaults are the published reference run on unique images.

    A head of batch normalisation, dropout and a dense layer is trained by Adam on pooled features of the backbone.

    Raises:
        ValueError: some fields can't be combined; the message names them.
    """

    inputs: Inputs = PLAIN
    """Views, layers and poolings whose features are concatenated. Unless all of them are means at the top, features are
    standardised on the training images."""
    projection: NuisanceProjection | None = None
    """Projection that removes directions from the features."""

    sampling: Sampling = field(default_factory=EveryImage)
    synthesis: SyntheticOversampling | None = None
    """Synthetic rows between landmarks, added to the training images."""

    head: Head = field(default_factory=Linear)
    also: tuple[Direct, ...] = ()
    """Further closed-form heads on the same features. Each kind of head is calibrated by a temperature before its log
    probabilities are averaged with those of `head`: otherwise the most confident kind would decide alone."""
    members: int = 1
    """Number of fits, each with its own seed, whose log probabilities are averaged."""

    class_weights: ClassWeights = field(default_factory=InversePower)
    reweight_after: float = 0.0
    """Share of the epochs, in [0, 1), after which class weights take effect (deferred re-weighting; Cao et al. 2019).
    """
    loss: Loss = field(default_factory=CrossEntropy)
    cut: str = "top"
    """Cut point of the backbone: layers above it are fine-tuned after the head; `top` leaves the backbone frozen."""
    backbone_learning_rate: float = 1e-5
    """Adam's learning rate for the fine-tuned layers of the backbone; without effect at the cut `top`."""
    trainable: Trainable = "all"
    """Weights of the layers above the cut that are trained."""
    start: Start = "trained"
    """Initial head of fine-tuning: one trained on the frozen backbone first (Kumar et al. 2022), or a cosine head whose
    weights are the class means of the features (Shi et al. 2024)."""
    training_views: tuple[str, ...] = ("plain",)
    """Views of an image of which fine-tuning draws one at random for each row and epoch, the plain one among them."""
    mixing: Mixup | Remix | None = None
    """How rows of a mini-batch are mixed in fine-tuning, at the cut."""
    learning_rate: float = 1e-4
    """Adam's learning rate for the head."""
    rate_drops: tuple[float, ...] = ()
    """Shares of the epochs, in (0, 1), after each of which the learning rate is multiplied by `RATE_DROP`."""
    weight_decay: float = 0.0
    """Weight decay of the head's kernel, decoupled from the loss (Loshchilov and Hutter 2019)."""
    batch_size: int = 32
    dropout: float = 0.2
    max_epochs: int = 30
    """Most epochs of the head; with the monitor `none`, all of them are trained."""
    monitor: Monitor = "val_loss"
    """Quantity on held-out landmarks by which the number of epochs is chosen, or `none` to train `max_epochs`.

    Cross-entropy is the reference run's choice. It works against re-weighted losses, whose aim is not a low
    cross-entropy, so strategies monitor macro F1. A schedule over the epochs (deferred re-weighting, drops of the
    learning rate, progressive sampling) refers to a length that is known beforehand, so it needs `none`.
    """
    patience: int = 4
    """Epochs of the head without improvement after which training stops; without effect with the monitor `none`."""
    retraining: Retraining | WeightScaling | None = None
    """The second stage, if there is one."""

    weight_norm: float = 0.0
    """tau of tau-normalisation (Kang et al. 2020): a class's weights are divided by their norm to this power."""
    keep_bias: bool = False
    """Whether tau-normalisation divides biases by the same power instead of dropping them."""
    views: Views = PLAIN_VIEW
    """Views of a landmark whose log probabilities are averaged in prediction."""
    adjustment: Adjustment = field(default_factory=NoAdjustment)
    """Post-hoc adjustment of the logits, fitted on validation."""

    def __post_init__(self) -> None:
        """Checks that the fields can be combined, and that each of them has an effect."""
        for message, is_fault in self._faults():
            if is_fault:
                raise ValueError(message)

    def _faults(self) -> Iterator[tuple[str, bool]]:
        """Yields every possible fault as a message, and whether the recipe has it."""
        closed_form = not self.trained
        fine_tunes = self.cut != "top"
        members = f"members must be 1 or more, and 1 with a closed-form head, got {self.members}"
        yield members, self.members < 1 or (closed_form and self.members > 1)
        for name in ("learning_rate", "backbone_learning_rate", "weight_decay", "weight_norm"):
            value = getattr(self, name)
            yield f"{name} must not be negative, got {value}", not 0 <= value < math.inf
        for name in ("batch_size", "max_epochs", "patience"):
            yield f"{name} must be 1 or more, got {getattr(self, name)}", getattr(self, name) < 1
        yield f"dropout must be in [0, 1), got {self.dropout}", not 0 <= self.dropout < 1
        yield "inputs must be one or more different ones", not 0 < len(self.inputs) == len(set(self.inputs))
        yield f"reweight_after must be in [0, 1), got {self.reweight_after}", not 0 <= self.reweight_after < 1
        deferred = f"reweight_after must leave some of {self.max_epochs} epochs, got {self.reweight_after}"
        yield deferred, self.reweight_after > (self.max_epochs - 1) / self.max_epochs
        drops = f"rate_drops must be in (0, 1), got {self.rate_drops}"
        yield drops, not all(0 < share < 1 for share in self.rate_drops)
        progressive = isinstance(self.sampling, ClassSampling) and self.sampling.progressive
        scheduled = self.reweight_after > 0 or bool(self.rate_drops) or progressive
        yield "a schedule over the epochs needs the monitor none", scheduled and self.monitor != "none"
        margins = isinstance(self.loss, LabelDistributionAwareMargin)
        yield "LabelDistributionAwareMargin needs a Cosine head", margins and not isinstance(self.head, Cosine)
        changed = ", ".join(self._changed(_TRAINING_FIELDS))
        yield (
            f"{type(self.head).__name__} is a closed-form head: leave {changed} at the default",
            closed_form and bool(changed),
        )
        changed = ", ".join(self._changed(_FROZEN_BACKBONE_FIELDS))
        yield f"fine-tuning the backbone needs the default of {changed}", fine_tunes and bool(changed)
        yield "retraining needs a cut below top", self.retraining is not None and not fine_tunes
        changed = ", ".join(self._changed(FINE_TUNING_FIELDS))
        yield f"a frozen backbone needs the default of {changed}", not fine_tunes and bool(changed)
        for name, choices in (("trainable", get_args(Trainable)), ("start", get_args(Start))):
            value = getattr(self, name)
            yield f"{name} must be one of {', '.join(choices)}, got {value!r}", value not in choices
        views = self.training_views
        known = "plain" in views and set(views) <= set(VIEWS) and len(set(views)) == len(views)
        yield f"training_views must be plain and other views among {', '.join(VIEWS)}, each once", not known
        # The compiled step would multiply mean weights by the mean loss, where the mean of weighted losses is meant.
        soft = isinstance(self.loss, CrossEntropy | LogitAdjustedCrossEntropy) and self.class_weights == InversePower()
        message = "mixing needs the loss CrossEntropy or LogitAdjustedCrossEntropy, and the default of class_weights"
        yield message, self.mixing is not None and not soft
        # Its labels have another prior than the rows.
        corrected = isinstance(self.loss, LogitAdjustedCrossEntropy) or self.adjustment != NoAdjustment()
        yield (
            "Remix corrects the class prior: leave loss and adjustment at the default",
            (isinstance(self.mixing, Remix) and corrected),
        )
        from_means = self.start == "class_means"
        yield "the start class_means needs a Cosine head", from_means and not isinstance(self.head, Cosine)
        has_norms = isinstance(self.head, Linear) and not self.also
        yield "weight_norm needs a Linear head and no other", self.weight_norm > 0 and not has_norms
        yield "keep_bias needs a weight_norm", self.keep_bias and not self.weight_norm
        yield f"views must be some of {', '.join(DIHEDRAL)}", not (self.views and set(self.views) <= set(DIHEDRAL))
        yield (
            "views rotate and mirror plain images: name no other view in inputs",
            self.views != PLAIN_VIEW and any(entry.view != "plain" for entry in self.inputs),
        )
        synthetic = self.synthesis is not None
        yield (
            "synthesis determines the rows: leave sampling at the default",
            synthetic and self.sampling != EveryImage(),
        )
        closed_form_heads = [*self.also, *([self.head] if closed_form else [])]
        needs_sources = synthetic and not all(isinstance(head, Logistic) for head in closed_form_heads)
        yield "synthetic rows have no source, which closed-form heads other than Logistic need", needs_sources

    def _changed(self, names: frozenset[str]) -> list[str]:
        """Returns those of `names` that do not have their default."""
        defaults = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(self)}
        return [name for name, value in defaults.items() if name in names and getattr(self, name) != value]

    def training(self) -> Recipe:
        """Returns the recipe without treatment of its logits: recipes with the same training share their fits."""
        return replace(self, weight_norm=0.0, keep_bias=False, views=PLAIN_VIEW, adjustment=NoAdjustment())

    @property
    def feature_spec(self) -> FeatureSpec:
        """The features from which a fit of the recipe predicts."""
        return FeatureSpec(self.inputs, self.views, self.cut, self.trainable)

    @property
    def n_averaged(self) -> int:
        """Number of fits and heads whose log probabilities are averaged."""
        return self.members + len(self.also)

    @property
    def trained(self) -> bool:
        """Whether the head is trained in epochs, not closed-form."""
        return isinstance(self.head, Linear | Cosine)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON; a nested object becomes a dict with its class name under `kind`."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    if not is_dataclass(value):
        return value
    return {"kind": type(value).__name__} | {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
