"""Predicts shards in one process: from pixels, or, for the landmarks of a data set, from cached features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from hirise_imb.prediction.reading import BATCH, DecodedImage, ShardReader, decode_batches
from hirise_imb.prediction.shards import RowRange, Shard
from hirise_imb.prediction.table import PredictedImages
from hirise_imb.utils.progress import track

if TYPE_CHECKING:
    from hirise_imb.features.arrays import Features
    from hirise_imb.features.inputs import FeatureKey
    from hirise_imb.prediction.predictor import ModelOutput, Predictor

OnBatch = Callable[[int], None]
"""Called with the number of images of each batch that is finished."""


def _ignore(_: int) -> None:
    return


class PixelPredictor:
    """Predicts shards from the pixels of their images, which are decoded while the network works on others.

    Nothing is cached: the features of millions of images would fill a disk. Any process can predict a shard this way.
    """

    def __init__(self, predictor: Predictor) -> None:
        """Stores the model; the context manager starts the threads."""
        self._predictor = predictor

    def __enter__(self) -> Self:
        """Starts the threads that decode."""
        self._pool = ThreadPoolExecutor()
        self._reader = ShardReader()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the threads and closes files."""
        self._pool.shutdown(cancel_futures=True)
        self._reader.close()

    def predict(self, shard: Shard, on_batch: OnBatch = _ignore) -> PredictedImages:
        """Predicts the images of a shard."""
        images: list[DecodedImage] = []
        outputs: list[ModelOutput] = []
        for batch in decode_batches(self._reader.read(shard), self._predictor.model.image_shape, self._pool):
            pixels = [image.pixels for image in batch if image.pixels is not None]
            if pixels:
                outputs.append(self._predictor.predict(np.stack(pixels)))
            images += [image._replace(pixels=None) for image in batch]
            on_batch(len(batch))
        return _collect(images, outputs, self._predictor)


class LandmarkPredictor:
    """Predicts the landmarks of a data set through the cache of features, where a study has left most of them."""

    def __init__(self, predictor: Predictor, shards: Sequence[Shard], cache: Path) -> None:
        """Extracts the features of the images that can be decoded, unless they are cached.

        Args:
            predictor: model with its backbone.
            shards: shards of image files that will be predicted.
            cache: folder of all cached features.

        Raises:
            UserError: there is too little free disk space.
        """
        from hirise_imb.features.extraction import extract_features

        self._predictor = predictor
        self._images: dict[int, list[DecodedImage]] = {}
        self._rows: dict[str, int] = {}
        paths: list[Path] = []
        done = 0
        with (
            ShardReader() as reader,
            ThreadPoolExecutor() as pool,
            track("checking", sum(map(len, shards)), "images") as show,
        ):
            for shard in shards:
                assert not isinstance(shard.images, RowRange)  # the images of a data set are files
                self._images[shard.number] = images = []
                for batch in decode_batches(reader.read(shard), predictor.model.image_shape, pool):
                    images += [image._replace(pixels=None) for image in batch]
                    show(done := done + len(batch))
                for file, image in zip(shard.images, images, strict=True):
                    if image.error is None:
                        self._rows[image.id] = len(paths)
                        paths.append(Path(file.path))
        self._features: dict[FeatureKey, Features] = {}
        if paths:
            self._features = extract_features(predictor.backbone, predictor.model.features.keys, paths, cache)

    def predict(self, shard: Shard, on_batch: OnBatch = _ignore) -> PredictedImages:
        """Predicts the images of a shard."""
        images = self._images[shard.number]
        outputs: list[ModelOutput] = []
        # In the batches of `PixelPredictor`, so that features of large maps are not all in memory either.
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            rows = np.array([self._rows[image.id] for image in batch if image.error is None], np.int64)
            if len(rows):
                features = {key: values.select(rows) for key, values in self._features.items()}
                outputs.append(self._predictor.predict_features(features))
            on_batch(len(batch))
        return _collect(images, outputs, self._predictor)


def _collect(images: Sequence[DecodedImage], outputs: Sequence[ModelOutput], predictor: Predictor) -> PredictedImages:
    """Joins the outputs of the batches of a shard."""
    no_rows = np.empty((0, len(predictor.model.classes)))
    return PredictedImages(
        ids=[image.id for image in images],
        sources=[image.source for image in images],
        errors=[image.error for image in images],
        probabilities=np.concatenate([no_rows, *(output.probabilities for output in outputs)]),
        calibrated=np.concatenate([no_rows, *(output.calibrated for output in outputs)]),
    )
