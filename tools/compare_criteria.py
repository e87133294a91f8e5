"""Compares criteria by which a search could choose settings, by nested cross-validation (see docs/selection.md).

Settings that searches would try are scored inside each outer fold, fitted on all other sources, and predict the fold.
A criterion is good if the predictions of what it chooses, pooled over the outer folds, score high.

    HIRISE_SAMPLE=... python -m tools.compare_criteria prepare FOLDER [--repeats 5]
    python -m tools.compare_criteria run FOLDER OUT [--minutes 8] [--processes 2]
    python -m tools.compare_criteria simulate FOLDER OUT [--sets 400] [--minutes 2] [--processes 2]
    python -m tools.compare_criteria report FOLDER OUT

`prepare` writes features and settings to FOLDER; `run` and `simulate` need neither TensorFlow nor the sample, and write
their results to OUT; when the time is over, they keep what is complete. `report` writes docs/selection.csv and prints
the tables of docs/selection.md. One thread for each process is enough: OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.data.dataset import ClassSet
from hirise_imb.data.splits import DataSplits, ImageTable, make_outer_split
from hirise_imb.features.arrays import Features
from hirise_imb.recipe import Recipe
from tools.candidate_fits import CV_SEEDS, Candidate, Fits, fit_candidate, read_candidates, train, write_candidates
from tools.criteria import measure
from tools.criteria_tables import print_tables, read_results
from tools.simulate_criteria import Simulation, print_simulation

Ints = NDArray[np.int64]
T = TypeVar("T")
U = TypeVar("U")

ROOT = Path(__file__).parents[1]
N_FOLDS = 5
ABSENT = 255
"""Predicted class of a landmark that was not predicted."""


class NestedData:
    """Features, facts about the images, and outer folds, as `prepare` stored them."""

    def __init__(self, folder: Path) -> None:
        """Reads the data."""
        with np.load(folder / "data.npz") as file:
            arrays = dict(file)
        classes = ClassSet(tuple(arrays["classes"].tolist()))
        self.features = Features.of(arrays["features"])
        self.images = ImageTable(
            (), arrays["labels"], arrays["copies"], arrays["sources"], arrays["is_canonical"], classes
        )
        self.outer: Ints = arrays["outer"]
        """Outer fold of each image in each repeat, shape (n_repeats, n_images); -1 unless canonical."""
        self.landmarks = np.flatnonzero(self.images.is_canonical)
        self.splits = lru_cache(maxsize=2)(self._splits)
        """Returns an outer fold by its repeat and number."""

    def _splits(self, repeat: int, fold: int) -> DataSplits:
        return make_outer_split(self.images, np.flatnonzero(self.outer[repeat] == fold), len(CV_SEEDS))


def prepare(folder: Path, repeats: int) -> None:
    """Stores the features of the sample, its outer folds and the settings that are compared."""
    from hirise_imb.backbones import BACKBONES
    from hirise_imb.config import load_definition
    from hirise_imb.data.splits import make_outer_splits
    from hirise_imb.features.extraction import extract_features
    from hirise_imb.features.inputs import TOP_MEAN
    from hirise_imb.training.context import load_manifest
    from hirise_imb.utils import environment
    from hirise_imb.utils.files import cache_root

    folder.mkdir(parents=True, exist_ok=True)
    write_candidates(folder / "candidates.json")
    definition = load_definition(ROOT / "studies" / "sample.toml", {})
    manifest = load_manifest(definition)
    divisions = [make_outer_splits(manifest, N_FOLDS, repeat, 1) for repeat in range(repeats)]
    images = divisions[0][0].images
    outer = np.full((repeats, len(images.labels)), -1, np.int64)
    for repeat, folds in enumerate(divisions):
        for fold, splits in enumerate(folds):
            outer[repeat, splits.test] = fold
    environment.load_tensorflow()
    backbone = BACKBONES[definition.backbone].load(definition.weights, manifest.spec.image_shape, definition.precision)
    paths = [manifest.path(image) for image in manifest.table["image"]]
    features = extract_features(backbone, [TOP_MEAN], paths, cache_root())[TOP_MEAN]
    np.savez_compressed(
        folder / "data.npz",
        features=features.take(np.arange(len(features))),
        labels=images.labels,
        copies=images.copies,
        sources=images.sources,
        is_canonical=images.is_canonical,
        classes=np.array(images.classes.names),
        outer=outer,
    )


Row = tuple[dict[str, str | int | float], NDArray[np.uint8], NDArray[np.uint8]]
"""Columns of results, and the predicted classes of all landmarks: out of fold and in the outer fold, by seed."""


class Task:
    """Fits a candidate in an outer fold. It is shared with the processes of a pool when they are forked."""

    def __init__(self, data: NestedData) -> None:
        """Takes the data."""
        self._data = data

    def __call__(self, job: tuple[int, int, Candidate]) -> tuple[tuple[int, int], list[Row]]:
        """Returns the repeat and fold, and a row for each rule for epochs and each adjustment."""
        repeat, fold, candidate = job
        splits = self._data.splits(repeat, fold)
        fits = fit_candidate(splits, self._data.features, candidate)
        return (repeat, fold), [self._describe(repeat, fold, splits, one) for one in fits]

    def _describe(self, repeat: int, fold: int, splits: DataSplits, fits: Fits) -> Row:
        images = splits.images
        sources = np.unique(images.sources[splits.landmarks], return_inverse=True)[1]
        columns, _ = measure(fits.out_of_fold, images.labels[splits.landmarks], sources, len(images.classes))
        facts = {"repeat": repeat, "fold": fold, **fits.facts(), **columns}
        positions = np.searchsorted(self._data.landmarks, splits.landmarks)
        inner = np.full((len(CV_SEEDS), len(self._data.landmarks)), ABSENT, np.uint8)
        inner[: len(fits.out_of_fold), positions] = fits.out_of_fold.argmax(axis=2)
        outer = np.full((len(fits.test), len(self._data.landmarks)), ABSENT, np.uint8)
        outer[:, np.searchsorted(self._data.landmarks, splits.test)] = fits.test.argmax(axis=2)
        return facts, inner, outer


_function: Callable[[object], object]


def _call(job: object) -> object:
    return _function(job)


def run_jobs(function: Callable[[T], U], jobs: Sequence[T], processes: int, minutes: float) -> Iterator[U]:
    """Yields the results of the jobs as they come, about in order, until the time is over.

    Args:
        function: function of a job.
        jobs: jobs in order of importance.
        processes: number of processes; they are forked, so that they share the data of the function.
        minutes: time limit.
    """
    global _function  # what forked processes inherit; a method of large data would be sent to them with every job
    _function = function  # type: ignore[assignment]
    begin = time.monotonic()
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        results = pool.imap_unordered(_call, jobs)
        for done in range(len(jobs)):
            try:
                yield results.next(begin + 60 * minutes - time.monotonic())  # type: ignore[misc]
            except multiprocessing.TimeoutError:
                print(f"time is over: {done} of {len(jobs)} jobs", file=sys.stderr)
                return
            if done % 20 == 0:
                print(f"{time.monotonic() - begin:6.0f} s: {done + 1} of {len(jobs)} jobs", file=sys.stderr, flush=True)


def run(folder: Path, out: Path, minutes: float, processes: int, repeats: int | None) -> None:
    """Fits all candidates in all outer folds; stores what repeats and folds are complete."""
    begin = time.monotonic()
    data, candidates = NestedData(folder), read_candidates(folder / "candidates.json")
    jobs = [
        (repeat, fold, one)
        for repeat in range(len(data.outer) if repeats is None else repeats)
        for fold in range(N_FOLDS)
        for one in candidates
    ]
    compile_loops(data)
    rows: list[Row] = []
    counts = dict.fromkeys({(repeat, fold) for repeat, fold, _ in jobs}, 0)
    left = minutes - (time.monotonic() - begin) / 60
    for place, of_job in run_jobs(Task(data), jobs, processes, left):
        counts[place] += 1
        rows += of_job
    complete = {place for place, count in counts.items() if count == len(candidates)}
    print(f"{len(complete)} of {len(counts)} outer folds are complete", file=sys.stderr)
    if not rows:
        sys.exit("No job was finished: allow more --minutes.")
    out.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame([columns for columns, _, _ in rows])
    frame.to_csv(out / "scores.csv", index=False, float_format="%.6f")
    inner, outer = np.stack([one for _, one, _ in rows]), np.stack([one for _, _, one in rows])
    np.savez_compressed(out / "predictions.npz", inner=inner, outer=outer)


def compile_loops(data: NestedData) -> None:
    """Compiles the training loops once for all processes, by an epoch of training."""
    train(data.splits(0, 0), data.features, Recipe(max_epochs=1))


def simulate(folder: Path, out: Path, sets: int, minutes: float, processes: int) -> None:
    """Compares the criteria on simulated data sets in the layout of the sample."""
    data = NestedData(folder)
    images, rows = data.images, data.landmarks
    simulation = Simulation.in_layout(images.labels[rows], images.sources[rows], images.classes)
    frames = list(run_jobs(simulation.compare, range(sets), processes, minutes))
    if not frames:
        sys.exit("No data set was finished: allow more --minutes.")
    out.mkdir(parents=True, exist_ok=True)
    pd.concat(frames, ignore_index=True).to_csv(out / "simulation.csv", index=False, float_format="%.6f")


def main() -> None:
    """Runs one step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["prepare", "run", "simulate", "report"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--sets", type=int, default=400)
    parser.add_argument("--minutes", type=float, default=600.0)
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    if given.step == "prepare":
        prepare(given.folder, given.repeats or 5)
    elif given.step == "run":
        run(given.folder, given.out, given.minutes, given.processes, given.repeats)
    elif given.step == "simulate":
        simulate(given.folder, given.out, given.sets, given.minutes, given.processes)
    else:
        data = NestedData(given.folder)
        results = read_results(given.out, data.images, data.landmarks)
        tables = {
            "sample": print_tables(results),
            "simulated": print_simulation(pd.read_csv(given.out / "simulation.csv")),
        }
        csv = pd.concat([table.assign(data=name) for name, table in tables.items()])
        csv.to_csv(ROOT / "docs" / "selection.csv", index=False, float_format="%.4f", lineterminator="\n")


if __name__ == "__main__":
    main()
