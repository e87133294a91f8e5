"""Worker processes on this machine, which share the searches of a study."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from hirise_imb.utils.errors import describe_user_error
from hirise_imb.utils.interruption import end_at_interruption, install_handlers, is_interruption, is_requested
from hirise_imb.utils.progress import log_to_stderr, warn
from hirise_imb.utils.terminal import write_line

_PATIENCE = 30.0
"""Seconds after which a worker that was asked to end is killed."""


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
    try:
        with _interruptions_blocked():
            for process in processes:
                process.start()
        yield
    finally:
        for process, path in zip(processes, paths, strict=True):
            if process.pid is None:
                continue  # interrupted before it was started
            if not process.is_alive() and process.exitcode != 0 and not is_requested():
                warn(f"A worker ended with code {process.exitcode}: see {path}.")
            process.terminate()
        deadline = time.monotonic() + _PATIENCE
        for process in processes:
            if process.pid is not None:
                process.join(max(0.0, deadline - time.monotonic()))
                process.kill()
                process.join()


@contextmanager
def _interruptions_blocked() -> Iterator[None]:
    """Lets processes that the block starts never receive Ctrl-C, which a terminal sends to all processes of a command.

    They would print an error while they import. Instead, the process that has started them ends them.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Python starts this process of its own with the first worker, and unblocks all signals then.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_worker(log: Path, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    # The descriptors are redirected, not only Python's streams: TensorFlow writes to them from C++.
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    log_to_stderr()
    # An interruption lets the search close its trials as interrupted. Left running, they would later count as trials in
    # which a worker has died.
    install_handlers(worker=True)
    with end_at_interruption():
        threading.Thread(target=_end_with_parent, daemon=True).start()
        try:
            work(*arguments)
        except Exception as error:
            if is_interruption(error) or (sentence := describe_user_error(error)) is None:
                raise
            write_line(f"error: {sentence}", sys.stderr)
            raise SystemExit(2) from error


def _end_with_parent() -> None:
    """Interrupts this process when the one that has started it was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # a worker was started by another process
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
