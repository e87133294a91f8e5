"""The engine `ray` of `predict`: same file as that of one process, also after deaths of workers and of the command."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from saved_models import write_toy_model
from study_processes import kill_on_exit, wait_until

from hirise_imb.backbones import BACKBONES
from hirise_imb.cli.main import main
from hirise_imb.data.hirise import HIRISE
from hirise_imb.prediction.engine import PixelPredictor
from hirise_imb.prediction.inputs import list_inputs
from hirise_imb.prediction.model_file import read_model
from hirise_imb.prediction.parts import Parts
from hirise_imb.prediction.ray_engine import ShardWorker, WorkerTask, _divide_resources, _pack
from hirise_imb.prediction.shards import plan_shards
from hirise_imb.prediction.table import PredictionFacts
from hirise_imb.utils.errors import UserError

NEEDS_RAY = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
LINUX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds workers as Linux lists them")
BACKBONE, WEIGHTS = "efficientnet-lite0", "imagenet"
"""A backbone that workers know too, unlike the toy, which is registered in the process of the tests alone."""
SHARDS, ROWS = 12, 32
"""Number of tables, each of which is a shard, and of the rows of each."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "drawn"
    write_toy_model(folder, BACKBONES[BACKBONE].load(WEIGHTS, HIRISE.image_shape))
    return folder


@pytest.fixture(scope="module")
def archive(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of encoded images; one row of each can't be decoded."""
    folder = tmp_path_factory.mktemp("archive")
    images = sorted((small_data / HIRISE.layout.image_folder).iterdir())
    for number in range(SHARDS):
        files = [images[(number * ROWS + row) % len(images)] for row in range(ROWS)]
        contents = [path.read_bytes() for path in files[1:]]
        ids = [f"{number}-{row}-{path.name}" for row, path in enumerate(files)]
        pq.write_table(pa.table({"id": ids, "image": [b"no image", *contents]}), folder / f"{number:02}.parquet")
    return folder


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(model: Path, archive: Path, tmp_path: Path) -> Start:
    """Starts `predict` in a process of its own, in the folder of the archive."""

    def call(out: str, *words: str, address: str = "") -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "hirise_imb.study", "predict", str(model), "."]
        return subprocess.Popen(
            [*command, "--out", str(tmp_path / out), "--weights", WEIGHTS, *words],
            cwd=archive,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"RAY_ADDRESS": address},
        )

    return call


def finish(process: subprocess.Popen[str]) -> str:
    """Waits for a process, which must succeed, and returns its output."""
    with kill_on_exit(process):
        output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


@pytest.fixture
def expected(start: Start, tmp_path: Path) -> bytes:
    """The file that one process writes."""
    finish(start("process.parquet"))
    return (tmp_path / "process.parquet").read_bytes()


