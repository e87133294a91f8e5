"""The command that exports a saved model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from export_models import KINDS
from saved_models import save_fits

from hirise_imb.backbones import Backbone
from hirise_imb.cli.main import main
from hirise_imb.data.synthetic import draw_originals
from hirise_imb.prediction.model_file import read_model
from hirise_imb.prediction.predictor import Predictor


@pytest.fixture
def folder(backbone: Backbone, toy: str, tmp_path: Path) -> Path:
    """The folder of a model."""
    model = KINDS["several_kinds"](backbone)
    save_fits(tmp_path / "model", backbone, model.fits, model.features)
    return tmp_path / "model"


def test_a_model_is_exported_next_to_its_folder(
    folder: Path, backbone: Backbone, capsys: pytest.CaptureFixture[str]
) -> None:
    import keras

    assert main(["export", str(folder), "--format", "keras"]) == 0
    path = folder.parent / "exports" / "arm.keras"
    assert "Largest difference in probability from Keras on 64 synthetic landmarks: " in capsys.readouterr().out
    facts = json.loads((path.parent / "arm.keras.json").read_text(encoding="utf-8"))
    model = read_model(folder)
    assert facts["model"] == model.digest
    pixels = draw_originals(8, seed=4)[..., None]
    actual = keras.saving.load_model(path).predict(pixels.astype(np.float32), verbose=0)
    np.testing.assert_allclose(actual, Predictor(model, backbone).predict(pixels).calibrated, atol=1e-5)

    assert main(["export", str(folder), "--format", "keras"]) == 2
    assert "--replace" in capsys.readouterr().err
    assert main(["export", str(folder), "--format", "keras", "--replace"]) == 0


def test_a_runtime_that_disagrees_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hirise_imb.export.check.TOLERANCE", 1e-12)
    assert main(["export", str(folder), "--format", "keras"]) == 2
    assert "error: The export of the model arm to keras gives probabilities that differ" in capsys.readouterr().err
    assert not list((folder.parent / "exports").iterdir())


def test_a_folder_without_a_model_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), "--format", "keras"]) == 2
    assert "There is no model in" in capsys.readouterr().err


def test_a_missing_extra_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    assert main(["export", str(tmp_path), "--format", "onnx"]) == 2
    assert "pip install 'hirise-imb[onnx]'" in capsys.readouterr().err
