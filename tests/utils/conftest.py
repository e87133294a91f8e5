"""What tests of progress share."""

import logging
import time

import pytest
from clocks import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


@pytest.fixture
def said(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    """What is logged; standard error is captured and so no terminal, whatever the tests run in."""
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(variable, raising=False)
    caplog.set_level(logging.INFO, "hirise_imb")
    return caplog
