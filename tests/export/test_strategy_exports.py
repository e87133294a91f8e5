"""The network computes what the model of every strategy predicts, so that a new strategy can be exported."""

from __future__ import annotations

import numpy as np
import pytest
from export_models import make_model

from hirise_imb.backbones import Backbone
from hirise_imb.data.synthetic import draw_originals
from hirise_imb.export.network import build_network
from hirise_imb.prediction.predictor import Predictor
from hirise_imb.strategies import STRATEGIES
from hirise_imb.testing.strategies import make_quick_recipe, noisy_fits, succeeded

PIXELS = draw_originals(32, seed=3)[..., None]


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_model_of_a_strategy_can_be_exported(name: str, backbone: Backbone) -> None:
    recipe = make_quick_recipe(STRATEGIES[name])
    fit = succeeded(noisy_fits().final(recipe)).model
    assert fit is not None
    model = make_model(backbone, recipe.feature_spec, fit)
    expected = Predictor(model, backbone).predict(PIXELS).calibrated
    actual = np.asarray(build_network(model, backbone)(PIXELS.astype(np.float32)))
    assert expected.std(axis=0).max() > 0.02  # or else the images would show nothing
    np.testing.assert_allclose(actual, expected, atol=1e-5)