def descendants(pid: int) -> Iterator[tuple[int, str]]:
    """Yields ids and command lines of all processes that a process has started, and that these have."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    for child in parents:
        above = child
        while above in parents and above != pid:
            above = parents[above]
        if above == pid and child != pid:
            try:
                yield child, Path(f"/proc/{child}/cmdline").read_bytes().decode("utf-8", "replace")
            except (FileNotFoundError, ProcessLookupError):
                continue


def shards_in(folder: Path) -> int:
    return len(list(folder.glob("[0-9]*.parquet")))


def find_workers(process: subprocess.Popen[str]) -> list[int]:
    return [pid for pid, command in descendants(process.pid) if command.startswith("ray::MapWorker")]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill_in_the_middle(process: subprocess.Popen[str], folder: Path, victims: list[int]) -> None:
    """Kills processes while some shards are finished and others are not."""
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    assert 2 <= shards_in(folder) < SHARDS - 1, "too late"


@NEEDS_RAY
@LINUX
@pytest.mark.slow
def test_the_file_is_that_of_one_process_although_a_worker_is_killed(
    start: Start, expected: bytes, tmp_path: Path
) -> None:
    process = start("ray.parquet", "--engine", "ray", "--workers", "2")
    folder = tmp_path / "ray.parquet.parts"
    with kill_on_exit(process):
        wait_until(lambda: shards_in(folder) >= 2, process)
        workers = find_workers(process)
        assert len(workers) == 2
        kill_in_the_middle(process, folder, workers[:1])
        output = finish(process)
    assert "Traceback" not in output
    assert (tmp_path / "ray.parquet").read_bytes() == expected
    table = pq.read_table(tmp_path / "ray.parquet")
    assert len(set(table["id"].to_pylist())) == len(table) == SHARDS * ROWS
    assert table["error"].null_count == SHARDS * (ROWS - 1)


@NEEDS_RAY
@LINUX
@pytest.mark.slow
def test_a_command_that_was_killed_continues(start: Start, expected: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "ray.parquet.parts"
    process = start("ray.parquet", "--engine", "ray", "--workers", "2")
    with kill_on_exit(process):
        wait_until(lambda: shards_in(folder) >= 2, process)
        workers = find_workers(process)
        kill_in_the_middle(process, folder, [process.pid])
    wait_until(lambda: not any(map(is_alive, workers)), seconds=60)
    finished = shards_in(folder)
    output = finish(start("ray.parquet", "--engine", "ray", "--workers", "1"))
    assert f"{finished * ROWS} of {SHARDS * ROWS} images are predicted already." in output
    assert (tmp_path / "ray.parquet").read_bytes() == expected


@NEEDS_RAY
@pytest.mark.slow
def test_an_error_in_a_worker_is_one_sentence(start: Start, model: Path, archive: Path, tmp_path: Path) -> None:
    process = start("out.parquet", "--engine", "ray", "--workers", "1", "--weights", "random")
    with kill_on_exit(process):
        output, _ = process.communicate(timeout=240)
    assert process.returncode == 2, output
    assert output.splitlines()[-1].startswith("error: The backbone efficientnet-lite0 has other weights than those")
    assert "Traceback" not in output


@NEEDS_RAY
def test_a_cluster_that_does_not_answer_is_refused_at_once(
    start: Start,
) -> None:
    process = start("out.parquet", "--engine", "ray", address="127.0.0.1:9")
    with kill_on_exit(process):
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 2, output
    assert output.splitlines()[-1] == (
        "error: The Ray cluster at 127.0.0.1:9 can't be used (Connection refused): correct or unset RAY_ADDRESS."
    )


def test_without_the_extra_the_error_names_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "a.png").touch()
    words = ["predict", str(model), str(tmp_path / "a.png"), "--out", str(tmp_path / "out.parquet")]
    assert main([*words, "--engine", "ray"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: --engine ray needs Ray Data (")
    assert error.endswith("): pip install 'hirise-imb[ray]'.")
    assert main([*words, "--engine", "ray", "--workers", "0"]) == 2
    assert "error: --workers is 0: use 1 or more." in capsys.readouterr().err
    assert main([*words, "--workers", "2"]) == 2
    assert "error: --workers is for --engine ray: add that, or leave it out." in capsys.readouterr().err


def nodes(*resources: dict[str, float]) -> list[dict[str, object]]:
    return [{"Alive": True, "Resources": entry} for entry in resources] + [{"Alive": False, "Resources": {"CPU": 99.0}}]


@pytest.fixture
def task(model: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerTask:
    """The task of workers that run in the process of the test."""
    monkeypatch.chdir(archive)  # as workers do
    parts = Parts(tmp_path / "out.parquet", PredictionFacts.of(read_model(model), 0.9, ("00.parquet",), None, ""))
    parts.open_folder()
    return WorkerTask(model, WEIGHTS, parts, archive, None, "run")


def work(task: WorkerTask) -> dict[str, object]:
    """Lets a new worker predict the first shard of the archive."""
    shard = next(plan_shards(list_inputs(["00.parquet"], None, HIRISE)))
    [result] = ShardWorker(task)(pa.table({"shard": [_pack(shard)]})).to_pylist()
    return dict(result)


def die(_: ShardWorker) -> PixelPredictor:
    raise MemoryError


def test_a_shard_that_is_finished_is_not_predicted_again(task: WorkerTask, monkeypatch: pytest.MonkeyPatch) -> None:
    assert work(task) == {"images": ROWS, "failure": None}
    before = task.parts.path(0).stat()
    monkeypatch.setattr(ShardWorker, "_load", die)
    assert work(task) == {"images": ROWS, "failure": None}
    assert task.parts.path(0).stat().st_mtime_ns == before.st_mtime_ns
    task.parts.path(0).write_bytes(b"what a crash of the machine has left")
    with pytest.raises(MemoryError):
        work(task)


def test_a_shard_is_given_up_after_several_workers_have_died_in_it(
    task: WorkerTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attempt(task: WorkerTask) -> str | None:
        """Returns why a worker has given up the shard, or None if it has died."""
        try:
            return str(work(task)["failure"])
        except MemoryError:
            return None

    monkeypatch.setattr(ShardWorker, "_load", die)
    assert [attempt(task) for _ in range(4)] == [None] * 4
    assert str(attempt(task)).startswith("4 workers have died in the shard 0, as they do when memory is short: ")
    assert attempt(replace(task, run="next")) is None
    assert attempt(replace(task, folder=tmp_path / "elsewhere")) == (
        f"The folder {tmp_path}/elsewhere can't be entered on the node {platform.node()} (No such file or directory): "
        "all nodes of a Ray cluster need the images and the output on a shared disk."
    )


def test_workers_share_the_cores_of_each_node() -> None:
    assert _divide_resources(nodes({"CPU": 2.0}), None) == (2, {"num_cpus": 1}, 1)
    assert _divide_resources(nodes({"CPU": 8.0}), 3) == (3, {"num_cpus": 2}, 2)
    # Four workers of two cores would not fit on three nodes of three cores each.
    assert _divide_resources(nodes(*[{"CPU": 3.0}] * 3), 4) == (4, {"num_cpus": 1}, 1)
    assert _divide_resources(nodes(*[{"CPU": 64.0}] * 4), None) == (256, {"num_cpus": 1}, 1)
    with pytest.raises(UserError, match="--workers is 5, but the Ray cluster has 4 cores: use fewer workers"):
        _divide_resources(nodes({"CPU": 2.0}, {"CPU": 2.0}), 5)


def test_there_is_a_worker_on_each_gpu_unless_more_are_wanted() -> None:
    gpus = nodes({"CPU": 16.0, "GPU": 2.0}, {"CPU": 16.0, "GPU": 2.0})
    assert _divide_resources(gpus, None) == (4, {"num_cpus": 1, "num_gpus": 1}, None)
    assert _divide_resources(gpus, 1) == (1, {"num_cpus": 1, "num_gpus": 1}, None)
    assert _divide_resources(gpus, 8) == (8, {"num_cpus": 4}, 4)
