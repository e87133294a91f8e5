"""What tests of reports share."""

from collections.abc import Iterator

import pytest

from hirise_imb.reporting.figures.style import figure_settings


@pytest.fixture(autouse=True, scope="module")
def settings() -> Iterator[None]:
    """Figures that a test draws by itself look as in a report."""
    with figure_settings():
        yield
