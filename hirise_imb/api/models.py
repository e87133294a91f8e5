"""Saved models for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.metrics.operating_point import CONFIDENCE_THRESHOLD
from hirise_imb.prediction.inputs import ImageListing
from hirise_imb.prediction.model_file import SavedModel, read_model
from hirise_imb.prediction.table import PredictedImages, PredictionFacts, prediction_table
from hirise_imb.utils.errors import UserError

if TYPE_CHECKING:
    from hirise_imb.prediction.predictor import Predictor


class Model:
    """A saved model. Its backbone is built, and TensorFlow imported, when it predicts for the first time."""

    def __init__(self, saved: SavedModel, weights: str | None = None) -> None:
        """Stores a model that was read from its folder.

        Args:
            saved: the model.
            weights: `imagenet`, `random` or the path of a weights file of the backbone; None for what the study named.
        """
        self._saved, self._weights = saved, weights

    @property
    def name(self) -> str:
        """Name of the arm."""
        return self._saved.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return self._saved.classes.names

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Rows, columns and channels of the images."""
        return self._saved.image_shape

    @property
    def facts(self) -> dict[str, Any]:
        """What `model.json` says: origin, scores, operating point, recipe, backbone and features."""
        return dict(self._saved.facts)

    @cached_property
    def _predictor(self) -> Predictor:
        from hirise_imb.prediction.predictor import Predictor
        from hirise_imb.utils.environment import load_tensorflow

        load_tensorflow()
        return Predictor.load(self._saved, self._weights)

    def predict(
        self, images: NDArray[np.uint8] | str | Path | Sequence[str | Path], *, threshold: float = CONFIDENCE_THRESHOLD
    ) -> pd.DataFrame:
        """Predicts images.

        Args:
            images: pixels, shape (n, rows, columns, channels), or (n, rows, columns) for one channel; or one or more
                images, folders (with the folders inside them), zips, patterns or Parquet tables of encoded images.
            threshold: lowest confidence at which a prediction is shown.

        Returns:
            A row for each image. Columns: id (path, or position in the array), source (if the name tells it),
            probabilities as trained (`p_` and the name of the class) and calibrated (`calibrated_`), class, confidence
            (the calibrated probability of the class), shown (confidence >= threshold), error (why an image can't be
            used, otherwise None; its probabilities are NaN) and model (digest).

        Raises:
            UserError: pixels have another shape or type, a path does not exist, the backbone is not available, or the
                threshold is no probability.
        """
        if not 0 <= threshold <= 1:
            raise UserError(f"threshold is {threshold:g}: use a probability from 0 to 1.")
        facts = PredictionFacts.of(self._saved, threshold, (), None, "")
        predicted = [self._predict_pixels(images)] if isinstance(images, np.ndarray) else self._predict_paths(images)
        parts: list[pd.DataFrame] = [prediction_table(part, facts).to_pandas() for part in predicted]
        return pd.concat(parts, ignore_index=True)

    def _predict_pixels(self, pixels: NDArray[Any]) -> PredictedImages:
        rows, columns, channels = self.image_shape
        shape = " x ".join(map(str, pixels.shape))
        if pixels.ndim == 3 and channels == 1:
            pixels = pixels[..., None]
        if pixels.shape[1:] != self.image_shape or pixels.dtype != np.uint8:
            raise UserError(
                f"The images are an array of {shape} values of type {pixels.dtype}, but the model {self.name} takes "
                f"n x {rows} x {columns} x {channels} of type uint8: resize or convert them."
            )
        output = self._predictor.predict(pixels)
        ids = [str(place) for place in range(len(pixels))]
        nothing: list[None] = [None] * len(pixels)
        return PredictedImages(ids, nothing, nothing, output.probabilities, output.calibrated)

    def _predict_paths(self, paths: str | Path | Sequence[str | Path]) -> Iterable[PredictedImages]:
        from hirise_imb.prediction.engine import PixelPredictor
        from hirise_imb.prediction.shards import plan_shards

        listing = ImageListing([str(path) for path in ([paths] if isinstance(paths, str | Path) else paths)])
        with PixelPredictor(self._predictor) as engine:
            for shard in plan_shards(listing):
                yield engine.predict(shard)

    def __repr__(self) -> str:
        """Returns the name of the model, its classes and the shape of its images."""
        rows, columns, channels = self.image_shape
        return f"Model {self.name}: {len(self.classes)} classes, images of {rows} x {columns} x {channels}"


def load_model(folder: str | Path, *, weights: str | None = None) -> Model:
    """Loads a model from its folder, such as `reports/demo/models/combined`, and verifies its files.

    Args:
        folder: folder of the model.
        weights: `imagenet`, `random` or the path of a weights file of the backbone; None for what the study named.

    Raises:
        UserError: there is no model, a file is damaged, or it was written by another version of this program.
    """
    return Model(read_model(Path(folder).expanduser()), weights)
