"""What the Python API shows of a report: the figures of its files, and of its predictions scored by scikit-learn."""

from __future__ import annotations

import json
import shutil
import webbrowser
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from handmade import (
    SEEDS,
    guesses,
    make_arm,
    make_catalogue,
    make_nested_results,
    make_results,
    rewrite_report,
    summary_of,
)
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from pandas.testing import assert_frame_equal
from sklearn.metrics import confusion_matrix, f1_score

import hirise_imb as hi
from hirise_imb.data.manifest import Manifest
from hirise_imb.metrics import SourceCounts, swap_test
from hirise_imb.reporting import Results, write_report
from hirise_imb.reporting.results import Contrast

pytestmark = pytest.mark.usefixtures("blank_figures")

EVERY = (60, 24, 12, 10, 8, 6, 8, 6)
RIGHT = {"baseline": 0.3, "plain": 0.55, "focal_loss": 0.5, "class_weights": 0.9, "tta": 0.56}


@pytest.fixture(scope="module", autouse=True)
def no_window() -> Iterator[None]:
    """Figures need no screen."""
    backend = mpl.get_backend()
    mpl.use("Agg")
    yield
    plt.close("all")
    mpl.use(backend)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_catalogue(tmp_path_factory.mktemp("data"), EVERY)


@pytest.fixture(scope="module")
def results(catalogue: Manifest) -> Results:
    """Of a nested cross-validation with the given split inside."""
    truth = catalogue.canonical_images("test")["label"].tolist()
    arms = [
        make_arm(catalogue, name, [guesses(truth, share, seed) for seed in SEEDS], 0.3 + share / 2)
        for name, share in RIGHT.items()
    ]
    given = replace(make_results(catalogue, *arms), environment={"seconds": {arm.name: arm.seconds for arm in arms}})
    return make_nested_results(catalogue, RIGHT, given_split=given)


