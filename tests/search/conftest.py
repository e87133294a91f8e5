from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_searches import create_database
from servers import Server, postgresql


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server, started once for all tests; each asks it for a database of its own."""
    with postgresql() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """An empty database: a file, or one of the server."""
    return (
        create_database(tmp_path / "demo.db")
        if request.param == "sqlite"
        else request.getfixturevalue("server").fresh()
    )
