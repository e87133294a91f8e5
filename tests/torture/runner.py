"""Tries all attacks and writes what happened into `docs/reliability.md`.

Repeat a failed attempt with `python -m torture --attack NAME --seed SEED --tries 1`, in the folder `tests`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import secrets
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from hirise_imb.utils.files import write_text
from torture.attacks import Attack, Outcome, all_attacks

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


@dataclass
class Record:
    """What the attempts of an attack ended in."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    failures: dict[int, str] = field(default_factory=dict)
    """Traceback of each attempt that the suite did not withstand, by its seed."""
    seconds: float = 0.0


def attempt(name: str, seed: int, shared: Path) -> tuple[Outcome | None, str, float]:
    """Tries an attack once, in a process of the pool; returns outcome or none, traceback, and seconds."""
    begin = time.monotonic()
    try:
        return all_attacks()[name].attempt(seed, shared), "", time.monotonic() - begin
    except BaseException:
        return None, traceback.format_exc(), time.monotonic() - begin


def run_attempts(attacks: Sequence[Attack], tries: int | None, first_seed: int, jobs: int) -> dict[str, Record]:
    """Tries the attacks, with consecutive seeds, in several processes; prints each failure and how to repeat it."""
    records = {attack.name: Record() for attack in attacks}
    with (
        tempfile.TemporaryDirectory(prefix="torture-shared-") as shared,
        ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        waiting: dict[Future[tuple[Outcome | None, str, float]], tuple[str, int]] = {
            pool.submit(attempt, attack.name, first_seed + number, Path(shared)): (attack.name, first_seed + number)
            for attack in attacks
            for number in range(attack.tries if tries is None else tries)
        }
        left = Counter(name for name, _ in waiting.values())
        for future in as_completed(waiting):
            name, seed = waiting[future]
            outcome, failure, seconds = future.result()
            record = records[name]
            record.seconds += seconds
            if outcome is None:
                record.failures[seed] = failure
                print(f"{failure}FAILED: python -m torture --attack {name} --seed {seed} --tries 1", flush=True)
            else:
                record.outcomes[outcome] += 1
            left[name] -= 1
            if not left[name]:
                print(f"{name}: {describe(record)} ({record.seconds:.0f} s)", flush=True)
    return records


def describe(record: Record) -> str:
    """Returns the outcomes of an attack with their counts, as the table gives them."""
    counts = [f"{count:,} {outcome}" for outcome, count in record.outcomes.most_common()]
    return "; ".join([*counts, *([f"**{len(record.failures)} FAILED**"] if record.failures else [])])


def write_table(attacks: Sequence[Attack], records: dict[str, Record], first_seed: int) -> None:
    """Replaces the table of the page."""
    lines = [f"Seeds from {first_seed}; {sum(attack.tries for attack in attacks):,} attempts.", ""]
    lines += ["| Attack | Tries | What happened |", "|---|--:|---|"]
    area = None
    for attack in attacks:
        if attack.area != area:
            area = attack.area
            lines.append(f"| **{area}** | | |")
        lines.append(f"| {attack.title} | {attack.tries:,} | {describe(records[attack.name])} |")
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    write_text(PAGE, "\n".join([f"{before}{BEGIN}", *lines, f"{END}{after}"]))


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m torture", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--attack", action="append", metavar="NAME", help="try this attack only (repeatable)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="first seed (default: random)")
    parser.add_argument("--tries", type=int, help="attempts of each attack (default: its own number)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one per core)")
    options = parser.parse_args()
    attacks = all_attacks()
    if unknown := set(options.attack or ()) - set(attacks):
        parser.error(f"unknown attack {', '.join(sorted(unknown))}; there are {', '.join(attacks)}")
    chosen = [attacks[name] for name in options.attack or attacks]
    print(f"first seed {options.seed}", flush=True)
    records = run_attempts(chosen, options.tries, options.seed, options.jobs)
    if options.attack is None and options.tries is None:
        write_table(chosen, records, options.seed)
    failed = sum(len(record.failures) for record in records.values())
    print(f"{sum(record.outcomes.total() for record in records.values()):,} attempts held, {failed} failed")
    return 1 if failed else 0
