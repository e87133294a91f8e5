"""A backbone in bfloat16: what it changes is told, and it changes nothing else."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from cut_features import extract_at
from worlds import TOY, make_task, make_trainer

from hirise_imb.backbones import TOP
from hirise_imb.cli.main import main
from hirise_imb.data import manifest
from hirise_imb.data.hirise import HIRISE
from hirise_imb.features.extraction import median_relative_difference
from hirise_imb.recipe import Recipe


def paths(data: Path) -> list[Path]:
    images = manifest.read_manifest(data, HIRISE)
    return [images.path(image) for image in images.table["image"][:12]]


def test_features_are_near_those_in_float32_and_not_the_same(small_data: Path, tmp_path: Path) -> None:
    exact, rough = TOY.load("random", HIRISE.image_shape), TOY.load("random", HIRISE.image_shape, "bfloat16")
    assert exact.digest == rough.digest  # weights stay float32
    one, other = (extract_at(backbone, [TOP], paths(small_data), tmp_path)[TOP] for backbone in (exact, rough))
    a, b = (np.asarray(features.take(np.arange(12))) for features in (one, other))
    assert b.dtype == np.float32
    apart = np.median(np.linalg.norm(a - b, axis=1) / np.linalg.norm(a, axis=1))
    # bfloat16 keeps 8 bits: each number is off by up to 2^-8 or so.
    assert 1e-4 < apart < 5e-2
    assert median_relative_difference(rough, exact, paths(small_data)) == pytest.approx(
        apart, rel=0.2
    )  # compiled or not, it rounds elsewhere
    assert median_relative_difference(exact, exact, paths(small_data)) == 0


def test_what_is_built_afterwards_is_float32() -> None:
    TOY.load("random", HIRISE.image_shape, "bfloat16")
    assert keras.config.dtype_policy().name == "float32"
    assert keras.layers.Dense(1).compute_dtype == "float32"


def test_the_end_of_the_backbone_trains_in_bfloat16() -> None:
    backbone = TOY.load("random", HIRISE.image_shape, "bfloat16")
    assert {layer.compute_dtype for layer in backbone.tail("late").layers[1:-1]} == {"bfloat16"}
    trainer = make_trainer(backbone, make_task(), "late")
    recipe = Recipe(cut="late", learning_rate=1e-3, backbone_learning_rate=1e-3, max_epochs=4, monitor="none")
    loss = trainer.cross_validate(recipe, (0,)).history["train_loss"]
    assert np.isfinite(loss).all()
    assert len(loss) == 8  # the head's epochs, then those of the backbone's end
    assert loss.iloc[-1] < 0.9 * loss.iloc[4]


def test_the_report_tells_what_it_does_to_the_numbers(toy: str, small_data: Path, tmp_path: Path) -> None:
    words = ["baseline", "--backbone", toy, "--weights", "random", "--data", str(small_data), "--refits", "1"]
    words += ["--name", "rough", "--out", str(tmp_path), "--precision", "bfloat16"]
    assert main(words) == 0
    setting = json.loads((tmp_path / "reports/rough/baseline/summary.json").read_text())["setting"]
    assert "in bfloat16 (its features differ from those in float32 by " in setting
    share = float(setting.split("from those in float32 by ")[1].split("%")[0])
    images = manifest.read_manifest(small_data, HIRISE)
    first = [images.path(image) for image in images.table["image"][:32]]
    expected = 100 * median_relative_difference(
        TOY.load("random", HIRISE.image_shape, "bfloat16"), TOY.load("random", HIRISE.image_shape), first
    )
    assert share == pytest.approx(expected, abs=0.006)


def test_an_unknown_precision_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["run", "--precision", "float16", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "no precision 'float16'" in said
    assert "float32, bfloat16" in said
