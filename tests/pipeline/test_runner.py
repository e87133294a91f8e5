"""Whole studies on the toy backbone: what they write, and what a second run does again."""

from __future__ import annotations

import dataclasses
import html
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import CLASSES, IMAGE_FOLDER
from handmade import check_files, contents
from PIL import Image, ImageOps
from sklearn.metrics import precision_recall_fscore_support
from worlds import TOY, change_split_file, count_work

from hirise_imb.backbones import BACKBONES
from hirise_imb.config import StudyDefinition
from hirise_imb.data import HIRISE
from hirise_imb.data.manifest import read_manifest
from hirise_imb.pipeline.rebuild import rebuild_report
from hirise_imb.pipeline.runner import RunOptions, run_study
from hirise_imb.reporting.read import read_report
from hirise_imb.reporting.verdict import verdict
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import CACHE_VARIABLE

pytestmark = pytest.mark.usefixtures("blank_figures", "few_epochs")

SEARCHED = ("plain", "oversampling", "focal_loss", "partial_unfreeze", "decoupled", "class_bias", "prototypes")
"""One of each kind: control, rows, loss, backbone, second stage, after training, computed."""
ARMS = ("baseline", "baseline_to_the_end", *SEARCHED)


@dataclasses.dataclass(frozen=True)
class Finished:
    definition: StudyDefinition
    out: Path
    cache: Path

    @property
    def report(self) -> Path:
        return self.out / "reports" / self.definition.name


