"""Exports a saved model: writes it in a format, checks it, and only then moves it to its place."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hirise_imb.export.check import TOLERANCE, CheckImages, Comparison, compare
from hirise_imb.export.formats import ExportFormat
from hirise_imb.export.network import build_network
from hirise_imb.prediction.model_file import SavedModel
from hirise_imb.prediction.predictor import Predictor
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import ensure_folder, write_text

if TYPE_CHECKING:
    from keras import Model


@dataclass(frozen=True)
class Export:
    """An export that has passed its check."""

    path: Path
    """File, or folder, of the export."""
    facts_path: Path
    """JSON file that describes it."""
    bytes: int
    """Size of all its files."""
    images: str
    """Describes the images that it was checked on."""
    comparison: Comparison


def facts_path(path: Path) -> Path:
    """Returns the path of the JSON file that describes an export."""
    return path.with_name(f"{path.name}.json")


def check_place(path: Path, export_format: ExportFormat, replace: bool) -> None:
    """Checks that an export may be written to a path.

    Raises:
        UserError: its name does not fit the format, or something is there already and may not be replaced.
    """
    if not export_format.is_folder and path.suffix != export_format.suffix:
        raise UserError(
            f"--out is {path}, but the name of an export to {export_format.name} ends in {export_format.suffix}: "
            f"choose another one."
        )
    for place in (path, facts_path(path), *(path.with_suffix(suffix) for suffix in export_format.other_suffixes)):
        if not place.exists():
            continue
        if not replace:
            raise UserError(f"{place} exists: choose another --out, or confirm with --replace.")
        # A folder of something else must not be deleted because of a wrong --out.
        is_saved_model = (place / "saved_model.pb").is_file()
        if place.is_dir() and not (is_saved_model and export_format.is_folder and place == path):
            raise UserError(
                f"{place} is a folder, and not an earlier export to {export_format.name}: choose another --out."
            )


def export_model(predictor: Predictor, export_format: ExportFormat, path: Path, images: CheckImages) -> Export:
    """Exports a model in place of an earlier export, and checks that its own runtime gives the same probabilities.

    Args:
        predictor: the model in Keras.
        export_format: format.
        path: file, or folder, of the export.
        images: images that it is checked on.

    Raises:
        UserError: the probabilities differ, or the backbone computes in another precision than float32. The place of
            the export is left as it was.
    """
    model, precision = predictor.model, predictor.backbone.precision
    if precision != "float32":
        # Each runtime rounds to bfloat16 at places of its own, which changes probabilities by up to 0.02.
        raise UserError(
            f"The backbone of the model {model.name} computes in {precision}, and exports only in float32: train the "
            f"model with --precision float32."
        )
    expected = predictor.predict(images.pixels).calibrated
    network = build_network(model, predictor.backbone)
    work = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=ensure_folder(path.parent)))
    try:
        comparison = _write_and_compare(network, export_format, work / path.name, images, expected)
        size = sum(file.stat().st_size for file in work.rglob("*") if file.is_file())
        if not comparison.passes:
            raise UserError(
                f"The export of the model {model.name} to {export_format.name} gives probabilities that differ from "
                f"Keras by up to {comparison.largest_difference:.2g} on {comparison.images} {images.description}, more "
                f"than {TOLERANCE:g}: it was not kept; use another --format."
            )
        facts = _describe(model, export_format, path, images, comparison)
        write_text(work / facts_path(path).name, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        _move_files(work, path.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Export(path, facts_path(path), size, images.description, comparison)


def _write_and_compare(
    network: Model, export_format: ExportFormat, path: Path, images: CheckImages, expected: NDArray[np.floating]
) -> Comparison:
    """Writes an export, and compares what its runtime gives with the probabilities of the model.

    Raises:
        UserError: the format or its runtime does not support the network.
    """
    try:
        export_format.write(network, path)
        return compare(export_format.load(path), images.pixels, expected)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        # Converters and runtimes raise errors of every kind where a network has an operation that they lack.
        reason = shorten(next(iter(str(error).splitlines()), type(error).__name__), 160, placeholder=" ...")
        raise UserError(
            f"This model can't be exported to {export_format.name} ({reason}): use another --format."
        ) from error


def _describe(
    model: SavedModel, export_format: ExportFormat, path: Path, images: CheckImages, comparison: Comparison
) -> Mapping[str, Any]:
    """Returns the facts that a user of the export needs."""
    return {
        "file": path.name,
        "format": export_format.name,
        "model": model.digest,
        "model_name": model.name,
        "dataset": model.dataset,
        "classes": list(model.classes),
        "majority": model.classes.majority,
        "input": {"shape": [None, *model.image_shape], "type": "float32", "range": [0, 255]},
        "output": {"shape": [None, len(model.classes)], "type": "float32", "content": "calibrated probabilities"},
        "confidence_threshold": model.facts["operating_point"]["threshold"],
        "check": {
            "images": comparison.images,
            "description": images.description,
            "uncertain": comparison.uncertain,
            "largest_difference": comparison.largest_difference,
        },
        "packages": {name: version(name) for name in ("hirise-imb", *export_format.packages)},
    }


def _move_files(work: Path, folder: Path) -> None:
    """Moves the files of an export to a folder; those of an earlier export take their place in `work`."""
    files = sorted(work.iterdir())
    (earlier := work / "earlier").mkdir()
    for file in files:
        place = folder / file.name
        if place.exists():
            place.replace(earlier / file.name)
        file.replace(place)
