"""Small pictures on a page: which landmarks are shown, that they are those, and that they are nowhere else."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import CLASSES, IMAGE_FOLDER
from handmade import SEEDS, check_files, contents, guesses, make_arm, make_results
from PIL import Image

from hirise_imb.cli.main import main
from hirise_imb.data import HIRISE
from hirise_imb.data.manifest import read_manifest
from hirise_imb.metrics.classification import Predictions
from hirise_imb.models.closed_form import NearestMean
from hirise_imb.pipeline.rebuild import compare_reports
from hirise_imb.recipe import Recipe
from hirise_imb.reporting import Baseline, Results, write_baseline, write_report
from hirise_imb.reporting.html.thumbnails import MISTAKES, OF_CLASS, SIZE, make_thumbnails
from hirise_imb.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("blank_figures")

COMPUTED = Recipe(head=NearestMean("none", 0.5))


def results_on(data: Path) -> Results:
    """A baseline and a strategy whose seeds are sure of different things."""
    images = read_manifest(data, HIRISE)
    truth = images.canonical_images("test")["label"].tolist()
    arms = []
    for n, (name, right) in enumerate((("baseline", 0.4), ("tta", 0.6))):
        arm = make_arm(images, name, [guesses(truth, right, seed + n) for seed in SEEDS], 0.5, COMPUTED)
        fits = []
        for seed, fit in enumerate(arm.predictions):
            p = fit.probabilities * np.random.default_rng((n, seed)).uniform(0.1, 1, fit.probabilities.shape)
            fits.append(Predictions(fit.images, (p / p.sum(axis=1, keepdims=True)).astype(np.float32)))
        arms.append(replace(arm, predictions=tuple(fits)))
    made = make_results(images, *arms)
    seconds = {arm.name: arm.seconds for arm in made.arms}
    definition = f'data = {json.dumps(str(data))}\ndataset = "hirise-v3_2"\n'
    return replace(made, study_toml=definition, environment={"seconds": seconds})


@pytest.fixture(scope="module")
def whole(whole_sample: Path) -> tuple[Results, dict[str, Any]]:
    """Results on the whole sample, and their thumbnails."""
    results = results_on(whole_sample)
    return results, make_thumbnails(results, read_manifest(whole_sample, HIRISE))


def mean_of(results: Results, arm: int) -> np.ndarray:
    return np.asarray(np.mean([fit.probabilities for fit in results.arms[arm].predictions], axis=0))


def picture(address: str) -> Image.Image:
    begin = "data:image/jpeg;base64,"
    assert address.startswith(begin)
    return Image.open(io.BytesIO(base64.b64decode(address[len(begin) :], validate=True)))


def test_the_surest_mistakes_come_first(whole: tuple[Results, dict[str, Any]]) -> None:
    results, shown = whole
    assert shown["arm"] == "tta"
    table = results.test.assign(predicted=mean_of(results, 1).argmax(axis=1), sure=mean_of(results, 1).max(axis=1))
    wrong = table[table["predicted"] != table["label"]].sort_values("sure", ascending=False, kind="stable")
    assert len(wrong) > MISTAKES
    assert [entry["image"] for entry in shown["mistakes"]] == wrong["image"].tolist()[:MISTAKES]
    rows = {image: n for n, image in enumerate(table["image"])}
    for entry in shown["mistakes"]:
        row = rows[entry["image"]]
        landmark, p = table.iloc[row], mean_of(results, 1)[row]
        assert entry["true_class"] == CLASSES[landmark["label"]]
        assert entry["predicted_class"] == CLASSES[p.argmax()]
        assert entry["source"] == landmark["source"]
        assert (entry["confidence"], entry["p_true"]) == pytest.approx((p.max(), p[landmark["label"]]))


def test_rare_classes_are_shown_from_as_many_sources_as_can_be(whole: tuple[Results, dict[str, Any]]) -> None:
    results, shown = whole
    assert list(shown["rare"]) == [name for k, name in enumerate(CLASSES) if k and results.support[k]]
    for name, entries in shown["rare"].items():
        there = results.test[results.test["label"] == CLASSES.index(name)]
        assert len(entries) == min(OF_CLASS, len(there))
        assert all(entry["true_class"] == name for entry in entries)
        images = [entry["image"] for entry in entries]
        assert len(set(images)) == len(images)
        taken, all_of = Counter(entry["source"] for entry in entries), Counter(there["source"])
        most = max(taken.values())
        for source, size in all_of.items():
            assert taken[source] >= min(size, most - 1)
            first = there.loc[there["source"] == source, "image"].tolist()[: taken[source]]
            assert [image for image in images if image in set(there.loc[there["source"] == source, "image"])] == first
    assert any(len(entries) == OF_CLASS for entries in shown["rare"].values())


def test_pictures_are_those_of_the_images(whole: tuple[Results, dict[str, Any]], whole_sample: Path) -> None:
    shown = whole[1]
    entries = [*shown["mistakes"], *(entry for entries in shown["rare"].values() for entry in entries)]
    for entry in entries[::7]:
        small = picture(entry["address"])
        assert (small.format, small.size) == ("JPEG", (SIZE, SIZE))
        original = Image.open(whole_sample / IMAGE_FOLDER / entry["image"]).convert("L").resize((SIZE, SIZE))
        assert np.abs(np.asarray(small, float) - np.asarray(original, float)).mean() < 8


def test_without_a_strategy_they_are_of_the_baseline(whole: tuple[Results, dict[str, Any]], whole_sample: Path) -> None:
    alone = replace(whole[0], arms=whole[0].arms[:1])
    p = mean_of(alone, 0)
    shown = make_thumbnails(alone, read_manifest(whole_sample, HIRISE))
    assert shown["arm"] == "baseline"
    surest = p.max(axis=1)[p.argmax(axis=1) != alone.labels].max()
    assert shown["mistakes"][0]["confidence"] == pytest.approx(surest)


def test_a_perfect_arm_has_no_mistakes(small_data: Path) -> None:
    images = read_manifest(small_data, HIRISE)
    truth = images.canonical_images("test")["label"].tolist()
    shown = make_thumbnails(make_results(images, make_arm(images, "baseline", [truth])), images)
    assert shown["mistakes"] == []
    assert shown["rare"]


# --- in reports ---


@pytest.fixture(scope="module")
def report(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report without pictures, not to be changed."""
    return write_report(results_on(small_data), tmp_path_factory.mktemp("reports") / "t").parent


