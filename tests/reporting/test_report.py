"""Reports of results made by hand: what is written, that it is right, and that it can be written again."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import CLASSES
from handmade import (
    NEVER,
    SEEDS,
    TEST_SUPPORT,
    TRIALS,
    check_files,
    contents,
    guesses,
    make_arm,
    make_catalogue,
    make_results,
    shuffle_hits,
    summary_of,
    with_selection,
    without_figures,
)
from sklearn import metrics

from hirise_imb.data.manifest import Manifest
from hirise_imb.imbalance.losses import Focal
from hirise_imb.metrics.classification import Predictions
from hirise_imb.recipe import Recipe
from hirise_imb.reporting import Arm, Results, write_report
from hirise_imb.reporting.narrative import caution, headline
from hirise_imb.utils.errors import UserError

EVIL = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>"
SCORES = (
    "macro_f1",
    "macro_f1_rare",
    "macro_f1_several",
    "weighted_f1",
    "accuracy",
    "balanced_accuracy",
    "kappa",
    "log_loss",
    "calibration_error",
    "calibration_error_tempered",
    "risk_coverage_area",
)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_catalogue(tmp_path_factory.mktemp("data"))


def arm(catalogue: Manifest, name: str, right: float, val: float, recipe: Recipe | None = None) -> Arm:
    truth = catalogue.canonical_images("test")["label"].tolist()
    return make_arm(catalogue, name, [guesses(truth, right, seed) for seed in SEEDS], val, recipe)


@pytest.fixture(scope="module")
def results(catalogue: Manifest) -> Results:
    """class_weights is better on test, focal_loss on validation; there is no control."""
    made = make_results(
        catalogue,
        arm(catalogue, "baseline", 0.5, 0.4),
        arm(catalogue, "class_weights", 0.95, 0.5),
        arm(catalogue, "focal_loss", 0.7, 0.6, Recipe(loss=Focal(2.5))),
    )
    return replace(
        made,
        study_toml=f"name = {json.dumps('by-hand')}\ndata = {json.dumps(EVIL)}\n",
        environment=made.environment | {"data": EVIL},
    )


@pytest.fixture(scope="module")
def folder(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report that no test may change."""
    folder = tmp_path_factory.mktemp("reports") / "by-hand"
    assert write_report(results, folder) == folder / "report.html"
    return folder


def no_constants(name: str) -> float:
    raise AssertionError(f"{name} is no JSON")


# --- what is written ---


def test_every_promised_file_is_written_and_listed(folder: Path) -> None:
    listed = check_files(folder)
    expected = {"per_class.csv", "figures/class_distribution.png", "figures/f1_per_class.png"}
    expected |= {"figures/best_so_far.png", "figures/best_so_far.csv"}
    for arm in ("baseline", "class_weights", "focal_loss"):
        expected |= {f"confusion/{arm}.csv", f"confusion/{arm}.png", f"predictions/{arm}.parquet"}
        expected |= {f"figures/curves-{arm}.csv", f"figures/curves-{arm}.png"}
    assert expected < set(listed)


def test_summary_is_json_with_a_version_and_finite_numbers(folder: Path) -> None:
    text = (folder / "summary.json").read_text(encoding="utf-8")
    summary = json.loads(text, parse_constant=no_constants)
    assert summary["schema_version"] == 6
    assert summary["study"] == "by-hand"
    assert summary["classes"] == list(CLASSES)
    assert summary["support"] == list(TEST_SUPPORT)
    assert summary["sources"] == [2, 6, 2, 2, 2, 2, 2, 0]
    assert [arm["name"] for arm in summary["arms"]] == ["baseline", "class_weights", "focal_loss"]
    assert summary["order"] == ["baseline", "focal_loss", "class_weights"]
    assert summary["control"] is None
    assert summary["omitted"] == []
    focal = summary["arms"][2]
    [selection] = focal["selections"]
    assert selection["recipe"]["loss"] == {"kind": "Focal", "gamma": 2.5, "alpha_power": 0.0}
    assert focal["seeds"] == list(SEEDS)
    assert focal["best_epochs"] == [[2], [1]]
    assert focal["val_score"] == selection["val_score"] == 0.6
    assert selection["trials"] == TRIALS
    assert focal["capped"] == [[False], [False]]
    assert [(arm["role"], arm["members"]) for arm in summary["arms"]] == [
        ("baseline", [1]),
        *[("strategy", [1])] * 2,
    ]
    assert summary["trial_seeds"] == 3
    assert all(arm["vs_control"] is None for arm in summary["arms"])


