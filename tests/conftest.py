"""What every test gets: a cache of its own and no network; and the small data folder and backbone that many use."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# There is a process of tests for each core: further threads would only wait for each other, at full load.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from handmade import short_training, without_figures
from worlds import TOY, small_copy

from hirise_imb.backbones import BACKBONES, Backbone
from hirise_imb.data import synthetic
from hirise_imb.data.hirise import HIRISE
from hirise_imb.utils.files import CACHE_VARIABLE, exclusive_lock
from hirise_imb.utils.progress import log

CACHE_NUMBERS = itertools.count()
LOOPBACK = ("127.0.0.1", "::1", "localhost")
LONG = (
    "test_distributed.py",
    "test_interrupted_commands.py",
    "test_contract.py",
    "test_rebuild.py",
    "test_workers.py",
    "test_page.py",
    "test_resume.py",
    "test_new_dataset.py",
    "test_predict.py",
    "test_real.py",
    "test_rounds.py",
    "test_head_kernel.py",
    "test_runner.py",
    "test_trainer.py",
    "test_stages.py",
)
"""The files that take longest, in the order in which they start: those with many processes do not start together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that at the end no process works while the others wait."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(autouse=True, scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No fixture of a wider scope finds the user's cache either."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("session-cache")))
        yield


@pytest.fixture(autouse=True)
def cache(session_cache: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    # Numbered by hand: pytest would list all folders of the session to find the next number.
    folder = tmp_path_factory.mktemp(f"cache-{next(CACHE_NUMBERS)}", numbered=False)
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))
    return folder


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    """The command line gives the package's log a handler; the next test gets it as it was."""
    before = log.handlers[:], log.level, log.propagate
    yield
    log.handlers[:], log.propagate = before[0], before[2]
    log.setLevel(before[1])


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """A connection to anywhere but this machine ends the test, whatever the code under test catches."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            original = getattr(socket.socket, name)

            def guarded(self: socket.socket, address: Any, _original: Any = original) -> Any:  # noqa: ANN401
                if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOOPBACK:
                    pytest.fail(f"a test connects to {address}")
                return _original(self, address)

            patch.setattr(socket.socket, name, guarded)
        look_up = socket.getaddrinfo

        def local_only(host: Any, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
            if host not in (None, "", *LOOPBACK):
                pytest.fail(f"a test looks up {host}")
            return look_up(host, *arguments, **options)

        patch.setattr(socket, "getaddrinfo", local_only)
        yield


@pytest.fixture(scope="session")
def whole_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic sample, drawn once for all processes of a session. Not to be changed."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "synthetic"
    with exclusive_lock(folder):
        if not folder.exists():
            synthetic.write(drawing := base / "drawing")
            drawing.rename(folder)
    return next(folder.iterdir())


@pytest.fixture(scope="session")
def small_data(whole_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in the official layout with some 150 images of all classes. Not to be changed."""
    return small_copy(whole_sample, tmp_path_factory.mktemp("small") / "data", 4)


@pytest.fixture
def own_data(small_data: Path, tmp_path: Path) -> Path:
    """A copy of the small data folder that a test may break."""
    return Path(shutil.copytree(small_data, tmp_path / "own-data"))


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """The toy backbone with its one set of random weights."""
    return TOY.load("random", HIRISE.image_shape)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of the toy backbone, known to the package for the time of a test."""
    monkeypatch.setitem(BACKBONES, TOY.name, TOY)
    return TOY.name


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a table with this text."""

    def call(text: str) -> Path:
        path = tmp_path / "table.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return call


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
