"""One network computes the calibrated probabilities of every kind of saved model."""

from __future__ import annotations

import numpy as np
import pytest
from export_models import KINDS

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
    assert expected.std(axis=0).mean() > 0.05  # or else the images would show nothing
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert actual.dtype == np.float32


@pytest.mark.parametrize("view", [*DIHEDRAL, "photometric"])
def test_views_are_those_of_features(view: str) -> None:
    pixels = PIXELS[:8].copy()
    pixels[0] = 0
    pixels[1] = 101
    pixels[2, :50] = 0
    pixels[3] = np.random.default_rng(0).integers(0, 2, pixels[3].shape) * 255  # clipped
    expected = np.stack([VIEWS[view](image) for image in pixels]).astype(np.float32)
    np.testing.assert_allclose(transform_pixels(pixels.astype(np.float32), view), expected, atol=1e-3)


def test_colours_of_the_photometric_view_share_mean_and_deviation() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3)).astype(np.uint8)
    pixels[:, :, :5, 0] = 0  # no black pixels, since other channels are not 0
    pixels[:, :3] = 0
    expected = np.stack([VIEWS["photometric"](image) for image in pixels]).astype(np.float32)
    np.testing.assert_allclose(transform_pixels(pixels.astype(np.float32), "photometric"), expected, atol=1e-3)


def test_a_view_that_only_trains_is_refused() -> None:
    with pytest.raises(UserError, match="the view brighter can't be exported"):
        transform_pixels(PIXELS.astype(np.float32), "brighter")
