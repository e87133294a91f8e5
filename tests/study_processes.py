"""Whole studies in processes of their own, and what they leave behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hirise_imb.utils.files import CACHE_VARIABLE

DEADLINE = 240.0
"""Seconds after which a process counts as hanging."""

_LAUNCHER = Path(__file__).with_name("study_launcher.py")

T = TypeVar("T")


@dataclass(frozen=True)
class Command:
    """The command line, in new processes."""

    folder: Path
    """Folder that contains the cache."""
    hold: Path | None = None
    """A file: trials are acquired, but not trained, as long as it exists."""
    grace: float = 5.0
    """Seconds after which a silent owner of a lease counts as dead."""
    stop_after: str = ""
    """When the process stops its work and waits to be killed, such as "40 images" or "4 trials"; default never."""

    def start(self, *words: object, **options: object) -> subprocess.Popen[str]:
        """Starts a process, both of whose output streams can be read from its stdout."""
        if self.hold:
            self.hold.touch()
        options = {"backbone": "toy", "weights": "random", **options}
        arguments = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        return subprocess.Popen(
            [sys.executable, str(_LAUNCHER), *map(str, words), *arguments],
            env=os.environ
            | {CACHE_VARIABLE: str(self.folder / "cache"), "GRACE": str(self.grace), "HOLD": str(self.hold or "")}
            | {"STOP_AFTER": self.stop_after}
            | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A shell that runs the tests in the background lets them, and what they start, ignore interruptions.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *words: object, **options: object) -> str:
        """Runs a process, which must succeed, and returns its output."""
        with kill_on_exit(self.start(*words, **options)) as process:
            output, _ = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, output
        return output


@contextlib.contextmanager
def kill_on_exit(*processes: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Kills processes at the end of the block, whatever happens in it; yields the first of them."""
    try:
        yield processes[0]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def wait_until(condition: Callable[[], T], *processes: subprocess.Popen[str], seconds: float = DEADLINE) -> T:
    """Returns the value of a condition as soon as it is true; none of the processes may end before."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "the condition did not become true"
        assert all(process.poll() is None for process in processes), "a process ended before it became true"
        time.sleep(0.1)  # each look may take a new connection to a database
    return value


def read_results(report: Path) -> Mapping[str, bytes]:
    """Returns the files of a report that must not differ between equal runs: all but times and the page with them."""
    patterns = ("per_class.csv", "predictions/*", "confusion/*")
    paths = [path for pattern in patterns for path in report.glob(pattern)]
    summary = json.loads((report / "summary.json").read_text(encoding="utf-8"))
    del summary["files"]  # digests of the page, and of the file with the times
    contents = {str(path.relative_to(report)): path.read_bytes() for path in paths}
    if (given := report / "given-split").exists():
        contents |= {f"given-split/{name}": content for name, content in read_results(given).items()}
    return contents | {"summary": json.dumps(summary).encode()}
