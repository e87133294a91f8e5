"""Ctrl-C, which a terminal sends to all processes of a command, reaches no worker: its parent ends it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os
import signal
import sys
import time
from pathlib import Path

from hirise_imb.search.workers import worker_pool

def write_blocked_signals(folder):
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    Path(folder, f"{os.getpid()}.txt").write_text(" ".join(sorted(number.name for number in blocked)))

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with worker_pool(2, folder / "log", write_blocked_signals, str(folder)):
        while len(list(folder.glob("*.txt"))) < 2:
            time.sleep(0.01)
    print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are blocked as POSIX does")
def test_no_worker_receives_ctrl_c_and_its_parent_does(tmp_path: Path) -> None:
    # A process of its own, since only the first worker of a process starts Python's tracker of resources.
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run([sys.executable, program, tmp_path], capture_output=True, text=True, timeout=120, check=True)
    assert [path.read_text() for path in tmp_path.glob("*.txt")] == ["SIGINT", "SIGINT"]
    assert done.stdout == "set()\n"
