"""Command on images that nobody has labelled: predict."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hirise_imb.cli.parsing import Subparsers, add_command, add_quiet_option
from hirise_imb.cli.tables import make_console

if TYPE_CHECKING:
    from rich.console import Console

    from hirise_imb.prediction.evaluate import Evaluation
    from hirise_imb.prediction.model_file import SavedModel
    from hirise_imb.prediction.parts import Totals

_PREDICT = """\
Predict images with a saved model, and write a row for each of them to a Parquet
file: probabilities of all classes, as trained and calibrated, the class, its
confidence, and whether that reaches --threshold (see docs/predict.md).

INPUT is one or more of: images, folders (with the folders inside them), zips,
quoted patterns, and Parquet tables of encoded images. With --split or
--evaluate it is one data set, as for `hirise-imb data check PATH`: one image
for each landmark is predicted.

An image that can't be used becomes a row with an error. The same command
continues where it was interrupted.
"""


_SAVED = "finished shards are saved; the same command continues from there."


def add_commands(subparsers: Subparsers) -> None:
    """Adds the commands of this module."""
    predict = add_command(subparsers, "predict", _predict, "predict images with a saved model", _PREDICT, _SAVED)
    predict.add_argument("model", type=Path, metavar="MODEL", help="folder of the model")
    predict.add_argument("inputs", nargs="+", metavar="INPUT", help="images, folders, zips, tables or a data set")
    predict.add_argument("--out", type=Path, required=True, metavar="FILE.parquet", help="file that is written")
    predict.add_argument(
        "--threshold", type=float, default=0.9, help="lowest confidence at which a prediction is shown (default: 0.9)"
    )
    predict.add_argument("--weights", metavar="FILE", help="weights of the backbone (default: those the study named)")
    predict.add_argument(
        "--split",
        choices=["train", "val", "test", "all"],
        help="read INPUT as a data set and predict this split (default with --evaluate: test)",
    )
    predict.add_argument("--evaluate", action="store_true", help="score the predictions against the labels of INPUT")
    predict.add_argument("--dataset", help="data set of landmarks in the official layout (default: that of the model)")
    predict.add_argument("--images", default="", metavar="DIR", help="folder of the images of an annotation table")
    predict.add_argument(
        "--engine",
        choices=["process", "ray"],
        default="process",
        help="this process, or workers of Ray on all cores or on a cluster, for archives (default: process)",
    )
    predict.add_argument(
        "--workers", type=int, help="number of workers of --engine ray (default: one on each GPU, or on each core)"
    )
    add_quiet_option(predict)


def _predict(options: argparse.Namespace) -> int:
    from hirise_imb.config import check_known
    from hirise_imb.data import DATASETS, HIRISE
    from hirise_imb.prediction.evaluate import check_classes, evaluate_predictions
    from hirise_imb.prediction.inputs import LandmarkListing, list_inputs
    from hirise_imb.prediction.model_file import read_model
    from hirise_imb.prediction.predictor import Predictor
    from hirise_imb.prediction.ray_engine import predict_with_ray
    from hirise_imb.prediction.run import PredictionRequest, predict_in_this_process, run_prediction
    from hirise_imb.utils.environment import load_tensorflow
    from hirise_imb.utils.errors import UserError

    if options.workers is not None and options.engine != "ray":
        raise UserError("--workers is for --engine ray: add that, or leave it out.")
    model = read_model(options.model)
    if options.dataset is not None:
        check_known("data set", options.dataset, DATASETS)
    card = DATASETS.get(options.dataset or model.dataset, HIRISE)
    split = options.split or ("test" if options.evaluate else None)
    listing = list_inputs(options.inputs, split, card, options.images)
    if options.dataset is not None and not isinstance(listing, LandmarkListing):
        raise UserError("--dataset is that of a data set with labels: add --split to read INPUT as one.")
    if options.evaluate:
        assert isinstance(listing, LandmarkListing)
        check_classes(listing.manifest, model)
    request = PredictionRequest(model, listing, options.out, options.threshold, tuple(options.inputs), split)

    def load() -> Predictor:
        load_tensorflow()
        return Predictor.load(model, options.weights)

    if options.engine == "ray":
        engine = predict_with_ray(options.model, options.weights, options.workers)
    else:
        engine = predict_in_this_process(load)
    totals = run_prediction(request, engine)
    console = make_console()
    if not options.quiet:
        _print_totals(totals, request.threshold, console)
    if isinstance(listing, LandmarkListing) and options.evaluate:
        _print_evaluation(evaluate_predictions(options.out, listing.manifest), model, console)
    console.print(f"Predictions: {options.out}", soft_wrap=True)
    return 0


def _print_totals(totals: Totals, threshold: float, console: Console) -> None:
    """Prints how many images are predicted as each class, and how many can't be used."""
    from hirise_imb.cli.tables import empty_table

    table = empty_table("Predicted images", 2)
    table.add_column("class")
    for heading in ("predicted", f"confidence of {threshold:g} or more"):
        table.add_column(heading, justify="right")
    for name, count in totals.predicted.most_common():
        table.add_row(name, f"{count:,}", f"{totals.shown[name]:,}")
    table.add_section()
    table.add_row("all", f"{totals.predicted.total():,}", f"{totals.shown.total():,}")
    console.print(table)
    if totals.errors:
        console.print(
            f"{totals.errors:,} of {totals.images:,} images can't be used; the column `error` says why, as for "
            f"{totals.first_error}",
            soft_wrap=True,
        )


def _print_evaluation(evaluation: Evaluation, model: SavedModel, console: Console) -> None:
    """Prints the scores of each class, and those of the operating point with those that the report has."""
    from hirise_imb.cli.tables import empty_table
    from hirise_imb.metrics.classification import per_class_scores
    from hirise_imb.reporting.formatting import score

    reported = model.facts["operating_point"]
    point = evaluation.confidence
    is_comparable = reported["threshold"] == point["threshold"]
    scores = per_class_scores(evaluation.confusion)
    console.print()
    table = empty_table("Scores against the labels", 1)
    table.add_column("class")
    for heading in ("images", "precision", "recall", "F1", "coverage", "precision\nshown"):
        table.add_column(heading, justify="right")
    if is_comparable:
        table.add_column("precision\nin card", justify="right")
    for label, name in enumerate(evaluation.classes):
        row, before = point["classes"][name], reported["classes"][name]
        table.add_row(
            name,
            f"{row['landmarks']:,}",
            *(score(scores[metric][label]) for metric in ("precision", "recall", "f1")),
            _ratio(row["decided"], row["landmarks"]),
            _ratio(row["right"], row["shown"]),
            *([_ratio(before["right"], before["shown"])] if is_comparable else []),
        )
    console.print(table)
    lines = [
        f"Macro F1 {score(evaluation.macro_f1)}, accuracy {score(evaluation.accuracy)}.",
        f"At a confidence of {point['threshold']:g} or more: coverage {score(point['coverage'])}, precision "
        f"{score(point['precision'])}.",
        f"In the model card, at {reported['threshold']:g}: coverage {score(reported['coverage'])}, precision "
        f"{score(reported['precision'])}.",
        "Coverage: share of the images of a class with a prediction at this confidence. Precision shown: share of such "
        "predictions of a class that are correct.",
    ]
    for line in lines:
        console.print(line)


def _ratio(part: float, whole: float) -> str:
    from hirise_imb.reporting.formatting import score

    return score(part / whole if whole else None)
