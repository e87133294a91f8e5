"""Predicts images shard by shard: a prediction that was killed continues, and ends with the same file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from hirise_imb.prediction.engine import LandmarkPredictor, OnBatch, PixelPredictor
from hirise_imb.prediction.inputs import LandmarkListing, Listing
from hirise_imb.prediction.model_file import SavedModel
from hirise_imb.prediction.parts import Parts, Totals, count_rows
from hirise_imb.prediction.predictor import Predictor
from hirise_imb.prediction.shards import Shard, plan_shards, survey_shards
from hirise_imb.prediction.table import PredictionFacts, prediction_table
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import cache_root, ensure_folder, exclusive_lock
from hirise_imb.utils.progress import say, track


@dataclass(frozen=True)
class PredictionRequest:
    """What is predicted, and where the predictions are written.

    Raises:
        UserError: the output has the wrong suffix, or the threshold is no probability.
    """

    model: SavedModel
    listing: Listing
    out: Path
    """Parquet file that is written."""
    threshold: float
    """Lowest confidence at which a prediction is shown."""
    inputs: tuple[str, ...]
    """INPUT arguments, for the metadata of the file."""
    split: str | None = None
    """Value of `--split`, for the metadata of the file."""

    def __post_init__(self) -> None:
        """Checks output and threshold."""
        if self.out.suffix != ".parquet" or self.out.is_dir():
            raise UserError(f"--out is {self.out}: name a file that ends in .parquet.")
        if not 0 <= self.threshold <= 1:
            raise UserError(f"--threshold is {self.threshold:g}: use a probability from 0 to 1.")


Progress = Callable[[], AbstractContextManager[OnBatch]]
"""Shows progress from when it is entered; what it returns is called with the number of images of each batch."""

Engine = Callable[[PredictionRequest, Iterator[Shard], Parts, Progress], None]
"""Predicts shards and writes each of them to the parts; shows progress as soon as the model is loaded."""


def run_prediction(request: PredictionRequest, engine: Engine) -> Totals:
    """Predicts all images that have not been predicted yet, and writes one file.

    Args:
        request: what is predicted.
        engine: predicts shards.

    Raises:
        UserError: the output or its unfinished shards belong to something else, an input can't be read or changes
            meanwhile, or no image can be used.
    """
    try:
        return _run(request, engine)
    except FileNotFoundError as error:  # files are listed, read and joined over hours
        if not error.filename:
            raise
        raise UserError(f"{error.filename} was removed while images were predicted: run the command again.") from error


def _run(request: PredictionRequest, engine: Engine) -> Totals:
    ensure_folder(request.out.parent)
    say("Counting the images ...")
    survey = survey_shards(plan_shards(request.listing))
    facts = PredictionFacts.of(request.model, request.threshold, request.inputs, request.split, survey.fingerprint)
    parts = Parts(request.out, facts)
    with exclusive_lock(request.out):
        if parts.is_complete():
            parts.remove()  # of a run that was killed between the last two steps
            say(f"{request.out} is complete: nothing is predicted again.")
            return count_rows(request.out)
        parts.open_folder()
        # Numbers alone: each shard is a list of names.
        finished = {shard.number: len(shard) for shard in plan_shards(request.listing) if parts.has(shard)}
        done = sum(finished.values())
        if done:
            say(f"{done:,} of {survey.images:,} images are predicted already.")
        missing = (shard for shard in plan_shards(request.listing) if shard.number not in finished)
        engine(request, missing, parts, partial(_track_images, survey.images, done))
        if survey_shards(plan_shards(request.listing)) != survey:
            raise UserError(
                f"Images were added, removed or changed while they were predicted: delete {parts.folder} and run the "
                "command again."
            )
        return parts.join(survey.shards)


@contextmanager
def _track_images(total: int, done: int) -> Iterator[OnBatch]:
    """Shows how many images are predicted.

    Args:
        total: number of all images.
        done: number of images that were predicted earlier.
    """
    with track("predictions", total, "images", already=done) as show:

        def count(images: int) -> None:
            nonlocal done
            show(done := done + images)

        yield count


def predict_in_this_process(load: Callable[[], Predictor]) -> Engine:
    """Returns the engine that predicts one shard after the other in this process.

    Args:
        load: loads the model with its backbone; called only if something is left to predict.
    """

    def predict(request: PredictionRequest, shards: Iterator[Shard], parts: Parts, progress: Progress) -> None:
        first = next(shards, None)
        if first is None:
            return
        predictor = load()
        remaining: Iterable[Shard] = chain([first], shards)
        with ExitStack() as stack:
            engine: LandmarkPredictor | PixelPredictor
            if isinstance(request.listing, LandmarkListing):
                remaining = list(remaining)
                engine = LandmarkPredictor(predictor, remaining, cache_root())
            else:
                engine = stack.enter_context(PixelPredictor(predictor))
            on_batch = stack.enter_context(progress())
            for shard in remaining:
                parts.write(shard, prediction_table(engine.predict(shard, on_batch), parts.facts))

    return predict
