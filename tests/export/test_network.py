"""One network computes the calibrated probabilities of every kind of saved model."""

from __future__ import annotations

import numpy as np
import pytest
from saved_models import KINDS

from hirise_imb.backbones import Backbone
from hirise_imb.data.synthetic import draw_originals
from hirise_imb.export.network import build_network
from hirise_imb.export.pixel_views import transform_pixels
from hirise_imb.features.views import DIHEDRAL, VIEWS
from hirise_imb.prediction.predictor import Predictor
from hirise_imb.utils.errors import UserError

PIXELS = draw_originals(40, seed=2)[..., None]


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_computes_what_the_model_predicts(kind: str, backbone: Backbone) -> None:
    model = KINDS[kind](backbone)
    expected = Predictor(model, backbone).predict(PIXELS).calibrated
    actual = np.asarray(build_network(model, backbone)(PIXELS.astype(np.float32)))
    print(kind, abs(actual - expected).max(), np.mean(expected.max(axis=1)), expected.std(axis=0).mean())
    assert expected.std(axis=0).mean() > 0.05  # or else the images would show nothing
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert actual.dtype == np.float32
