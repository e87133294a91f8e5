"""What an attack is, and the table of all attacks."""

from __future__ import annotations

import importlib
import os
import pkgutil
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final
from unittest import mock

import torture
from hirise_imb.utils.files import CACHE_VARIABLE, exclusive_lock


class Outcome(StrEnum):
    """What an attack may end in. Anything else, which an attack reports by an exception, is a defect."""

    SAME = "same report as undisturbed"
    CORRECT = "correct results"
    REPAIRED = "noticed and repaired"
    NAMED = "named in the report"
    REFUSED = "refused in one sentence"
    RECORDED = "recorded as failed, the rest went on"
    HARMLESS = "nothing executed, nothing disclosed"
    NOT_TRIED = "not tried, since this machine can't"


class Area(StrEnum):
    """Sections of the table, in their order."""

    INTERRUPTION = "Interruption"
    CONCURRENCY = "Concurrency"
    DISK = "Disk and files"
    DATA = "Hostile data"
    NUMBERS = "Numbers"
    SECURITY = "Security"
    ENVIRONMENT = "Environment"


@dataclass(frozen=True)
class Attempt:
    """One try of an attack."""

    seed: int
    random: random.Random
    """Where the attack takes its random choices from."""
    folder: Path
    """An empty folder, deleted after the attempt."""
    shared: Path
    """A folder that all attempts share; see `prepare`."""

    def prepare(self, name: str, make: Callable[[Path], object]) -> Path:
        """Returns a folder that is made once for all attempts, and that no attempt may change.

        Args:
            name: name of the folder.
            make: writes the content into the folder that it is given, which does not exist yet.
        """
        folder = self.shared / name
        with exclusive_lock(folder):
            if not folder.exists():
                unfinished = folder.with_name(f"{name}-unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)
                make(unfinished)
                unfinished.rename(folder)
        return folder


@dataclass(frozen=True)
class Attack:
    """An attack of the table."""

    name: str
    title: str
    """What is done to the suite, as the table says it."""
    area: Area
    tries: int
    """How often `make torture` tries it."""
    quick: int
    """How often `make test` tries it."""
    run: Callable[[Attempt], Outcome]

    def attempt(self, seed: int, shared: Path) -> Outcome:
        """Tries the attack once, with a cache of its own.

        Args:
            seed: of all random choices; the same seed repeats the attempt.
            shared: folder that attempts share.

        Raises:
            Exception: any, where the suite did not hold.
        """
        folder = Path(tempfile.mkdtemp(prefix="torture-"))
        try:
            (folder / "work").mkdir()
            with mock.patch.dict(os.environ, {CACHE_VARIABLE: str(folder / "cache")}):
                # The name is part of the seed, so that attacks do not all make the same choices.
                return self.run(Attempt(seed, random.Random(f"{self.name} {seed}"), folder / "work", shared))
        finally:
            shutil.rmtree(folder)


_ATTACKS: Final[dict[str, Attack]] = {}


def attack(
    area: Area, title: str, *, tries: int, quick: int = 1
) -> Callable[[Callable[[Attempt], Outcome]], Callable[[Attempt], Outcome]]:
    """Adds a function to the table of attacks.

    Args:
        area: section of the table.
        title: what is done to the suite, in a few words.
        tries: how often `make torture` tries it.
        quick: how often `make test` tries it; 0 for an attack that takes too long.
    """

    def add(function: Callable[[Attempt], Outcome]) -> Callable[[Attempt], Outcome]:
        name = function.__name__.replace("_", "-")
        if name in _ATTACKS:
            raise ValueError(f"two attacks are called {name}")
        _ATTACKS[name] = Attack(name, title, area, tries, quick, function)
        return function

    return add


def all_attacks() -> dict[str, Attack]:
    """Returns all attacks by their names, in the order of the table."""
    for module in pkgutil.iter_modules(torture.__path__):
        if module.name not in ("__main__", "quick", "runner"):
            importlib.import_module(f"torture.{module.name}")
    areas = list(Area)
    return dict(sorted(_ATTACKS.items(), key=lambda item: areas.index(item[1].area)))
