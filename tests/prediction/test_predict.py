"""The command `predict`: what it writes, how it continues, what it refuses, and its scores against labels."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import CLASSES
from PIL import Image
from review_files import image_names, write_predictions
from saved_models import POINT, write_toy_model
from worlds import small_copy

from hirise_imb.backbones import Backbone
from hirise_imb.cli.main import main
from hirise_imb.data.dataset import ClassSet
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.images import decode_image
from hirise_imb.data.manifest import read_manifest
from hirise_imb.features import cache as feature_cache
from hirise_imb.metrics.classification import confusion_matrix, macro_f1
from hirise_imb.prediction import shards
from hirise_imb.prediction.engine import LandmarkPredictor, PixelPredictor
from hirise_imb.prediction.inputs import LandmarkListing, list_inputs
from hirise_imb.prediction.model_file import SavedModel
from hirise_imb.prediction.predictor import Predictor
from hirise_imb.prediction.run import PredictionRequest, predict_in_this_process, run_prediction
from hirise_imb.prediction.table import (
    PredictedImages,
    PredictionFacts,
    calibrated_columns,
    prediction_table,
    read_facts,
    read_predictions,
)
from hirise_imb.reporting.tables import probability_columns
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import CACHE_VARIABLE, exclusive_lock

ROWS = 8
"""Images of a shard in these tests."""
PROBABILITIES, CALIBRATED = probability_columns(HIRISE.classes), calibrated_columns(HIRISE.classes)
DEADLINE = 120.0

Predict = Callable[..., pd.DataFrame]
Refuse = Callable[..., str]


@pytest.fixture(scope="module")
def model(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "drawn"
    write_toy_model(folder, backbone)
    return folder


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch, toy: str) -> None:
    """Several shards for few images."""
    monkeypatch.setattr(shards.plan_shards, "__defaults__", (ROWS,))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results" / "predictions.parquet"


@pytest.fixture
def crops(small_data: Path, tmp_path: Path) -> Path:
    """A folder of 30 landmarks and four files that are none."""
    folder = tmp_path / "crops"
    folder.mkdir()
    for path in sorted((small_data / HIRISE.layout.image_folder).iterdir())[:30]:
        shutil.copyfile(path, folder / path.name)
    Image.new("RGB", (227, 227)).save(folder / "colour.png")
    Image.new("L", (20, 20)).save(folder / "small.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff and no more")
    (folder / "empty.jpg").touch()
    return folder


@pytest.fixture
def predict(model: Path, out: Path) -> Predict:
    """Runs the command, which must succeed, and reads what it has written."""

    def call(*words: object) -> pd.DataFrame:
        assert main(["predict", str(model), *map(str, words), "--out", str(out)]) == 0
        return pd.read_parquet(out)

    return call


@pytest.fixture
def refuse(model: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Runs the command, which must be refused in one sentence."""

    def call(*words: object, out: Path = out) -> str:
        capsys.readouterr()
        assert main(["predict", str(model), *map(str, words), "--out", str(out)]) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert message.startswith("error: ")
        assert message.endswith(".")
        return message.removeprefix("error: ")

    return call


