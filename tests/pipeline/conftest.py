"""What tests of whole studies share."""

from collections.abc import Iterator

import pytest
from handmade import short_training, without_figures


@pytest.fixture(scope="module")
def blank_figures() -> Iterator[None]:
    """No report of the module draws its figures."""
    with without_figures():
        yield


@pytest.fixture(scope="module")
def few_epochs() -> Iterator[None]:
    """Fits of the module are short."""
    with short_training():
        yield


@pytest.fixture
def undrawn() -> Iterator[None]:
    """No report of the test draws its figures."""
    with without_figures():
        yield
