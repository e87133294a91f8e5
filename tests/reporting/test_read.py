"""Reports whose files were edited by someone who also corrected the digests: what no study writes is refused."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from handmade import make_catalogue, make_nested_results, summary_of
from report_edits import replace_file, write_summary

from hirise_imb.reporting import write_report
from hirise_imb.reporting.read import read_report
from hirise_imb.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("blank_figures")

AGAIN = "run its study again to rewrite it."
CURVES = "figures/curves-baseline.csv"


@pytest.fixture(scope="module")
def written(blank_figures: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a nested cross-validation with two repeats. Not to be changed."""
    catalogue = make_catalogue(tmp_path_factory.mktemp("data"), (4, 3, 2, 2, 2, 2, 2, 0))
    results = make_nested_results(catalogue, {"baseline": 0.4}, repeats=2)
    return write_report(results, tmp_path_factory.mktemp("reports") / "by-hand").parent


@pytest.fixture
def report(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(written, tmp_path / "report"))


def refused(report: Path, name: str) -> str:
    """Reads a report that must be refused for one of its files; returns the reason."""
    message = rf"^{re.escape(str(report / name))} is not a file that this program writes \(.*\): {AGAIN}$"
    with pytest.raises(UserError, match=message) as refusal:
        read_report(report)
    return str(refusal.value).split(" writes (", 1)[1].removesuffix(f"): {AGAIN}")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name enclosed in double quotes"),
        ('{"python": NaN}', "NaN is not a number"),
        ('{"python": "3.11", "python": "3.12"}', "it has the key 'python' twice"),
        ("[]", "it is not an object"),
        ("null", "it is not an object"),
        ('{"seconds": [1.5]}', "its seconds are not times"),
        ('{"seconds": {"baseline": -1}}', "its seconds are not times"),
        ('{"seconds": {"baseline": "1"}}', "its seconds are not times"),
        ('{"seconds": {"baseline": true}}', "its seconds are not times"),
        ('{"seconds": {"baseline": 1, "plain": null}}', "its seconds are not times"),
    ],
)
def test_an_environment_that_no_study_has_is_refused(text: str, reason: str, report: Path) -> None:
    replace_file(report, "environment.json", text.encode())
    assert refused(report, "environment.json").startswith(reason)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"name = ", "Invalid value"),
        (b"trials = inf", "inf is not a number that anything can be set to"),
        (b"name = '\xc4'", "'utf-8' codec can't decode byte 0xc4"),
    ],
)
def test_a_definition_that_is_not_toml_is_refused(content: bytes, reason: str, report: Path) -> None:
    replace_file(report, "study.toml", content)
    assert refused(report, "study.toml").startswith(reason)


def test_predictions_that_no_study_writes_are_refused(report: Path) -> None:
    replace_file(report, "predictions/baseline.parquet", b"image\na.jpg\n")
    assert refused(report, "predictions/baseline.parquet") == "it is not a Parquet file that can be read"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda table: table.drop(columns="epoch"), "its columns are not those of learning curves"),
        (lambda table: table.drop(columns="seed"), "its columns are not those of learning curves"),
        (lambda table: table.assign(val_loss="low"), "its columns are not those of learning curves"),
        (lambda table: table.assign(seed="first"), "its columns are not those of learning curves"),
        (lambda table: table[["seed", "epoch"]], "its columns are not those of learning curves"),
        (lambda table: table.assign(val_loss=np.inf), "it has infinite values"),
        (lambda table: table[table["seed"] != 3], "it has no epochs of a seed"),
        (lambda table: table[table["seed"] != 6], "it has no epochs of a seed"),
    ],
    ids=[
        *("no epochs", "no seeds", "words as losses", "words as seeds", "no losses", "infinite losses"),
        *("no first seed", "no last seed"),
    ],
)
def test_learning_curves_that_no_fits_have_are_refused(
    change: Callable[[pd.DataFrame], pd.DataFrame], reason: str, report: Path
) -> None:
    replace_file(report, CURVES, change(pd.read_csv(report / CURVES)).to_csv(index=False).encode())
    assert refused(report, CURVES) == reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "No columns to parse from file"),
        (b"seed,epoch\n3,1\n3,2,0.5,1.5\n", "Error tokenizing data. C error: Expected 2 fields in line 3, saw 4"),
        (b"seed,epoch\n\xff,1\n", "'utf-8' codec can't decode byte 0xff"),
    ],
    ids=["empty", "ragged", "not text"],
)
def test_learning_curves_that_are_no_table_are_refused(content: bytes, reason: str, report: Path) -> None:
    replace_file(report, CURVES, content)
    assert refused(report, CURVES).startswith(reason)


def drop_source(folds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return folds[1:]


def name_another_source(folds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [folds[0] | {"source": "ESP_000000_0000"}, *folds[1:]]


def repeat_source(folds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*folds, folds[0]]


def skip_a_repeat(folds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [fold | {"repeat": 2 * fold["repeat"]} for fold in folds if fold["repeat"] == 1]


@pytest.mark.parametrize("change", [drop_source, name_another_source, repeat_source, skip_a_repeat, lambda folds: []])
def test_outer_folds_without_each_source_once_in_each_repeat_are_refused(
    change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]], report: Path
) -> None:
    summary = summary_of(report)
    summary["outer_folds"] = change(summary["outer_folds"])
    if not summary["outer_folds"]:  # then the fits have as many entries as one repeat has
        for arm in summary["arms"]:
            for key in ("best_epochs", "capped", "temperatures"):
                arm[key] = [2 * values for values in arm[key]]
    write_summary(report, summary)
    assert refused(report, "summary.json") == "$.outer_folds has not each source once in each repeat"


def test_seeds_that_are_not_for_all_repeats_are_refused(report: Path) -> None:
    summary = summary_of(report)
    for arm in summary["arms"]:
        for key in ("seeds", "best_epochs", "capped", "temperatures"):
            arm[key].pop()
    write_summary(report, summary)
    with pytest.raises(UserError, match=r"\(at \$\.arms\[0\]: its fits and selections do not have one entry for each"):
        read_report(report)
