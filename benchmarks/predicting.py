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
    "two processes": "half of the shards each, one thread, no Ray",
}
"""Engine to how it uses the cores."""


def run(bench: BenchmarkRun) -> Report | None:
    """Times the command on a few shards of the usual size."""
    if find_spec("ray") is None:
        return None
    model = str(prepared(bench, save_model)["folder"])
    shards, rows = bench.size(8, 6), bench.size(1024, 16)
    cases: dict[str, Case] = {
        engine: partial(predict, engine=engine, shards=shards, rows=rows, model=model) for engine in ENGINES
    }
    measured = bench.by_turns(cases)
    rates = {engine: values(figures, "rate") for engine, figures in measured.items()}
    lines = [
        [engine, text, spread(rates[engine], 1), spread(values(measured[engine], "start"), 1)]
        for engine, text in ENGINES.items()
    ]
    overheads = {
        engine: [100 * (ratio - 1) for ratio in ratios(rates[engine], rates["Ray"])]
        for engine in ("two processes", "one process")
    }
    return Report(
        title="Predicting: rows a second of both engines",
        text=f"`hirise-imb predict` on {shards} tables of {rows:,} images of 227 x 227 pixels, a shard each, "
        f"with the baseline on EfficientNet-Lite0. The rate is that from the end of the first {WORKERS} shards to the "
        "end of the last; start-up is the time before the first of them began, from the start of Python. The overhead "
        "of Ray is the rate without Ray over that of Ray.",
        tables=[
            Table("Rate and start-up", ["", "on two cores", "rows/s", "start-up, s"], lines),
            Table("Overhead of Ray", ["over", "%"], [[engine, spread(per, 1)] for engine, per in overheads.items()]),
        ],
        targets=[Target("overhead of Ray over two processes", middle(overheads["two processes"]), 10, " %", digits=1)],
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


def predict(engine: str, shards: int, rows: int, model: str, seed: int) -> Figures:  # noqa: ARG001
    """The command as users give it; the files of finished shards tell when each of them ended."""
    import tempfile
    import time
    from pathlib import Path

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables = _write_tables(folder, shards, rows)
        begin = time.perf_counter()
        if engine == "two processes":
            outs = [folder / f"out-{number}.parquet" for number in range(WORKERS)]
            processes = [_start(model, tables[n::WORKERS], out, threads=1) for n, out in enumerate(outs)]
        else:
            outs = [folder / "out.parquet"]
            options = ["--engine", "ray", "--workers", str(WORKERS)] if engine == "Ray" else []
            processes = [_start(model, tables, outs[0], *options)]
        ends: list[float] = []
        while any(process.poll() is None for process in processes):
            finished = sum(out.exists() for out in outs) * shards // len(outs)
            finished += len(list(folder.glob("*.parts/[0-9]*.parquet")))
            ends += [time.perf_counter() - begin] * (finished - len(ends))
            time.sleep(0.01)
        for process in processes:
            output, _ = process.communicate()
            if process.returncode:
                raise RuntimeError(output[-3000:])
        rate = rows * (shards - WORKERS) / (ends[shards - 1] - ends[WORKERS - 1])
        return {"rate": rate, "start": ends[WORKERS - 1] - rows * WORKERS / rate, "ends": ends}


def _write_tables(folder: Path, count: int, rows: int) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from benchmarks.data import landmarks

    images = [path.read_bytes() for path in landmarks(rows)[0]]
    names = [str(folder / f"{number:02}.parquet") for number in range(count)]
    for name in names:
        pq.write_table(pa.table({"id": [f"{row}" for row in range(rows)], "image": images}), name)
    return names


def _start(
    model: str, inputs: list[str], out: Path, *options: str, threads: int | None = None
) -> subprocess.Popen[str]:
    """Starts the command."""
    import subprocess
    import sys

    command = [sys.executable, "-m", "hirise_imb.study", "predict", model, *inputs]
    limits = {} if threads is None else dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"), str(threads))
    return subprocess.Popen(
        [*command, "--out", str(out), *options],
        env=os.environ | limits,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
