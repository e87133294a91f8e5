"""The command that exports a saved model for other runtimes."""

from __future__ import annotations

import argparse
from pathlib import Path

from hirise_imb.cli.parsing import Subparsers, add_command, add_quiet_option
from hirise_imb.export import FORMATS
from hirise_imb.utils.progress import warn
from hirise_imb.utils.terminal import write_line

_DESCRIPTION = """\
Writes a saved model as one network from pixels to calibrated probabilities; views, preprocessing, heads, adjustment and
temperature are part of it. The runtime of the format then predicts 64 images, and the export is kept only if no
probability differs by more than 0.001 from that of the model in Keras. A JSON file next to it names the classes.

Formats:
"""


def add_commands(subparsers: Subparsers) -> None:
    """Adds the command of this module."""
    formats = "\n".join(f"  {entry.name:11} {entry.summary}" for entry in FORMATS.values())
    summary = "export a saved model for other runtimes: Keras, TensorFlow, LiteRT, ONNX, OpenVINO"
    parser = add_command(subparsers, "export", _export, summary, _DESCRIPTION + formats)
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="folder of a model, as `hirise-imb models REPORT` lists them"
    )
    parser.add_argument("--format", choices=list(FORMATS), required=True, help="format of the export")
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="file or folder of the export (default: in exports/, next to MODEL)"
    )
    parser.add_argument(
        "--weights", metavar="WEIGHTS", help="weights of the backbone: imagenet or a file (default: those of the study)"
    )
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="images that the export is checked on (default: synthetic ones)"
    )
    parser.add_argument("--replace", action="store_true", help="replace an earlier export")
    add_quiet_option(parser)


def _export(options: argparse.Namespace) -> int:
    from hirise_imb.export.check import CheckImages
    from hirise_imb.export.exporter import check_place, export_model
    from hirise_imb.prediction.model_file import read_model
    from hirise_imb.utils.environment import load_tensorflow

    export_format = FORMATS[options.format]
    export_format.check_packages()
    model = read_model(options.model)
    path = options.out or options.model.absolute().parent / "exports" / f"{model.name}{export_format.suffix}"
    check_place(path, export_format, options.replace)
    images = CheckImages.of(model.image_shape, options.images)
    load_tensorflow()
    from hirise_imb.prediction.predictor import Predictor

    export = export_model(Predictor.load(model, options.weights), export_format, path, images)
    comparison = export.comparison
    write_line(
        f"{export.path} ({export.bytes / 1e6:.1f} MB), described by {export.facts_path.name}. Largest difference in "
        f"probability from Keras on {comparison.images} {export.images}: {comparison.largest_difference:.1e}."
    )
    if not comparison.is_informative:
        warn(
            f"Only {comparison.uncertain} of these images have a confidence of at most 0.99, and others show few "
            f"errors: repeat the export with --images and landmarks of all classes."
        )
    return 0
