"""The suite withstands interruptions."""

from __future__ import annotations

from pathlib import Path

from torture.attacks import Area
from torture.quick import attacks_on, withstand


@attacks_on(Area.INTERRUPTION)
def test_suite_withstands(name: str, seed: int, shared: Path) -> None:
    withstand(name, seed, shared)
