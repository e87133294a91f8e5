"""hirise-imb review: the page it writes, with and without a model, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders import IMAGE_FOLDER, LABEL_FILE, SPLIT_FILE, names
from review_files import CLASSES, N_IMAGES, image_names, write_images, write_predictions
from saved_models import describe_model

from hirise_imb.backbones import Backbone
from hirise_imb.cli.main import main
from hirise_imb.data import HIRISE, SPLITS
from hirise_imb.data.manifest import read_manifest
from hirise_imb.features.extraction import data_digest
from hirise_imb.imbalance.logit_adjustment import Correction
from hirise_imb.models.linear import LinearClassifier
from hirise_imb.prediction.model_file import read_model, write_model
from hirise_imb.testing.toy import WIDTH
from hirise_imb.training.fitted import FittedHead, FittedModel


def save_model(folder: Path, backbone: Backbone, data: str, data_digest: str = "0") -> str:
    """Writes a model that names its training data, and returns its digest."""
    facts = describe_model(backbone, name="plain")
    facts["training_data"] |= {"data": data, "digest": data_digest, "splits": ["train", "val"]}
    shape = (len(CLASSES), WIDTH)
    head = LinearClassifier(np.ones(shape), np.zeros(shape[0]), np.zeros(WIDTH), np.ones(WIDTH))
    fit = FittedModel(((FittedHead(head),),), (1.0,), Correction(1.0, np.zeros(shape[0])), 1.0)
    write_model(folder, facts, {0: fit}, "# a card\n")
    return read_model(folder).digest


def digest_of(data: Path) -> str:
    return data_digest(read_manifest(data, HIRISE))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "new", image_names())


def settings_of(page: Path) -> dict[str, object]:
    """What the script of a page knows."""
    text = page.read_text(encoding="utf-8").split('id="settings">', 1)[1].split("</script>", 1)[0]
    return dict(json.loads(text))


def test_the_training_data_are_those_of_the_model(
    toy: str,
    backbone: Backbone,
    images: Path,
    small_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    digest = save_model(tmp_path / "model", backbone, str(small_data), digest_of(small_data))
    predictions = write_predictions(tmp_path / "p.parquet", image_names(), model=digest)
    out = tmp_path / "reports" / "review"
    words = ["review", str(predictions), "--images", str(images), "--out", str(out), "--candidates", "1"]
    assert main([*words, "--model", str(tmp_path / "model")]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^spider: 1 candidate, [01] with a probability of 0\.5 or more$", printed, re.MULTILINE)
    assert f"Review: {out / 'review.html'}" in printed
    text = (out / "review.html").read_text(encoding="utf-8")
    assert text.count('class="candidate"') == len(CLASSES.rare_ids)
    assert "Looks like" in text
    assert f"{small_data}, which the model was trained on," in text
    assert "is not the data" not in printed


def test_an_existing_page_is_replaced_only_if_that_is_confirmed(
    toy: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels in the browser belong to the queue of the page."""
    predictions = write_predictions(tmp_path / "p.parquet", image_names())
    page = tmp_path / "out" / "review.html"
    page.parent.mkdir()
    page.write_text("an earlier page", encoding="utf-8")
    words = ["review", str(predictions), "--images", str(images), "--out", str(page.parent)]
    assert main(words) == 2
    assert capsys.readouterr().err.endswith("choose another --out, or confirm with --replace.\n")
    assert page.read_text(encoding="utf-8") == "an earlier page"
    assert main([*words, "--replace"]) == 0
    assert "candidate" in page.read_text(encoding="utf-8")


def change_image(data: Path) -> None:
    with next((data / IMAGE_FOLDER).iterdir()).open("ab") as file:
        file.write(b"0")


def change_label(data: Path) -> None:
    """Gives all images of a landmark another class."""
    landmark = read_manifest(data, HIRISE).table["landmark"].iloc[0]
    for name in (LABEL_FILE, SPLIT_FILE):
        rows = [line.split() for line in (data / name).read_text(encoding="utf-8").splitlines()]
        for row in rows:
            if row[0].startswith(landmark):
                row[1] = str((int(row[1]) + 1) % len(CLASSES))
        (data / name).write_text("".join(f"{' '.join(row)}\n" for row in rows), encoding="utf-8")


