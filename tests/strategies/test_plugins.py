"""Strategies of other installed packages: what is found, in what order, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hirise_imb.strategies import STRATEGIES, StrategyRegistry
from hirise_imb.utils.errors import UserError

BUILT_IN = tuple(STRATEGIES.values())
"""Read before any test installs a package."""

MODULE = """
from dataclasses import dataclass, replace

from hirise_imb.strategies import OptimiserParameters, TrainedStrategy, number


@dataclass(frozen=True)
class Parameters(OptimiserParameters):
    rate: float = number(0.0, 0.9, default=0.4, help="dropout rate", source="this project")


class Remedy(TrainedStrategy[Parameters]):
    name = "remedy"
    summary = "another dropout"
    source = "this project"
    parameters = Parameters

    def apply(self, recipe, parameters):
        return replace(recipe, dropout=parameters.rate)


class Second(Remedy):
    name = "a_second"
    depends_on = ("remedy",)


class Clash(Remedy):
    name = "focal_loss"


class Lost(Remedy):
    name = "lost"
    depends_on = ("no_such_strategy",)


REMEDY, SECOND, CLASH, LOST = Remedy(), Second(), Clash(), Lost()
OTHER = {"name": "remedy"}
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path of Python, with a module of strategies, where packages can be installed."""
    (tmp_path / "remedies_for_tests.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("remedies_for_tests", None)


def add_package(folder: Path, package: str, *points: str) -> None:
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
    lines = "\n".join(f"{point.lower()} = remedies_for_tests:{point}" for point in points)
    (info / "entry_points.txt").write_text(f"[hirise_imb.strategies]\n{lines}\n", encoding="utf-8")


def registry() -> StrategyRegistry:
    """As a new process has it."""
    return StrategyRegistry(BUILT_IN)


def test_a_strategy_of_another_package_is_found(install: Path) -> None:
    add_package(install, "imb-remedies", "REMEDY")
    found = registry()
    assert "remedies_for_tests" not in sys.modules  # nothing is loaded before it is asked for
    assert list(found) == [*(strategy.name for strategy in BUILT_IN), "remedy"]
    assert found["remedy"].summary == "another dropout"


def test_a_strategy_comes_after_those_it_depends_on(install: Path) -> None:
    add_package(install, "a-package", "SECOND")
    add_package(install, "b-package", "REMEDY")
    assert list(registry())[-2:] == ["remedy", "a_second"]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (
            ("CLASH",),
            r"^The package imb-remedies has a strategy focal_loss, but hirise-imb already has one of this name: "
            r"rename it, or ",
        ),
        (
            ("OTHER",),
            r"^The entry point other of the package imb-remedies names remedies_for_tests:OTHER, which is not an "
            r"instance of hirise_imb\.strategies\.Strategy: ",
        ),
        (
            ("MISSING",),
            r"^The strategy missing of the package imb-remedies can't be loaded \(AttributeError: .*\): fix or ",
        ),
        (
            ("LOST", "REMEDY"),
            r"^The strategy lost of the package imb-remedies depends on no_such_strategy, not all of ",
        ),
    ],
)
def test_a_package_that_can_not_be_used_is_named(points: tuple[str, ...], message: str, install: Path) -> None:
    add_package(install, "imb-remedies", *points)
    with pytest.raises(UserError, match=message):
        len(registry())


def test_two_packages_with_one_name_are_both_named(install: Path) -> None:
    add_package(install, "a-package", "REMEDY")
    add_package(install, "b-package", "REMEDY")
    with pytest.raises(UserError, match=r"^The package b-package has a strategy remedy, but a-package already has "):
        len(registry())


def run_command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = f"import sys; sys.path.insert(0, {str(folder)!r}); "
    code = path + f"from hirise_imb.cli.main import main; sys.exit(main({list(arguments)!r}))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_command_line_lists_it_and_refuses_in_a_sentence(install: Path) -> None:
    add_package(install, "imb-remedies", "REMEDY")
    assert "another dropout" in run_command(install, "strategies", "remedy").stdout
    add_package(install, "z-remedies", "CLASH")
    failed = run_command(install, "strategies")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: The package z-remedies has a strategy focal_loss")
    assert len(failed.stderr.splitlines()) == 1
