"""The example that is committed: the program reads it, and the README tells what stands in it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from builders import CLASSES
from handmade import EXAMPLE, summary_of

from hirise_imb.pipeline.rebuild import compare_reports, rebuild_report
from hirise_imb.reporting.formatting import p_digits, signed
from hirise_imb.reporting.read import read_report

pytestmark = pytest.mark.usefixtures("blank_figures")

ROOT = Path(__file__).parents[2]
REPORTS = pytest.mark.parametrize("folder", [EXAMPLE, EXAMPLE / "baseline"], ids=["study", "reference run"])
SENTENCES = {"caution", "headline", "pairing", "protocol", "reading", "setting"}
"""Entries of a summary whose wording may change from version to version, but no number in it."""
DECIMALS = re.compile(r"[-+]?\d+\.\d+")
ADDED = {"majority"}
"""Entries that the versions before did not write."""


@REPORTS
def test_it_can_be_read_and_all_its_files_are_as_they_were_written(folder: Path) -> None:
    assert read_report(folder).arms
    files = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["files"]
    assert files == {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}


def leaves(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], object]]:
    """All strings, numbers, booleans and nulls of a summary, and where they are; and all empty lists and objects."""
    parts = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    if parts:
        for key, part in parts:
            yield from leaves(part, (*path, key))
    else:
        yield path, value


@REPORTS
def test_built_again_from_its_files_it_has_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("baseline", "*.png", "*.svg"))
    rebuild_report(copy)
    before, after = (dict(leaves(summary_of(place))) for place in (folder, copy))
    added = {path for path in after.keys() - before.keys() if path[0] not in SENTENCES}
    assert {path[0] for path in added} <= ADDED
    for path, value in before.items():
        if path[0] == "files":
            continue
        if isinstance(value, float):
            # The last digits depend on the processor and its threads, which add products up in another order.
            assert after[path] == pytest.approx(value, rel=1e-9, abs=1e-12), path
        elif path[0] in SENTENCES:
            assert DECIMALS.findall(str(after[path])) == DECIMALS.findall(str(value)), path
        else:
            assert (after[path], type(after[path])) == (value, type(value)), path
    tables = [path.relative_to(copy) for path in copy.rglob("*.csv")]
    assert len(tables) > 4
    for table in tables:
        one, other = (pd.read_csv(place / table) for place in (folder, copy))
        pd.testing.assert_frame_equal(one, other, rtol=1e-9, atol=1e-12, obj=str(table))
    for name in [*folder.glob("predictions/*"), *folder.glob("figures/curves-*.csv")]:
        assert name.read_bytes() == (copy / name.relative_to(folder)).read_bytes(), name


def test_the_readme_has_its_table() -> None:
    results = read_report(EXAMPLE)
    rows = []
    for arm in results.ordered:
        interval = results.inference.resamples[arm.name].interval()
        assert interval is not None
        against: list[str] = []
        for contrast, family in results.families.items():
            other = results.other_of(arm, contrast)
            if other in (None, arm.name) or (contrast == "vs_control" and arm.role != "strategy"):
                against += ["", ""]
            else:
                assert other is not None
                p = p_digits(family.tests[arm.name].p_holm) if arm.name in family.tests else ""
                identical = results.identical.get(arm.name) == other
                against += [signed(results.gain(arm.name, "macro_f1", other)), "identical" if identical else p]
        cells = [
            f"`{arm.name}`",
            f"{arm.val_macro_f1:.3f}",
            f"{results.macro(arm.name).mean:.3f}",
            f"{interval.low:.2f}-{interval.high:.2f}",
            *against,
            *(f"{f1.mean:.2f}" for f1 in results.per_class(arm.name, "f1")),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("| | validation |"))
    assert lines[start].endswith(f"| {' | '.join(CLASSES)} |")
    assert lines[start + 2 : start + 2 + len(rows)] == rows


@pytest.mark.slow
def test_it_compares_with_another_report_of_its_landmarks(tmp_path: Path) -> None:
    results, page = compare_reports([EXAMPLE, EXAMPLE / "baseline"], "both", tmp_path)
    assert [origin.name for origin in results.origins] == ["real-sample", "baseline"]
    assert page.exists()
