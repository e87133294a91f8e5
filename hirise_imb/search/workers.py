"""Worker processes on this machine, which share the searches of a study."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from hirise_imb.utils.errors import UserError
from hirise_imb.utils.progress import log_to_stderr, warn


@contextmanager
def worker_pool(count: int, logs: Path, work: Callable[..., None], *arguments: Any) -> Iterator[None]:  # noqa: ANN401
    """Runs a function in further processes until the block ends; their output goes to log files.

    A process that fails or is killed is reported and not replaced: the other processes take over its trial.

    Args:
        count: number of processes.
        logs: path from which the names of the log files are derived: `<logs>.worker-<number>.log`.
        work: module-level function that each process calls.
        arguments: arguments of that function.
    """
    # Spawned, not forked: TensorFlow's threads do not survive a fork, and the child would wait for them forever.
    context = multiprocessing.get_context("spawn")
    paths = [logs.with_name(f"{logs.name}.worker-{number}.log") for number in range(1, count + 1)]
    processes = [context.Process(target=_run_worker, args=(path, work, arguments), daemon=True) for path in paths]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process, path in zip(processes, paths, strict=True):
            if not process.is_alive() and process.exitcode != 0:
                warn(f"A worker ended with code {process.exitcode}: see {path}.")
            process.terminate()
            process.join()


def is_orphaned() -> bool:
    """Returns whether this process is a worker whose parent has ended or was killed."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


def _run_worker(log: Path, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    # The descriptors are redirected, not only Python's streams: TensorFlow writes to them from C++.
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    log_to_stderr()
    signal.signal(signal.SIGTERM, _exit_on_signal)
    try:
        work(*arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _exit_on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    # An exception, unlike the default end by the signal, lets the search close its trials as interrupted. Left running,
    # they would later count as trials in which a worker has died.
    raise SystemExit(0)