@pytest.fixture(scope="module")
def original(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A study with two trials and two seeds. Not to be changed."""
    root = tmp_path_factory.mktemp("study")
    definition = StudyDefinition(
        name="t",
        data=str(small_data),
        backbone="toy",
        weights="random",
        strategies=SEARCHED[1:],
        trials=2,
        trial_seeds=2,
        refits=2,
        evaluation=("given-split",),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, TOY.name, TOY)
        patch.setenv(CACHE_VARIABLE, str(root / "cache"))
        run_study(definition, root / "out")
    return Finished(definition, root / "out", root / "cache")


@pytest.fixture
def finished(original: Finished, toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Finished:
    """A copy of that study, its cache in use, to go on with."""
    shutil.copytree(original.out, tmp_path / "out")
    shutil.copytree(original.cache, tmp_path / "cache")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return dataclasses.replace(original, out=tmp_path / "out", cache=tmp_path / "cache")


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts decoded images, trials, other cross-validations and fits."""
    return count_work(monkeypatch, lambda _: "refit")


def again(study: Finished, **changes: object) -> None:
    run_study(dataclasses.replace(study.definition, **changes), study.out)  # type: ignore[arg-type]


def results(report: Path) -> dict[str, bytes]:
    """What must not differ between equal runs: everything but times and the page that shows them."""
    kept = [report / "per_class.csv", report / "study.toml"]
    kept += [*report.glob("predictions/*"), *report.glob("confusion/*"), *report.glob("figures/*")]
    told = summary(report)
    del told["files"]  # digests of the page and the times among them
    return {str(path.relative_to(report)): path.read_bytes() for path in kept} | {"summary": json.dumps(told).encode()}


def summary(report: Path) -> dict[str, object]:
    found = json.loads((report / "summary.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def predictions(report: Path, arm: str) -> pd.DataFrame:
    return pd.read_parquet(report / "predictions" / f"{arm}.parquet")


# --- what is written ---


def test_the_report_has_its_files(original: Finished) -> None:
    stored = json.loads((original.report / "summary.json").read_text(encoding="utf-8"))
    expected = {"per_class.csv", "figures/class_distribution.png", "figures/f1_per_class.png"}
    expected |= {"figures/best_so_far.png", "figures/best_so_far.csv"}
    curves = {arm["name"]: arm.get("curves", arm["name"]) for arm in stored["arms"]}
    for arm in ARMS:
        expected |= {f"predictions/{arm}.parquet", f"confusion/{arm}.csv", f"confusion/{arm}.png"}
        if arm != "prototypes":  # which are computed, without epochs
            # Arms that share a fit share one file of curves, that of the first.
            owner = curves.get(arm, arm)
            expected |= {f"figures/curves-{owner}.png", f"figures/curves-{owner}.csv"}
    listed = check_files(original.report)
    assert expected < set(listed)
    assert "figures/curves-prototypes.csv" not in listed


def test_the_list_of_reports_leads_to_it(original: Finished) -> None:
    page = (original.out / "reports" / "index.html").read_text(encoding="utf-8")
    assert 'href="t/report.html"' in page
    assert verdict(read_report(original.report)).headline in html.unescape(page)


def test_its_setting_counts_landmarks_with_identical_images(
    original: Finished, own_data: Path, toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    manifest = read_manifest(own_data, HIRISE)
    trained, tested = (manifest.canonical_images(split).iloc[0] for split in ("train", "test"))
    shutil.copyfile(manifest.path(trained["image"]), manifest.path(tested["image"]))
    definition = dataclasses.replace(
        original.definition, data=str(own_data), strategies=("prototypes",), trials=1, refits=1
    )
    _, page = run_study(definition, tmp_path / "out")
    sentence = (
        "1 group of landmarks has identical images (1 across splits, 1 across sources, "
        f"{int(trained['label'] != tested['label'])} across classes): a landmark that is tested and trained on makes "
        "scores too high. "
    )
    assert sentence in read_report(page.parent).setting
    assert sentence in html.unescape(page.read_text(encoding="utf-8"))
    assert "identical images" not in read_report(original.report).setting


def test_it_is_written_again_from_its_folder(original: Finished, tmp_path: Path) -> None:
    report = shutil.copytree(original.report, tmp_path / "elsewhere")
    rebuild_report(report)
    assert contents(report) == contents(original.report)


def test_predictions_name_the_test_images_in_order(original: Finished, small_data: Path) -> None:
    test = read_manifest(small_data, HIRISE).canonical_images("test")
    for arm in ARMS:
        table = predictions(original.report, arm)
        assert sorted(set(table["seed"])) == [0, 1]
        for _, part in table.groupby("seed"):
            assert part["image"].tolist() == test["image"].tolist()
            assert part["true_class"].tolist() == [CLASSES[k] for k in test["label"]]
            assert part["source"].tolist() == test["source"].tolist()
            chances = part[[f"p_{name.replace(' ', '_')}" for name in CLASSES]].to_numpy()
            np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-5)
            assert part["predicted_class"].tolist() == [CLASSES[k] for k in chances.argmax(axis=1)]


def test_the_numbers_follow_from_the_predictions(original: Finished) -> None:
    table = pd.read_csv(original.report / "per_class.csv").set_index(["arm", "class"])
    arms = {arm["name"]: arm for arm in summary(original.report)["arms"]}  # type: ignore[attr-defined]
    assert tuple(arms) == ARMS
    for arm in ARMS:
        macro = []
        f1 = []
        for _, part in predictions(original.report, arm).groupby("seed"):
            scores = precision_recall_fscore_support(
                part["true_class"], part["predicted_class"], labels=CLASSES, zero_division=0
            )
            f1.append(scores[2])
            macro.append(scores[2].mean())
        np.testing.assert_allclose(table.loc[arm].loc[list(CLASSES), "f1"], np.mean(f1, axis=0), atol=1e-12)
        assert arms[arm]["scores"]["macro_f1"] == pytest.approx(
            {"mean": np.mean(macro), "low": min(macro), "high": max(macro)}
        )


def test_pictures_are_on_the_page_alone(finished: Finished) -> None:
    page = finished.report / "report.html"
    before = results(finished.report)
    assert b"data:image/jpeg" not in page.read_bytes()
    run_study(finished.definition, finished.out, RunOptions(pictures="yes"))
    shown = page.read_bytes()
    assert b"data:image/jpeg" in shown
    assert b"Training landmark of the class" in shown
    assert results(finished.report) == before
    # The same features, from the cache.
    rebuild_report(finished.report, pictures="yes")
    assert page.read_bytes() == shown
    shutil.rmtree(finished.cache / "features")
    rebuild_report(finished.report, pictures="yes")
    assert b"Training landmark of the class" not in page.read_bytes()
    assert b"the cache on this machine lacks the features of this study" in page.read_bytes()


def test_a_choice_of_pictures_that_does_not_exist_is_refused_at_once() -> None:
    with pytest.raises(UserError, match="There is no choice of pictures 'always'"):
        RunOptions(pictures="always")


def test_the_definition_in_its_folder_is_what_ran(original: Finished) -> None:
    assert (original.report / "study.toml").read_text(encoding="utf-8") == original.definition.to_toml()
    environment = json.loads((original.report / "environment.json").read_text(encoding="utf-8"))
    assert environment["digests"]["weights"] == TOY.load("random", HIRISE.image_shape).digest[:16]
    assert set(environment["seconds"]) == {"features", *ARMS}


# --- the second time ---


def test_times_are_those_of_the_work_and_not_of_its_repetition(finished: Finished) -> None:
    def seconds() -> dict[str, float]:
        found = json.loads((finished.report / "environment.json").read_text(encoding="utf-8"))["seconds"]
        return {arm: found[arm] for arm in ARMS}

    before = seconds()
    assert min(before[arm] for arm in ("baseline", "focal_loss", "partial_unfreeze")) > 0
    again(finished)
    assert seconds() == before


def test_the_second_run_computes_nothing(finished: Finished, work: Counter[str]) -> None:
    before = results(finished.report)
    again(finished)
    assert not work
    assert results(finished.report) == before


def test_more_trials_continue(finished: Finished, work: Counter[str]) -> None:
    arms = summary(finished.report)["arms"]
    before = {arm["name"]: arm["selections"][0]["trials"] for arm in arms}  # type: ignore[attr-defined]
    again(finished, trials=3, strategies=("oversampling", "focal_loss"))
    assert work["trial"] == 3  # the control's too
    assert work["decoded"] == 0
    for arm in summary(finished.report)["arms"][2:]:  # type: ignore[index]
        [selection] = arm["selections"]
        assert len(selection["trials"]) == 3
        assert selection["trials"][:2] == before[arm["name"]]


def test_more_seeds_keep_those_that_are_there(finished: Finished, work: Counter[str]) -> None:
    before = predictions(finished.report, "focal_loss")
    again(finished, refits=3, strategies=("focal_loss",))
    assert work == {"refit": 4}  # one of each baseline, the control's and the strategy's
    after = predictions(finished.report, "focal_loss")
    pd.testing.assert_frame_equal(after[after["seed"] < 2], before)


def test_some_of_the_strategies(finished: Finished, work: Counter[str]) -> None:
    before = results(finished.report)
    again(finished, strategies=("oversampling",))
    assert not work
    arms = {arm["name"] for arm in summary(finished.report)["arms"]}  # type: ignore[attr-defined]
    assert arms == {"baseline", "baseline_to_the_end", "plain", "oversampling"}
    assert {path.stem for path in finished.report.glob("predictions/*")} == arms
    again(finished)
    assert not work
    assert results(finished.report) == before


def test_one_seed_gives_one_result(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: Counter[str]
) -> None:
    """In another folder, with another cache, other strategies before it and images of other places."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "other-cache"))
    data = shutil.copytree(finished.definition.data, tmp_path / "moved")
    arms = ("class_bias", "partial_unfreeze")
    other = dataclasses.replace(finished, out=tmp_path / "other")
    again(other, strategies=arms, data=str(data))
    assert work["decoded"] > 0
    assert work["trial"] == 6
    for arm in ("baseline", "baseline_to_the_end", "plain", *arms):
        name = f"predictions/{arm}.parquet"
        assert (other.report / name).read_bytes() == (finished.report / name).read_bytes()
    rows = [pd.read_csv(report / "per_class.csv").set_index("arm") for report in (other.report, finished.report)]
    pd.testing.assert_frame_equal(rows[0], rows[1].loc[rows[0].index.unique()])


def test_another_seed_gives_another_result(finished: Finished) -> None:
    again(finished, name="other", seed=5, strategies=("focal_loss",))
    other = finished.out / "reports" / "other"
    assert set(predictions(other, "baseline")["seed"]) == {5, 6}
    assert (
        not predictions(other, "baseline")
        .drop(columns="seed")
        .equals(predictions(finished.report, "baseline").drop(columns="seed"))
    )


# --- controls that average ---


def test_a_strategy_that_averages_stands_next_to_a_control_that_averages_as_many(
    finished: Finished, work: Counter[str]
) -> None:
    again(finished, name="averages", trials=1, refits=1, strategies=("ensemble", "focal_loss"))
    report = finished.out / "reports" / "averages"
    arms = {arm["name"]: arm for arm in summary(report)["arms"]}  # type: ignore[attr-defined]
    assert set(arms) == {"baseline", "baseline_to_the_end", "plain", "ensemble", "focal_loss", "plain-x5"}
    members = {name: arm["members"] for name, arm in arms.items() if arm["members"] != [1]}
    assert members == {"ensemble": [5], "plain-x5": [5]}
    assert {name for name, arm in arms.items() if arm["role"] == "control"} == {"plain", "plain-x5"}
    # The ensemble of seeds is that control.
    pd.testing.assert_frame_equal(predictions(report, "ensemble"), predictions(report, "plain-x5"))
    assert arms["ensemble"]["val_score"] == arms["plain-x5"]["val_score"]


# --- the same name for something else ---


def add_a_copy(data: Path) -> None:
    line = next(line for line in (data / "labels-map-proj_v3_2_train_val_test.txt").read_text().splitlines())
    change_split_file(data, line, f"{line}\n{line}")


def mirror_an_image(data: Path) -> None:
    path = min((data / IMAGE_FOLDER).iterdir())
    ImageOps.mirror(Image.open(path)).save(path, "JPEG", quality=92)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (add_a_copy, r"was begun with data \w+, not with data \w+:"),
        (mirror_an_image, r"was begun with data \w+, not with data \w+:"),
        ({"seed": 1}, "was begun with seed 0, not with seed 1:"),
        ({"weights": "imagenet"}, r"was begun with weights \w+, not with weights \w+:"),
        ({"backbone": "toy2"}, "was begun with backbone toy, not with backbone toy2:"),
    ],
    ids=["a row", "an image", "seed", "weights", "backbone"],
)
def test_the_same_name_for_something_else_is_refused(
    what: object,
    message: str,
    finished: Finished,
    own_data: Path,
    work: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(BACKBONES, "toy2", dataclasses.replace(TOY, name="toy2"))
    before = results(finished.report)
    changes: dict[str, object] = {"data": str(own_data)}
    if callable(what):
        what(own_data)
    else:
        assert isinstance(what, dict)
        changes |= what
    with pytest.raises(UserError, match=message):
        again(finished, **changes)
    assert results(finished.report) == before


def test_after_a_refusal_the_study_goes_on_as_it_was(finished: Finished, work: Counter[str]) -> None:
    before = results(finished.report)
    with pytest.raises(UserError, match="was begun with"):
        again(finished, seed=1, trials=3)
    work.clear()
    again(finished)
    assert not work
    assert results(finished.report) == before


def test_a_refusal_comes_before_any_training(finished: Finished, work: Counter[str]) -> None:
    with pytest.raises(UserError, match="was begun with seed 0, not with seed 9:"):
        again(finished, seed=9)
    assert not work
