"""Runs measurements in processes of their own, contenders by turns.

Nothing heavy is imported here: on Linux a child's peak memory is at least what its parent used when it started it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

Figures = dict[str, Any]
"""What a measurement gives: numbers and lists of numbers by name, and `peak_mb` and `private_mb` of its process."""

Case = partial[Figures]
"""A function of this package and its arguments, all fit for JSON; it is called with a further argument `seed`."""

ROOT = Path(__file__).parents[1]
LIMIT = 1800
"""Seconds after which a measurement is given up."""


@dataclass(frozen=True)
class BenchmarkRun:
    """How the measurements of a topic are made."""

    topic: str
    quick: bool
    repeats: int

    def size(self, full: int, quick: int) -> int:
        """A size by whether the run is a quick one."""
        return quick if self.quick else full

    def once(self, case: Case, *, seed: int = 0) -> Figures:
        """One measurement."""
        name = f"{case.func.__module__}:{case.func.__name__}"
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result.json"
            arguments = json.dumps(case.keywords | {"seed": seed})
            command = [sys.executable, "-m", "benchmarks.child", name, arguments, str(result)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
            if done.returncode:
                raise RuntimeError(f"{name} {arguments} ended with {done.returncode}:\n{done.stderr[-3000:]}")
            figures: Figures = json.loads(result.read_text())
        return figures

    def by_turns(self, cases: Mapping[str, Case], repeats: int | None = None) -> dict[str, list[Figures]]:
        """Each case so many times: A B C A B C ...; the number of the repeat is its seed."""
        found: dict[str, list[Figures]] = {name: [] for name in cases}
        repeats = repeats or self.repeats
        for repeat in range(repeats):
            for name, case in cases.items():
                begin = time.monotonic()
                found[name].append(self.once(case, seed=repeat))
                self.say(f"{name}, {repeat + 1} of {repeats}: {time.monotonic() - begin:.0f} s")
        return found

    def say(self, what: str) -> None:
        """Tell how far the topic is."""
        print(f"{self.topic}: {what}", file=sys.stderr, flush=True)


def prepared(bench: BenchmarkRun, function: Callable[..., Figures], **arguments: Any) -> Figures:  # noqa: ANN401
    """Make ready what several measurements use, in a process of its own too."""
    return bench.once(partial(function, **arguments))


def has_sample() -> bool:
    """Whether real landmarks were given."""
    return bool(os.environ.get("HIRISE_SAMPLE"))
