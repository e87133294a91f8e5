"""The example that is committed: the program reads it, and a page of the documentation tells what stands in it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from handmade import EXAMPLE, summary_of

from hirise_imb.metrics.permutation import ALPHA
from hirise_imb.pipeline.rebuild import compare_reports, rebuild_report
from hirise_imb.reporting.formatting import p_digits, signed
from hirise_imb.reporting.read import read_report
from hirise_imb.reporting.selection import selection_cost

pytestmark = pytest.mark.usefixtures("blank_figures")

ROOT = Path(__file__).parents[2]
REPORTS = pytest.mark.parametrize(
    "folder",
    [EXAMPLE, EXAMPLE / "given-split", EXAMPLE / "baseline"],
    ids=["nested cross-validation", "given split", "reference run"],
)
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


def test_the_documentation_has_its_numbers() -> None:
    results = read_report(EXAMPLE)
    given = results.given_split
    assert given is not None
    page = " ".join((ROOT / "docs" / "example-study.md").read_text(encoding="utf-8").split())
    control, families = results.control, results.families
    assert control is not None
    to_control, to_baseline = families["vs_control"], families["vs_baseline"]

    def gain(arm: str, other: str) -> str:
        return signed(results.gain(arm, "macro_f1", other))

    best = max(to_control.tests, key=lambda arm: to_control.tests[arm].swap.difference)
    features = results.inference.against("representation", control.name).interval
    combined = results.inference.against("combined_features", "combined").interval
    interval = results.inference.against(best, to_control.tests[best].other).interval
    tuned = results.inference.against(control.name, "baseline").interval
    detectable, on_given = to_control.min_detectable_difference, given.families["vs_control"].min_detectable_difference
    correlation = results.rank_correlation
    assert interval is not None
    assert features is not None
    assert combined is not None
    assert tuned is not None
    assert detectable is not None
    assert on_given is not None
    assert correlation is not None
    assert correlation.rho is not None
    assert min(test.p_holm for test in to_control.tests.values()) > ALPHA
    assert min(test.p_holm for family in given.families.values() for test in family.tests.values()) > ALPHA
    beaten = [arm.name for arm in results.strategies if arm.name in to_baseline.tests]
    n_better = sum(to_baseline.tests[name].p_holm <= ALPHA for name in beaten)
    luck = [cost.luck for arm in results.arms if (cost := selection_cost(results, arm)).luck is not None]
    for text in (
        f"{len(results.test):,} landmarks, {results.inference.total} sources",
        f"the tuned control** (macro F1 {results.macro(control.name).mean:.3f})",
        f"`{best}`, {gain(best, to_control.tests[best].other)} over the control that averages as many fits (95 % "
        f"confidence interval {signed(interval.low)} to {signed(interval.high)}, "
        f"p = {p_digits(to_control.tests[best].swap.p)}; {p_digits(to_control.tests[best].p_holm)} after Holm over "
        f"{len(to_control)} comparisons)",
        f"{gain('representation', control.name)} over `plain` ({signed(features.low)} to {signed(features.high)})",
        f"{gain('combined_features', 'combined')} ({signed(combined.low)} to {signed(combined.high)}; one "
        f"comparison, uncorrected) from the same features: from {results.macro('combined').mean:.3f} to "
        f"{results.macro('combined_features').mean:.3f}",
        f"{gain('plain-as-ensemble', control.name)} (`plain-as-ensemble`)",
        f"the published recipe** ({results.macro('baseline').mean:.3f}): the control by "
        f"{gain(control.name, 'baseline')} ({signed(tuned.low)} to {signed(tuned.high)}, "
        f"p = {p_digits(to_baseline.tests[control.name].p_holm)}",
        f"{n_better} of {len(results.strategies)} strategies. {gain('baseline_to_the_end', 'baseline')}",
        f"The best trials scored {sum(filter(None, luck)) / len(luck):.3f} too high",
        f"rank correlation {correlation.rho:+.2f} over {correlation.arms} arms, p {p_digits(correlation.p or 0)}",
        f"are {detectable.low:.3f} to {detectable.high:.3f}",
        f"({given.inference.total} test sources) they are {on_given.low:.3f} to {on_given.high:.3f}",
    ):
        assert text in page, text


@pytest.mark.slow
def test_it_compares_with_another_report_of_its_landmarks(tmp_path: Path) -> None:
    results, page = compare_reports([EXAMPLE / "given-split", EXAMPLE / "baseline"], "both", tmp_path)
    assert [origin.name for origin in results.origins] == ["real-sample-given-split", "baseline"]
    assert page.exists()
