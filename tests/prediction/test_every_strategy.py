"""The saved model of every strategy predicts pixels as its fit has predicted cached features.

Strategies come from the registry, so a new one is covered without being named here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from saved_models import save_fits
from worlds import small_copy

from hirise_imb.backbones import Backbone
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.images import decode_image
from hirise_imb.data.manifest import read_manifest
from hirise_imb.data.splits import make_splits
from hirise_imb.features.extraction import extract_features
from hirise_imb.features.inputs import RequiredFeatures
from hirise_imb.prediction.model_file import read_model
from hirise_imb.prediction.predictor import Predictor
from hirise_imb.recipe import Recipe
from hirise_imb.strategies import CONTROL, STRATEGIES, RecipeContext, Strategy
from hirise_imb.testing.toy import CUTS, LAYERS
from hirise_imb.training.trainer import Trainer

TOLERANCE = 1e-5


@dataclass(frozen=True)
class World:
    trainer: Trainer
    pixels: np.ndarray
    """Pixels of the tested landmarks."""


@pytest.fixture(scope="module")
def world(whole_sample: Path, backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A trainer on the features of real files, with all that any strategy requires."""
    folder = tmp_path_factory.mktemp("data") / "data"
    data = small_copy(whole_sample, folder, 20, of_source=1)  # enough sources for projections
    manifest = read_manifest(data, HIRISE)
    required = RequiredFeatures.union(one.required_features(tuple(LAYERS), CUTS) for one in STRATEGIES.values())
    paths = [manifest.path(image) for image in manifest.table["image"]]
    keys = (*required.images, *required.canonical_images)
    features = extract_features(backbone, keys, paths, tmp_path_factory.mktemp("features"))
    splits = make_splits(manifest, 2)
    pixels = np.stack([decode_image(paths[row], HIRISE.image_shape) for row in splits.test])
    return World(Trainer(backbone, splits, features), pixels)


def make_recipe(strategy: Strategy) -> Recipe:
    """The recipe of the first settings that a search tries and that differ from the defaults, where there are any."""
    settings = strategy.initial_settings()
    bases = {base: make_recipe(STRATEGIES[base]) for base in strategy.depends_on}
    recipe = strategy.recipe(settings[-1], RecipeContext(CUTS, bases, tuple(LAYERS)))
    if not recipe.trained or recipe.monitor == "none":
        return recipe
    return replace(recipe, monitor="none", max_epochs=3, batch_size=8, learning_rate=1e-2)


@pytest.mark.parametrize("name", ["baseline", *STRATEGIES])
def test_a_saved_model_predicts_pixels_as_its_fits_predicted_features(
    name: str, world: World, backbone: Backbone, tmp_path: Path
) -> None:
    if name == "baseline":
        runs = [world.trainer.fit_reference(Recipe(max_epochs=3), seed) for seed in (0, 1)]
        recipe = Recipe()
    else:
        recipe = make_recipe(STRATEGIES[name])
        runs = world.trainer.fit_finals(recipe, (0, 1), world.trainer.cross_validate(recipe, (2, 3)))
    models = [run.model for run in runs]
    save_fits(tmp_path / "model", backbone, [one for one in models if one is not None], recipe.feature_spec)
    model = read_model(tmp_path / "model")
    assert len(model.fits) == 2

    output = Predictor(model, backbone).predict(world.pixels)

    by_seed = np.stack([run.test.probabilities.astype(np.float64) for run in runs])
    np.testing.assert_allclose(output.probabilities, by_seed.mean(axis=0), rtol=0, atol=TOLERANCE)
    # Calibrated probabilities are those of log p / T, by the textbook formula.
    powers = np.stack([p ** (1 / run.temperature) for p, run in zip(by_seed, runs, strict=True)])
    calibrated = (powers / powers.sum(axis=2, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(output.calibrated, calibrated, rtol=0, atol=TOLERANCE)


def test_models_differ_from_the_control(world: World) -> None:
    """Guards the test above: models of which every one predicted the same would pass it."""
    control, focal = (make_recipe(STRATEGIES[name]) for name in (CONTROL, "focal_loss"))
    runs = [
        world.trainer.fit_final(recipe, 0, world.trainer.cross_validate(recipe, (2, 3))) for recipe in (control, focal)
    ]
    assert np.abs(runs[0].test.probabilities - runs[1].test.probabilities).max() > 100 * TOLERANCE


def test_the_number_of_images_changes_no_prediction(world: World, backbone: Backbone, tmp_path: Path) -> None:
    run = world.trainer.fit_reference(Recipe(max_epochs=3), 0)
    assert run.model is not None
    save_fits(tmp_path / "model", backbone, [run.model])
    predictor = Predictor(read_model(tmp_path / "model"), backbone)
    together = predictor.predict(world.pixels)
    alone = [predictor.predict(image[None]).probabilities[0] for image in world.pixels[:5]]
    np.testing.assert_allclose(alone, together.probabilities[:5], rtol=0, atol=1e-6)
    assert predictor.predict(world.pixels[:0]).calibrated.shape == (0, len(HIRISE.classes))