def test_what_ran_is_kept_as_it_was(folder: Path, results: Results) -> None:
    assert (folder / "study.toml").read_text(encoding="utf-8") == results.study_toml
    assert json.loads((folder / "environment.json").read_text(encoding="utf-8")) == results.environment


def test_predictions_name_image_truth_and_probabilities(folder: Path, results: Results, catalogue: Manifest) -> None:
    table = pd.read_parquet(folder / "predictions" / "class_weights.parquet")
    probabilities = [f"p_{name.replace(' ', '_')}" for name in CLASSES]
    first = ["image", "landmark", "source", "true_class", "predicted_class"]
    assert table.columns.tolist() == [*first, *probabilities, "seed"]
    test = catalogue.canonical_images("test")
    assert len(table) == 2 * len(test)
    for seed, predictions in zip(SEEDS, results.arms[1].predictions, strict=True):
        part = table[table["seed"] == seed]
        assert (
            part[["image", "landmark", "source"]].to_numpy().tolist()
            == test[["image", "landmark", "source"]].to_numpy().tolist()
        )
        assert part["true_class"].tolist() == [CLASSES[k] for k in test["label"]]
        assert part["predicted_class"].tolist() == [CLASSES[k] for k in predictions.labels()]
        np.testing.assert_array_equal(part[probabilities].to_numpy(), predictions.probabilities)


# --- that it is right: everything is computed again from the stored predictions, by scikit-learn ---


def per_seed(folder: Path, arm: str) -> list[pd.DataFrame]:
    table = pd.read_parquet(folder / "predictions" / f"{arm}.parquet")
    return [table[table["seed"] == seed] for seed in SEEDS]


def scores_again(folder: Path, arm: str) -> np.ndarray:
    """Precision, recall and F1 of each class, shape (seeds, 3, 8)."""
    return np.array(
        [
            metrics.precision_recall_fscore_support(
                part["true_class"], part["predicted_class"], labels=CLASSES, zero_division=0
            )[:3]
            for part in per_seed(folder, arm)
        ]
    )


@pytest.mark.parametrize("arm", ["baseline", "class_weights", "focal_loss"])
def test_scores_of_classes_follow_from_the_stored_predictions(arm: str, folder: Path) -> None:
    again, base = scores_again(folder, arm), scores_again(folder, "baseline")
    table = pd.read_csv(folder / "per_class.csv")
    rows = table[table["arm"] == arm]
    assert rows["class"].tolist() == list(CLASSES)
    assert rows["support"].tolist() == list(TEST_SUPPORT)
    stored = next(entry for entry in summary_of(folder)["arms"] if entry["name"] == arm)
    for n, metric in enumerate(("precision", "recall", "f1")):
        expected = {
            metric: again[:, n].mean(axis=0),
            f"{metric}_low": again[:, n].min(axis=0),
            f"{metric}_high": again[:, n].max(axis=0),
            f"{metric}_vs_baseline": again[:, n].mean(axis=0) - base[:, n].mean(axis=0),
        }
        for column, values in expected.items():
            np.testing.assert_allclose(rows[column], values, atol=1e-12, err_msg=column)
        np.testing.assert_allclose(
            stored["vs_baseline"]["per_class"][metric], expected[f"{metric}_vs_baseline"], atol=1e-12
        )
        for k, spread in enumerate(stored["per_class"][metric]):
            found = [spread["mean"], spread["low"], spread["high"]]
            np.testing.assert_allclose(found, [values[k] for values in list(expected.values())[:3]], atol=1e-12)
    if arm != "baseline":
        assert np.abs(rows["f1_vs_baseline"]).max() > 0.05  # the arms do differ


