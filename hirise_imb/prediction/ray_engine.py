"""Predicts shards on Ray Data: actors on one or more machines, each of which loads the model once.

Checkpoints are the files of finished shards: whichever process predicted a shard, its file appears whole, and a shard
that has one is not predicted again. Ray Data's own checkpoints (`CheckpointConfig`, beta in Ray 2.60) are not used:
they note single rows of pipelines that Ray both reads and writes, and one process without Ray could not continue them.
"""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import platform
import secrets
import socket
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hirise_imb.config import MAX_WORKERS, check_count
from hirise_imb.prediction.engine import PixelPredictor
from hirise_imb.prediction.parts import Parts
from hirise_imb.prediction.shards import Shard
from hirise_imb.prediction.table import prediction_table
from hirise_imb.utils.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

    from hirise_imb.prediction.run import Engine, PredictionRequest, Progress

ADDRESS_VARIABLE = "RAY_ADDRESS"
"""Environment variable with the address of a Ray cluster that is running already."""

_MAX_ATTEMPTS = 4
"""Number of workers that may die in a shard: Ray itself would try for ever."""

_CONNECTION_SECONDS = 10
"""Seconds in which a Ray cluster has to answer."""

_OBJECT_STORE_BYTES = 256 * 2**20
"""Shared memory of a Ray of our own, which only transports lists of images; beyond it, Ray uses the disk."""


@dataclass(frozen=True)
class WorkerTask:
    """What all workers have in common; sent to each of them."""

    model: Path
    """Folder of the model."""
    weights: str | None
    """Weights of the backbone, or None for those that the study named."""
    parts: Parts
    folder: Path
    """Working folder of the command, which relative paths start from."""
    threads: int | None
    """Threads of the network; None leaves the number to TensorFlow."""
    run: str
    """A random name, which tells the attempts of this command from those of one that was killed."""


class ShardWorker:
    """A worker, which Ray runs in a process of its own."""

    def __init__(self, task: WorkerTask) -> None:
        """Loads nothing yet: an error while the model is loaded then ends like any other."""
        self._task = task
        self._pixels: PixelPredictor | None = None
        self._stack = ExitStack()

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Predicts the only shard of a block; returns its number of images, or the reason why it can't be predicted."""
        import pyarrow as pa

        images, failure = 0, None
        try:
            self._enter_folder()
            for packed in rows["shard"].to_pylist():
                images += self._predict(_unpack(packed))
        except UserError as error:
            # As a value: Ray would wrap an exception in the traces of several processes.
            failure = str(error)
        return pa.table({"images": [images], "failure": pa.array([failure], pa.string())})

    def _predict(self, shard: Shard) -> int:
        parts = self._task.parts
        # The process that had this shard before may have died after it had written the file.
        if not parts.has(shard):
            try:
                self._count_attempt(shard)
                if self._pixels is None:
                    self._pixels = self._load()
                parts.write(shard, prediction_table(self._pixels.predict(shard), parts.facts))
            except OSError as error:
                place = error.filename2 or error.filename or parts.folder
                raise UserError(f"{place}: {error.strerror}; fix that and run the command again.") from error
        return len(shard)

    def _enter_folder(self) -> None:
        """Makes the folder of the command the working folder, which relative paths start from.

        Raises:
            UserError: this node does not have it.
        """
        try:
            os.chdir(self._task.folder)
        except OSError as error:
            raise UserError(
                f"The folder {self._task.folder} can't be entered on the node {platform.node()} ({error.strerror}): "
                "all nodes of a Ray cluster need the images and the output on a shared disk."
            ) from error

    def _count_attempt(self, shard: Shard) -> None:
        """Notes in a file that a worker begins with a shard.

        Raises:
            UserError: too many workers have died in it.
        """
        with (self._task.parts.folder / f".{shard.number:07}.{self._task.run}.attempts").open("ab") as file:
            file.write(b".")
            if file.tell() > _MAX_ATTEMPTS:
                raise UserError(
                    f"{_MAX_ATTEMPTS} workers have died in the shard {shard.number}, as they do when memory is short: "
                    "the same command continues, with fewer --workers if need be."
                )

    def _load(self) -> PixelPredictor:
        from hirise_imb.prediction.model_file import read_model
        from hirise_imb.prediction.predictor import Predictor
        from hirise_imb.utils.environment import load_tensorflow

        if self._task.threads is not None:  # before TensorFlow is loaded, which takes all cores otherwise
            os.environ |= dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), str(self._task.threads))
        load_tensorflow()
        predictor = Predictor.load(read_model(self._task.model), self._task.weights)
        return self._stack.enter_context(PixelPredictor(predictor))


