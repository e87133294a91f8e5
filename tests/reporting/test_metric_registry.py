"""A metric of one's own, added in this file alone, in everything that a report shows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from handmade import three_classes
from terminal import print_end

from hirise_imb.data.dataset import ClassSet
from hirise_imb.metrics.classification import Predictions
from hirise_imb.metrics.registry import METRICS, Evaluation, Metric
from hirise_imb.pipeline.compare import merge_reports
from hirise_imb.pipeline.rebuild import rebuild_report
from hirise_imb.reporting import Baseline, write_report
from hirise_imb.reporting.html.view import Extras, study_view
from hirise_imb.reporting.read import read_summary
from hirise_imb.reporting.summary.content import of_study
from hirise_imb.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("blank_figures")


def brier(evaluation: Evaluation) -> float:
    """Returns the Brier score (1950) of the true class."""
    chosen = evaluation.probabilities[range(len(evaluation.labels)), evaluation.labels]
    return float(((1 - chosen) ** 2).mean())


TOY = Metric("toy_brier", "Brier score of the toy", "toy", brier, higher_is_better=False)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Metric:
    """The metric, registered for the time of a test."""
    monkeypatch.setitem(METRICS, TOY.name, TOY)
    return TOY


def test_a_metric_that_is_registered_is_in_everything(toy: Metric, tmp_path: Path) -> None:
    results = three_classes()
    folder = write_report(results, tmp_path / "three").parent
    arms = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["arms"]
    fits = results.evaluations["plain"]
    mean = sum(brier(fit) for fit in fits) / len(fits)
    assert arms[1]["scores"]["toy_brier"]["mean"] == pytest.approx(mean)
    assert arms[1]["vs_baseline"]["scores"]["toy_brier"] < 0
    page, lines = ((folder / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    assert 'data-first="ascending">Brier score of the toy</th>' in page  # less is better
    assert f">{mean:.3f} <" in page
    assert "| Brier score of the toy |" in lines
    assert f"| {mean:.3f} (" in lines


def test_a_score_that_a_summary_lacks_is_shown_as_missing() -> None:
    results = three_classes()
    content = of_study(results)
    for arm in content["arms"]:
        del arm["scores"]["kappa"]
    view = study_view(content, Extras({}, {}, None, {arm.name: 1.0 for arm in results.arms}, "", ""))
    place = 1 + list(METRICS).index("kappa")
    assert view.scores.head[0][place].text == "kappa"
    assert {row.cells[place - 1].text for row in view.scores.rows} == {"–"}
    assert {row.cells[0].text for row in view.scores.rows} != {"–"}


def test_an_undefined_score_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(METRICS, "nothing", Metric("nothing", "nothing at all", "nil", lambda _: float("nan")))
    folder = write_report(three_classes(), tmp_path / "three").parent
    assert "nothing" not in read_summary(folder)["arms"][0]["scores"]
    assert ">nothing at all</th>" in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("majority", [None, "hill"])
def test_three_classes_go_through_every_page(majority: str | None, tmp_path: Path) -> None:
    folder = write_report(three_classes(majority), tmp_path / "three").parent
    before = read_summary(folder)
    assert rebuild_report(folder) == folder / "report.html"
    assert read_summary(folder)["files"] == before["files"]
    assert before["majority"] == majority
    for name in ("report.html", "report.md"):
        text = (folder / name).read_text(encoding="utf-8")
        assert all(word in text for word in ("flat", "hill", "lake"))
        assert not any(words in text for words in ("but other", "<em>other", "% other", "F1 of other"))
        assert ("Rare classes are all but hill." in text) == (majority == "hill")
        assert ("so all classes count as rare" in text) == (majority is None)
    lines = print_end(three_classes(majority))
    assert ("hill" in " ".join(lines)) == (majority is None)  # the rare classes


def test_the_published_table_is_compared_with_its_own_classes_alone() -> None:
    results = three_classes()
    with pytest.raises(UserError, match=r"has the classes other, crater, .*, and this data set has flat, hill, lake:"):
        Baseline(replace(results, arms=results.arms[:1]))


def test_reports_of_other_classes_are_not_compared(tmp_path: Path) -> None:
    results = three_classes()
    data = results.data.replace({"class": {"lake": "sea"}})
    renamed = replace(results, classes=ClassSet(("flat", "hill", "sea")), data=data)
    folders = [write_report(found, tmp_path / name).parent for found, name in ((results, "a"), (renamed, "b"))]
    with pytest.raises(UserError, match=r"b has the classes flat, hill, sea, and .*a has flat, hill, lake: scores can"):
        merge_reports(folders, "both")


def test_of_many_classes_the_rarest_are_printed() -> None:
    results = three_classes("hill")
    names = ("flat", "hill", "lake", *(f"landform number {n}" for n in range(17)))
    wide = [np.hstack([fit.probabilities, np.zeros((36, 17), np.float32)]) for fit in results.arms[0].predictions]
    fits = tuple(Predictions(tuple(results.test["image"]), fit) for fit in wide)
    arms = tuple(replace(arm, predictions=fits) for arm in results.arms)
    found = replace(results, classes=ClassSet(names, "hill"), arms=arms)
    lines = print_end(found)
    rows = [line for line in lines if line.startswith("landform number")]
    [rest] = [line for line in lines if "more on the page" in line]
    assert int(rest.split()[0]) + len(rows) == len(names) - 1
    assert not any(line.startswith(("flat", "lake")) for line in lines)  # they have landmarks, the others have none
    assert all(row.split()[3:] == ["0", "–", "–"] for row in rows)
