"""Pictures of landmarks on a page: which are shown, that they are those, when, and that they are nowhere else."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders import CLASSES, IMAGE_FOLDER
from handmade import (
    SEEDS,
    check_files,
    contents,
    guesses,
    make_arm,
    make_nested_results,
    make_results,
)
from PIL import Image

from hirise_imb.cli.main import main
from hirise_imb.data import HIRISE, resolve
from hirise_imb.data.dataset import SPLITS
from hirise_imb.data.manifest import Manifest, read_manifest
from hirise_imb.features.neighbours import LabelledLandmarks
from hirise_imb.metrics.classification import Predictions
from hirise_imb.models.closed_form import NearestMean
from hirise_imb.pipeline.rebuild import compare_reports
from hirise_imb.recipe import Recipe
from hirise_imb.reporting import Baseline, Results, write_baseline, write_report
from hirise_imb.reporting.html.pictures import (
    MAX_ERRORS,
    MAX_PICTURES,
    N_NEIGHBOURS,
    SIZE,
    LandmarkPictures,
    Picture,
    make_pictures,
)
from hirise_imb.reporting.read import read_report
from hirise_imb.reporting.verdict import verdict
from hirise_imb.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("blank_figures")

COMPUTED = Recipe(head=NearestMean("none", 0.5))


def results_on(data: Path) -> Results:
    """A baseline and a strategy whose seeds are sure of different things."""
    images = read_manifest(data, HIRISE)
    truth = images.canonical_images("test")["label"].tolist()
    arms = []
    for n, (name, right) in enumerate((("baseline", 0.4), ("tta", 0.6))):
        arm = make_arm(images, name, [guesses(truth, right, seed + n) for seed in SEEDS], 0.5 + n / 10, COMPUTED)
        fits = []
        for seed, fit in enumerate(arm.predictions):
            p = fit.probabilities * np.random.default_rng((n, seed)).uniform(0.1, 1, fit.probabilities.shape)
            fits.append(Predictions(fit.images, (p / p.sum(axis=1, keepdims=True)).astype(np.float32)))
        arms.append(replace(arm, predictions=tuple(fits)))
    made = make_results(images, *arms)
    seconds = {arm.name: arm.seconds for arm in made.arms}
    definition = f'data = {json.dumps(str(data))}\ndataset = "hirise-v3_2"\n'
    return replace(made, study_toml=definition, environment={"seconds": seconds})


CREDIT = "Images: drawn for a test."


@pytest.fixture(scope="module")
def manifest(whole_sample: Path) -> Manifest:
    return read_manifest(whole_sample, HIRISE)


@pytest.fixture(scope="module")
def known(manifest: Manifest) -> LabelledLandmarks:
    """All landmarks of the whole sample, with features made up."""
    images = pd.concat([manifest.canonical_images(split) for split in SPLITS]).sort_index()
    return LabelledLandmarks(manifest, images, make_vectors(len(images)))


def make_vectors(n: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 8))


@pytest.fixture(scope="module")
def results(whole_sample: Path) -> Results:
    return results_on(whole_sample)


@pytest.fixture(scope="module")
def shown(results: Results, manifest: Manifest, known: LabelledLandmarks) -> LandmarkPictures:
    return make_pictures(results, manifest, CREDIT, known)


def list_pictures(shown: LandmarkPictures) -> list[Picture]:
    pictures = [one.picture for one in shown.classes] + [one.picture for one in shown.errors]
    return pictures + [picture for one in shown.errors for group in one.groups for picture in group.pictures]


def mean_of(results: Results, arm: int) -> np.ndarray:
    return np.asarray(np.mean([fit.probabilities for fit in results.arms[arm].predictions], axis=0))


def decode(address: str) -> Image.Image:
    begin = "data:image/jpeg;base64,"
    assert address.startswith(begin)
    return Image.open(io.BytesIO(base64.b64decode(address[len(begin) :], validate=True)))


def test_the_most_confident_errors_come_first(results: Results, shown: LandmarkPictures) -> None:
    assert shown.arm == verdict(results).choice == "tta"
    p = mean_of(results, 1)
    table = results.test.assign(predicted=p.argmax(axis=1), confidence=p.max(axis=1))
    wrong = table[table["predicted"] != table["label"]].sort_values("confidence", ascending=False, kind="stable")
    assert len(wrong) > MAX_ERRORS
    assert [one.picture.image for one in shown.errors] == wrong["image"].tolist()[:MAX_ERRORS]
    for one, (_, row) in zip(shown.errors, wrong.iterrows(), strict=False):
        assert one.true_class == CLASSES[row["label"]]
        assert one.predicted_class == CLASSES[row["predicted"]]
        assert one.picture.source == row["source"]
        assert float(one.confidence) == pytest.approx(100 * row["confidence"], abs=0.5)


def test_each_class_has_an_example(manifest: Manifest, shown: LandmarkPictures) -> None:
    assert [one.name for one in shown.classes] == list(CLASSES)
    landmarks = manifest.table.drop_duplicates("landmark")
    for label, one in enumerate(shown.classes):
        of_class = landmarks[landmarks["label"] == label]
        assert one.landmarks == f"{len(of_class)} landmarks"
        assert one.sources == f"{of_class['source'].nunique()} sources"
        assert one.picture.image in set(manifest.table.loc[manifest.table["label"] == label, "image"])
        assert one.picture.source == of_class["source"].mode()[0]


def test_pictures_are_those_of_the_images(shown: LandmarkPictures, whole_sample: Path) -> None:
    for picture in list_pictures(shown)[::3]:
        small = decode(picture.address)
        assert (small.format, small.size) == ("JPEG", (SIZE, SIZE))
        original = Image.open(whole_sample / IMAGE_FOLDER / picture.image).convert("L").resize((SIZE, SIZE))
        assert np.abs(np.asarray(small, float) - np.asarray(original, float)).mean() < 8


def test_a_page_stays_small(shown: LandmarkPictures) -> None:
    pictures = list_pictures(shown)
    assert len(shown.errors) == MAX_ERRORS
    assert len(pictures) <= MAX_PICTURES
    assert sum(len(picture.address) for picture in pictures) < 400_000


def nearest_by_hand(known: LabelledLandmarks, image: str, label: int, allowed: pd.Series) -> list[str]:
    """The nearest landmarks of a class: of each source the nearest, then of each the second."""
    vectors = make_vectors(len(known.images))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    own = unit[known.images["image"].tolist().index(image)]
    table = known.images.assign(similarity=unit @ own)
    table = table[allowed.to_numpy() & (table["label"] == label).to_numpy()]
    ranked = table.sort_values("similarity", ascending=False)
    first = ranked.drop_duplicates("source")
    order = [*first["image"], *ranked["image"].drop(first.index)]
    return [str(image) for image in order[:N_NEIGHBOURS]]


def test_neighbours_are_the_nearest_of_training_and_validation(
    shown: LandmarkPictures, known: LabelledLandmarks
) -> None:
    splits = known.images["split"]
    assert "landmarks of training and validation" in shown.caption
    for one in shown.errors:
        assert [group.class_name for group in one.groups] == [one.predicted_class, one.true_class]
        for group in one.groups:
            label = CLASSES.index(group.class_name)
            expected = nearest_by_hand(known, one.picture.image, label, splits != "test")
            assert [picture.image for picture in group.pictures] == expected


@pytest.mark.parametrize("repeats", [1, 2])
def test_neighbours_are_outside_the_outer_folds_of_an_error(
    manifest: Manifest, known: LabelledLandmarks, repeats: int
) -> None:
    nested = make_nested_results(manifest, {"baseline": 0.4, "tta": 0.6}, repeats=repeats)
    shown = make_pictures(nested, manifest, CREDIT, known)
    assert nested.outer_folds is not None
    assert len(shown.errors) == MAX_ERRORS
    folds = nested.outer_folds.pivot_table(index="source", columns="repeat", values="fold")
    for one in shown.errors:
        differs = (folds != folds.loc[one.picture.source]).all(axis=1)
        allowed = known.images["source"].map(differs)
        assert not allowed.all()
        for group in one.groups:
            expected = nearest_by_hand(known, one.picture.image, CLASSES.index(group.class_name), allowed)
            assert [picture.image for picture in group.pictures] == expected


def test_a_class_without_training_landmarks_has_no_neighbours(
    manifest: Manifest, results: Results, known: LabelledLandmarks
) -> None:
    images = known.images.assign(split="test")
    shown = make_pictures(results, manifest, CREDIT, LabelledLandmarks(manifest, images, np.ones((len(images), 2))))
    assert all(group.pictures == () for one in shown.errors for group in one.groups)


def test_without_a_strategy_they_are_of_the_baseline(results: Results, manifest: Manifest) -> None:
    alone = replace(results, arms=results.arms[:1])
    p = mean_of(alone, 0)
    shown = make_pictures(alone, manifest, CREDIT, "No features.")
    assert (shown.arm, shown.caption) == ("baseline", "No features.")
    highest = p.max(axis=1)[p.argmax(axis=1) != alone.labels].max()
    assert float(shown.errors[0].confidence) == pytest.approx(100 * highest, abs=0.5)
    assert all(one.groups == () for one in shown.errors)


def test_they_are_of_the_arm_that_the_verdict_advises(results: Results, manifest: Manifest) -> None:
    """A strategy that validation prefers, but that is not better than the baseline where both are tested."""
    worse = replace(results, arms=(results.arms[0], replace(results.arms[1], predictions=results.arms[0].predictions)))
    assert worse.chosen
    assert worse.chosen.name == "tta"
    assert make_pictures(worse, manifest, CREDIT, "").arm == "baseline"


def test_a_perfect_arm_has_no_errors(small_data: Path) -> None:
    images = read_manifest(small_data, HIRISE)
    truth = images.canonical_images("test")["label"].tolist()
    shown = make_pictures(make_results(images, make_arm(images, "baseline", [truth])), images, CREDIT, "")
    assert shown.errors == ()
    assert len(shown.classes) == len(CLASSES)


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


def test_a_page_shows_them_only_when_asked(
    own: Path, report: Path, small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pictures_of(report) == []
    before = contents(own)
    assert main(["report", str(own), "--pictures", "yes"]) == 0
    shown = make_pictures(results_on(small_data), read_manifest(small_data, HIRISE), CREDIT, "")
    assert pictures_of(own) == [picture.address for picture in list_pictures(shown)]
    assert len(shown.errors) == MAX_ERRORS
    # Nowhere else.
    check_files(own)
    after = contents(own)
    assert set(after) == set(before)
    assert {name for name in before if before[name] != after[name]} == {"report.html", "summary.json"}
    assert "jpeg" not in after["summary.json"].decode()
    page = after["report.html"].decode()
    assert "Nearest training landmarks are not shown: the cache on this machine lacks the features" in page
    assert "The licence of the images is unknown to this program: check it before sharing this page." in page
    assert main(["report", str(own), "--pictures", "no"]) == 0
    assert contents(own) == before
    # The licence of the images in a folder is unknown.
    capsys.readouterr()
    assert main(["report", str(own)]) == 0
    assert contents(own) == before
    assert "The page shows no landmarks, because the licence of the images in" in capsys.readouterr().err


def test_without_pictures_no_page_has_an_image_of_a_landmark(own: Path) -> None:
    """A report of real landmarks that is published is made like this."""
    assert main(["report", str(own), "--pictures", "yes"]) == 0
    assert main(["report", str(own), "--pictures", "no"]) == 0
    page = (own / "report.html").read_text(encoding="utf-8")
    # Figures alone: SVG drawn by this program.
    assert set(re.findall(r"data:image/([a-z+]+)", page)) <= {"svg+xml"}
    assert 'class="landmarks"' not in page
    assert not [path for path in own.rglob("*") if path.suffix in (".jpg", ".jpeg")]


def name_data(folder: Path, data: str) -> Path:
    """A report whose study used other data."""
    results = replace(read_report(folder), study_toml=f'data = "{data}"\ndataset = "hirise-v3_2"\n')
    return write_report(results, folder).parent


@pytest.mark.parametrize(
    ("data", "folder", "credit"),
    [
        ("synthetic", "_synthetic_folder", "drawn by this program"),
        ("hirise", "_archive_folder", 'doi.org/10.5281/zenodo.4002935" rel="noopener">'),
    ],
)
def test_landmarks_of_known_licence_are_shown_unasked(
    own: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch, data: str, folder: str, credit: str
) -> None:
    monkeypatch.setattr(resolve, folder, lambda: small_data)
    name_data(own, data)
    without = contents(own)
    assert main(["report", str(own)]) == 0
    page = (own / "report.html").read_text(encoding="utf-8")
    assert len(pictures_of(own)) == len(CLASSES) + MAX_ERRORS
    assert page.count(credit) == 2
    assert page.count("Licence: CC BY 4.0.") == (2 if data == "hirise" else 0)
    assert main(["report", str(own), "--pictures", "no"]) == 0
    assert contents(own) == without


def test_a_report_is_rebuilt_where_its_landmarks_are_not(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name_data(own, "hirise")
    before = contents(own)
    assert main(["report", str(own)]) == 0
    assert "The page shows no landmarks. The HiRISE archive is not in" in capsys.readouterr().err
    assert contents(own) == before
    assert main(["report", str(own), "--pictures", "yes"]) == 2


def test_other_data_can_be_named(own: Path, small_data: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(small_data, tmp_path / "moved"))
    assert main(["report", str(own), "--pictures", "yes", "--data", str(moved)]) == 0
    first = pictures_of(own)
    assert main(["report", str(own), "--pictures", "yes"]) == 0
    assert pictures_of(own) == first != []


def test_a_comparison_shows_landmarks_of_what_its_first_report_prefers(
    report: Path, small_data: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(report, tmp_path / "other"))
    _, page = compare_reports([report, other], "both", tmp_path)
    assert pictures_of(page.parent) == []
    assert main(["report", str(page.parent)]) == 0
    assert pictures_of(page.parent) == []
    assert main(["report", str(page.parent), "--pictures", "yes"]) == 0
    results = results_on(small_data)
    shown = make_pictures(results, read_manifest(small_data, HIRISE), CREDIT, "")
    assert results.chosen
    assert shown.arm == results.chosen.name
    assert {one.picture.address for one in shown.errors} <= set(pictures_of(page.parent))


def test_the_report_of_the_given_split_inside_has_pictures_too(small_data: Path, tmp_path: Path) -> None:
    images = read_manifest(small_data, HIRISE)
    given = results_on(small_data)
    nested = make_nested_results(images, {"baseline": 0.4, "tta": 0.6}, given_split=given)
    nested = replace(nested, study_toml=given.study_toml)
    folder = write_report(nested, tmp_path / "nested").parent
    assert main(["report", str(folder), "--pictures", "yes"]) == 0
    outer, inner = pictures_of(folder), pictures_of(folder / "given-split")
    assert len(outer) == len(inner) == len(CLASSES) + MAX_ERRORS
    assert outer[len(CLASSES) :] != inner[len(CLASSES) :]


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
    assert main(["report", str(own), "--pictures", "yes", "--data", str(own_data)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    # One sentence, below the line of the step at work.
    step, error = printed.err.splitlines()
    assert step.endswith("Writing the report ...")
    assert error.startswith("error: ")
    assert told in printed.err
    assert contents(own) == before


def test_a_reference_run_shows_none(small_data: Path, tmp_path: Path) -> None:
    results = results_on(small_data)
    alone = replace(results, arms=results.arms[:1])
    folder = write_baseline(Baseline(alone), tmp_path / "baseline").parent
    assert pictures_of(folder) == []
    before = contents(folder)
    assert main(["report", str(folder), "--pictures", "yes"]) == 2
    assert contents(folder) == before
    assert main(["report", str(folder)]) == 0
    assert contents(folder) == before


def test_an_image_that_vanishes_is_the_users_error(results: Results, manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        make_pictures(results, replace(manifest, folder=tmp_path), CREDIT, "")