@pytest.fixture(scope="module")
def folder(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the report. Not to be changed."""
    return write_report(results, tmp_path_factory.mktemp("reports") / "by-hand").parent


@pytest.fixture(scope="module")
def study(folder: Path) -> hi.Report:
    return hi.read_report(folder)


@pytest.fixture(scope="module")
def summary(folder: Path) -> dict[str, Any]:
    return summary_of(folder)


def record(summary: dict[str, Any], arm: str) -> dict[str, Any]:
    return next(entry for entry in summary["arms"] if entry["name"] == arm)


def predictions(folder: Path, arm: str) -> pd.DataFrame:
    return pd.read_parquet(folder / "predictions" / f"{arm}.parquet")


# --- facts and tables ---


def test_facts_are_those_of_the_summary(study: hi.Report, summary: dict[str, Any]) -> None:
    assert (study.name, study.setting, list(study.classes)) == tuple(
        summary[k] for k in ("study", "setting", "classes")
    )
    assert (study.baseline, study.control, study.chosen) == tuple(
        summary[k] for k in ("reference", "control", "chosen")
    )
    assert study.design == "nested-cv"
    assert study.definition == {"name": "by-hand"}
    assert list(study.arms) == summary["order"]
    assert len(study.arms) == len(RIGHT)
    assert "tta" in study.arms
    verdict = summary["verdict"]
    assert (study.verdict.headline, study.verdict.choice) == (verdict["headline"], verdict["choice"])


@pytest.mark.parametrize("contrast", ["vs_control", "vs_baseline"])
def test_arms_have_the_figures_of_the_summary(study: hi.Report, summary: dict[str, Any], contrast: Contrast) -> None:
    rows = study.arms.frame(contrast)
    assert rows["arm"].tolist() == summary["order"]
    for row in rows.to_dict("records"):
        arm = record(summary, row["arm"])
        assert row["validation"] == arm["val_score"]
        assert [row["macro_f1"], row["seeds_low"], row["seeds_high"]] == list(arm["scores"]["macro_f1"].values())
        assert [row["low"], row["high"]] == list(arm["uncertainty"]["score"].values())
        against = arm[contrast]
        if against["arm"] == row["arm"]:
            assert pd.isna([row["other"], row["difference"], row["p"]]).all()
            continue
        assert (row["other"], row["difference"]) == (against["arm"], against["scores"]["macro_f1"])
        assert [row["difference_low"], row["difference_high"]] == list(against["interval"].values())
        if against["test"] is None:
            assert pd.isna([row["p"], row["p_holm"], row["min_detectable_difference"]]).all()
        else:
            assert (row["p"], row["p_holm"]) == (against["test"]["p"], against["test"]["p_holm"])
            assert row["min_detectable_difference"] == against["test"]["resolvable"]
    default = study.arms.frame()
    assert default.equals(rows) == (contrast == "vs_control")


def test_all_scores_are_those_of_the_summary(study: hi.Report, summary: dict[str, Any]) -> None:
    rows = study.scores.frame("tta")
    stored = record(summary, "tta")["scores"]
    assert {row["score"]: [row["mean"], row["low"], row["high"]] for row in rows.to_dict("records")} == {
        name: list(spread.values()) for name, spread in stored.items()
    }
    assert len(study.scores.frame()) == len(RIGHT) * len(stored)


def test_tables_are_those_of_the_files(study: hi.Report, folder: Path) -> None:
    stored = pd.read_csv(folder / "per_class.csv")
    assert_frame_equal(study.per_class.frame(), stored)
    part = stored[stored["arm"] == "tta"].reset_index(drop=True)
    assert_frame_equal(study.per_class.frame("tta"), part)
    selection = pd.read_csv(folder / "selection.csv").fillna({"settings": ""}).astype({"divisions_as_control": "Int64"})
    assert_frame_equal(study.selection.frame(), selection, check_dtype=False)
    assert study.data.frame().to_dict("records") == summary_of(folder)["data"]


def test_trials_are_those_of_the_summary(study: hi.Report, summary: dict[str, Any]) -> None:
    rows = study.trials.frame("focal_loss")
    for selection in record(summary, "focal_loss")["selections"]:
        part = rows[rows["division"] == selection["division"]]
        assert part["trial"].tolist() == list(range(1, len(selection["trials"]) + 1))
        values = [trial["value"] for trial in selection["trials"]]
        assert part["value"].fillna(-1).tolist() == [-1 if value is None else value for value in values]
        assert part["best_so_far"].iloc[-1] == selection["search"]["best_value"]
    assert set(study.trials.frame()["arm"]) == set(RIGHT) - {"baseline"}


def test_predictions_are_those_of_the_files(study: hi.Report, folder: Path) -> None:
    stored = predictions(folder, "plain")
    assert_frame_equal(study.predictions("plain"), stored, check_dtype=False, check_categorical=False)
    means = study.predictions("plain", average=True)
    probabilities = [name for name in stored.columns.astype(str) if name.startswith("p_")]
    expected = stored.groupby("image")[probabilities].mean()
    assert means["image"].is_unique
    np.testing.assert_allclose(means[probabilities], expected.loc[means["image"]], rtol=1e-6)
    best = means[probabilities].to_numpy().argmax(axis=1)
    assert means["predicted_class"].tolist() == [study.classes[label] for label in best]


def test_the_confusion_matrix_is_that_of_scikit_learn(study: hi.Report, folder: Path) -> None:
    stored = predictions(folder, "tta")
    names = list(study.classes)
    fits = [confusion_matrix(p["true_class"], p["predicted_class"], labels=names) for _, p in stored.groupby("seed")]
    shown = study.confusion("tta")
    np.testing.assert_allclose(shown.counts, np.mean(fits, axis=0))
    assert shown.matrix().loc["crater", "other"] == shown.counts[1, 0]
    rows = shown.frame()
    assert rows["count"].tolist() == shown.counts.ravel().tolist()
    assert rows.groupby("true_class")["share_of_true"].sum().round(9).eq(1).all()


def test_recall_in_sources_adds_up_to_the_hits(study: hi.Report, folder: Path) -> None:
    rows = study.sources.frame("tta")
    stored = predictions(folder, "tta")
    hits = stored[stored["true_class"] == stored["predicted_class"]].groupby("true_class").size() / len(SEEDS)
    assert rows.groupby("class")["hits"].sum().loc[hits.index].round(9).tolist() == hits.round(9).tolist()
    assert (
        rows.groupby("class")["landmarks"].sum().to_dict()
        == stored.groupby("true_class").size().floordiv(len(SEEDS)).to_dict()
    )


# --- comparisons of two arms ---


def test_a_tested_pair_has_the_figures_of_the_summary(study: hi.Report, summary: dict[str, Any]) -> None:
    against = record(summary, "class_weights")["vs_control"]
    pair = study.compare("class_weights")
    assert (pair.arm, pair.other) == ("class_weights", against["arm"])
    assert pair.difference == pytest.approx(against["scores"]["macro_f1"])
    assert pair.interval == tuple(against["interval"].values())
    assert (pair.p, pair.share_above) == (against["test"]["p"], against["share_above"])
    assert pair.min_detectable_difference == against["test"]["resolvable"]
    assert pair.p <= against["test"]["p_holm"]
    assert pair.informative_sources == against["test"]["informative_sources"]
    rows = pair.frame()
    assert rows["class"].tolist() == ["all", *study.classes]
    np.testing.assert_allclose(rows["difference"][1:], against["per_class"]["f1"])
    ends = [(np.nan, np.nan) if one is None else tuple(one.values()) for one in against["per_class_interval"]]
    np.testing.assert_array_equal(rows[["low", "high"]][1:], ends)
    assert rows["p"].tolist()[0] == pair.p
    assert rows["p"][1:].isna().all()


def test_any_other_pair_is_tested_on_the_stored_predictions(study: hi.Report, folder: Path) -> None:
    one, other = (predictions(folder, arm) for arm in ("tta", "focal_loss"))
    names = list(study.classes)
    seeds = sorted(set(one["seed"]))

    def count(table: pd.DataFrame) -> SourceCounts:
        fits = [table[table["seed"] == seed] for seed in seeds]
        labels = fits[0]["true_class"].map(names.index).to_numpy(np.int64)
        sources = pd.factorize(fits[0]["source"])[0].astype(np.int64)
        predicted = np.stack([fit["predicted_class"].map(names.index).to_numpy(np.int64) for fit in fits])
        return SourceCounts.of(labels, predicted, sources, len(names))

    macro = [
        np.mean([f1_score(p["true_class"], p["predicted_class"], average="macro", labels=names) for _, p in fits])
        for fits in (one.groupby("seed"), other.groupby("seed"))
    ]
    pair = study.compare("tta", "focal_loss")
    assert pair.difference == pytest.approx(macro[0] - macro[1])
    expected = swap_test(count(one), count(other))
    assert (pair.p, pair.min_detectable_difference) == (expected.p, expected.min_detectable_difference)
    back = study.compare("focal_loss", "tta")
    assert back.difference == pytest.approx(-pair.difference)
    assert back.p == pair.p
    assert pair.is_significant == (pair.p <= 0.05)
    assert "tta minus focal_loss" in repr(pair)
    assert "not adjusted" in repr(pair)


# --- figures ---

PLOTS = {
    "arms": lambda study, ax: study.arms.plot(ax),
    "arms vs baseline": lambda study, ax: study.arms.plot(ax, "vs_baseline", arms=["tta", "focal_loss"]),
    "scores": lambda study, ax: study.scores.plot(ax, "accuracy"),
    "per_class": lambda study, ax: study.per_class.plot(ax, arms=["baseline", "tta"], score="recall"),
    "confusion": lambda study, ax: study.confusion("tta").plot(ax),
    "compare": lambda study, ax: study.compare("tta", "focal_loss").plot(ax),
    "trials": lambda study, ax: study.trials.plot(ax),
    "trials of one arm": lambda study, ax: study.trials.plot(ax, arms=["tta"]),
    "selection": lambda study, ax: study.selection.plot(ax),
    "sources": lambda study, ax: study.sources.plot(ax, "tta"),
    "data": lambda study, ax: study.data.plot(ax),
}


@pytest.mark.parametrize("name", PLOTS)
def test_every_display_draws_on_the_given_axes_or_on_new_ones(study: hi.Report, name: str) -> None:
    before = dict(mpl.rcParams)
    figure, (left, right) = plt.subplots(1, 2)
    assert PLOTS[name](study, right) is right
    assert right.has_data()
    assert not left.has_data()
    new = PLOTS[name](study, None)
    assert isinstance(new, Axes)
    assert new.figure is not figure
    new.figure.canvas.draw()
    assert dict(mpl.rcParams) == before
    plt.close("all")


def test_the_forest_plot_shows_each_difference(study: hi.Report) -> None:
    rows = study.arms.frame().set_index("arm")
    axes = study.arms.plot()
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [name for name in study.arms if name != study.control]
    circles = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in circles] == rows.loc[labels, "difference"].tolist()  # type: ignore[index]
    bold = [label.get_text() for label in axes.get_yticklabels() if label.get_fontweight() == "bold"]
    assert bold == [study.chosen]
    plt.close("all")


# --- in consoles and notebooks ---


def test_a_report_shows_verdict_table_and_forest_plot(study: hi.Report, summary: dict[str, Any]) -> None:
    n_figures = len(plt.get_fignums())
    html, text = study._repr_html_(), repr(study)
    for shown in (html, text):
        assert summary["verdict"]["headline"] in shown
        assert "by-hand" in shown
        assert all(f"{record(summary, arm)['scores']['macro_f1']['mean']:.3f}" in shown for arm in ("plain", "tta"))
    assert "data:image/svg+xml;base64," in html
    assert "http" not in html
    assert "<script" not in html
    assert len(html) < 80_000
    assert str(study.page) in text
    assert len(plt.get_fignums()) == n_figures


def test_what_notebooks_show_is_escaped(results: Results) -> None:
    arms = tuple(replace(arm, name=arm.name.replace("class_weights", "<b>best</b>")) for arm in results.arms)
    report = hi.Report(replace(results, arms=arms, name="<i>x</i>"))
    shown = (report, report.arms, report.scores, report.per_class, report.compare("<b>best</b>", "plain"))
    assert "<b>best</b>" in report.verdict.headline
    for html in (one._repr_html_() for one in shown):
        assert "<b>" not in html
        assert "<i>" not in html
        assert "&lt;b&gt;best" in html


def test_every_display_shows_itself(study: hi.Report) -> None:
    displays = (study.arms, study.scores, study.per_class, study.trials, study.selection, study.sources, study.data)
    for display in displays:
        assert "<table" in display._repr_html_()
        assert len(repr(display).splitlines()) > 3
    assert "crater" in repr(study.confusion("tta"))
    assert "<table" in study.confusion("tta")._repr_html_()


# --- files of a report ---


def test_the_given_split_is_a_report_of_its_own(study: hi.Report, folder: Path, summary: dict[str, Any]) -> None:
    given = study.given_split
    assert given is not None
    assert (given.design, given.folder) == ("given-split", folder / "given-split")
    assert given.given_split is None
    stored = {arm["name"]: arm["score"] for arm in summary["given_split"]["arms"]}
    assert dict(given.arms.frame()[["arm", "macro_f1"]].to_numpy().tolist()) == stored


def test_a_report_opens_its_page(study: hi.Report, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert study.page == folder / "report.html"
    study.open()
    assert opened == [(folder / "report.html").resolve().as_uri()]
    assert hi.read_report(str(folder / "report.html")).name == study.name


def test_reports_that_are_damaged_or_unfinished_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(hi.UserError, match="There is no report"):
        hi.read_report(tmp_path)
    for name, message in (("predictions/tta.parquet", "is not the file"), ("summary.json", "is not JSON")):
        copy = Path(shutil.copytree(folder, tmp_path / Path(name).stem))
        (copy / name).write_bytes((copy / name).read_bytes()[:-9])
        with pytest.raises(hi.UserError, match=message):
            hi.read_report(copy)
    unfinished = Path(shutil.copytree(folder, tmp_path / "unfinished"))
    (unfinished / "predictions" / "tta.parquet").unlink()
    with pytest.raises(hi.UserError, match="is missing"):
        hi.read_report(unfinished)


def test_a_wrong_name_is_an_error_with_a_suggestion(study: hi.Report) -> None:
    with pytest.raises(hi.UserError, match=r"no arm 'focal_los': did you mean focal_loss\?"):
        study.confusion("focal_los")
    for call in (study.predictions, study.per_class.frame, study.trials.frame, study.compare, study.load_model):
        with pytest.raises(hi.UserError, match="no arm 'x'"):
            call("x")
    with pytest.raises(hi.UserError, match="compared with itself"):
        study.compare("tta", "tta")
    with pytest.raises(hi.UserError, match="no score 'f2'"):
        study.scores.plot(score="f2")
    with pytest.raises(hi.UserError, match="There is no model"):
        study.load_model("tta")


# --- comparisons of reports ---


def test_reports_are_compared_without_writing_anything(study: hi.Report, folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    path = other / "predictions" / "tta.parquet"
    path.write_bytes((other / "predictions" / "focal_loss.parquet").read_bytes())
    stored = summary_of(other)
    stored["files"]["predictions/tta.parquet"] = stored["files"]["predictions/focal_loss.parquet"]
    (other / "summary.json").write_text(json.dumps(stored), encoding="utf-8")
    rewrite_report(other)
    both = hi.compare_reports([study, other], name="both")
    assert both.name == "both"
    assert {"by-hand/baseline", "by-hand/tta", "other/tta"} <= set(both.arms)
    assert both.compare("other/tta", "by-hand/tta").difference == pytest.approx(
        study.compare("focal_loss", "tta").difference
    )
    assert both.control is None
    assert both.arms.frame()["other"].dropna().unique().tolist() == [both.baseline]
    with pytest.raises(hi.UserError, match="vs_baseline"):
        both.arms.frame("vs_control")
    assert "by-hand/baseline" in repr(both)
    assert both.page is None
    with pytest.raises(hi.UserError, match="was not written"):
        both.open()
    with pytest.raises(hi.UserError, match="was not written"):
        hi.compare_reports([both, study])

    written = hi.compare_reports([study, other], name="both", out=tmp_path)
    assert written.page == tmp_path / "reports" / "both" / "report.html"
    assert hi.read_report(tmp_path / "reports" / "both").arms.frame().equals(both.arms.frame())