def predict_with_ray(model: Path, weights: str | None, workers: int | None = None) -> Engine:
    """Returns the engine that predicts shards on Ray Data.

    Ray is started for the prediction and ended after it, unless the environment variable RAY_ADDRESS names a cluster.

    Args:
        model: folder of the model.
        weights: weights of the backbone, or None for those that the study named.
        workers: number of worker processes; None for one on each GPU, or on each core where there is none.

    Raises:
        UserError: Ray is not installed, or the number of workers is not positive.
    """
    if workers is not None:
        check_count("--workers", workers, 1, MAX_WORKERS)
    ray = _import_ray()

    def predict(_: PredictionRequest, shards: Iterator[Shard], parts: Parts, progress: Progress) -> None:
        # Compressed, the names of a million image files take about 30 MB.
        packed = [_pack(shard) for shard in shards]
        if not packed:
            return
        with _connect(ray, workers):
            count, resources, threads = _divide_resources(ray.nodes(), workers)
            task = WorkerTask(model, weights, parts, Path.cwd(), threads, secrets.token_hex(8))
            results = (
                # One block a shard: Ray distributes blocks, and repeats one whose worker has died.
                ray.data.from_items([{"shard": content} for content in packed], override_num_blocks=len(packed))
                .map_batches(
                    ShardWorker,
                    fn_constructor_args=(task,),
                    batch_size=1,
                    batch_format="pyarrow",
                    compute=ray.data.ActorPoolStrategy(size=min(count, len(packed))),
                    **resources,
                )
                .iter_rows()
            )
            with progress() as on_shard:
                for result in results:
                    if result["failure"] is not None:
                        raise UserError(result["failure"])
                    on_shard(result["images"])

    return predict


def _import_ray() -> Any:  # noqa: ANN401  (Ray is an optional extra)
    """Imports Ray with settings that it only reads then: no statistics, no environments of its own, little output."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Under `uv run`, Ray would otherwise upload the working folder and build the environment anew for each worker.
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if not os.environ.get(ADDRESS_VARIABLE):
        # Ray's servers listen on all interfaces, and who may talk to them can run code. The token keeps others out; it
        # is passed on to the processes that Ray starts, so no file in the user's home is needed.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.data")
    except ImportError as error:
        raise UserError(f"--engine ray needs Ray Data ({error}): pip install 'hirise-imb[ray]'.") from error
    return ray


@contextmanager
def _connect(ray: Any, workers: int | None) -> Iterator[None]:  # noqa: ANN401
    """Connects to the cluster that RAY_ADDRESS names, or starts Ray on this machine until the block ends.

    Raises:
        UserError: there is no such cluster.
    """
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    with ExitStack() as stack:
        if address := os.environ.get(ADDRESS_VARIABLE):
            try:
                # Ray itself would try for minutes.
                host, _, port = address.rpartition(":")
                if port.isdigit():
                    socket.create_connection((host, int(port)), timeout=_CONNECTION_SECONDS).close()
                with _discard_stderr():
                    ray.init(address, **quiet)
            except (OSError, RuntimeError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error).strip().splitlines()[0]
                raise UserError(
                    f"The Ray cluster at {address} can't be used ({reason}): correct or unset {ADDRESS_VARIABLE}."
                ) from error
        else:
            # A folder of its own: the usual one, /tmp/ray, keeps the logs of all runs and is shared with other users.
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hirise-", ignore_cleanup_errors=True))
            # Ray counts all cores of the machine; a job of a cluster may have some of them.
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            with _discard_stderr():
                ray.init(
                    "local",
                    num_cpus=max(workers or 1, cores),
                    object_store_memory=_OBJECT_STORE_BYTES,
                    dashboard_host="127.0.0.1",
                    _temp_dir=folder,
                    **quiet,
                )
        stack.callback(ray.shutdown)
        ray.data.DataContext.get_current().enable_progress_bars = False  # there is one of our own
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        yield


@contextmanager
def _discard_stderr() -> Iterator[None]:
    """Discards what Ray writes in C++ while it starts, although it has no errors to tell: those are exceptions."""
    stderr = os.dup(2)
    try:
        with open(os.devnull, "w") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _divide_resources(nodes: list[dict[str, Any]], workers: int | None) -> tuple[int, dict[str, int], int | None]:
    """Returns the number of workers, the resources of each, and its number of threads (None: TensorFlow chooses).

    Args:
        nodes: nodes of the cluster, as Ray describes them.
        workers: number of workers that the user wants, or None.

    Raises:
        UserError: the cluster has too few cores.
    """
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = sum(int(node.get("GPU", 0)) for node in resources)
    if gpus and (workers is None or workers <= gpus):
        return workers or gpus, {"num_cpus": 1, "num_gpus": 1}, None
    cores = [int(node.get("CPU", 0)) for node in resources]
    count = workers or sum(cores)
    # The most threads with which all workers find a place: a worker can't use cores of two nodes.
    shares = [n for n in range(1, max(cores) + 1) if sum(node_cores // n for node_cores in cores) >= count > 0]
    if not shares:
        raise UserError(f"--workers is {count}, but the Ray cluster has {sum(cores)} cores: use fewer workers.")
    return count, {"num_cpus": shares[-1]}, shares[-1]


def _pack(shard: Shard) -> bytes:
    return zlib.compress(pickle.dumps(shard))


def _unpack(packed: bytes) -> Shard:
    shard: Shard = pickle.loads(zlib.decompress(packed))
    return shard
