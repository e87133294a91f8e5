"""Checks that each mutant which no test kills is explained in `tests/surviving_mutants`.

    make mutation

mutmut changes the code of the numerical core in thousands of ways and runs its tests on each. A change that no test
notices is a gap in the tests, or makes no difference that a test could see: then a file in `tests/surviving_mutants`
gives the reason. An explanation that fits no surviving mutant any more is an error, too.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Set
from pathlib import Path
from typing import NamedTuple

EXPLANATIONS = Path(__file__).parent.parent / "tests" / "surviving_mutants"
ANY = "*"
KILLED = {"killed", "timeout", "caught by type check"}


class Mutant(NamedTuple):
    """A change of a function."""

    function: str
    """Its name, with the module but without the package."""
    code: str
    """The changed lines, without indentation."""
    becomes: str
    """What they are changed to."""


def read_explained(folder: Path) -> set[Mutant]:
    """Returns the explained mutants.

    Each table `mutants` of a TOML file has `function`, `code`, the list `becomes` and `reason`. Without `code` and
    `becomes`, it explains all mutants of the function, and is returned as a mutant whose code is `ANY`.
    """
    explained: set[Mutant] = set()
    for path in sorted(folder.glob("*.toml")):
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["mutants"]:
            if not entry["reason"].strip():
                raise ValueError(f"{path.name}: a mutant of {entry['function']} has no reason")
            if "code" not in entry:
                explained.add(Mutant(entry["function"], ANY, ANY))
            explained |= {Mutant(entry["function"], entry["code"], changed) for changed in entry.get("becomes", ())}
    return explained


def read_survivors() -> dict[Mutant, str]:
    """Returns the mutants that were not killed, with the names and results that mutmut gives them."""
    survivors: dict[Mutant, str] = {}
    for line in _run("results").splitlines():
        name, _, result = line.strip().partition(": ")
        if result not in KILLED:
            survivors[_describe(name, _run("show", name))] = f"{name}: {result}"
    return survivors


def find_explanation(mutant: Mutant, explained: Set[Mutant]) -> Mutant | None:
    """Returns the explained mutant that is this one, or stands for all of its function; None if there is none."""
    return next((key for key in (mutant, Mutant(mutant.function, ANY, ANY)) if key in explained), None)


def main() -> int:
    """Prints each survivor without explanation and each explanation without survivor; returns their number."""
    explained, survivors = read_explained(EXPLANATIONS), read_survivors()
    used = {mutant: find_explanation(mutant, explained) for mutant in survivors}
    unexplained = {mutant for mutant, explanation in used.items() if explanation is None}
    outdated = explained - set(used.values())
    for title, mutants in (("No test kills", unexplained), ("Explained, but killed or gone", outdated)):
        for mutant in sorted(mutants):
            print(f"{title}: {survivors.get(mutant, mutant.function)}\n  - {mutant.code}\n  + {mutant.becomes}")
    print(f"{len(survivors)} mutants survive, {len(unexplained)} of them without an explanation")
    return len(unexplained) + len(outdated)


def _run(*arguments: str) -> str:
    command = [sys.executable, "-m", "mutmut", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _describe(name: str, shown: str) -> Mutant:
    """Takes the change from what `mutmut show` prints; names are like `package.module.xǁClassǁmethod__mutmut_1`."""
    module, _, function = name.partition(".x")
    function = re.sub(r"__mutmut_\d+$", "", function)
    function = function[1:].replace("ǁ", ".")
    changes = [line for line in shown.splitlines() if line[:1] in ("-", "+") and not line.startswith(("---", "+++"))]
    removed, added = ("\n".join(line[1:].strip() for line in changes if line[0] == sign) for sign in "-+")
    return Mutant(f"{module.partition('.')[2]}.{function}", removed, added)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
