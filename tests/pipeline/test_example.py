"""The example that is committed: the program reads it, and the README tells what stands in it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from builders import CLASSES

from hirise_imb.pipeline.rebuild import compare_reports
from hirise_imb.reporting.formatting import p_digits, signed
from hirise_imb.reporting.read import read_report

pytestmark = pytest.mark.usefixtures("blank_figures")

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "reports" / "real-sample"


@pytest.mark.parametrize("folder", [EXAMPLE, EXAMPLE / "baseline"], ids=["study", "reference run"])
def test_it_can_be_read_and_all_its_files_are_as_they_were_written(folder: Path) -> None:
    assert read_report(folder).arms
    files = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["files"]
    assert files == {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}


def test_the_readme_has_its_table() -> None:
    results = read_report(EXAMPLE)
    base, control = results.reference, results.control_name
    assert control is not None
    rows = []
    for arm in results.ordered:
        interval = results.inference.resamples[arm.name].interval()
        assert interval is not None
        against = ["", ""]
        if arm.name != base:
            gain = results.gain(arm.name, "macro_f1", base)
            against = [signed(gain), p_digits(results.inference.tests[arm.name].p_holm)]
        gain = results.gain(arm.name, "macro_f1", control)
        cells = [
            f"`{arm.name}`",
            f"{arm.val_macro_f1:.3f}",
            f"{results.macro(arm.name).mean:.3f}",
            f"{interval.low:.2f}-{interval.high:.2f}",
            *against,
            "" if arm.name in (base, control) else signed(gain),
            *(f"{f1.mean:.2f}" for f1 in results.per_class(arm.name, "f1")),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("| | validation |"))
    assert lines[start].endswith(f"| {' | '.join(CLASSES)} |")
    assert lines[start + 2 : start + 2 + len(rows)] == rows


def test_it_compares_with_another_report_of_its_landmarks(tmp_path: Path) -> None:
    results, page = compare_reports([EXAMPLE, EXAMPLE / "baseline"], "both", tmp_path)
    assert [origin.name for origin in results.origins] == ["real-sample", "baseline"]
    assert page.exists()
