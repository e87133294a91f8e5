"""Command on predictions: review."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hirise_imb.cli.parsing import Subparsers, add_command, add_quiet_option
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.terminal import write_line

if TYPE_CHECKING:
    from hirise_imb.backbones import Backbone
    from hirise_imb.prediction.model_file import SavedModel
    from hirise_imb.prediction.table import PredictionFacts
    from hirise_imb.review.queue import TrainingData

_REVIEW = """\
Write a page on which a person labels the predicted landmarks that are most
likely to belong to a rare class. PREDICTIONS is a file that `predict` has
written; --images names the places of its images, such as the INPUT of `predict`.

The page is OUT/review.html. It opens in a browser without a server, is used by
keyboard or mouse, and saves LABELS.csv, from which `data add` makes a new data
set. --model is the folder of the model that predicted; with it, the page shows
the training landmarks that a candidate resembles.
"""


def add_commands(subparsers: Subparsers) -> None:
    """Adds the command of this module."""
    review = add_command(subparsers, "review", _review, "write a page for labelling likely rare landmarks", _REVIEW)
    review.add_argument("predictions", type=Path, metavar="PREDICTIONS", help="file that `predict` has written")
    review.add_argument("--images", nargs="+", required=True, metavar="PATH", help="images, folders, zips or tables")
    review.add_argument("--out", type=Path, required=True, help="folder of the page, such as reports/NAME")
    review.add_argument("--model", type=Path, help="folder of the model that predicted")
    review.add_argument("--weights", help="weights of the backbone, if they are not where the study found them")
    review.add_argument("--data", help="training data whose landmarks are shown (default: those of the model)")
    review.add_argument("--candidates", type=_count, default=40, metavar="N", help="at most N of a class (default: 40)")
    review.add_argument(
        "--per-source",
        type=_count,
        default=3,
        metavar="N",
        help="at most N of a class and source (default: 3; with few sources, 10 finds more)",
    )
    review.add_argument("--replace", action="store_true", help="replace a page that exists")
    add_quiet_option(review)


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got {text!r}")
    return number


def _review(options: argparse.Namespace) -> int:
    from hirise_imb.prediction.table import read_facts
    from hirise_imb.review import build_review, write_review
    from hirise_imb.review.page import PAGE, describe_candidates
    from hirise_imb.utils.environment import load_tensorflow

    if options.weights is not None and options.model is None:
        raise UserError("--weights are those of the backbone of --model: give both, or neither.")
    facts = read_facts(options.predictions)
    if (options.out / PAGE).exists() and not options.replace:
        raise UserError(
            f"{options.out / PAGE} exists, and its labels belong to its queue: choose another --out, or confirm with "
            "--replace."
        )
    load_tensorflow()
    model, backbone = _load_backbone(options, facts)
    try:
        training = _find_training_data(options, facts, model)
    except UserError as error:
        if options.data is not None:
            raise
        write_line(f"The training data can't be used; name them with --data to see what candidates resemble: {error}")
        training = None
    review = build_review(
        options.predictions, options.images, backbone, training, options.candidates, options.per_source
    )
    page = write_review(review, options.out)
    for label in review.classes.rare_ids:
        write_line(f"{review.classes[label]}: {describe_candidates(review, label)}")
    write_line(f"Review: {page}")
    return 0


def _load_backbone(options: argparse.Namespace, facts: PredictionFacts) -> tuple[SavedModel | None, Backbone]:
    """Returns the model and its backbone; without a model, the embedded backbone.

    Raises:
        UserError: the model can't be used, or did not make the predictions.
    """
    if options.model is None:
        from hirise_imb.backbones.efficientnet_lite0 import EFFICIENTNET_LITE0

        rows, columns, channels = facts.image_shape
        return None, EFFICIENTNET_LITE0.load("imagenet", (rows, columns, channels))
    from hirise_imb.prediction.model_file import read_model
    from hirise_imb.prediction.predictor import Predictor

    model = read_model(options.model)
    if model.digest != facts.model:
        raise UserError(
            f"{options.predictions} was predicted by another model ({facts.model_name}, digest {facts.model[:12]}) "
            f"than {options.model} (digest {model.digest[:12]}): name that one with --model, or leave --model out."
        )
    return model, Predictor.load(model, options.weights).backbone


def _find_training_data(
    options: argparse.Namespace, facts: PredictionFacts, model: SavedModel | None
) -> TrainingData | None:
    """Returns the data of --data or else those that the model names; None if neither is given.

    Raises:
        UserError: the data can't be read, have other classes or images of another size than the predictions, or have
            changed since the model was trained on them. Other data than those of the model may be given by --data.
    """
    from hirise_imb.data import DATASETS, HIRISE
    from hirise_imb.data.load import load_data
    from hirise_imb.features.extraction import data_digest
    from hirise_imb.review.queue import TrainingData

    name = options.data if options.data is not None else model.facts["training_data"]["data"] if model else None
    if name is None:
        write_line("The training data are not known: name them with --data to see what candidates resemble.")
        return None
    splits = tuple(model.facts["training_data"]["splits"]) if model else ("train", "val")
    manifest = load_data(name, DATASETS.get(facts.dataset, HIRISE))
    if (manifest.spec.classes.names, manifest.spec.image_shape) != (facts.classes, facts.image_shape):
        raise UserError(
            f"{name} has other classes or images of another size than {options.predictions}: name the data that "
            "the model was trained on with --data."
        )
    is_of_model = model is not None and data_digest(manifest) == model.facts["training_data"]["digest"]
    if model is not None and not is_of_model:
        if options.data is None:
            raise UserError(f"{name} has changed since the model was trained on it.")
        write_line(
            f"{name} is not the data that the model was trained on: the page shows its landmarks, and leaves out its "
            "images."
        )
    return TrainingData(name, manifest, splits, is_of_model)
