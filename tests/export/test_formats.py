"""Every format gives the calibrated probabilities of every kind of saved model, in its own runtime."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from saved_models import KINDS

from hirise_imb.backbones import Backbone
from hirise_imb.data.synthetic import draw_originals
from hirise_imb.export import FORMATS
from hirise_imb.export.check import compare
from hirise_imb.export.network import build_network
from hirise_imb.prediction.predictor import Predictor
from hirise_imb.utils.errors import UserError

PIXELS = draw_originals(64, seed=2)[..., None]
TOLERANCE = 1e-4
"""Ten times less than what the check of an export allows."""


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_runtime_gives_the_probabilities_of_the_model(
    kind: str, name: str, backbone: Backbone, tmp_path: Path
) -> None:
    export_format = FORMATS[name]
    for module in export_format.modules:
        pytest.importorskip(module)
    model = KINDS[kind](backbone)
    place = tmp_path / f"export{export_format.suffix}"
    export_format.write(build_network(model, backbone), place)
    comparison = compare(export_format.load(place), PIXELS, Predictor(model, backbone).predict(PIXELS).calibrated)
    print("DIFF", kind, name, comparison.largest_difference, comparison.uncertain)
    assert comparison.largest_difference < TOLERANCE
    assert comparison.is_informative
