"""An export is kept only if its runtime gives the probabilities of the model, and replaces nothing unasked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from export_models import KINDS, compute_features, make_fit, make_head, make_model, make_spec
from PIL import Image

from hirise_imb.backbones import Backbone
from hirise_imb.data.hirise import HIRISE
from hirise_imb.export import FORMATS, ExportFormat, exporter
from hirise_imb.export.check import N_IMAGES, CheckImages, compare
from hirise_imb.export.exporter import Export, check_place, export_model
from hirise_imb.export.network import build_network
from hirise_imb.prediction.model_file import SavedModel
from hirise_imb.prediction.predictor import Predictor
from hirise_imb.testing.toy import TOY
from hirise_imb.utils.errors import UserError

if TYPE_CHECKING:
    from keras import Model

KERAS, SAVEDMODEL, OPENVINO = (FORMATS[name] for name in ("keras", "savedmodel", "openvino"))
IMAGES = CheckImages.of(HIRISE.image_shape)


def export(model: SavedModel, backbone: Backbone, path: Path, export_format: ExportFormat = KERAS) -> Export:
    return export_model(Predictor(model, backbone), export_format, path, IMAGES)


def without_temperatures(model: SavedModel) -> SavedModel:
    return replace(model, fits=tuple(replace(fit, temperature=1.0) for fit in model.fits))


def without_offsets(model: SavedModel) -> SavedModel:
    flat = [replace(fit.correction, offsets=np.zeros(fit.n_classes)) for fit in model.fits]
    pairs = zip(model.fits, flat, strict=True)
    return replace(model, fits=tuple(replace(fit, correction=correction) for fit, correction in pairs))


def with_one_temperature_of_kinds(model: SavedModel) -> SavedModel:
    return replace(model, fits=tuple(replace(fit, temperatures=(1.0,) * len(fit.heads)) for fit in model.fits))


def test_an_export_is_described_next_to_it(backbone: Backbone, tmp_path: Path) -> None:
    model = KINDS["several_kinds"](backbone)
    path = tmp_path / "exports" / "model.keras"
    result = export(model, backbone, path)
    assert result.path == path
    assert result.bytes == path.stat().st_size
    assert {file.name for file in path.parent.iterdir()} == {"model.keras", "model.keras.json"}
    facts = json.loads(result.facts_path.read_text(encoding="utf-8"))
    assert facts["classes"] == list(HIRISE.classes)
    assert facts["model"] == model.digest
    assert facts["input"] == {"shape": [None, 227, 227, 1], "type": "float32", "range": [0, 255]}
    assert facts["output"]["shape"] == [None, 8]
    assert facts["confidence_threshold"] == 0.9
    assert facts["check"]["images"] == N_IMAGES
    assert facts["check"]["largest_difference"] == result.comparison.largest_difference < 1e-5
    assert set(facts["packages"]) == {"hirise-imb", "tensorflow", "keras"}


@pytest.mark.parametrize("change", [without_temperatures, without_offsets, with_one_temperature_of_kinds])
def test_an_export_that_leaves_something_out_is_refused(
    change: Callable[[SavedModel], SavedModel], backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "build_network", lambda model, backbone: build_network(change(model), backbone))
    with pytest.raises(UserError, match=r"differ from Keras by up to 0\.\d+ on 64 synthetic landmarks"):
        export(KINDS["several_kinds"](backbone), backbone, tmp_path / "model.keras")
    assert not list(tmp_path.iterdir())


def test_a_network_that_a_format_does_not_support_is_an_error(backbone: Backbone, tmp_path: Path) -> None:
    def fail(network: Model, path: Path) -> None:
        path.touch()
        raise RuntimeError("there is no operation Flip\nin 3 nodes")

    with pytest.raises(UserError, match=r"can't be exported to keras \(there is no operation Flip\): use another"):
        export(KINDS["linear"](backbone), backbone, tmp_path / "model.keras", replace(KERAS, write=fail))
    assert not list(tmp_path.iterdir())


def test_a_refused_export_leaves_the_earlier_one(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = KINDS["several_kinds"](backbone), tmp_path / "model.savedmodel"
    export(model, backbone, path, SAVEDMODEL)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    monkeypatch.setattr(
        exporter, "build_network", lambda model, backbone: build_network(without_offsets(model), backbone)
    )
    with pytest.raises(UserError, match="it was not kept"):
        export(model, backbone, path, SAVEDMODEL)
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}


def test_probabilities_that_are_no_numbers_are_refused() -> None:
    expected = np.full((3, 8), 1 / 8)
    comparison = compare(lambda pixels: np.full((len(pixels), 8), np.nan, np.float32), IMAGES.pixels[:3], expected)
    assert not comparison.passes


def test_an_export_replaces_an_earlier_one_only_if_asked(backbone: Backbone, tmp_path: Path) -> None:
    model, path = KINDS["linear"](backbone), tmp_path / "model.savedmodel"
    check_place(path, SAVEDMODEL, replace=False)
    export(model, backbone, path, SAVEDMODEL)
    (path / "stale").touch()
    with pytest.raises(UserError, match=r"model\.savedmodel exists: .* --replace"):
        check_place(path, SAVEDMODEL, replace=False)
    check_place(path, SAVEDMODEL, replace=True)
    export(model, backbone, path, SAVEDMODEL)
    assert not (path / "stale").exists()
    assert {file.name for file in tmp_path.iterdir()} == {"model.savedmodel", "model.savedmodel.json"}


@pytest.mark.parametrize(
    ("export_format", "name"), [(KERAS, "model.keras"), (SAVEDMODEL, "model"), (OPENVINO, "model.xml")]
)
def test_a_folder_of_something_else_is_never_replaced(export_format: ExportFormat, name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="is a folder, and not an earlier export"):
        check_place(tmp_path / name, export_format, replace=True)


def test_files_next_to_an_export_are_not_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    with pytest.raises(UserError, match=r"model\.bin exists"):
        check_place(tmp_path / "model.xml", OPENVINO, replace=False)
    (tmp_path / "model.keras.json").touch()
    with pytest.raises(UserError, match=r"model\.keras\.json exists"):
        check_place(tmp_path / "model.keras", KERAS, replace=False)


def test_the_name_must_fit_the_format(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends in \.keras"):
        check_place(tmp_path / "model.h5", KERAS, replace=False)


def test_a_backbone_in_bfloat16_is_refused(tmp_path: Path) -> None:
    backbone = TOY.load("random", HIRISE.image_shape, "bfloat16")
    with pytest.raises(UserError, match=r"computes in bfloat16, .* --precision float32"):
        export(KINDS["linear"](backbone), backbone, tmp_path / "model.keras")
    assert not list(tmp_path.iterdir())


def test_check_images_have_the_shape_of_the_model(tmp_path: Path) -> None:
    assert IMAGES.description == "synthetic landmarks"
    assert IMAGES.pixels.shape == (N_IMAGES, *HIRISE.image_shape)
    colour = CheckImages.of((40, 60, 3))
    assert colour.description == "random images"
    assert colour.pixels.shape == (N_IMAGES, 40, 60, 3)
    assert len(np.unique(colour.pixels.mean(axis=(1, 2, 3)))) == N_IMAGES
    for number, pixels in enumerate(colour.pixels[:3]):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    chosen = CheckImages.of((40, 60, 3), tmp_path)
    np.testing.assert_array_equal(chosen.pixels, colour.pixels[:3])
    with pytest.raises(UserError, match="is not a folder with JPEG or PNG images"):
        CheckImages.of((40, 60, 3), tmp_path / "elsewhere")


def test_images_with_certain_predictions_show_little(backbone: Backbone) -> None:
    spec = make_spec()
    head = make_head(compute_features(backbone, spec), np.random.default_rng(0))
    sure = make_model(backbone, spec, make_fit(((head,),), offsets=np.eye(8)[0] * 1000))
    expected = Predictor(sure, backbone).predict(IMAGES.pixels).calibrated
    comparison = compare(
        lambda pixels: np.eye(8, dtype=np.float32)[np.zeros(len(pixels), int)], IMAGES.pixels, expected
    )
    assert comparison.passes
    assert not comparison.is_informative
