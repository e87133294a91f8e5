"""A report is not replaced by a smaller one unless the user asks for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hirise_imb.backbones import BACKBONES
from hirise_imb.cli.main import main
from hirise_imb.testing.toy import TOY

pytestmark = pytest.mark.usefixtures("blank_figures")

Command = Callable[..., int]

WORDS = ["run", "--name", "demo", "--backbone", TOY.name, "--weights", "random"]
WORDS += ["--strategies", "temperature", "--evaluation", "given-split"]


@pytest.fixture(scope="module")
def finished(blank_figures: None, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study with two trials and two refits. Not to be changed."""
    out = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, TOY.name, TOY)
        assert main([*WORDS, "--data", str(small_data), "--trials", "2", "--refits", "2", "--out", str(out)]) == 0
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


@pytest.fixture
def run(toy: str, small_data: Path, out: Path) -> Command:
    """Runs the study again with other options."""
    return lambda *options: main([*WORDS, "--data", str(small_data), "--out", str(out), *map(str, options)])


def contents(report: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in report.rglob("*") if path.is_file()}


def control_values(out: Path) -> list[Any]:
    """Returns what the trials of the control gave, from the report."""
    arms = json.loads((out / "reports" / "demo" / "summary.json").read_text(encoding="utf-8"))["arms"]
    [selection] = next(arm for arm in arms if arm["name"] == "plain")["selections"]
    return [trial["value"] for trial in selection["trials"]]


@pytest.mark.parametrize(("key", "trials", "refits"), [("trials", 1, 2), ("refits", 3, 1)])
def test_a_larger_report_is_not_replaced_unasked(
    key: str, trials: int, refits: int, run: Command, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = out / "reports" / "demo"
    before = contents(report)
    assert run("--trials", trials, "--refits", refits) == 2
    assert capsys.readouterr().err == (
        f"error: {report} has a report with 2 {key}, and this run would replace it with a report of 1: ask for "
        f"--{key} 2, choose another --name, or confirm with --replace.\n"
    )
    assert contents(report) == before


def test_a_report_of_another_design_is_not_replaced_unasked(
    run: Command, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = out / "reports" / "demo"
    before = contents(report)
    assert run("--evaluation", "nested-cv") == 2
    assert capsys.readouterr().err == (
        f"error: {report} has a report with the evaluation given-split, and this run would replace it with one "
        "without: add it to evaluation, choose another --name, or confirm with --replace.\n"
    )
    assert contents(report) == before


@pytest.mark.slow
def test_a_larger_report_is_replaced_when_asked(run: Command, out: Path) -> None:
    before = control_values(out)
    assert len(before) == 2
    assert run("--trials", 1, "--refits", 1, "--replace") == 0
    assert control_values(out) == before[:1]
    assert "trials = 1\n" in (out / "reports" / "demo" / "study.toml").read_text(encoding="utf-8")


@pytest.mark.slow
def test_more_trials_continue_the_search(run: Command, out: Path) -> None:
    before = control_values(out)
    assert run("--trials", 3, "--refits", 2) == 0
    assert control_values(out)[:2] == before
    assert len(control_values(out)) == 3
