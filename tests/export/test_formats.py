"""Every format gives the calibrated probabilities of every kind of saved model, in its own runtime."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from export_models import KINDS
from numpy.typing import NDArray

from hirise_imb.backbones import Backbone
from hirise_imb.data.synthetic import draw_originals
from hirise_imb.export import FORMATS
from hirise_imb.export.check import compare
from hirise_imb.export.network import build_network
from hirise_imb.prediction.predictor import Predictor
from hirise_imb.utils.errors import UserError

PIXELS = draw_originals(64, seed=2)[..., None]
TOLERANCE = 2e-4
"""A fifth of what the check of an export allows. Tails see feature maps that are rounded to float16: where a runtime
adds up in another order, some are rounded to the next number."""


@functools.cache
def make_export(kind: str, backbone: Backbone) -> tuple[Any, NDArray[Any]]:
    """Returns the network of a model, and the calibrated probabilities that the model predicts."""
    model = KINDS[kind](backbone)
    return build_network(model, backbone), Predictor(model, backbone).predict(PIXELS).calibrated


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_runtime_gives_the_probabilities_of_the_model(
    kind: str, name: str, backbone: Backbone, tmp_path: Path
) -> None:
    export_format = FORMATS[name]
    for module in export_format.modules:
        pytest.importorskip(module)
    network, expected = make_export(kind, backbone)
    place = tmp_path / f"export{export_format.suffix}"
    export_format.write(network, place)
    comparison = compare(export_format.load(place), PIXELS, expected)
    assert comparison.largest_difference < TOLERANCE
    assert comparison.uncertain > 32


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    for name in ("keras", "savedmodel", "litert"):
        FORMATS[name].check_packages()
    with pytest.raises(UserError, match=r"needs onnx and tf2onnx and onnxruntime: .*pip install 'hirise-imb\[onnx\]'"):
        FORMATS["onnx"].check_packages()
    with pytest.raises(UserError, match=r"needs openvino: .*pip install 'hirise-imb\[openvino\]'"):
        FORMATS["openvino"].check_packages()
