"""What tests of reports share."""

from collections.abc import Iterator

import pytest
from handmade import without_figures


@pytest.fixture(scope="module")
def blank_figures() -> Iterator[None]:
    """No report of the module draws its figures."""
    with without_figures():
        yield
