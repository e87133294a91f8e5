"""Decides whether pages show landmarks, and collects what their pictures are made from, without TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import pandas as pd

from hirise_imb.backbones import BACKBONES
from hirise_imb.config import check_known
from hirise_imb.data.dataset import SPLITS
from hirise_imb.data.licence import state_licence
from hirise_imb.data.manifest import Manifest
from hirise_imb.features.arrays import Features
from hirise_imb.features.cache import read_cached_features
from hirise_imb.features.extraction import image_digests
from hirise_imb.features.inputs import TOP_MEAN
from hirise_imb.features.neighbours import LabelledLandmarks
from hirise_imb.features.table import read_feature_table
from hirise_imb.reporting.html.pictures import LandmarkPictures, make_pictures
from hirise_imb.reporting.results import Results
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import cache_root
from hirise_imb.utils.progress import say

ShowPictures = Literal["auto", "yes", "no"]
"""Whether pages show landmarks; `auto`: where the images are there and their licence is known."""


def check_pictures(option: str) -> ShowPictures:
    """Returns the option if it is one of `ShowPictures`.

    Raises:
        UserError: it is not.
    """
    return cast("ShowPictures", check_known("choice of pictures", option, get_args(ShowPictures)))


@dataclass(frozen=True)
class PictureMaker:
    """Makes the pictures of the pages of a report."""

    credit: str
    """Sentences about origin and licence of the images."""
    load: Callable[[], Manifest]
    """Reads the data."""
    required: bool
    """Whether a page without pictures is an error."""

    def __call__(self, results: Results) -> LandmarkPictures | None:
        """Returns the pictures of a page; None, with a log message, if they are not required and can't be made.

        Raises:
            UserError: they are required, but landmarks or images are missing or broken.
        """
        try:
            missing = sorted(set(results.test["image"]) - set(self._landmarks["image"]))
            if missing:
                raise UserError(
                    f"{self._manifest.folder} lacks {len(missing)} of the {len(results.test)} "
                    f"{results.terms.landmark}s (first: {missing[0]}): name the data of this report with --data."
                )
            return make_pictures(results, self._manifest, self.credit, self._find_features(results))
        except UserError as error:
            if self.required:
                raise
            say(f"The page shows no landmarks. {error}")
            return None

    @cached_property
    def _manifest(self) -> Manifest:
        return self.load()

    @cached_property
    def _landmarks(self) -> pd.DataFrame:
        return pd.concat([self._manifest.canonical_images(split) for split in SPLITS]).sort_index()

    def _find_features(self, results: Results) -> LabelledLandmarks | str:
        """Returns all landmarks with the features that the study used, or a sentence that says why there are none."""
        if results.origins:
            return "Nearest training landmarks are not shown in a comparison: see the reports that it compares."
        facts = results.environment.get("digests", {})
        if "features" in facts:
            path = results.environment["features"]["file"]
            features = self._read_table(Path(path), facts["features"])
            reason = f"{path} is not the table of features that this study used"
        else:
            features = self._read_cache(facts)
            reason = "the cache on this machine lacks the features of this study, which running it again would add"
        if features is None:
            return f"Nearest training landmarks are not shown: {reason}."
        return LabelledLandmarks(self._manifest, self._landmarks, features.take(np.arange(len(features))))

    def _read_cache(self, facts: Mapping[str, Any]) -> Features | None:
        card = BACKBONES.get(facts.get("backbone", ""))
        if card is None:
            return None
        digests = image_digests([self._manifest.path(image) for image in self._landmarks["image"]])
        shape = self._manifest.spec.image_shape
        return read_cached_features(cache_root(), card, facts["weights"], facts["precision"], shape, TOP_MEAN, digests)

    def _read_table(self, path: Path, digest: str) -> Features | None:
        images = list(self._manifest.table["image"])
        try:
            table = read_feature_table(path, images, image_digests([self._manifest.path(image) for image in images]))
        except UserError as error:
            say(str(error))
            return None
        if not table.digest.startswith(digest):
            return None
        return Features.of(table.vectors).select(self._landmarks.index.to_numpy())


def choose_pictures(option: str, data: str, dataset: str, load: Callable[[], Manifest]) -> PictureMaker | None:
    """Returns what makes the pictures of pages; None if they show none, with a log message if that is unasked.

    Args:
        option: one of `ShowPictures`.
        data: `data` of the study, or where its landmarks are now.
        dataset: `dataset` of the study.
        load: reads the data.

    Raises:
        UserError: there is no such option.
    """
    required = check_pictures(option) == "yes"
    credit = state_licence(data, dataset)
    if option == "no":
        return None
    if not credit and not required:
        say(
            f"The page shows no landmarks, because the licence of the images in {data} is unknown: --pictures yes "
            "shows them."
        )
        return None
    unknown = "The licence of the images is unknown to this program: check it before sharing this page."
    return PictureMaker(credit or unknown, load, required)
