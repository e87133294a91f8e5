"""What a recipe refuses, what it tells of itself, and what recipes share."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest

from hirise_imb.features.inputs import Input
from hirise_imb.features.views import VIEWS
from hirise_imb.imbalance.class_bias import ClassBias
from hirise_imb.imbalance.class_weights import EffectiveNumber, InversePower
from hirise_imb.imbalance.logit_adjustment import NoAdjustment, PosthocLogitAdjustment
from hirise_imb.imbalance.losses import CrossEntropy, Focal, LabelDistributionAwareMargin, LogitAdjustedCrossEntropy
from hirise_imb.imbalance.mixing import Mixup, Remix
from hirise_imb.imbalance.sampling import ClassSampling, EveryImage, RandomOversampling, SplitFileRows, Undersampling
from hirise_imb.imbalance.smote import SyntheticOversampling
from hirise_imb.imbalance.temperature import Temperature
from hirise_imb.models.closed_form import Discriminant, Logistic, NearestMean
from hirise_imb.models.projection import NuisanceProjection
from hirise_imb.models.weight_scaling import WeightScaling
from hirise_imb.recipe import Cosine, Linear, Recipe, Retraining

NEAREST = NearestMean("unit", 0.0)
LOGISTIC = Logistic(1.0, 0.5)
SMOTE = SyntheticOversampling("smote", 0.5, 3)
RETRAINING = Retraining(ClassSampling(0.0), 1e-3, 0.01)

SCHEDULE = "a schedule over the epochs needs the monitor none"

TRAINING_VIEWS = f"training_views must be plain and other views among {', '.join(VIEWS)}, each once"
MIXING = "mixing needs the loss CrossEntropy or LogitAdjustedCrossEntropy, and the default of class_weights"
REMIX = "Remix corrects the class prior: leave loss and adjustment at the default"

RECIPES = [
    Recipe(),
    Recipe(
        inputs=(Input(), Input("photometric")),
        projection=NuisanceProjection(2),
        synthesis=SMOTE,
        members=3,
        also=(LOGISTIC,),
    ),
    Recipe(head=Cosine(20.0), loss=LabelDistributionAwareMargin(0.3), class_weights=EffectiveNumber(0.99, "sources")),
    Recipe(
        cut="late",
        retraining=RETRAINING,
        loss=LogitAdjustedCrossEntropy(0.5),
        sampling=ClassSampling(0.5, True, True),
        monitor="none",
    ),
    Recipe(cut="late", retraining=WeightScaling(0.0, 0.01)),
    Recipe(cut="late", training_views=("plain", "r90")),
    Recipe(cut="late", mixing=Mixup(0.5)),
    Recipe(cut="late", mixing=Remix(0.5)),
    Recipe(cut="late", trainable="norms", head=Cosine(25.0), start="class_means"),
    Recipe(
        class_weights=InversePower(1.0, "sources"),
        reweight_after=0.5,
        rate_drops=(0.5, 0.75),
        monitor="none",
        loss=Focal(1.0, 0.5),
        weight_decay=0.1,
    ),
    Recipe(head=NEAREST, also=(LOGISTIC, Discriminant(0.5, 1.0)), adjustment=Temperature(bias=True)),
    Recipe(weight_norm=0.5, views=("plain", "fh"), adjustment=PosthocLogitAdjustment(1.0), sampling=SplitFileRows()),
    Recipe(adjustment=ClassBias(0.1), sampling=Undersampling(2.0), loss=CrossEntropy()),
    Recipe(sampling=RandomOversampling(0.5)),
]
"""Every ingredient."""


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"members": 0}, "members must be 1 or more, and 1 with a closed-form head, got 0"),
        ({"head": NEAREST, "members": 2}, "members must be 1 or more, and 1 with a closed-form head, got 2"),
        ({"weight_decay": -0.1}, "weight_decay must not be negative, got -0.1"),
        ({"weight_decay": float("nan")}, "weight_decay must not be negative, got nan"),
        ({"reweight_after": 1.0, "monitor": "none"}, "reweight_after must be in [0, 1), got 1.0"),
        ({"reweight_after": 30, "monitor": "none"}, "reweight_after must be in [0, 1), got 30"),
        ({"reweight_after": -0.1, "monitor": "none"}, "reweight_after must be in [0, 1), got -0.1"),
        ({"reweight_after": 0.97, "monitor": "none"}, "reweight_after must leave some of 30 epochs, got 0.97"),
        (
            {"reweight_after": 0.5, "monitor": "none", "max_epochs": 1},
            "reweight_after must leave some of 1 epochs, got 0.5",
        ),
        ({"rate_drops": (0.5, 1.0), "monitor": "none"}, "rate_drops must be in (0, 1), got (0.5, 1.0)"),
        ({"rate_drops": (0.0,), "monitor": "none"}, "rate_drops must be in (0, 1), got (0.0,)"),
        ({"rate_drops": (float("nan"),), "monitor": "none"}, "rate_drops must be in (0, 1), got (nan,)"),
        ({"reweight_after": 0.5}, SCHEDULE),
        ({"reweight_after": 0.5, "monitor": "val_macro_f1"}, SCHEDULE),
        ({"rate_drops": (0.5,)}, SCHEDULE),
        ({"rate_drops": (0.5,), "monitor": "val_macro_f1"}, SCHEDULE),
        ({"sampling": ClassSampling(0.5, progressive=True)}, SCHEDULE),
        ({"sampling": ClassSampling(0.5, progressive=True), "monitor": "val_macro_f1"}, SCHEDULE),
        ({"head": NEAREST, "monitor": "none"}, "NearestMean is a closed-form head: leave monitor at the default"),
        (
            {"head": NEAREST, "rate_drops": (0.5,), "monitor": "none"},
            "NearestMean is a closed-form head: leave rate_drops, monitor at the default",
        ),
        ({"batch_size": 0}, "batch_size must be 1 or more, got 0"),
        ({"max_epochs": 0}, "max_epochs must be 1 or more, got 0"),
        ({"patience": 0}, "patience must be 1 or more, got 0"),
        ({"loss": LabelDistributionAwareMargin()}, "LabelDistributionAwareMargin needs a Cosine head"),
        ({"head": NEAREST, "loss": Focal()}, "NearestMean is a closed-form head: leave loss at the default"),
        (
            {"head": LOGISTIC, "learning_rate": 1e-3, "sampling": ClassSampling(0.0)},
            "Logistic is a closed-form head: leave sampling, learning_rate at the default",
        ),
        (
            {"head": Discriminant(0.5, 0.0), "cut": "late"},
            "Discriminant is a closed-form head: leave cut at the default",
        ),
        ({"cut": "late", "inputs": (Input("photometric"),)}, "fine-tuning the backbone needs the default of inputs"),
        (
            {"cut": "late", "projection": NuisanceProjection(1)},
            "fine-tuning the backbone needs the default of projection",
        ),
        ({"cut": "late", "synthesis": SMOTE}, "fine-tuning the backbone needs the default of synthesis"),
        (
            {"cut": "late", "also": (NEAREST,), "views": ("plain", "fh")},
            "fine-tuning the backbone needs the default of also, views",
        ),
        ({"cut": "late", "weight_norm": 0.5}, "fine-tuning the backbone needs the default of weight_norm"),
        ({"retraining": RETRAINING}, "retraining needs a cut below top"),
        ({"retraining": WeightScaling(0.0, 0.01)}, "retraining needs a cut below top"),
        ({"weight_norm": -0.1}, "weight_norm must not be negative, got -0.1"),
        ({"weight_norm": float("nan")}, "weight_norm must not be negative, got nan"),
        ({"weight_norm": 0.5, "head": Cosine()}, "weight_norm needs a Linear head and no other"),
        ({"weight_norm": 0.5, "head": NEAREST}, "weight_norm needs a Linear head and no other"),
        ({"weight_norm": 0.5, "also": (NEAREST,)}, "weight_norm needs a Linear head and no other"),
        ({"views": ()}, "views must be some of plain, r90, r180, r270, fh, fv, t, at"),
        ({"views": ("plain", "photometric")}, "views must be some of plain, r90, r180, r270, fh, fv, t, at"),
        (
            {"views": ("fh",), "inputs": (Input(), Input("photometric"))},
            "views rotate and mirror plain images: name no other view in inputs",
        ),
        (
            {"synthesis": SMOTE, "sampling": ClassSampling(0.0)},
            "synthesis determines the rows: leave sampling at the default",
        ),
        ({"trainable": "norms"}, "a frozen backbone needs the default of trainable"),
        (
            {"start": "class_means", "trainable": "norms", "head": Cosine(), "backbone_learning_rate": 1e-3},
            "a frozen backbone needs the default of trainable, start",
        ),
        ({"cut": "late", "start": "class_means"}, "the start class_means needs a Cosine head"),
        ({"cut": "late", "start": "zero"}, "start must be one of trained, class_means, got 'zero'"),
        ({"training_views": ("plain", "fh")}, "a frozen backbone needs the default of training_views"),
        ({"cut": "late", "training_views": ("fh",)}, TRAINING_VIEWS),
        ({"cut": "late", "training_views": ("plain", "fh", "fh")}, TRAINING_VIEWS),
        ({"cut": "late", "training_views": ("plain", "sideways")}, TRAINING_VIEWS),
        ({"mixing": Mixup()}, "a frozen backbone needs the default of mixing"),
        ({"cut": "late", "mixing": Mixup(), "loss": Focal()}, MIXING),
        ({"cut": "late", "mixing": Remix(), "head": Cosine(), "loss": LabelDistributionAwareMargin()}, MIXING),
        ({"cut": "late", "mixing": Mixup(), "class_weights": InversePower(0.5)}, MIXING),
        ({"cut": "late", "mixing": Remix(), "loss": LogitAdjustedCrossEntropy()}, REMIX),
        ({"cut": "late", "mixing": Remix(), "adjustment": PosthocLogitAdjustment()}, REMIX),
        ({"cut": "late", "trainable": "none"}, "trainable must be one of all, norms, got 'none'"),
        (
            {"synthesis": SMOTE, "head": NEAREST},
            "synthetic rows have no source, which closed-form heads other than Logistic need",
        ),
        (
            {"synthesis": SMOTE, "also": (LOGISTIC, Discriminant(0.5, 0.0))},
            "synthetic rows have no source, which closed-form heads other than Logistic need",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_parts_that_do_not_go_together_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        Recipe(**fields)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_scale_that_is_not_positive_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match=f"^scale must be positive, got {scale}$"):
        Cosine(scale)


@pytest.mark.parametrize(
    "fields",
    [
        {"head": LOGISTIC, "synthesis": SMOTE, "also": (LOGISTIC,)},
        {"head": NEAREST, "projection": NuisanceProjection(1), "views": ("plain", "fh")},
        {"inputs": (Input("photometric"),), "also": (NEAREST,)},
        {"reweight_after": 29 / 30, "monitor": "none"},
        {"sampling": ClassSampling(0.5, progressive=True), "rate_drops": (0.5, 0.75), "monitor": "none"},
        {"sampling": ClassSampling(0.5), "monitor": "val_macro_f1"},
        {"cut": "late", "retraining": WeightScaling(0.0, 0.01)},
        {"cut": "late", "trainable": "norms", "training_views": ("fh", "plain", "brighter")},
        {"cut": "late", "start": "class_means", "head": Cosine(), "retraining": RETRAINING},
        {"cut": "late", "mixing": Mixup(), "loss": LogitAdjustedCrossEntropy(), "adjustment": ClassBias(0.1)},
        {"cut": "late", "mixing": Remix(), "training_views": ("plain", "r180")},
        {"cut": "late", "members": 3, "adjustment": PosthocLogitAdjustment()},
    ],
    ids="-".join,
)
def test_parts_that_go_together_are_taken(fields: dict[str, Any]) -> None:
    assert all(getattr(Recipe(**fields), name) == value for name, value in fields.items())


def test_the_baseline_is_the_default() -> None:
    plain = Recipe()
    assert (plain.head, plain.loss, plain.sampling, plain.adjustment) == (
        Linear(),
        CrossEntropy(),
        EveryImage(),
        NoAdjustment(),
    )
    assert plain == plain.training()
    assert plain.trained


@pytest.mark.parametrize("recipe", RECIPES, ids=range(len(RECIPES)))
def test_a_recipe_is_plain_data(recipe: Recipe) -> None:
    told = recipe.to_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert list(told) == [field.name for field in dataclasses.fields(Recipe)]
    for field in dataclasses.fields(Recipe):
        part = getattr(recipe, field.name)
        if dataclasses.is_dataclass(part):
            assert told[field.name]["kind"] == type(part).__name__
            assert set(told[field.name]) == {"kind", *(inner.name for inner in dataclasses.fields(part))}
        elif not isinstance(part, tuple):
            assert told[field.name] == part
    assert [entry["kind"] for entry in told["also"]] == [type(head).__name__ for head in recipe.also]


def test_a_part_within_a_part_is_told_too() -> None:
    told = Recipe(cut="late", retraining=RETRAINING).to_dict()["retraining"]
    sampling = {"kind": "ClassSampling", "power": 0.0, "by_source": False, "progressive": False}
    assert told == {"kind": "Retraining", "sampling": sampling, "learning_rate": 1e-3, "weight_decay": 0.01}


def test_different_recipes_are_told_apart() -> None:
    texts = {json.dumps(recipe.to_dict(), sort_keys=True) for recipe in RECIPES}
    assert len(texts) == len({hash(recipe) for recipe in RECIPES}) == len(set(RECIPES)) == len(RECIPES)
    again = [dataclasses.replace(recipe) for recipe in RECIPES]
    assert again == RECIPES
    assert [hash(recipe) for recipe in again] == [hash(recipe) for recipe in RECIPES]


@pytest.mark.parametrize("recipe", RECIPES, ids=range(len(RECIPES)))
def test_training_leaves_out_what_is_done_to_logits_and_that_alone(recipe: Recipe) -> None:
    base, plain = recipe.training(), Recipe()
    posthoc = {"weight_norm", "keep_bias", "views", "adjustment"}
    for field in dataclasses.fields(Recipe):
        expected = plain if field.name in posthoc else recipe
        assert getattr(base, field.name) == getattr(expected, field.name)
    assert base == base.training()


@pytest.mark.parametrize(
    ("head", "trained"),
    [(Linear(), True), (Cosine(), True), (NEAREST, False), (LOGISTIC, False), (Discriminant(0.5, 0.0), False)],
    ids=str,
)
def test_a_head_is_trained_or_computed(head: Any, trained: bool) -> None:  # noqa: ANN401
    assert Recipe(head=head).trained is trained


@pytest.mark.parametrize(
    ("recipe", "number"),
    [
        (Recipe(), 1),
        (Recipe(members=5), 5),
        (Recipe(members=3, also=(LOGISTIC, NEAREST)), 5),
        (Recipe(head=NEAREST), 1),
        (Recipe(head=NEAREST, also=(LOGISTIC,)), 2),
        (Recipe(views=("plain", "fh")), 1),
    ],
    ids=range(6),
)
def test_members_and_further_heads_are_averaged(recipe: Recipe, number: int) -> None:
    """Views are not counted: they belong to one fit."""
    assert recipe.n_averaged == number
