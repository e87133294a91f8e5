from __future__ import annotations

from collections.abc import Iterator

import pytest
from servers import Server, postgresql


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server, started once for all tests; each asks it for a database of its own."""
    with postgresql() as running:
        yield running
