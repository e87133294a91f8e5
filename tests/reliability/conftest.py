"""The folder that attacks share.

Each section of the table has a module of its own, so that processes share the tries.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that attempts share, in all processes of a session."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "torture"
    folder.mkdir(exist_ok=True)
    return folder
