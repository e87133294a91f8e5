"""Measures how reliable comparisons in a nested cross-validation are (see docs/uncertainty.md).

Outer folds share training sources, and all sources of a fold are predicted by the same fits, so neither is independent
as a test on sources assumes. Three measurements show what this does:

- `real`: equal arms on the features of the real sample; how often are they called different?
- `simulated`: the same on simulated data sets, over the strength of the effects of sources.
- `power`: simulated arms that differ; how large must a difference be to be detected, in a nested cross-validation over
  all sources and on the given split?

    HIRISE_SAMPLE=... python -m tools.nested_inference extract SAMPLE.npz
    python -m tools.nested_inference compute RESULTS --sample SAMPLE.npz [--minutes M] [--processes P]
    python -m tools.nested_inference tables RESULTS --sample SAMPLE.npz

`compute` adds results to the folder RESULTS until it has all of them or the time is over; `tables` writes
docs/nested-real.csv, docs/nested-simulated.csv, docs/power.csv and docs/power.png and prints the tables.
"""

from __future__ import annotations

import argparse
import multiprocessing
import pickle
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hirise_imb.backbones import BACKBONES
from hirise_imb.config import GIVEN_SPLIT, NESTED_CV, load_definition
from hirise_imb.data.splits import make_splits
from hirise_imb.features.extraction import extract_features
from hirise_imb.features.inputs import TOP_MEAN
from hirise_imb.training.context import load_manifest
from hirise_imb.utils import environment
from hirise_imb.utils.files import cache_root
from tools.nested_arms import Sample, compile_training, predict_chosen, predict_fixed
from tools.nested_simulation import REPEATED, Arm, Case, Law, compare, true_difference
from tools.nested_tables import write_tables

ROOT = Path(__file__).parents[1]
N_SETS = {"simulated": 200, "power": 100, "truth": 100}
"""Simulated data sets of each case; for a true difference, training sets over which it is averaged."""
BLOCK, ARMS_OF_JOB = 25, 2
"""Data sets of a job, and arms of one on the real sample."""
N_ARMS = {"fixed": 600, "chosen": 400}
"""Numbers of arms on the real sample, with fixed settings and with settings chosen inside each outer fold; arms 2k and
2k + 1 have the same outer folds."""
KINDS = (*N_ARMS, *N_SETS)
"""Kinds of jobs."""
BETWEEN = (0.0, 0.5, 1.0, 2.0)
"""Standard deviations of the effects of sources, relative to noise."""
GAINS = (0.0, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.45)
"""By how much larger the class centres are in the features of the better arm."""
OWN = (0.1, 0.3)
"""Shares of the errors that differing arms have by themselves."""
USUAL = 1.0
"""Effects of sources of arms that differ."""


def equal_cases() -> dict[str, Case]:
    """Returns pairs of equal arms by name."""
    cases = {}
    for between in BETWEEN:
        for name, arm, own, shares in (
            ("own features", Arm(), 0.3, True),
            ("own training sources", Arm(resamples=True), 0.0, True),
            ("own features, training sources and tau", Arm(None, resamples=True), 0.3, True),
            ("the same, other outer folds", Arm(None, resamples=True), 0.3, False),
        ):
            cases[f"{name}/{between}"] = Case(Law(between, own), (0.0, 0.0), (arm, arm), shares)
    return cases


def unequal_cases() -> dict[str, Case]:
    """Returns pairs of arms by name, the second of which is better."""
    return {f"{own}/{gain}": Case(Law(USUAL, own), (0.0, gain)) for own in OWN for gain in GAINS}


Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """A part of the computation, which a process does at once."""

    kind: str
    """An entry of `KINDS`."""
    case: str
    """Name of the case; empty for arms on the real sample."""
    numbers: tuple[int, ...]
    """Numbers of the arms, or of the simulated data sets."""


def list_jobs(kinds: Sequence[str]) -> list[Job]:
    """Returns all jobs of some kinds; kinds take turns, so that none waits for the end of another."""
    queues: dict[str, list[Job]] = {}
    for kind, count in N_ARMS.items():
        starts = range(0, count, ARMS_OF_JOB)
        queues[kind] = [Job(kind, "", tuple(range(start, start + ARMS_OF_JOB))) for start in starts]
    for kind, count in N_SETS.items():
        cases = equal_cases() if kind == "simulated" else unequal_cases()
        starts = range(0, count, BLOCK)
        queues[kind] = [Job(kind, name, tuple(range(start, start + BLOCK))) for start in starts for name in cases]
    in_turn = [queue for kind, queue in queues.items() if kind in kinds]
    return [job for jobs in zip_longest(*in_turn) for job in jobs if job is not None]


def run(job: Job) -> Rows:
    """Does a job.

    Returns:
        A row for each arm on the real sample with its predictions, or for each comparison of simulated arms.
    """
    if job.kind in N_ARMS:
        assert _SAMPLE is not None
        return [_predict_arm(job.kind, arm, _SAMPLE) for arm in job.numbers]
    case = {**equal_cases(), **unequal_cases()}[job.case]
    rows: Rows = []
    for number in job.numbers:
        if job.kind == "truth":
            rows.append({"case": job.case, "difference": true_difference(case, number)})
        else:
            designs = (NESTED_CV, REPEATED) if job.kind == "simulated" else (GIVEN_SPLIT, NESTED_CV, REPEATED)
            outcomes = compare(case, designs, number)
            rows += [{"case": job.case, "design": name, **asdict(outcome)} for name, outcome in outcomes.items()]
    return rows


