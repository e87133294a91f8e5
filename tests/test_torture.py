"""The suite withstands each attack a few times; `make torture` tries them many times."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from torture.attacks import Outcome, all_attacks

ATTACKS = all_attacks()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that attempts share, in all processes of a session."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "torture"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize(
    ("name", "seed"), [(name, seed) for name, attack in ATTACKS.items() for seed in range(attack.quick)]
)
def test_suite_withstands(name: str, seed: int, shared: Path) -> None:
    assert ATTACKS[name].attempt(seed, shared) in Outcome