def break_split(data: Path) -> None:
    with (data / SPLIT_FILE).open("a", encoding="utf-8") as file:
        file.write("photo.jpg 1 train\n")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_image, "own-data has changed since the model was trained on it"),
        (change_label, "own-data has changed since the model was trained on it"),
        (break_split, "line .*: file name 'photo.jpg' is not"),
    ],
)
def test_training_data_that_changed_or_are_damaged_are_not_shown(
    change: Callable[[Path], None],
    reason: str,
    toy: str,
    backbone: Backbone,
    images: Path,
    own_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    digest = save_model(tmp_path / "model", backbone, str(own_data), digest_of(own_data))
    change(own_data)
    predictions = write_predictions(tmp_path / "p.parquet", image_names(), model=digest)
    words = ["review", str(predictions), "--images", str(images), "--out", str(tmp_path / "out")]
    assert main([*words, "--model", str(tmp_path / "model")]) == 0
    assert re.search(reason, capsys.readouterr().out)
    assert "Looks like" not in (tmp_path / "out" / "review.html").read_text(encoding="utf-8")


def test_other_data_than_those_of_the_model_are_named_as_such(
    toy: str,
    backbone: Backbone,
    images: Path,
    small_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    digest = save_model(tmp_path / "model", backbone, str(tmp_path / "gone"))
    predictions = write_predictions(tmp_path / "p.parquet", image_names(), model=digest)
    words = ["review", str(predictions), "--images", str(images), "--out", str(tmp_path / "out")]
    assert main([*words, "--model", str(tmp_path / "model"), "--data", str(small_data)]) == 0
    assert f"{small_data} is not the data that the model was trained on" in capsys.readouterr().out
    text = (tmp_path / "out" / "review.html").read_text(encoding="utf-8")
    assert "Looks like" in text
    assert "which the model was trained on" not in text


def test_training_data_that_are_gone_are_no_error(
    toy: str, backbone: Backbone, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = save_model(tmp_path / "model", backbone, str(tmp_path / "gone"))
    predictions = write_predictions(tmp_path / "p.parquet", image_names(), model=digest)
    words = ["review", str(predictions), "--images", str(images), "--out", str(tmp_path / "out")]
    assert main([*words, "--model", str(tmp_path / "model")]) == 0
    assert (
        f"The training data can't be used; name them with --data to see what candidates resemble: {tmp_path / 'gone'}"
        in (capsys.readouterr().out)
    )
    text = (tmp_path / "out" / "review.html").read_text(encoding="utf-8")
    assert "Looks like" not in text
    assert "name them with --data" in text


def test_without_a_model_the_embedded_backbone_compares_images(images: Path, tmp_path: Path) -> None:
    predictions = write_predictions(tmp_path / "p.parquet", image_names())
    words = ["review", str(predictions), "--images", str(images), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    shown = settings_of(tmp_path / "out" / "review.html")["images"]
    assert isinstance(shown, list)
    assert sorted(name for name, _ in shown) == image_names()
    assert len(shown) == N_IMAGES


def refusal(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> str:
    """The sentence with which a command is refused before it has written anything."""
    assert main(["review", *words, "--out", str(folder / "out")]) == 2
    assert not (folder / "out").exists()
    return capsys.readouterr().err


def test_another_model_is_refused(
    toy: str, backbone: Backbone, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tmp_path / "model", backbone, "synthetic")
    predictions = write_predictions(tmp_path / "p.parquet", image_names())
    words = [str(predictions), "--images", str(images), "--model", str(tmp_path / "model")]
    assert "was predicted by another model (logistic, digest aaaaaaaaaaaa)" in refusal(capsys, tmp_path, *words)


def test_other_files_are_refused(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.parquet").write_bytes(b"PAR1")
    for name, message in (("p.parquet", "not a Parquet file"), ("none.parquet", "does not exist")):
        words = [str(tmp_path / name), "--images", str(images)]
        assert message in refusal(capsys, tmp_path, *words)


def test_other_data_are_refused(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "table.csv"
    labels, splits = ["dust", "olivine"] * 3, [split for split in SPLITS for _ in range(2)]
    rows = [",".join(row) for row in zip(image_names(6), labels, splits, strict=True)]
    table.write_text("\n".join(["file,label,split", *rows, ""]), encoding="utf-8")
    for name in image_names(6):
        (tmp_path / name).write_bytes((images / name).read_bytes())
    predictions = write_predictions(tmp_path / "p.parquet", image_names())
    words = [str(predictions), "--images", str(images), "--data", str(table)]
    assert "has other classes or images of another size" in refusal(capsys, tmp_path, *words)


def test_weights_need_a_model(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = write_predictions(tmp_path / "p.parquet", image_names())
    words = [str(predictions), "--images", str(images), "--weights", "imagenet"]
    assert "give both, or neither" in refusal(capsys, tmp_path, *words)


@pytest.mark.parametrize("option", ["--candidates", "--per-source"])
@pytest.mark.parametrize("value", ["0", "-1", "2.5", "some"])
def test_numbers_must_be_positive(option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["review", "p.parquet", "--images", "i", "--out", str(tmp_path / "out"), option, value])
    assert stopped.value.code == 2
    assert f"argument {option}: must be an integer of at least 1, got '{value}'" in capsys.readouterr().err
    assert names(tmp_path) == []
