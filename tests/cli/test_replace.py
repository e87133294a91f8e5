"""A report is not replaced by a smaller one unless the user asks for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hirise_imb.cli.main import main

Command = Callable[..., int]


@pytest.fixture
def run(toy: str, small_data: Path, tmp_path: Path) -> Command:
    """Runs a small study with further options."""
    words = ["run", "--name", "demo", "--data", str(small_data), "--backbone", toy, "--weights", "random"]
    words += ["--strategies", "temperature", "--selection", "val", "--out", str(tmp_path)]
    return lambda *options: main([*words, *map(str, options)])


def contents(report: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in report.rglob("*") if path.is_file()}


def control_values(report: Path) -> list[Any]:
    """Returns what the trials of the control gave."""
    arms = json.loads((report / "summary.json").read_text(encoding="utf-8"))["arms"]
    return [trial["value"] for trial in next(arm for arm in arms if arm["name"] == "plain")["trials"]]


def test_a_larger_report_is_replaced_only_when_asked(
    run: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "reports" / "demo"
    assert run("--trials", 2, "--refits", 2) == 0
    before = contents(report)
    values = control_values(report)
    assert len(values) == 2
    for options, key, number, fewer in (
        (("--trials", 1, "--refits", 2), "trials", 2, 1),
        (("--trials", 3, "--refits", 1), "refits", 2, 1),
    ):
        capsys.readouterr()
        assert run(*options) == 2
        assert capsys.readouterr().err == (
            f"error: {report} has a report with {number} {key}, and this run would replace it by one with {fewer}: ask "
            f"for --{key} {number}, choose another --name, or confirm with --replace.\n"
        )
        assert contents(report) == before

    assert run("--trials", 3, "--refits", 2) == 0  # more trials continue the search
    assert control_values(report)[:2] == values
    assert len(control_values(report)) == 3

    assert run("--trials", 1, "--refits", 1, "--replace") == 0
    assert control_values(report) == values[:1]
    assert "trials = 1\n" in (report / "study.toml").read_text(encoding="utf-8")
