"""The command line as attacks run it, and what its refusals must look like."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hirise_imb.cli import main

LAUNCHER = Path(__file__).parents[1] / "study_launcher.py"
DEADLINE = 240.0
"""Seconds after which a command counts as hanging."""


@dataclass(frozen=True)
class Finished:
    """A command that ended."""

    code: int
    out: str
    err: str

    def expect_success(self) -> Finished:
        """Fails unless the command succeeded."""
        assert self.code == 0, f"exit code {self.code}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.out + self.err, self.err
        return self

    def expect_sentence(self, *words: str) -> Finished:
        """Fails unless the command was refused with exit code 2 and one sentence, which contains some words."""
        assert "Traceback" not in self.out + self.err, self.err
        assert self.code == 2, f"exit code {self.code}\n{self.out}\n{self.err}"
        last = self.err.strip().splitlines()[-1]
        # Errors in the arguments come from argparse, after a line on the usage.
        assert last.startswith("error: ") or (last.startswith("hirise-imb ") and ": error: " in last), self.err
        assert "\x1b" not in last, repr(last)
        for word in words:
            assert word in self.err, self.err
        return self


def call(*words: object) -> Finished:
    """Runs the command line in this process, which is quick, but shares the state of the process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main.main([str(word) for word in words])
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
    return Finished(code, out.getvalue(), err.getvalue())


def environment(**variables: str) -> dict[str, str]:
    """Returns the environment of child processes, with some variables changed."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1", "GRACE": "5", "HOLD": ""}
    return {**os.environ, **quiet, **variables}


def start(
    *words: object, toy: bool = True, env: Mapping[str, str] | None = None, launcher: Path = LAUNCHER
) -> subprocess.Popen[str]:
    """Starts the command line in a process of its own.

    Args:
        words: arguments.
        toy: the toy backbone is known and figures are blank, so that a study takes seconds.
        env: whole environment of the process; default `environment()`.
        launcher: program that is started if `toy`.
    """
    program = [str(launcher)] if toy else ["-m", "hirise_imb.study"]
    return subprocess.Popen(
        [sys.executable, *program, *map(str, words)],
        env=environment() if env is None else env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> Finished:
    """Waits for a process that `start` started."""
    try:
        out, err = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    return Finished(process.returncode, out, err)
