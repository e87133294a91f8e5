"""The model file: a folder with `model.json`, `weights.npz`, `SHA256SUMS` of these two, and a model card.

Nothing in it runs code when it is loaded: arrays are read without pickle. The model card, `README.md`, is for people
and may be edited, so it is not among the files that are verified.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hirise_imb.backbones import PRECISIONS, Backbone, Trainable
from hirise_imb.data.dataset import ClassSet, check_image_shape
from hirise_imb.features.inputs import FeatureSpec, Input
from hirise_imb.prediction.records import FORMAT, BackboneRecord, FeatureSpecRecord, ModelRecord
from hirise_imb.reporting.summary.json_schema import schema_of
from hirise_imb.training.fitted import FittedModel
from hirise_imb.utils.arrays import read_arrays
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import check_regular_file, digest_of, ensure_folder, write_text
from hirise_imb.utils.strict_json import parse_json

FACTS, WEIGHTS, SUMS, CARD = "model.json", "weights.npz", "SHA256SUMS", "README.md"

_MAX_SUMS = 1000
"""Bytes of the file of digests that are read; it has fewer."""

_MAX_FACTS = 64 << 20
"""Bytes that `model.json` may have; the sources of a data set of a million images take a tenth of it."""

_AGAIN = "restore it, or run the study again"


@dataclass(frozen=True, eq=False)
class SavedModel:
    """A model that was read from its folder.

    Raises:
        ValueError: facts and fits do not agree.
    """

    facts: ModelRecord
    fits: tuple[FittedModel, ...]
    """One for each seed; probabilities are means over them."""
    digest: str
    """SHA-256 of the file of digests, which identifies the model."""

    def __post_init__(self) -> None:
        """Checks the numbers of seeds and classes, the shape of images, and the names of views, poolings, precision."""
        if len(self.fits) != len(self.facts["seeds"]):
            raise ValueError(f"there are {len(self.fits)} fits for {len(self.facts['seeds'])} seeds")
        if any(fit.n_classes != len(self.facts["classes"]) for fit in self.fits):
            raise ValueError(f"the fits have {self.fits[0].n_classes} classes, but {len(self.facts['classes'])} names")
        check_image_shape(self.facts["image_shape"])
        if self.facts["backbone"]["precision"] not in PRECISIONS:
            raise ValueError(f"its precision is not one of {', '.join(PRECISIONS)}")
        _ = self.classes, self.features  # they check their values

    @property
    def name(self) -> str:
        """Name of the arm."""
        return self.facts["origin"]["arm"]

    @property
    def classes(self) -> ClassSet:
        """Classes in the order of the probabilities."""
        return ClassSet(tuple(self.facts["classes"]), self.facts["majority"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Rows, columns and channels of an image."""
        rows, columns, channels = self.facts["image_shape"]
        return rows, columns, channels

    @property
    def dataset(self) -> str:
        """Data set, or layout of data that brings its own classes."""
        return self.facts["dataset"]

    @property
    def backbone(self) -> BackboneRecord:
        """The network that features come from."""
        return self.facts["backbone"]

    @property
    def features(self) -> FeatureSpec:
        """The features from which the model predicts."""
        spec = self.facts["features"]
        inputs = tuple(Input(**cast("Any", entry)) for entry in spec["inputs"])
        return FeatureSpec(inputs, tuple(spec["views"]), spec["cut"], cast("Trainable", spec["trainable"]))


def describe_backbone(backbone: Backbone, weights: str) -> BackboneRecord:
    """Returns the facts of the network that features come from.

    Args:
        backbone: backbone with its weights.
        weights: `imagenet`, `random` or the path of a file.
    """
    return {
        "name": backbone.card.name,
        "weights": weights,
        "digest": backbone.digest,
        "precision": backbone.precision,
        "preprocessing": backbone.card.preprocessing,
    }


def describe_features(spec: FeatureSpec) -> FeatureSpecRecord:
    """Returns the facts from which `SavedModel.features` makes a specification again."""
    return {
        "inputs": [{"view": entry.view, "layer": entry.layer, "pooling": entry.pooling} for entry in spec.inputs],
        "views": list(spec.views),
        "cut": spec.cut,
        "trainable": spec.trainable,
    }


