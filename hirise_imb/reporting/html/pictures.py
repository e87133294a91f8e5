"""Pictures of landmarks for a page: one of each class, and the most confident errors with similar training landmarks.

They need the images of the data set, which a report does not contain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.data.dataset import SPLITS, NoSources
from hirise_imb.data.images import decode_image, encode_data_url
from hirise_imb.data.manifest import Manifest
from hirise_imb.features.neighbours import LabelledLandmarks
from hirise_imb.reporting.formatting import percent, plural, score
from hirise_imb.reporting.results import Results
from hirise_imb.reporting.verdict import verdict

MAX_ERRORS = 6
"""Largest number of errors that are shown."""

MAX_PICTURES = 40
"""Number of pictures on a page; where the classes alone need most of them, `MIN_ERRORS` errors are still shown."""

MIN_ERRORS = 2

N_NEIGHBOURS = 2
"""Number of training landmarks of each of the two classes that are shown next to an error."""

SIZE = 96
"""Largest width and height of a picture in pixels."""


@dataclass(frozen=True)
class Picture:
    """A landmark on a page."""

    image: str
    source: str
    address: str
    """A `data:` URL."""
    note: str = ""
    """Few words below the picture."""


@dataclass(frozen=True)
class ClassExample:
    """A class with one of its landmarks."""

    name: str
    picture: Picture
    landmarks: str
    """Number of landmarks in the whole data set, in words."""
    sources: str
    """Number of their sources, in words; empty if the data set names none."""


@dataclass(frozen=True)
class NeighbourGroup:
    """The training landmarks of a class that are nearest to an error; empty where the class has none."""

    class_name: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class ConfidentError:
    """A landmark that was assigned to a wrong class with high confidence."""

    picture: Picture
    true_class: str
    predicted_class: str
    confidence: str
    """Probability of the predicted class in per cent, mean over fits."""
    groups: tuple[NeighbourGroup, ...]
    """Neighbours of the predicted and of the true class; empty without features."""


@dataclass(frozen=True)
class LandmarkPictures:
    """All pictures of a page."""

    arm: str
    """Name of the arm whose errors are shown."""
    classes: tuple[ClassExample, ...]
    errors: tuple[ConfidentError, ...]
    caption: str
    """Sentences about the neighbours of the errors, or the reason why there are none."""
    credit: str
    """Sentences about origin and licence of the images."""


def make_pictures(
    results: Results, manifest: Manifest, credit: str, known: LabelledLandmarks | str
) -> LandmarkPictures:
    """Returns the pictures of a page.

    The errors are those of the arm that the verdict advises; in a comparison, which has no advice, of the best arm on
    validation of its first report. Probabilities are averaged over fits.

    Args:
        results: results of the report.
        manifest: data set of its landmarks.
        credit: sentences about origin and licence of the images.
        known: all landmarks of the data set with their features, or a sentence that says why there are no features.

    Raises:
        UserError: an image is missing or broken.
    """
    advised = {verdict(results).choice} if not results.origins else results.preferred
    arm = next((arm for arm in results.ordered if arm.name in advised), results.arms[0])
    p = np.mean([fit.probabilities for fit in arm.predictions], axis=0)
    needed = 1 + 2 * N_NEIGHBOURS
    n_errors = min(MAX_ERRORS, max(MIN_ERRORS, (MAX_PICTURES - len(results.classes)) // needed))
    drawer = _Drawer(results, manifest, None if isinstance(known, str) else known)
    errors = tuple(drawer.draw_error(p, row) for row in _find_confident_errors(results, p, n_errors))
    return LandmarkPictures(
        arm=arm.name,
        classes=tuple(drawer.draw_examples()),
        errors=errors,
        caption=known if isinstance(known, str) else _describe_neighbours(results),
        credit=credit,
    )


class _Drawer:
    """Makes the pictures of one page."""

    def __init__(self, results: Results, manifest: Manifest, known: LabelledLandmarks | None) -> None:
        self._results = results
        self._manifest = manifest
        self._known = known

    def draw_examples(self) -> list[ClassExample]:
        """Returns a landmark of each class: one of the source that has most landmarks of the class."""
        table = pd.concat([self._manifest.canonical_images(split) for split in SPLITS]).sort_index()
        examples = []
        for label, name in enumerate(self._manifest.spec.classes):
            of_class = table[table["label"] == label]
            source = str(of_class.groupby("source").size().idxmax())
            images = of_class.loc[of_class["source"] == source, "image"]
            # Landmarks are numbered along the observation; the first and the last are often cut off at its border.
            image = images.iloc[len(images) // 2]
            has_sources = not isinstance(self._manifest.spec.identity, NoSources)
            sources = plural(of_class["source"].nunique(), "source") if has_sources else ""
            examples.append(ClassExample(name, self._draw(image, source), plural(len(of_class), "landmark"), sources))
        return examples

    def draw_error(self, p: NDArray[np.floating], row: int) -> ConfidentError:
        """Returns an error with its neighbours.

        Args:
            p: probabilities of all tested landmarks, shape (n, n_classes).
            row: row of the error.
        """
        landmark = self._results.test.iloc[row]
        predicted, classes = int(p[row].argmax()), self._results.classes
        groups: tuple[NeighbourGroup, ...] = ()
        if self._known is not None:
            features = self._known.features_of(landmark["image"])
            among = _find_training_landmarks(self._results, self._known.images, landmark["source"])
            groups = tuple(
                self._draw_group(self._known, features, label, among) for label in (predicted, int(landmark["label"]))
            )
        return ConfidentError(
            picture=self._draw(landmark["image"], landmark["source"]),
            true_class=classes[landmark["label"]],
            predicted_class=classes[predicted],
            confidence=percent(float(p[row, predicted])),
            groups=groups,
        )

    def _draw_group(
        self, known: LabelledLandmarks, features: NDArray[np.floating], label: int, among: NDArray[np.bool_]
    ) -> NeighbourGroup:
        neighbours = known.nearest(features, label, N_NEIGHBOURS, among)
        pictures = (
            Picture(one.image, one.source, encode_data_url(one.pixels, SIZE), score(one.similarity))
            for one in neighbours
        )
        return NeighbourGroup(self._results.classes[label], tuple(pictures))

    def _draw(self, image: str, source: str) -> Picture:
        pixels = decode_image(self._manifest.path(image), self._manifest.spec.image_shape)
        return Picture(image, source, encode_data_url(pixels, SIZE))


def _find_confident_errors(results: Results, p: NDArray[np.floating], number: int) -> Sequence[int]:
    """Returns the rows of the errors with the highest confidence, in descending order."""
    wrong = np.flatnonzero(p.argmax(axis=1) != results.labels)
    order = np.argsort(-p.max(axis=1)[wrong], kind="stable")[:number]
    return [int(row) for row in wrong[order]]


def _find_training_landmarks(results: Results, landmarks: pd.DataFrame, source: str) -> NDArray[np.bool_]:
    """Returns which landmarks the models that predicted a source were trained on or chosen by, shape (n,).

    In a nested cross-validation these are the landmarks outside the outer fold of the source; with several repeats,
    outside all its outer folds. In the given split, they are those of training and validation.
    """
    if results.outer_folds is None:
        return (landmarks["split"] != "test").to_numpy()
    own = results.outer_folds.loc[results.outer_folds["source"] == source, ["repeat", "fold"]]
    tested_together = results.outer_folds.merge(own)["source"]
    return (~landmarks["source"].isin(tested_together)).to_numpy()


def _describe_neighbours(results: Results) -> str:
    pool = "training and validation"
    if results.outer_folds is not None:
        pool = "the other outer folds" if results.repeats == 1 else "other outer folds in every repeat"
    return (
        f"Neighbours are the nearest landmarks of {pool}, those of different sources first; below each, the cosine "
        "similarity of the backbone's features."
    )
