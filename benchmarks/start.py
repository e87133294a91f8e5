"""Topic `start`: how long commands take that compute nothing, and whether they import TensorFlow."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial

from benchmarks.report import Report, Table, Target, middle, spread, values
from benchmarks.runner import ROOT, BenchmarkRun, Case, Figures

TABLE = "hirise_imb/forensics/published.csv"
COMMANDS = {
    "python, nothing imported": "pass",
    "import hirise_imb": "import hirise_imb",
    "hirise-imb --help": "study(['--help'])",
    "hirise-imb data check --help": "study(['data', 'check', '--help'])",
    "hirise-imb forensics": f"study(['forensics', {TABLE!r}, '--supports', '1482,89,66,49,16,7,42,42'])",
}
TARGETS = {"import hirise_imb": 0.1, "hirise-imb --help": 0.3, "hirise-imb data check --help": 0.3}

# Runs the command as `python -m` does, then tells whether TensorFlow came in.
SCRIPT = """
import sys
def study(arguments):
    import runpy
    sys.argv = ["hirise-imb", *arguments]
    try:
        runpy.run_module("hirise_imb.study", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise
{command}
print("tensorflow" in sys.modules, file=sys.stderr)
"""


def run(bench: BenchmarkRun) -> Report:
    """Time each command by turns."""
    cases: dict[str, Case] = {name: partial(command, code=code) for name, code in COMMANDS.items()}
    found = bench.by_turns(cases)
    seconds = {name: values(figures, "seconds") for name, figures in found.items()}
    rows = [
        [
            name,
            spread(seconds[name], 3),
            f"{middle(values(found[name], 'command_mb')):,.0f}",
            "yes" if any(figures["tensorflow"] for figures in found[name]) else "no",
        ]
        for name in COMMANDS
    ]
    heavy = sum(figures["tensorflow"] for name in COMMANDS for figures in found[name])
    return Report(
        title="Start: commands that train nothing",
        text="Wall time of the whole process, the interpreter's own start included; files were read once before.",
        tables=[Table("", ["", "s", "peak MB", "TensorFlow imported"], rows)],
        targets=[
            *(Target(f"{name} takes", middle(seconds[name]), limit, " s") for name, limit in TARGETS.items()),
            Target("starts that import TensorFlow", heavy, 0, digits=0),
        ],
        figures=found,
    )


def command(code: str, seed: int) -> Figures:  # noqa: ARG001
    """Run a command twice and time the second run."""
    import resource

    for _ in range(2):
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(command=code)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"seconds": seconds, "tensorflow": done.stderr.split()[-1] == "True", "command_mb": peak}