@pytest.mark.parametrize("arm", ["baseline", "focal_loss"])
def test_scores_of_one_number_follow_from_the_stored_predictions(arm: str, folder: Path) -> None:
    probabilities = [f"p_{name.replace(' ', '_')}" for name in CLASSES]
    expected: dict[str, list[float]] = {name: [] for name in SCORES[:8]}
    for part in per_seed(folder, arm):
        pair = part["true_class"], part["predicted_class"]
        f1 = metrics.f1_score(*pair, labels=CLASSES, average=None, zero_division=0)
        expected["macro_f1"].append(f1.mean())
        expected["macro_f1_rare"].append(f1[1:].mean())
        expected["macro_f1_several"].append(f1[:7].mean())  # spider has no test source, all others two or more
        expected["weighted_f1"].append(metrics.f1_score(*pair, average="weighted", labels=CLASSES, zero_division=0))
        expected["accuracy"].append(metrics.accuracy_score(*pair))
        recall = metrics.recall_score(*pair, labels=CLASSES[:7], average="macro", zero_division=0)
        expected["balanced_accuracy"].append(recall)
        expected["kappa"].append(metrics.cohen_kappa_score(*pair))
        truth = [CLASSES.index(name) for name in part["true_class"]]
        chosen = part[probabilities].to_numpy(float)[np.arange(len(part)), truth]
        expected["log_loss"].append(-np.log(chosen).mean())
    stored = next(entry for entry in summary_of(folder)["arms"] if entry["name"] == arm)["scores"]
    assert list(stored) == list(SCORES)
    for name, values in expected.items():
        found = [stored[name][key] for key in ("mean", "low", "high")]
        expected_spread = np.array([np.mean(values), min(values), max(values)])
        np.testing.assert_allclose(found, expected_spread, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("arm", ["baseline", "class_weights"])
def test_confusion_is_the_mean_over_seeds(arm: str, folder: Path) -> None:
    counts = np.mean(
        [
            metrics.confusion_matrix(part["true_class"], part["predicted_class"], labels=CLASSES)
            for part in per_seed(folder, arm)
        ],
        axis=0,
    )
    table = pd.read_csv(folder / "confusion" / f"{arm}.csv")
    assert list(zip(table["true_class"], table["predicted_class"], strict=True)) == [
        (true, predicted) for true in CLASSES for predicted in CLASSES
    ]
    np.testing.assert_allclose(table["count"], counts.ravel())
    shares = [row / row.sum() if row.sum() else 0 * row for row in counts]
    np.testing.assert_allclose(table["share_of_true"], np.concatenate(shares))
    stored = next(entry for entry in summary_of(folder)["arms"] if entry["name"] == arm)
    np.testing.assert_allclose(stored["confusion"], counts)


def test_an_absent_and_a_never_predicted_class_have_finite_numbers(folder: Path) -> None:
    table = pd.read_csv(folder / "per_class.csv").set_index("class")
    intervals = [f"f1_{contrast}_{end}" for contrast in ("vs_control", "vs_baseline") for end in ("low", "high")]
    assert np.isfinite(table.drop(columns=intervals).select_dtypes("number").to_numpy()).all()
    assert table.loc[[CLASSES[7], CLASSES[NEVER]], intervals].isna().all(axis=None)
    for name in (CLASSES[7], CLASSES[NEVER]):
        assert (table.loc[[name], ["precision", "recall", "f1"]].to_numpy() == 0).all()
    caution = summary_of(folder)["caution"]
    assert "Classes without a test landmark, which count as F1 = 0 in macro F1: spider." in caution
    few = "other (2), dark dune (2), slope streak (2), bright dune (2), impact ejecta (2), swiss cheese (2)"
    assert f"Classes with fewer than six test sources, for which no interval can be estimated: {few}. " in caution
    assert "nan" not in (folder / "report.html").read_text(encoding="utf-8").split("base64")[0]
    assert " nan" not in (folder / "report.md").read_text(encoding="utf-8")


def test_curves_are_kept_for_each_seed(folder: Path) -> None:
    table = pd.read_csv(folder / "figures" / "curves-baseline.csv")
    assert table[["seed", "epoch"]].to_numpy().tolist() == [[3, 1], [3, 2], [3, 3], [4, 1], [4, 2]]
    assert table["test_accuracy"].tolist() == [0.5, 0.625, 0.75, 0.5, 0.625]


# --- the page ---


class Page(HTMLParser):
    """Tags, what they refer to, and the text of cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [value or "" for key, value in attrs if key in {"src", "href", "srcset", "data", "action"}]
        self.handlers += [key for key, _ in attrs if key.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_page_needs_nothing_but_itself(folder: Path, page: Page) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    # Figures are part of the page, which refers only to its own parts and to the tables of numbers next to it.
    tables = [reference for reference in page.references if not reference.startswith("#")]
    assert len(tables) > 3
    assert all(reference.endswith(".csv") and (folder / reference).is_file() for reference in tables)
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert not {"link", "iframe", "object", "base"} & page.tags


def test_the_page_shows_every_class_and_arm(page: Page, folder: Path) -> None:
    for text in (page.text, (folder / "report.md").read_text(encoding="utf-8")):
        assert all(name in text for name in CLASSES)
        assert all(name in text.replace("_", " ") for name in ("baseline", "class weights", "focal loss"))
        assert summary_of(folder)["headline"] in text
        assert text.replace("&lt;", "<").count(summary_of(folder)["pairing"]) == 1
        assert "gamma = 2.5, scheme = random, layers = 3" in text


def test_a_hostile_definition_is_shown_as_text(page: Page) -> None:
    assert not page.handlers
    assert f'data = "{EVIL}"' in page.text


def test_the_page_shows_the_scores_of_the_table(page: Page, folder: Path) -> None:
    table = pd.read_csv(folder / "per_class.csv")
    text = " ".join(page.text.split())
    for _, row in table[(table["arm"] == "focal_loss") & (table["support"] > 0)].iterrows():
        assert f" {row['f1']:.3f} {row['f1_vs_baseline']:+.3f} " in text


@pytest.mark.usefixtures("undrawn")
def test_a_share_near_all_or_none_is_not_shown_as_all_or_none(tmp_path: Path) -> None:
    catalogue = make_catalogue(tmp_path / "data", (400, 3, 3, 3, 3, 3, 3, 3))
    right = catalogue.canonical_images("test")["label"].tolist()
    arm = make_arm(catalogue, "baseline", [[1, *right[1:]]])
    text = write_report(make_results(catalogue, arm), tmp_path / "report").read_text(encoding="utf-8")
    row = re.search(r'<tr><th scope="row">other</th> (<td class="s\d.*?)</tr>', text, re.DOTALL)
    assert row
    assert re.findall(r'">([\d.]+) <small>(\d+)', row[1]) == [("99.8", "399"), ("0.2", "1")]


# --- the headline ---


def test_the_headline_names_the_strategy_chosen_on_validation(results: Results) -> None:
    base, weights, focal = (results.headline_scores(arm.name)["macro_f1"].mean for arm in results.arms)
    assert weights > focal > base  # the best on test is another one
    assert headline(results).startswith(
        f"focal_loss, the best strategy on validation, reaches macro F1 {focal:.3f} on the test split, against "
        f"{base:.3f} for the baseline: {focal - base:+.3f} "
    )
    assert headline(results).endswith(" 2 of 2 strategies score above the baseline on the test split.")


def test_the_headline_names_strategies_that_are_as_good_on_validation(results: Results) -> None:
    base, *rest = results.arms
    tied = replace(results, arms=(base, *(with_selection(arm, val_score=0.9) for arm in rest)))
    first, second = (arm.name for arm in rest)
    assert headline(tied).startswith(f"{first}, the best strategy on validation (tied with {second}), reaches")


def test_the_headline_says_where_validation_prefers_the_baseline(results: Results) -> None:
    base = with_selection(results.arms[0], val_score=0.95)
    found = headline(replace(results, arms=(base, *results.arms[1:])))
    assert found.startswith("On validation no strategy beats the baseline; the best one, focal_loss, reaches macro F1 ")


def test_fits_at_the_last_epoch_allowed_are_reported(results: Results) -> None:
    assert "last epoch allowed" not in caution(results)
    weights = replace(results.arms[1], capped=((True,), (False,)))
    found = caution(replace(results, arms=(results.arms[0], weights, results.arms[2])))
    assert found.endswith(
        "Fits whose best epoch is the last one allowed, and which might gain from more: class_weights (1 of 2)."
    )
    arms = [with_selection(replace(weights, name=f"a{n}"), val_score=0.9 - n / 100) for n in range(8)]
    found = caution(replace(results, arms=(results.arms[0], *arms)))
    assert found.endswith("more: " + ", ".join(f"a{n} (1 of 2)" for n in range(6)) + ", and 2 more arms.")


# --- whether predictions and labels belong together ---


def test_every_fit_is_compared_with_shuffled_pairings(results: Results, folder: Path) -> None:
    table = pd.read_parquet(folder / "predictions" / "focal_loss.parquet")
    focal = summary_of(folder)["arms"][2]["pairing"]
    assert len(focal) == 2
    for found, (_, part) in zip(focal, table.groupby("seed"), strict=True):
        truth, predicted = part["true_class"].to_numpy(), part["predicted_class"].to_numpy()
        assert found["observed"] == np.count_nonzero(truth == predicted)
        hits = shuffle_hits(truth, predicted)
        assert found["mean"] == pytest.approx(hits.mean(), abs=4 * hits.std() / 2000**0.5)
        assert found["deviation"] == pytest.approx(hits.std(), rel=0.1)
        assert found["p_above"] == 1 / 2001
    every = [found for arm in summary_of(folder)["arms"] for found in arm["pairing"]]
    means = [found["mean"] for found in every]
    least, most = (f"{bound(means):.0f}" for bound in (min, max))
    deviation = max(found["deviation"] for found in every)
    assert summary_of(folder)["pairing"] == (
        f"Label-alignment check passed: every fit has {min(found['observed'] for found in every)} or "
        f"more hits among 1751 landmarks of the test split, where a shuffled pairing gives {least} to {most} "
        f"(standard deviation {deviation:.1f}; p <= 0.0005)."
    )


# --- writing again ---


@pytest.mark.slow
def test_writing_again_gives_the_same_bytes(results: Results, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "notes.txt").write_text("mine")
    (tmp_path / "report" / "confusion").mkdir()
    (tmp_path / "report" / "confusion" / "mine.csv").write_text("mine")
    write_report(results, tmp_path / "report")
    first, second = contents(folder), contents(tmp_path / "report")
    assert second.pop("notes.txt") == second.pop("confusion/mine.csv") == b"mine"
    assert set(first) == set(second)
    assert [name for name in first if first[name] != second[name]] == []

    fewer = replace(results, arms=results.arms[:2])
    with without_figures():
        write_report(fewer, tmp_path / "report")
    left = contents(tmp_path / "report")
    assert {"notes.txt", "confusion/mine.csv"} < set(left)
    assert set(left) - {"notes.txt", "confusion/mine.csv"} == {name for name in first if "focal_loss" not in name}
    (tmp_path / "report" / "notes.txt").unlink()
    (tmp_path / "report" / "confusion" / "mine.csv").unlink()
    check_files(tmp_path / "report")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"files": 1}'])
def test_a_summary_of_somebody_else_is_not_overwritten(text: str, results: Results, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(UserError, match=r"summary\.json is not the summary of a report: move the folder .* away"):
        write_report(results, tmp_path)
    assert contents(tmp_path) == {"summary.json": text.encode()}


@pytest.mark.usefixtures("undrawn")
def test_only_files_below_the_report_are_cleared_away(results: Results, tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("mine")
    (tmp_path / "report").mkdir()
    listed = json.dumps({"files": ["../outside.txt", str(tmp_path / "outside.txt"), "gone.txt"]})
    (tmp_path / "report" / "summary.json").write_text(listed)
    (tmp_path / "report" / "gone.txt").write_text("an earlier report's")
    write_report(results, tmp_path / "report")
    assert (tmp_path / "outside.txt").exists()
    assert not (tmp_path / "report" / "gone.txt").exists()


def test_predictions_of_other_images_are_not_reported(results: Results, tmp_path: Path) -> None:
    first = results.arms[0].predictions[0]
    shuffled = Predictions(first.images[::-1], first.probabilities[::-1])
    wrong = replace(results.arms[0], predictions=(shuffled, first))
    with pytest.raises(ValueError, match="name different images, or the same in another order"):
        write_report(replace(results, arms=(wrong, *results.arms[1:])), tmp_path)
    assert contents(tmp_path) == {}
