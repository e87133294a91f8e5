"""Writes the definition of a study that fits the time there is, with an explanation of every key."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import tomli_w

from hirise_imb.config import GIVEN_SPLIT, StudyDefinition, default_definition
from hirise_imb.pipeline.cost import estimate_study
from hirise_imb.pipeline.plan import plan_features
from hirise_imb.search import strategies_to_search
from hirise_imb.strategies import CONTROL, STRATEGIES
from hirise_imb.training.context import find_card, load_manifest

_ALL = tuple(name for name in STRATEGIES if name != CONTROL)
_SIZES: tuple[Mapping[str, Any], ...] = (
    {
        "strategies": ("oversampling", "class_weights", "focal_loss", "logit_adjustment"),
        "evaluation": (GIVEN_SPLIT,),
        "trials": 4,
        "trial_seeds": 1,
    },
    {"evaluation": (GIVEN_SPLIT,), "trials": 8, "refits": 3},
    {"trials": 8, "refits": 3},
    {"trials": 20, "refits": 5},
    {"strategies": _ALL, "trials": 12, "fine_tuning_trials": 2, "refits": 5},
    {"strategies": _ALL, "trials": 20, "fine_tuning_trials": 5, "refits": 5},
    {"strategies": _ALL, "trials": 20, "fine_tuning_trials": 5, "refits": 5, "repeats": 3},
)
"""Values of studies of rising size; what they leave out has its default."""

_COMMENTS = {
    "name": "Name of the report (reports/NAME/) and of the study in the database.",
    "data": (
        "Landmarks: synthetic (drawn by the program), hirise (the downloaded archive), or a zip, folder or annotation "
        "table."
    ),
    "dataset": "Classes and image format of data in the official layout; data in other layouts brings its own.",
    "backbone": (
        "Network that computes the features: efficientnet-lite0 (embedded), resnet50v2, or a network of "
        "keras.applications, such as keras:ConvNeXtTiny."
    ),
    "weights": "Weights of the backbone: imagenet, random, or a file.",
    "features": "Parquet file of features made elsewhere, in place of the backbone; empty for those of the backbone.",
    "precision": "Arithmetic of the backbone: float32, or bfloat16 on a GPU that supports it.",
    "images": "Folder that the paths in an annotation table start from; empty for the folder of the table.",
    "strategies": (
        "Remedies against class imbalance, each tuned by a search of its own, in addition to the control `plain`, "
        "which only tunes the optimiser."
    ),
    "evaluation": (
        "Designs: given-split (selected on training and validation, scored on test) and nested-cv (each source tested "
        "once; detects smaller differences)."
    ),
    "metric": (
        "Score that searches maximise, choices follow and tests are of: macro_f1, balanced_accuracy, g_mean, "
        "mean_average_precision, recall_at_precision:0.9 (or another precision), or cost."
    ),
    "costs": (
        "For the metric cost: lines such as 'impact ejecta, other, 10' (true class, predicted class, cost); * stands "
        "for every class, and other mistakes cost 1."
    ),
    "outer_folds": "Number of outer folds of nested-cv.",
    "repeats": "Number of nested cross-validations, each with other outer folds.",
    "inner_seeds": "Number of seeds with which a trial is scored in nested-cv.",
    "trials": "Number of trials of each search; more trials can be added later.",
    "fine_tuning_trials": "The same of strategies that fine-tune the backbone, where trials is more.",
    "trial_seeds": "Number of seeds with which a trial is scored in given-split.",
    "refits": "Number of seeds with which the baseline and each chosen recipe are fitted for the report.",
    "seed": "Random seed; on one machine the same seed gives the same numbers.",
}
_WIDTH = 100
"""Width of comments, in characters."""


def fit_definition(data: str, seconds: float, path: Path) -> tuple[StudyDefinition, float]:
    """Returns the largest study that is expected to end in time, and its expected seconds; else the smallest one.

    Args:
        data: place of the landmarks.
        seconds: time that the study may take.
        path: file of the definition; its stem becomes the name of the study.

    Raises:
        UserError: the data can't be read.
    """
    name = default_definition({"data": str(path)}).name
    smallest = default_definition({"name": name, "data": data, **_SIZES[0]})
    manifest = load_manifest(smallest)
    card = find_card(smallest, None)

    def estimate(definition: StudyDefinition) -> float:
        strategies = strategies_to_search(definition)
        return plan_features(card, manifest, strategies).seconds + estimate_study(
            strategies, definition, manifest, card
        )

    definitions = [default_definition({"name": name, "data": data, **size}) for size in _SIZES]
    expected = [(definition, estimate(definition)) for definition in definitions]
    return max((each for each in expected if each[1] <= seconds), key=lambda each: each[1], default=expected[0])


def write_definition(definition: StudyDefinition, path: Path) -> None:
    """Writes a definition with a comment above each key.

    Raises:
        FileExistsError: the file exists; nothing is overwritten.
    """
    lines = [
        "# A study: strategies against class imbalance, compared on one data set.",
        f"# Plan it with `hirise-imb plan {path}`, run it with `hirise-imb run {path}`.",
    ]
    for key in fields(definition):
        if key.name != "overrides":
            lines += ["", *textwrap.wrap(_COMMENTS[key.name], _WIDTH, initial_indent="# ", subsequent_indent="# ")]
            lines += _format(key.name, getattr(definition, key.name))
    with path.open("x", encoding="utf-8", newline="\n") as file:
        file.write("\n".join([*lines, ""]))


def _format(key: str, value: object) -> list[str]:
    """Returns the lines of a key; each strategy has a line of its own, with its summary."""
    if not isinstance(value, tuple):
        return [tomli_w.dumps({key: value}).rstrip()]
    if key != "strategies":
        return [f"{key} = [{', '.join(tomli_w.dumps({'x': entry})[4:].rstrip() for entry in value)}]"]
    width = max(map(len, value)) + len('"",')
    entries = [f'"{name}",'.ljust(width) + f"  # {STRATEGIES[name].summary}" for name in value]
    return [f"{key} = [", *(f"    {entry}" for entry in entries), "]"]