@pytest.fixture
def own(report: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(report, tmp_path / "report"))


def pictures_of(folder: Path) -> list[str]:
    page = (folder / "report.html").read_text(encoding="utf-8")
    return re.findall(r'"(data:image/jpeg;base64,[^"]*)"', page)


def test_a_page_shows_them_only_when_asked(own: Path, report: Path, small_data: Path) -> None:
    assert pictures_of(report) == []
    before = contents(own)
    assert main(["report", str(own), "--thumbnails"]) == 0
    results = results_on(small_data)
    shown = make_thumbnails(results, read_manifest(small_data, HIRISE))
    expected = [entry["address"] for entry in shown["mistakes"]]
    expected += [entry["address"] for entries in shown["rare"].values() for entry in entries]
    assert set(expected) <= set(pictures_of(own))
    assert len(expected) > 8
    # Nowhere else.
    check_files(own)
    after = contents(own)
    assert set(after) == set(before)
    assert {name for name in before if before[name] != after[name]} == {"report.html", "summary.json"}
    assert "jpeg" not in after["summary.json"].decode()
    assert main(["report", str(own)]) == 0
    assert contents(own) == before


def test_other_data_can_be_named(own: Path, small_data: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(small_data, tmp_path / "moved"))
    assert main(["report", str(own), "--thumbnails", "--data", str(moved)]) == 0
    first = pictures_of(own)
    assert main(["report", str(own), "--thumbnails"]) == 0
    assert pictures_of(own) == first != []


def test_a_comparison_shows_landmarks_of_what_its_first_report_prefers(
    report: Path, small_data: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(report, tmp_path / "other"))
    _, page = compare_reports([report, other], "both", tmp_path)
    assert pictures_of(page.parent) == []
    assert main(["report", str(page.parent), "--thumbnails"]) == 0
    found = results_on(small_data)
    shown = make_thumbnails(found, read_manifest(small_data, HIRISE))
    assert found.chosen
    assert shown["arm"] == found.chosen.name
    assert {entry["address"] for entry in shown["mistakes"]} <= set(pictures_of(page.parent))


def without_images(data: Path) -> str:
    """Another landmark in the place of two of the test."""
    table = read_manifest(data, HIRISE).canonical_images("test")
    gone = table["image"].tolist()[:2]
    for path in data.glob("*.txt"):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(line for line in lines if line.split()[0] not in gone), encoding="utf-8")
    return f"lacks 2 of the {len(table)} test landmarks (first: {gone[0]}): name the data of this report with --data."


def broken_image(data: Path) -> str:
    image = read_manifest(data, HIRISE).canonical_images("test").query("label == 1")["image"].iloc[0]
    (data / IMAGE_FOLDER / image).write_bytes(b"\xff\xd8\xff no picture")
    return f"{image} is not a complete JPEG or PNG image"


def missing_image(data: Path) -> str:
    image = read_manifest(data, HIRISE).canonical_images("test").query("label == 1")["image"].iloc[0]
    (data / IMAGE_FOLDER / image).unlink()
    return f"(first: {image})"


def missing_data(data: Path) -> str:
    shutil.rmtree(data)
    return f"{data} does not exist"


@pytest.mark.parametrize("damage", [without_images, broken_image, missing_image, missing_data])
def test_what_cannot_be_shown_is_refused(
    damage: Callable[[Path], str], own: Path, own_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(own)
    told = damage(own_data)
    assert main(["report", str(own), "--thumbnails", "--data", str(own_data)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert told in printed.err
    assert contents(own) == before


def test_a_reference_run_shows_none(small_data: Path, tmp_path: Path) -> None:
    results = results_on(small_data)
    alone = replace(results, arms=results.arms[:1])
    folder = write_baseline(Baseline(alone), tmp_path / "baseline").parent
    assert pictures_of(folder) == []
    before = contents(folder)
    assert main(["report", str(folder), "--thumbnails"]) == 2
    assert contents(folder) == before


def test_an_image_that_vanishes_is_the_users_error(
    whole: tuple[Results, dict[str, Any]], whole_sample: Path, tmp_path: Path
) -> None:
    elsewhere = replace(read_manifest(whole_sample, HIRISE), folder=tmp_path)
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        make_thumbnails(whole[0], elsewhere)