@contextmanager
def interrupted_after(calls: int) -> Iterator[None]:
    """Lets the network fail at a batch."""
    predict_pixels = Predictor.predict
    count = 0

    def stop(self: Predictor, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> object:
        nonlocal count
        count += 1
        if count > calls:
            raise KeyboardInterrupt
        return predict_pixels(self, pixels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Predictor, "predict", stop)
        yield


def test_each_image_is_a_row(predict: Predict, model: Path, crops: Path, out: Path, backbone: Backbone) -> None:
    table = predict(crops, "--threshold", "0.7")
    assert list(table["id"]) == sorted(str(path) for path in crops.iterdir())
    assert list(table.columns) == [
        *("id", "source", *PROBABILITIES, *CALIBRATED, "class", "confidence", "shown", "error", "model")
    ]
    good = table[table["error"].isna()]
    assert len(good) == 30
    saved = read_facts(out)
    predictor = Predictor(write_toy_model(model, backbone), backbone)
    pixels = np.stack([decode_image(Path(path), HIRISE.image_shape) for path in good["id"]])
    expected = predictor.predict(pixels)
    np.testing.assert_allclose(good[PROBABILITIES], expected.probabilities, atol=1e-6)
    np.testing.assert_allclose(good[CALIBRATED], expected.calibrated, atol=1e-6)
    labels = expected.probabilities.argmax(axis=1)
    assert list(good["class"]) == [CLASSES[label] for label in labels]
    np.testing.assert_allclose(good["confidence"], expected.calibrated[np.arange(30), labels], atol=1e-6)
    assert list(good["shown"]) == list(good["confidence"] >= 0.7)
    assert 0 < good["shown"].sum() < 30
    assert list(good["source"]) == [Path(path).name[:15] for path in good["id"]]
    assert set(table["model"]) == {predictor.model.digest} == {saved.model}
    assert (saved.threshold, saved.input, saved.class_set) == (0.7, (str(crops),), HIRISE.classes)
    assert pq.read_schema(out).field("p_other").type == pa.float32()


def test_paths_are_printed_as_they_are(
    model: Path, crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crops.rename(tmp_path / "[bold]")
    out = tmp_path / "[red] :ice:.parquet"
    assert main(["predict", str(model), str(tmp_path / "[bold]"), "--out", str(out)]) == 0
    output = capsys.readouterr().out
    assert f"Predictions: {out}" in output
    assert f"{tmp_path}/[bold]/" in output


def test_the_class_comes_from_the_probabilities_as_trained() -> None:
    facts = PredictionFacts("digest", "arm", ("a", "b"), None, 0.9, ("x",), None, (6, 6, 1), "data", "fingerprint")
    probabilities, calibrated = np.array([[0.6, 0.4], [0.2, 0.8]]), np.array([[0.3, 0.7], [0.1, 0.9]])
    predicted = PredictedImages(["x", "y", "z"], ["s", None, None], [None, "No.", None], probabilities, calibrated)
    table = prediction_table(predicted, facts).to_pandas()
    assert list(table["class"].dropna()) == ["a", "b"]
    np.testing.assert_allclose(table["confidence"], [0.3, np.nan, 0.9], atol=1e-6)
    assert list(table["shown"]) == [False, None, True]  # 0.9 is reached in the precision of the column
    assert list(table["error"].notna()) == [False, True, False]


def test_images_that_cannot_be_used_are_rows_with_an_error(
    predict: Predict, crops: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = predict(crops).set_index("id")
    errors = {Path(str(name)).name: error for name, error in table["error"].dropna().items()}
    assert errors == {
        "broken.jpg": errors["broken.jpg"],
        "colour.png": "The image is a 227 x 227 image of mode RGB, but landmark images are 227 x 227 with one grey "
        "channel.",
        "empty.jpg": "The image is not a complete JPEG or PNG image (cannot identify image file).",
        "small.png": "The image is a 20 x 20 image of mode L, but landmark images are 227 x 227 with one grey channel.",
    }
    assert errors["broken.jpg"].startswith("The image is not a complete JPEG or PNG image (")
    empty = table.loc[table["error"].notna(), [*PROBABILITIES, *CALIBRATED, "class", "confidence", "shown"]]
    assert empty.isna().all(axis=None)
    output = capsys.readouterr().out
    assert "4 of 34 images can't be used; the column `error` says why, as for" in output
    assert f"{crops}/broken.jpg: The image is not a complete" in output


def test_if_no_image_can_be_used_nothing_is_written(refuse: Refuse, crops: Path, out: Path) -> None:
    message = refuse(crops / "small.png", crops / "colour.png")
    assert message.startswith(f"None of the 2 images can be used: {crops}/small.png: The image is a 20 x 20 image")
    assert refuse(crops / "empty.jpg").startswith("The only image can't be used: ")
    assert not [path for path in out.parent.iterdir() if not path.name.startswith(".")]


def test_tables_and_zips_give_the_same_predictions(predict: Predict, crops: Path, out: Path, tmp_path: Path) -> None:
    expected = predict(crops).drop(columns="id")
    paths = sorted(crops.iterdir())
    pq.write_table(
        pa.table({"id": [path.name for path in paths], "image": [path.read_bytes() for path in paths]}),
        tmp_path / "crops.parquet",
    )
    archive = Path(shutil.make_archive(str(tmp_path / "crops"), "zip", crops))
    columns = [column for column in expected.columns if column != "error"]  # one that is empty reads otherwise
    for source in (tmp_path / "crops.parquet", archive):
        out.unlink()
        table = predict(source).sort_values("id", ignore_index=True)
        pd.testing.assert_frame_equal(table[columns], expected[columns])


def test_many_zips_give_the_predictions_of_their_images(
    predict: Predict, crops: Path, out: Path, tmp_path: Path
) -> None:
    """Several of them in a batch, whose images threads read while the next zip is opened already."""
    of_images = predict(crops).set_index("id")
    of_images.index = of_images.index.map(lambda path: Path(path).name)
    out.unlink()
    (tmp_path / "zips").mkdir()
    for number, path in enumerate(sorted(crops.iterdir())):
        with zipfile.ZipFile(tmp_path / "zips" / f"{number:02}.zip", "w") as archive:
            for copy in range(7):
                archive.write(path, f"{copy}/{path.name}")
    of_zips = predict(tmp_path / "zips" / "*.zip")
    assert len(of_zips) == 7 * len(of_images)
    expected = of_images.loc[of_zips["id"].map(lambda path: Path(path).name)].reset_index(drop=True)
    columns = [column for column in expected if str(column).startswith(("p_", "calibrated_"))]
    np.testing.assert_allclose(of_zips[columns], expected[columns], atol=1e-6)
    assert of_zips["error"].fillna("").tolist() == expected["error"].fillna("").tolist()


def test_an_interrupted_prediction_continues(
    predict: Predict, model: Path, crops: Path, out: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    predict(crops)
    undisturbed = out.read_bytes()
    assert [path.name for path in out.parent.iterdir() if not path.name.startswith(".")] == [out.name]
    out.unlink()
    for calls in (0, 2, 1):
        with interrupted_after(calls):
            assert main(["predict", str(model), str(crops), "--out", str(out)]) == 130
        assert not out.exists()
    parts = out.with_name(f"{out.name}.parts")
    finished = {path: path.stat().st_mtime_ns for path in parts.glob("0*.parquet")}
    assert len(finished) == 3
    capsys.readouterr()
    predict(crops)
    assert "24 of 34 images are predicted already." in capsys.readouterr().err
    assert out.read_bytes() == undisturbed
    assert not parts.exists()


def test_a_shard_that_was_written_incompletely_is_predicted_again(
    predict: Predict, model: Path, crops: Path, out: Path
) -> None:
    predict(crops)
    undisturbed = out.read_bytes()
    out.unlink()
    with interrupted_after(2):
        assert main(["predict", str(model), str(crops), "--out", str(out)]) == 130
    first, second = sorted(out.with_name(f"{out.name}.parts").glob("0*.parquet"))
    first.write_bytes(first.read_bytes()[:100])
    second.write_bytes(b"")
    predict(crops)
    assert out.read_bytes() == undisturbed


def test_a_complete_prediction_is_not_repeated(
    predict: Predict, crops: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(crops)
    stamp, printed = out.stat().st_mtime_ns, capsys.readouterr().out
    leftover = out.with_name(f"{out.name}.parts")
    leftover.mkdir()
    with interrupted_after(0):
        predict(crops)
    assert out.stat().st_mtime_ns == stamp
    output = capsys.readouterr()
    assert f"{out} is complete: nothing is predicted again." in output.err
    assert output.out == printed
    assert not leftover.exists()


def test_a_removal_that_was_interrupted_is_finished(predict: Predict, crops: Path, out: Path) -> None:
    leftover = out.with_name(f".{out.name}.parts.removed")
    leftover.mkdir(parents=True)
    (leftover / "0000000.parquet").touch()
    predict(crops)
    assert not leftover.exists()


def test_predictions_of_something_else_are_not_touched(
    predict: Predict, refuse: Refuse, crops: Path, out: Path, backbone: Backbone, model: Path, tmp_path: Path
) -> None:
    predict(crops)
    before = out.read_bytes()
    again = "choose another --out, or delete it."
    assert refuse(crops, "--threshold", 0.8) == f"{out} has predictions with another threshold (0.9): {again}"
    other = f"{out} has predictions of other images, or of images that have changed since: {again}"
    assert refuse(crops / "small.png", crops) == other
    (crops / "empty.jpg").unlink()
    assert refuse(crops) == other
    (crops / "empty.jpg").touch()
    assert refuse(crops) == other  # its time has changed
    assert out.read_bytes() == before
    out.write_text("notes")
    assert refuse(crops) == f"{out} exists and is not a file of predictions: {again}"
    pd.DataFrame({"a": [1]}).to_parquet(out)
    assert refuse(crops) == f"{out} exists and is not a file of predictions: {again}"


def test_unfinished_predictions_of_something_else_are_not_continued(
    refuse: Refuse, model: Path, crops: Path, out: Path, backbone: Backbone, tmp_path: Path
) -> None:
    with interrupted_after(1):
        assert main(["predict", str(model), str(crops), "--out", str(out)]) == 130
    parts = out.with_name(f"{out.name}.parts")
    advice = "delete this folder, or choose another --out."
    assert refuse(crops, "--threshold", 0.5) == (
        f"{parts} has unfinished predictions with another threshold (0.9): {advice}"
    )
    assert "of other images, or of images that have changed since" in refuse(crops / "*.jpg")
    write_toy_model(tmp_path / "other", backbone, sharpness=9)
    assert main(["predict", str(tmp_path / "other"), str(crops), "--out", str(out)]) == 2
    assert len(list(parts.glob("0*.parquet"))) == 1
    (parts / "run.json").write_text("{")
    assert refuse(crops) == f"{parts / 'run.json'} is damaged or of another version: {advice}"
    (parts / "run.json").write_text(json.dumps({"format": 1}))
    assert refuse(crops) == f"{parts / 'run.json'} is damaged or of another version: {advice}"
    (parts / "run.json").unlink()
    assert refuse(crops) == f"{parts} exists and has files of something else: {advice}"


@pytest.mark.parametrize("change", ["remove", "add"])
def test_images_that_change_meanwhile_are_found(change: str, refuse: Refuse, crops: Path, out: Path) -> None:
    predict_pixels = Predictor.predict

    def predict_and_change(self: Predictor, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> object:
        if change == "remove":
            (crops / "small.png").unlink(missing_ok=True)
        else:
            shutil.copyfile(crops / "small.png", crops / "zebra.png")
        return predict_pixels(self, pixels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Predictor, "predict", predict_and_change)
        message = refuse(crops)
    if change == "remove":
        assert message == f"{crops}/small.png was removed while images were predicted: run the command again."
    else:
        assert message == (
            f"Images were added, removed or changed while they were predicted: delete {out}.parts and run the command "
            "again."
        )
    assert not out.exists()


def test_a_prediction_waits_for_another_process_with_the_same_output(
    model: Path, crops: Path, out: Path, backbone: Backbone, caplog: pytest.LogCaptureFixture
) -> None:
    saved = write_toy_model(model, backbone)
    predictor = Predictor(saved, backbone)
    loaded: list[int] = []

    def load() -> Predictor:
        loaded.append(1)
        return predictor

    request = PredictionRequest(saved, list_inputs([str(crops)], None, HIRISE), out, 0.9, (str(crops),))
    thread = threading.Thread(target=run_prediction, args=(request, predict_in_this_process(load)))
    out.parent.mkdir()
    caplog.set_level("INFO", "hirise_imb")
    with exclusive_lock(out):
        thread.start()
        end = time.monotonic() + DEADLINE
        while "waiting for another process" not in caplog.text:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert loaded == []
    thread.join()
    assert len(pd.read_parquet(out)) == 34
    run_prediction(request, predict_in_this_process(load))
    assert loaded == [1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{crops}", "--threshold", "1.5"], "--threshold is 1.5: use a probability from 0 to 1."),
        (["{crops}", "--threshold", "nan"], "--threshold is nan: use a probability from 0 to 1."),
        ([""], "An empty INPUT does not exist: name images, folders, zips, Parquet tables or a data set."),
        (
            ["{crops}", "--dataset", "hirise-v3_2"],
            "--dataset is that of a data set with labels: add --split to read INPUT as one.",
        ),
        (["{crops}/none"], "{crops}/none does not exist: name images, folders, zips, Parquet tables or a data set."),
        (["{crops}", "--dataset", "x"], "there is no data set 'x'"),
        (["{crops}/small.png", "--evaluate"], "{crops}/small.png is not one data set, which alone has splits and"),
        (["{crops}", "--evaluate"], "{crops} does not contain labels-map"),
    ],
)
def test_options_that_cannot_be_used(words: list[str], message: str, refuse: Refuse, crops: Path, out: Path) -> None:
    refusal = refuse(*(word.format(crops=crops) for word in words))
    assert refusal.lower().startswith(message.format(crops=crops).lower())
    assert not out.exists()


def test_an_output_with_another_suffix_is_refused(refuse: Refuse, crops: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "predictions.csv", tmp_path / "predictions"):
        assert refuse(crops, out=path) == f"--out is {path}: name a file that ends in .parquet."


def test_cached_features_give_the_same_predictions(
    model: Path, small_data: Path, backbone: Backbone, cache: Path
) -> None:
    predictor = Predictor(write_toy_model(model, backbone), backbone)
    listing = list_inputs([str(small_data)], "all", HIRISE)
    planned = list(shards.plan_shards(listing))
    landmarks = LandmarkPredictor(predictor, planned, cache)
    with PixelPredictor(predictor) as pixels:
        for shard in planned:
            one, other = landmarks.predict(shard), pixels.predict(shard)
            assert (one.ids, one.sources, one.errors) == (other.ids, other.sources, other.errors)
            np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)
            np.testing.assert_allclose(one.calibrated, other.calibrated, atol=1e-6)


def test_a_data_set_uses_the_feature_cache_and_images_do_not(
    predict: Predict, own_data: Path, crops: Path, out: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(crops)
    assert not (cache / "features").exists()
    out.unlink()
    broken = read_manifest(own_data, HIRISE).canonical_images("test")["image"].iloc[3]
    (own_data / HIRISE.layout.image_folder / broken).write_text("hello")
    table = predict(own_data, "--split", "test")
    assert list(table["id"]) == list(read_manifest(own_data, HIRISE).canonical_images("test")["image"])
    assert list(table.loc[table["error"].notna(), "id"]) == [broken]
    cached = {path: path.stat().st_size for path in (cache / "features").glob("*/rows.bin")}
    assert len(cached) == 2  # of both views
    out.unlink()

    def refuse_to_append(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(feature_cache.FeatureStore, "append", refuse_to_append)
    again = predict(own_data, "--split", "test")
    pd.testing.assert_frame_equal(again, table)


def test_predictions_are_scored_against_labels(
    predict: Predict, small_data: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = predict(small_data, "--evaluate", "--threshold", "0.6")
    manifest = read_manifest(small_data, HIRISE)
    truth = manifest.canonical_images("test")
    assert list(table["id"]) == list(truth["image"])
    predicted = table["class"].map({name: label for label, name in enumerate(CLASSES)})
    confusion = confusion_matrix(truth["label"], predicted, len(CLASSES))
    output = capsys.readouterr().out
    right = (predicted.to_numpy() == truth["label"].to_numpy())[table["shown"]].mean()
    assert f"Macro F1 {macro_f1(confusion):.3f}, accuracy {np.trace(confusion) / len(table):.3f}." in output
    assert f"At a confidence of 0.6 or more: coverage {table['shown'].mean():.3f}, precision {right:.3f}." in output
    assert f"In the model card, at 0.9: coverage {POINT['coverage']:.3f}, precision {POINT['precision']:.3f}." in output
    assert "in card" not in output
    for label, name in enumerate(CLASSES):
        line = next(line for line in output.split("Scores against")[1].splitlines() if line.startswith(f"{name} "))
        hits, support, called = confusion[label, label], confusion[label].sum(), confusion[:, label].sum()
        shown = table["shown"].to_numpy()
        correct = (shown & (truth["label"] == label).to_numpy() & (predicted == label).to_numpy()).sum()
        numbers = [
            hits / called if called else 0,
            hits / support,
            2 * hits / (support + called),
            (shown & (truth["label"] == label).to_numpy()).sum() / support,
        ]
        of_shown = (shown & (predicted == label).to_numpy()).sum()
        cells = [f"{number:.3f}" for number in numbers] + [f"{correct / of_shown:.3f}" if of_shown else "–"]
        assert line.removeprefix(name).split() == [str(support), *cells]
    # A complete prediction can be scored again; at the threshold of the report, its precision is in the table.
    out.unlink()
    predict(small_data, "--evaluate")
    predict(small_data, "--evaluate")
    assert capsys.readouterr().out.count("in card") == 2


def test_other_classes_cannot_be_scored(refuse: Refuse, tmp_path: Path, out: Path) -> None:
    rows = []
    for split in ("train", "val", "test"):
        for label in ("dust", "olivine"):
            Image.new("L", (227, 227)).save(tmp_path / f"{split}-{label}.png")
            rows.append(f"{split}-{label}.png,{label},{split}")
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["file,label,split", *rows]))
    assert refuse(table, "--evaluate").startswith(f"{tmp_path} has the classes dust, olivine, but the model drawn")
    assert main(["predict", str(tmp_path / "none"), str(table), "--out", str(out)]) == 2


def test_other_classes_can_be_predicted(backbone: Backbone, crops: Path, out: Path, tmp_path: Path) -> None:
    saved: SavedModel = write_toy_model(
        tmp_path / "two", backbone, ClassSet(("dust storm", "ice")), dataset="annotation-table"
    )
    assert main(["predict", str(tmp_path / "two"), str(crops), "--out", str(out)]) == 0
    facts, table = read_predictions(out)
    assert facts.dataset == "annotation-table" == saved.dataset
    assert {"p_dust_storm", "calibrated_dust_storm", "p_ice"} < set(table.columns)
    assert set(table["class"].dropna()) <= {"dust storm", "ice"}


def test_only_files_of_predictions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with pytest.raises(UserError, match="does not exist"):
        read_predictions(path)
    path.write_text("PAR1")
    with pytest.raises(UserError, match="is damaged or not a Parquet file"):
        read_predictions(path)
    pd.DataFrame({"id": ["a"]}).to_parquet(path)
    with pytest.raises(UserError, match="is not a file of predictions of this version"):
        read_predictions(path)


@pytest.mark.parametrize(
    ("column", "value", "fault"),
    [
        ("id", None, "its column id has empty cells"),
        ("class", None, "its column class has empty cells"),
        ("class", "canal", "it has classes that the model does not predict"),
        ("p_crater", np.nan, "its column p_crater has empty cells"),
        ("calibrated_crater", 1.01, "its column calibrated_crater has values that are no probabilities"),
    ],
)
def test_predictions_that_no_model_makes_are_refused(column: str, value: object, fault: str, tmp_path: Path) -> None:
    path = write_predictions(tmp_path / "p.parquet", image_names())
    table = pq.read_table(path)
    frame = table.to_pandas()
    frame.loc[3, column] = value
    pq.write_table(pa.Table.from_pandas(frame, table.schema, preserve_index=False), path)
    with pytest.raises(UserError) as refusal:
        read_predictions(path)
    assert str(refusal.value) == f"{path} is damaged ({fault}): delete it, and make it again with `hirise-imb predict`."


def test_a_flipped_bit_in_a_file_of_predictions_is_noticed(tmp_path: Path) -> None:
    path = write_predictions(tmp_path / "p.parquet", image_names())
    content = bytearray(path.read_bytes())
    content[pq.ParquetFile(path).metadata.row_group(0).column(2).data_page_offset + 60] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged \(.*\): delete it, and make it again"):
        read_predictions(path)


def test_a_split_without_landmarks_is_refused(small_data: Path) -> None:
    listing = list_inputs([str(small_data)], "val", HIRISE)
    assert isinstance(listing, LandmarkListing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hirise_imb.data.manifest.Manifest.split", lambda self, name: self.table.iloc[:0])
        with pytest.raises(UserError, match="has no landmarks in the split val: choose another --split"):
            list_inputs([str(small_data)], "val", HIRISE)


LAUNCHER = f"""\
import sys
from hirise_imb.backbones import BACKBONES
from hirise_imb.cli import main
from hirise_imb.prediction import shards
from hirise_imb.testing.toy import TOY

BACKBONES[TOY.name] = TOY
shards.plan_shards.__defaults__ = ({ROWS},)
sys.exit(main.main())
"""


@pytest.fixture(scope="module")
def more_data(whole_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with some 60 shards. Not to be changed."""
    return small_copy(whole_sample, tmp_path_factory.mktemp("more") / "data", 16)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does")
@pytest.mark.parametrize(("kind", "kills"), [("folder", 3), ("table", 1), ("data set", 1)])
def test_a_prediction_that_is_killed_at_any_moment_ends_with_the_same_file(
    kind: str, kills: int, more_data: Path, model: Path, tmp_path: Path
) -> None:
    launcher = tmp_path / "launcher.py"
    launcher.write_text(LAUNCHER, encoding="utf-8")
    words = [str(more_data / HIRISE.layout.image_folder)]
    if kind == "table":
        paths = sorted((more_data / HIRISE.layout.image_folder).iterdir())
        content = [path.read_bytes() for path in paths]
        pq.write_table(pa.table({"id": [path.name for path in paths], "image": content}), tmp_path / "a.parquet")
        words = [str(tmp_path / "a.parquet")]
    elif kind == "data set":
        words = [str(more_data), "--split", "all"]

    def start(out: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, str(launcher), "predict", str(model), *words, "--out", str(out)],
            env=os.environ | {CACHE_VARIABLE: str(tmp_path / "other cache"), "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    undisturbed, out = tmp_path / "undisturbed.parquet", tmp_path / "killed.parquet"
    assert main(["predict", str(model), *words, "--out", str(undisturbed)]) == 0
    parts = out.with_name(f"{out.name}.parts")
    shard_count = -(-pq.read_metadata(undisturbed).num_rows // ROWS)
    rng = random.Random(0)
    for count in sorted(rng.sample(range(shard_count), kills)):
        process = start(out)
        try:
            end = time.monotonic() + DEADLINE
            while len(list(parts.glob("0*.parquet"))) < count or not parts.exists():
                assert process.poll() is None, "it ended before it was killed"
                assert time.monotonic() < end
                time.sleep(0.005)  # shorter naps take as much of the processor as the process itself
            time.sleep(rng.uniform(0, 0.02))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert not out.exists()
    assert start(out).wait(DEADLINE) == 0
    assert out.read_bytes() == undisturbed.read_bytes()
    assert not parts.exists()
