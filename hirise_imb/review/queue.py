"""Builds the review queue of some predictions: candidates with their images and nearest training landmarks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.data.dataset import ClassSet, NameGrammar
from hirise_imb.data.images import UnusableImage, decode_content
from hirise_imb.features.neighbours import LabelledLandmarks, Neighbour, pooled_features
from hirise_imb.prediction.inputs import parse_name
from hirise_imb.prediction.table import PredictionFacts, calibrated_columns, read_facts, read_predictions
from hirise_imb.review.candidates import choose_candidates, expected_value, shortlist
from hirise_imb.review.images import read_images
from hirise_imb.utils.errors import UserError, bullet_list

if TYPE_CHECKING:
    from hirise_imb.backbones import Backbone
    from hirise_imb.data.manifest import Manifest

Ints = NDArray[np.int64]

N_NEIGHBOURS = 3
"""Number of training landmarks that are shown next to a candidate."""

_MAX_SHOWN = 10
"""Number of images that one message lists; the others are counted."""


@dataclass(frozen=True, eq=False)
class Proposal:
    """A candidate as the page shows it."""

    id: str
    source: str
    """Source of the image; empty where it is unknown."""
    label: int
    """Class id that the image is proposed for."""
    value: float
    """Expected value of looking at it."""
    calibrated: NDArray[np.floating]
    """Calibrated probabilities, shape (n_classes,)."""
    pixels: NDArray[np.uint8]
    """Shape (rows, columns, channels)."""
    neighbours: tuple[Neighbour, ...]
    """Nearest training landmarks of the class."""


@dataclass(frozen=True, eq=False)
class Review:
    """The queue of some predictions."""

    facts: PredictionFacts
    proposals: tuple[Proposal, ...]
    """In the order of the classes, best first."""
    images: int
    """Number of predicted images that can be candidates."""
    errors: int
    """Number of images without a prediction."""
    labelled: int
    """Number of images that are left out because the training data contain them."""
    places: tuple[str, ...]
    """Where the images are."""
    per_source: int
    """Largest number of candidates of a class that are from one source."""
    training: TrainingData | None
    """Data whose landmarks are shown as neighbours; None if there are none."""

    @property
    def classes(self) -> ClassSet:
        """Classes of the model."""
        return self.facts.class_set

    @property
    def digest(self) -> str:
        """SHA-256 of the model and the queue, 16 hexadecimal digits; labels and the browser's progress belong to it."""
        content = [self.facts.model, self.facts.classes, [[one.id, one.label] for one in self.proposals]]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The data whose landmarks are compared with candidates, usually those that the model was trained on."""

    name: str
    """Value of --data."""
    manifest: Manifest
    splits: tuple[str, ...]
    """Splits whose landmarks are shown: those that the model was trained on or chosen by."""
    is_of_model: bool
    """Whether these are known to be the data that the model was trained on."""


def build_review(
    path: Path,
    places: Sequence[str],
    backbone: Backbone,
    training: TrainingData | None,
    per_class: int,
    per_source: int,
) -> Review:
    """Chooses the candidates of some predictions, and reads their images.

    Args:
        path: file of predictions.
        places: where the images are: images, folders, zips and tables of images.
        backbone: backbone whose features say which images resemble each other.
        training: data whose landmarks are shown, and whose images are left out; None if there are none.
        per_class: largest number of candidates of a class.
        per_source: largest number of candidates of a class that are from one source.

    Raises:
        UserError: a file can't be read, an image is missing, or there are no candidates.
    """
    calibrated = calibrated_columns(read_facts(path).class_set)
    facts, table = read_predictions(path, ["id", "source", "error", *calibrated])
    usable = table[table["error"].isna()]
    is_labelled = _find_labelled(usable["id"], training.manifest if training else None)
    new = usable[~is_labelled]
    if new.empty:
        reason = "is in the training data already" if len(usable) else "could not be predicted"
        raise UserError(f"Every image of {path} {reason}: predict images that nobody has labelled.")

    classes = facts.class_set
    p = new[calibrated].to_numpy(np.float64)
    values, sources = expected_value(p), _number_sources(new["source"])
    rows = shortlist(values, sources, classes, per_class, per_source)
    short = new.iloc[rows]
    pixels = _decode_images(short["id"].tolist(), places, facts.image_shape)
    features = pooled_features(backbone, pixels)
    landmarks = _number_landmarks(short["id"])
    candidates = choose_candidates(values[rows], sources[rows], landmarks, features, classes, per_class, per_source)
    known = LabelledLandmarks.extract(training.manifest, training.splits, backbone) if training else None
    proposals = [
        Proposal(
            id=short["id"].iloc[one.row],
            source=source if isinstance(source := short["source"].iloc[one.row], str) else "",
            label=one.label,
            value=one.value,
            calibrated=p[rows[one.row]],
            pixels=pixels[one.row],
            neighbours=tuple(known.nearest(features[one.row], one.label, N_NEIGHBOURS)) if known else (),
        )
        for one in candidates
    ]
    return Review(
        facts,
        tuple(proposals),
        images=len(new),
        errors=len(table) - len(usable),
        labelled=int(is_labelled.sum()),
        places=tuple(places),
        per_source=per_source,
        training=training,
    )


def _find_labelled(ids: pd.Series, manifest: Manifest | None) -> NDArray[np.bool_]:
    """Returns which predicted images a data set contains, shape (n_ids,).

    A name in a grammar identifies the image, wherever it is. Other names do not, such as `0001.jpg`: the id must then
    end with the whole path below the image folder.
    """
    if manifest is None:
        return np.zeros(len(ids), bool)
    images = set(manifest.table["image"])
    if isinstance(manifest.spec.identity, NameGrammar):
        known = {PurePosixPath(image).name for image in images}
        found = [id_.rpartition("/")[2] in known for id_ in ids]
    else:
        paths = [id_.split("/") for id_ in ids]
        found = [any("/".join(parts[start:]) in images for start in range(len(parts))) for parts in paths]
    return np.array(found, bool)


def _number_sources(sources: pd.Series) -> Ints:
    """Returns the number of the source of each image; an image of unknown source is a source of its own."""
    numbers = pd.factorize(sources)[0].astype(np.int64)
    unknown = numbers < 0
    numbers[unknown] = len(numbers) + np.arange(unknown.sum())
    return numbers


def _number_landmarks(ids: pd.Series) -> Ints:
    """Returns the number of the landmark of each image; without a grammar, each image is a landmark of its own."""

    landmarks = [name.landmark if (name := parse_name(id_)) else id_ for id_ in ids]
    return pd.factorize(np.array(landmarks, object))[0].astype(np.int64)


def _decode_images(ids: Sequence[str], places: Sequence[str], shape: Sequence[int]) -> list[NDArray[np.uint8]]:
    """Reads and decodes images.

    Raises:
        UserError: some are missing or can't be decoded.
    """
    rows, columns, channels = shape
    contents = read_images(ids, places)
    pixels, mistakes = [], []
    for id_ in ids:
        try:
            pixels.append(decode_content(contents[id_], (rows, columns, channels)))
        except KeyError:
            mistakes.append(f"{id_} is missing")
        except UnusableImage as error:
            mistakes.append(f"{id_} {error}")
    if mistakes:
        raise UserError(
            f"{len(mistakes)} of {len(ids)} images that may be candidates can't be read; name with --images all places "
            f"that were predicted:{bullet_list(mistakes, _MAX_SHOWN)}"
        )
    return pixels
