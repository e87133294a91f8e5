"""The command: python -m benchmarks [--only TOPIC,...] [--quick] [--repeats N]."""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console

from benchmarks import (
    extraction,
    head,
    machine,
    nested,
    posthoc,
    predicting,
    reports,
    sample,
    scale,
    start,
    trials,
    unfreeze,
)
from benchmarks.report import markdown, show
from benchmarks.runner import BenchmarkRun

TOPICS: dict[str, ModuleType] = {
    "head": head,
    "trials": trials,
    "nested": nested,
    "posthoc": posthoc,
    "reports": reports,
    "extraction": extraction,
    "predicting": predicting,
    "unfreeze": unfreeze,
    "start": start,
    "scale": scale,
    "sample": sample,
}

NEEDS = {"sample": "real landmarks (HIRISE_SAMPLE)", "predicting": "Ray (the extra `ray`)"}
"""What topics need that is not installed everywhere."""

RESULTS = Path(__file__).with_name("results.json")


def main() -> int:
    """Run topics, print each as it ends, and write results.json and results.md; a quick run writes nothing."""
    options = _parser().parse_args()
    console = Console()
    here = BenchmarkRun("machine", options.quick, 1).once(partial(machine.describe))
    here = {key: value for key, value in here.items() if not key.endswith("_mb")}
    reports = {} if options.quick else _kept(here)
    failed = []
    for name in options.only:
        begin = time.monotonic()
        try:
            report = TOPICS[name].run(BenchmarkRun(name, options.quick, options.repeats or (1 if options.quick else 3)))
        except Exception as error:  # the topics after it are still worth running
            failed.append(name)
            console.print(f"\n{name} failed: {error}", style="red", markup=False)
            continue
        if report is None:
            console.print(f"\n{name}: left out, it needs {NEEDS[name]}")
            continue
        reports[name] = report.plain() | {"seconds": round(time.monotonic() - begin)}
        show(reports[name], console)
        if not options.quick:
            _write(here, reports)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description="Measure speed and memory, side by side.")
    parser.add_argument("--only", type=_topics, default=list(TOPICS), metavar="TOPIC,...", help=", ".join(TOPICS))
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works; writes no results")
    parser.add_argument("--repeats", type=int, metavar="N", help="of each measurement (default: 3, quick: 1)")
    return parser


def _topics(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in TOPICS]:
        raise argparse.ArgumentTypeError(f"no such topic: {', '.join(unknown)}; known: {', '.join(TOPICS)}")
    return names


def _kept(here: dict[str, Any]) -> dict[str, Any]:
    """Topics of an earlier run, where it was on the same machine and revision."""
    if not RESULTS.exists():
        return {}
    before = json.loads(RESULTS.read_text(encoding="utf-8"))
    kept: dict[str, Any] = before["topics"] if before["machine"] == here else {}
    return kept


def _write(here: dict[str, Any], reports: dict[str, Any]) -> None:
    ordered = {name: reports[name] for name in TOPICS if name in reports}
    text = json.dumps({"machine": here, "topics": ordered}, indent=1)
    RESULTS.write_text(text + "\n", encoding="utf-8")
    RESULTS.with_suffix(".md").write_text(markdown(here, ordered), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