def _predict_arm(kind: str, arm: int, sample: Sample) -> dict[str, Any]:
    """Returns the number of an arm, its predictions, and its settings in each outer fold."""
    if kind == "fixed":
        return {"arm": arm, "predicted": predict_fixed(sample, arm // 2, arm), "settings": []}
    # Seeds that no arm with fixed settings has.
    predicted, choices = predict_chosen(sample, arm // 2, 10_000 + arm)
    settings = [(c.recipe.learning_rate, c.recipe.weight_decay, c.epochs, c.tau) for c in choices]
    return {"arm": arm, "predicted": predicted, "settings": settings}


_SAMPLE: Sample | None = None
"""The real sample, which forked processes share."""


def compute(folder: Path, path: Path | None, kinds: Sequence[str], minutes: float, processes: int) -> None:
    """Does the jobs whose results are missing, until the time is over, and adds their results to `folder`.

    Args:
        folder: folder with a file `KIND.pickle` for each kind of job: the jobs that are done, and their results.
        path: file of the real sample; without it, jobs that need it are left out.
        kinds: kinds of jobs.
        minutes: time limit.
        processes: number of processes.
    """
    global _SAMPLE
    end = time.monotonic() + 60 * minutes
    folder.mkdir(parents=True, exist_ok=True)
    if path is None:
        kinds = [kind for kind in kinds if kind not in N_ARMS]
    else:
        _SAMPLE = Sample.load(path)
        compile_training(_SAMPLE)  # once, before the processes start
    results = {kind: load_results(folder, kind) for kind in kinds}
    jobs = [job for job in list_jobs(kinds) if job not in results[job.kind]]
    written = time.monotonic()
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        done = pool.imap_unordered(_run_with_job, jobs)
        for number in range(1, len(jobs) + 1):
            try:
                job, rows = done.next(timeout=max(0.0, end - time.monotonic()))
            except multiprocessing.TimeoutError:
                print(f"Stopped after {minutes:g} minutes with {number - 1} of {len(jobs)} jobs.")
                break
            results[job.kind][job] = rows
            if time.monotonic() > written + 60:
                _write_results(folder, results)
                written = time.monotonic()
                print(f"{number} of {len(jobs)} jobs", file=sys.stderr, flush=True)
    _write_results(folder, results)
    for kind, of_kind in results.items():
        print(f"{kind}: {sum(len(job.numbers) for job in of_kind)} arms or sets")


def _run_with_job(job: Job) -> tuple[Job, Rows]:
    return job, run(job)


def load_results(folder: Path, kind: str) -> dict[Job, Rows]:
    """Returns the results of the jobs of a kind that are done."""
    path = folder / f"{kind}.pickle"
    if not path.exists():
        return {}
    with path.open("rb") as file:
        return {Job(*key): rows for key, rows in pickle.load(file).items()}


def load_table(folder: Path, kind: str) -> pd.DataFrame:
    """Returns the results of all jobs of a kind that are done, each row with the number of its arm or data set."""
    rows = []
    for job, of_job in load_results(folder, kind).items():
        rows_of_each = len(of_job) // len(job.numbers)
        rows += [{**row, "number": job.numbers[i // rows_of_each]} for i, row in enumerate(of_job)]
    return pd.DataFrame(rows)


def _write_results(folder: Path, results: dict[str, dict[Job, Rows]]) -> None:
    for kind, of_kind in results.items():
        path = folder / f"{kind}.pickle"
        with path.with_suffix(".tmp").open("wb") as file:
            pickle.dump({(job.kind, job.case, job.numbers): rows for job, rows in of_kind.items()}, file)
        path.with_suffix(".tmp").rename(path)


def extract(path: Path) -> None:
    """Writes the features, labels, sources and splits of the real sample as one file."""
    definition = load_definition(ROOT / "studies" / "sample.toml", {})
    manifest = load_manifest(definition)
    images = make_splits(manifest, 1).images
    environment.load_tensorflow()
    backbone = BACKBONES[definition.backbone].load(definition.weights, manifest.spec.image_shape, definition.precision)
    paths = [manifest.path(image) for image in manifest.table["image"]]
    features = extract_features(backbone, [TOP_MEAN], paths, cache_root())[TOP_MEAN]
    np.savez_compressed(
        path,
        features=features.take(np.arange(len(features))),
        labels=images.labels,
        copies=images.copies,
        sources=images.sources,
        is_canonical=images.is_canonical,
    )


def main() -> None:
    """Runs one of the commands."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=["extract", "compute", "tables"])
    parser.add_argument("path", type=Path, help="file of the sample for `extract`, else the folder of results")
    parser.add_argument("--sample", type=Path, help="file that `extract` has written")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, help="kinds of jobs")
    parser.add_argument("--minutes", type=float, default=60.0, help="time limit of `compute`")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    if options.command == "extract":
        extract(options.path)
    elif options.command == "compute":
        compute(options.path, options.sample, options.only, options.minutes, options.processes)
    else:
        write_tables(Sample.load(options.sample), {kind: load_table(options.path, kind) for kind in KINDS})


if __name__ == "__main__":
    main()