def write_model(folder: Path, facts: ModelRecord, fits: Mapping[int, FittedModel], card: str) -> None:
    """Writes a model folder, in place of an earlier one: completely or not at all.

    If the earlier one is the same model, it is left as it is, with the card that somebody may have edited.

    Args:
        folder: folder of the model.
        facts: content of `model.json`.
        fits: fit of each seed of `facts`.
        card: model card in Markdown.

    Raises:
        ValueError: the facts violate their schema.
    """
    if (fault := _find_fault(facts)) is not None:
        raise ValueError(f"the facts of the model violate their schema: {fault}")
    # Names of their own, not random ones, so that the next write finds what a killed one has left.
    work, earlier = (folder.with_name(f".{folder.name}.{part}") for part in ("new", "earlier"))
    ensure_folder(folder.parent)
    _restore(folder, earlier)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        arrays: dict[str, NDArray[Any]] = {
            f"fits.{place}.{name}": array
            for place, seed in enumerate(facts["seeds"])
            for name, array in fits[seed].to_arrays().items()
        }
        np.savez(work / WEIGHTS, allow_pickle=False, **arrays)
        write_text(work / FACTS, json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        write_text(work / SUMS, "".join(f"{digest_of(work / name, 'sha256')}  {name}\n" for name in (FACTS, WEIGHTS)))
        write_text(work / CARD, card)
        if not _is_same(folder, work):
            if folder.exists():
                folder.replace(earlier)
            work.replace(folder)
    finally:
        _restore(folder, earlier)
        shutil.rmtree(work, ignore_errors=True)


def read_model(folder: Path) -> SavedModel:
    """Reads and verifies a model folder.

    Raises:
        UserError: there is no model, a file is damaged, or it was written by another version of this program.
    """
    # A folder from elsewhere may have a pipe or a device of this name, whose reading would never end.
    check_regular_file(folder / SUMS)
    if not (folder / SUMS).is_file():
        raise UserError(
            f"There is no model in {folder}: name a folder that contains {SUMS}, such as one that `hirise-imb models "
            f"REPORT` lists."
        )
    with (folder / SUMS).open("rb") as file:
        sums = file.read(_MAX_SUMS)
    _verify(folder, sums)
    facts = _read_facts(folder / FACTS)
    try:
        by_fit = _read_arrays(folder / WEIGHTS, len(facts["seeds"]))
        fits = tuple(FittedModel.from_arrays(arrays) for arrays in by_fit)
        return SavedModel(facts, fits, hashlib.sha256(sums).hexdigest())
    except ValueError as error:
        raise UserError(f"{folder} is not a model that this program can use ({error}): {_AGAIN}.") from error


def _verify(folder: Path, sums: bytes) -> None:
    """Checks the digests of the files."""
    pattern = "".join(f"([0-9a-f]{{64}})  {re.escape(name)}\n" for name in (FACTS, WEIGHTS))
    match = re.fullmatch(pattern.encode(), sums)
    if match is None:
        raise UserError(f"{folder / SUMS} does not list the digests of {FACTS} and {WEIGHTS}: {_AGAIN}.")
    for name, digest in zip((FACTS, WEIGHTS), match.groups(), strict=True):
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing: {_AGAIN}.")
        if digest_of(path, "sha256") != digest.decode():
            raise UserError(f"{path} is not the file that was written with the model: {_AGAIN}.")


def _read_facts(path: Path) -> ModelRecord:
    if path.stat().st_size > _MAX_FACTS:
        raise UserError(f"{path} has more than {_MAX_FACTS >> 20} MB: {_AGAIN}.")
    try:
        facts = parse_json(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): {_AGAIN}.") from error
    if isinstance(facts, dict) and facts.get("format") != FORMAT:
        raise UserError(
            f"{path} has the format {facts.get('format')}, and this version of the program reads {FORMAT}: use the "
            f"version that wrote it, or run the study again."
        )
    if (fault := _find_fault(facts)) is not None:
        raise UserError(f"{path} does not describe a model that this program can use ({fault}): {_AGAIN}.")
    return cast("ModelRecord", facts)


def _read_arrays(path: Path, n_fits: int) -> list[dict[str, NDArray[Any]]]:
    """Reads the arrays of each fit.

    Raises:
        ValueError: the file is damaged, or an array belongs to no fit.
    """
    by_fit: list[dict[str, NDArray[Any]]] = [{} for _ in range(n_fits)]
    with path.open("rb") as file:
        arrays = read_arrays(file)
    for name, array in arrays.items():
        match = re.fullmatch(r"fits\.([0-9]{1,6})\.(.+)", name)
        if match is None or int(match[1]) >= n_fits:
            raise ValueError(f"the array {name} belongs to no fit")
        by_fit[int(match[1])][match[2]] = array
    return by_fit


@cache
def _validator() -> Any:  # noqa: ANN401
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema_of(ModelRecord))


def _find_fault(facts: object) -> str | None:
    """Returns where and how facts violate their schema, or None."""
    from jsonschema.exceptions import best_match

    error = best_match(_validator().iter_errors(facts))
    return None if error is None else f"at {error.json_path}: {error.message[:160]}"


def _is_same(folder: Path, work: Path) -> bool:
    """Returns whether a folder has the model that is in another one, undamaged and with a card."""
    sums = (work / SUMS).read_bytes()
    try:
        if (folder / SUMS).read_bytes() != sums or not (folder / CARD).is_file():
            return False
        _verify(folder, sums)
    except (OSError, UserError):
        return False
    return True


def _restore(folder: Path, earlier: Path) -> None:
    """Moves an earlier model back if no new one has taken its place, and otherwise removes it."""
    if earlier.exists() and not folder.exists():
        earlier.replace(folder)
    shutil.rmtree(earlier, ignore_errors=True)
