"""Figures of a summary that its stored predictions contradict are found, whichever they are."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from handmade import SEEDS, guesses, make_arm, make_catalogue, make_nested_results, make_results, summary_of
from report_edits import write_summary

from hirise_imb.reporting import Results, write_report
from hirise_imb.reporting.read import read_report
from hirise_imb.reporting.summary.consistency import find_contradiction
from hirise_imb.reporting.summary.records import Summary
from hirise_imb.reporting.summary.schema import find_fault
from hirise_imb.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("blank_figures")

RIGHT = {"baseline": 0.4, "plain": 0.6, "focal_loss": 0.7}

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Of a nested cross-validation with the given split inside."""
    catalogue = make_catalogue(tmp_path_factory.mktemp("data"), (12, 8, 4, 3, 2, 2, 3, 0))
    truth = catalogue.canonical_images("test")["label"].tolist()
    arms = [
        make_arm(catalogue, name, [guesses(truth, share, seed) for seed in SEEDS], share / 2)
        for name, share in RIGHT.items()
    ]
    return make_nested_results(catalogue, RIGHT, given_split=make_results(catalogue, *arms))


@pytest.fixture(scope="module")
def folder(results: Results, blank_figures: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report. Not to be changed."""
    return write_report(results, tmp_path_factory.mktemp("reports") / "by-hand").parent


@pytest.fixture(scope="module")
def stored(folder: Path) -> dict[str, Any]:
    """Its summary. Not to be changed."""
    return summary_of(folder)


def add(amount: float, *keys: str | int) -> Change:
    """Adds to the number that is found by these keys."""

    def change(summary: dict[str, Any]) -> None:
        place: Any = summary
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] += amount

    return change


CONTRADICTIONS: dict[str, tuple[Change, str]] = {
    "landmarks of a class": (add(1, "support", 2), "$.support"),
    "sources of a class": (add(-1, "sources", 1), "$.sources"),
    "no control": (lambda summary: summary.update(control=None), "$.control"),
    "another control": (lambda summary: summary.update(control="focal_loss"), "$.control"),
    "no choice": (lambda summary: summary.update(chosen=None), "$.chosen"),
    "another choice": (lambda summary: summary.update(chosen="plain"), "$.chosen"),
    "another order": (lambda summary: summary["order"].reverse(), "$.order"),
    "validation": (add(1e-5, "arms", 1, "val_score"), "the val_score of plain"),
    "confusion": (add(0.5, "arms", 2, "confusion", 3, 4), "the confusion of focal_loss"),
    "mean of a score": (add(1e-5, "arms", 0, "scores", "macro_f1", "mean"), "the macro_f1 of baseline"),
    "lowest of a score": (add(-1e-5, "arms", 1, "scores", "accuracy", "low"), "the accuracy of plain"),
    "highest of a score": (add(1e-5, "arms", 2, "scores", "kappa", "high"), "the kappa of focal_loss"),
    "mean of a class": (add(-1e-5, "arms", 0, "per_class", "precision", 0, "mean"), "the precision of baseline"),
    "lowest of a class": (add(-1e-5, "arms", 1, "per_class", "recall", 1, "low"), "the recall of plain"),
    "highest of a class": (add(1e-5, "arms", 2, "per_class", "f1", 6, "high"), "the f1 of focal_loss"),
    "arms of the given split": (lambda summary: summary["given_split"]["arms"].reverse(), "$.given_split.arms"),
    "an arm less in the given split": (lambda summary: summary["given_split"]["arms"].pop(), "$.given_split.arms"),
    "score of the given split": (
        lambda summary: next(arm for arm in summary["given_split"]["arms"] if arm["name"] == "plain").update(
            score=0.25
        ),
        "$.given_split, the score of plain",
    ),
}
"""Changes that the schema of a summary allows, and what they contradict."""


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_figure_that_the_predictions_contradict_is_named(case: str, stored: dict[str, Any], results: Results) -> None:
    change, place = CONTRADICTIONS[case]
    summary = copy.deepcopy(stored)
    change(summary)
    assert find_fault(summary) is None
    assert find_contradiction(cast("Summary", summary), results) == place


@pytest.mark.parametrize(
    "change",
    [
        lambda summary: None,
        add(1e-7, "arms", 0, "scores", "macro_f1", "mean"),
        add(1e-7, "arms", 0, "confusion", 0, 0),
        lambda summary: summary["arms"][0]["scores"].pop("kappa"),
        lambda summary: summary["arms"][0]["scores"].update(brier={"mean": 2.5, "low": 2.0, "high": 3.0}),
    ],
    ids=["unchanged", "rounded score", "rounded count", "earlier than a metric", "metric of a plug-in"],
)
def test_what_other_versions_and_processors_write_is_no_contradiction(
    change: Change, stored: dict[str, Any], results: Results
) -> None:
    summary = copy.deepcopy(stored)
    change(summary)
    assert find_contradiction(cast("Summary", summary), results) is None


def test_a_given_split_that_is_missing_on_one_side_is_left_to_the_reader(
    stored: dict[str, Any], results: Results
) -> None:
    assert find_contradiction(cast("Summary", stored), replace(results, given_split=None)) is None
    assert find_contradiction(cast("Summary", stored | {"given_split": None}), results) is None


def test_a_report_whose_summary_contradicts_its_predictions_is_refused(folder: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(folder, tmp_path / "report"))
    summary = summary_of(place)
    add(0.25, "arms", 1, "scores", "macro_f1", "mean")(summary)
    write_summary(place, summary)
    message = (
        f"{place / 'summary.json'} contradicts the predictions of the report (the macro_f1 of plain): "
        "run its study again to rewrite it."
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        read_report(place)
