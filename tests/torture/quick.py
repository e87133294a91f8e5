"""The tries of attacks that are part of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from torture.attacks import Area, Outcome, all_attacks


def attacks_on(area: Area) -> pytest.MarkDecorator:
    """Gives a test `name` and `seed` of each quick try of the attacks of a section of the table."""
    tries = [
        (name, seed) for name, attack in all_attacks().items() if attack.area is area for seed in range(attack.quick)
    ]
    return pytest.mark.parametrize(("name", "seed"), tries)


def withstand(name: str, seed: int, shared: Path) -> None:
    """Tries an attack once; fails where the suite does not hold."""
    assert all_attacks()[name].attempt(seed, shared) in Outcome
