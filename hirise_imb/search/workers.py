"""Further processes on this machine."""

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

from hirise_imb.utils.progress import log_to_stderr, say


@contextmanager
def worker_pool(count: int, logs: Path, work: Callable[..., None], *arguments: Any) -> Iterator[None]:  # noqa: ANN401
    """Let processes do `work` as well, until the block ends; what they say goes to files.

    A process that ends early, or is killed, is told of and not replaced: what it had begun, others do again.

    Args:
        count: processes.
        logs: the files are named after this, with a number.
        work: a function of a module, which each of them calls.
        arguments: of the function.
    """
    # A forked TensorFlow hangs, so they start from nothing.
    context = multiprocessing.get_context("spawn")
    paths = [logs.with_name(f"{logs.name}.worker-{number}.log") for number in range(1, count + 1)]
    processes = [context.Process(target=_logged, args=(log, work, arguments), daemon=True) for log in paths]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process, log in zip(processes, paths, strict=True):
            if not process.is_alive() and process.exitcode != 0:
                say(f"A worker ended with code {process.exitcode}: see {log}.")
            process.terminate()
            process.join()


def is_orphaned() -> bool:
    """Whether this is a worker whose study has ended, or was killed."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


def _logged(log: Path, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    log_to_stderr()
    signal.signal(signal.SIGTERM, _leave)
    work(*arguments)


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """Give back what was begun: who is told to end has not died in it."""
    raise SystemExit(0)
