"""Topic `predicting`: rows a second of `predict`, in one process, on Ray and in two processes without Ray."""

from __future__ import annotations

import os
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from benchmarks.report import Report, Table, Target, middle, ratios, spread, values
from benchmarks.runner import BenchmarkRun, Case, Figures, prepared

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

WORKERS = 2
ENGINES = {
    "one process": "TensorFlow's threads on all cores",
    "Ray": f"{WORKERS} workers of one thread",
    "two processes": "half of the images each, one thread, no Ray",
}
"""Engine to how it uses the cores."""


def run(bench: BenchmarkRun) -> Report | None:
    """Times the command on two numbers of images: the difference gives the rate, the rest is start-up."""
    if find_spec("ray") is None:
        return None
    model = str(prepared(bench, save_model)["folder"])
    # Multiples of the rows of a shard for each worker, so that no worker waits for the other at the end.
    few, many = (bench.size(2048, 64), bench.size(6144, 256))
    cases: dict[str, Case] = {
        f"{engine}, {count} images": partial(predict, engine=engine, count=count, model=model)
        for engine in ENGINES
        for count in (few, many)
    }
    measured = bench.by_turns(cases)
    rates: dict[str, list[float]] = {}
    starts: dict[str, list[float]] = {}
    for engine in ENGINES:
        short, long = (values(measured[f"{engine}, {count} images"], "seconds") for count in (few, many))
        rates[engine] = [(many - few) / (after - before) for before, after in zip(short, long, strict=True)]
        starts[engine] = [seconds - few / rate for seconds, rate in zip(short, rates[engine], strict=True)]
    overhead = [100 * (ratio - 1) for ratio in ratios(rates["two processes"], rates["Ray"])]
    rows = [[engine, text, spread(rates[engine], 1), spread(starts[engine], 1)] for engine, text in ENGINES.items()]
    return Report(
        title="Predicting: rows a second of both engines",
        text=f"`hirise-imb predict` on files of 227 x 227 pixels with the baseline on EfficientNet-Lite0, on {few:,} "
        f"and {many:,} images. The rate is that of the images in which they differ; start-up is the rest, from the "
        "start of Python to its end. The overhead of Ray is the rate of two processes without Ray over that of Ray.",
        tables=[
            Table("Rate and start-up", ["", "on two cores", "rows/s", "start-up, s"], rows),
            Table(
                "Overhead of Ray, %",
                ["over two processes", "over one process"],
                [[spread(overhead, 1), spread([100 * (r - 1) for r in ratios(rates["one process"], rates["Ray"])], 1)]],
            ),
        ],
        targets=[Target("overhead of Ray over two processes", middle(overhead), 10, " %", digits=1)],
        figures=measured,
    )


def save_model(seed: int) -> Figures:  # noqa: ARG001
    """Runs a short study on synthetic landmarks, which saves its baseline."""
    from hirise_imb.cli.main import main
    from hirise_imb.utils.files import cache_root

    out = cache_root() / "benchmarks"
    options = "--data synthetic --trials 1 --trial-seeds 1 --refits 1 --evaluation given-split --strategies prototypes"
    if main(["run", *options.split(), "--name", "model", "--replace", "--out", str(out)]):
        raise RuntimeError("the study failed")
    return {"folder": str(out / "reports" / "model" / "models" / "baseline")}


def predict(engine: str, count: int, model: str, seed: int) -> Figures:  # noqa: ARG001
    """The command as users give it, on so many distinct files."""
    import tempfile
    import time
    from pathlib import Path

    from benchmarks.extraction import _copies

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = _copies(_create(folder / "files"), count)
        halves = [_create(folder / f"half-{number}") for number in range(WORKERS)]
        if engine == "two processes":
            for number, path in enumerate(paths):
                path.rename(halves[number % WORKERS] / path.name)
        begin = time.perf_counter()
        if engine == "two processes":
            processes = [_start(model, half, threads=1) for half in halves]
        else:
            options = ["--engine", "ray", "--workers", str(WORKERS)] if engine == "Ray" else []
            processes = [_start(model, folder / "files", *options)]
        for process in processes:
            output, _ = process.communicate()
            if process.returncode:
                raise RuntimeError(output[-3000:])
        return {"seconds": time.perf_counter() - begin}


def _create(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _start(model: str, images: Path, *options: str, threads: int | None = None) -> subprocess.Popen[str]:
    """Starts the command; its output goes next to the images."""
    import subprocess
    import sys

    command = [sys.executable, "-m", "hirise_imb.study", "predict", model, str(images)]
    limits = {} if threads is None else dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"), str(threads))
    return subprocess.Popen(
        [*command, "--out", f"{images}.parquet", *options],
        env=os.environ | limits,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
