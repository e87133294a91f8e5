"""The networks of keras.applications: their table, preprocessing, weights files and cuts.

Tests of every network that Keras offers are run by `make test-networks`, in about 30 minutes.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import numpy.typing as npt
import pytest
from published_weights import write_published_format

from hirise_imb.backbones import BACKBONES, TOP, Backbone
from hirise_imb.backbones.cut_points import find_cut_points
from hirise_imb.backbones.keras_applications import NETWORKS, PREPROCESSING, make_card
from hirise_imb.cli.main import main
from hirise_imb.config import check_known
from hirise_imb.data.hirise import HIRISE
from hirise_imb.strategies.representation import MAX_DEPTH
from hirise_imb.testing import backbone_checks, check_backbone
from hirise_imb.testing.checks import Check
from hirise_imb.utils.errors import UserError
from tools import describe_keras_networks

Array = npt.NDArray[np.float32]
Capture = pytest.CaptureFixture[str]

SMALL = (64, 64, 1)
ONE_OF_EACH_PREPROCESSING = ["MobileNet", "DenseNet121", "VGG16", "MobileNetV3Small", "EfficientNetB0"]
LARGE = ["DenseNet121", "VGG16", "EfficientNetB0"]
"""Those of them that take long to build."""


def run(model: keras.Model, batch: Array) -> Array:
    return np.asarray(model(batch, training=False))


def assert_close(ours: Array, theirs: Array) -> None:
    """Equal within float32 rounding, relative to the largest value."""
    assert np.abs(theirs).max() > 0
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * np.abs(theirs).max())


@pytest.fixture(autouse=True)
def _free_memory() -> Iterator[None]:
    yield
    keras.backend.clear_session()
    gc.collect()


def write_weights(name: str, size: int, path: Path) -> None:
    """Writes the weights of Keras' own network, random where training would have changed them, to a published file."""
    network = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(size, size, 3))
    random = np.random.default_rng(8)
    for weight in network.weights:
        # Statistics and scales at 1 and offsets at 0 would hide what is done with them.
        if weight.name in ("moving_variance", "variance", "gamma"):
            weight.assign(random.uniform(0.5, 1.5, weight.shape) * np.asarray(weight))
        elif weight.name in ("moving_mean", "mean", "beta"):
            weight.assign(random.uniform(-0.1, 0.1, weight.shape) + np.asarray(weight))
    write_published_format(network, path)


def assert_same_as_keras(name: str, size: int, folder: Path) -> None:
    """Checks features of colour images against Keras' own loading of ImageNet weights and its `preprocess_input`."""
    path = folder / NETWORKS[name].file_name
    write_weights(name, size, path)
    pixels = np.random.default_rng(7).integers(0, 256, (2, size, size, 3)).astype(np.float32)
    module = getattr(keras.applications, NETWORKS[name].module)
    with mock.patch("keras.src.utils.file_utils.get_file", return_value=str(path)):
        theirs = getattr(keras.applications, name)(include_top=False, weights="imagenet", input_shape=(size, size, 3))
        expected = run(theirs, module.preprocess_input(pixels.copy()))
    del theirs
    ours = BACKBONES[f"keras:{name}"].load(str(path), (size, size, 3))
    assert_close(run(ours.network, pixels), expected)


class TestTable:
    def test_every_network_that_keras_offers_is_a_backbone(self) -> None:
        assert list(NETWORKS) == describe_keras_networks.network_names()
        assert {f"keras:{name}" for name in NETWORKS} == {name for name in BACKBONES if name.startswith("keras:")}

    @pytest.mark.parametrize("name", NETWORKS)
    def test_what_can_be_compared_without_building_it(self, name: str) -> None:
        facts = NETWORKS[name]
        module = getattr(keras.applications, facts.module)
        pixels = np.random.default_rng(7).integers(0, 256, (1, 4, 4, 3)).astype(np.float32)
        keras_leaves_it = bool((module.preprocess_input(pixels.copy()) == pixels).all())
        assert keras_leaves_it == facts.preprocessing.startswith("included")
        assert len(facts.cuts) == 2
        assert len(facts.layers) >= MAX_DEPTH
        assert facts.address.startswith("https://storage.googleapis.com/")

    def test_the_documentation_lists_them(self) -> None:
        text = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text("utf-8")
        assert [name for name in BACKBONES if f"`{name.removeprefix('keras:')}`" not in text] == []


class TestNames:
    @pytest.mark.parametrize("name", ["keras:convnexttiny", "ConvNeXtTiny", "keras:ConvNextTiny"])
    def test_a_misspelt_one_gets_a_suggestion(self, name: str) -> None:
        with pytest.raises(UserError, match="did you mean keras:ConvNeXtTiny"):
            check_known("backbone", name, BACKBONES)

    def test_layers_are_found_whatever_was_built_before(self) -> None:
        card = BACKBONES["keras:ConvNeXtTiny"]
        for _ in range(2):
            network = card.build("random", SMALL)
            names = {layer.name for layer in network.layers}
            assert {*card.layers, *card.cuts.values()} <= names


@pytest.mark.parametrize("check", backbone_checks(BACKBONES["keras:MobileNetV3Small"], input_shape=SMALL), ids=str)
def test_a_small_network_passes_the_contract(check: Check) -> None:
    check()


class TestWeights:
    def test_there_is_one_network_for_each_preprocessing(self) -> None:
        assert {NETWORKS[name].preprocessing for name in ONE_OF_EACH_PREPROCESSING} == set(PREPROCESSING)

    @pytest.mark.parametrize(
        "name",
        [pytest.param(name, marks=[pytest.mark.networks] * (name in LARGE)) for name in ONE_OF_EACH_PREPROCESSING],
    )
    @pytest.mark.filterwarnings("ignore:`input_shape` is undefined or non-square")
    def test_features_are_those_of_keras_with_its_own_preprocessing(self, name: str, tmp_path: Path) -> None:
        assert_same_as_keras(name, 64, tmp_path)

    def test_grey_is_three_equal_channels(self, tmp_path: Path) -> None:
        # With different means of the channels, preprocessed grey is not grey.
        write_weights("VGG16", 64, tmp_path / "weights.h5")
        card = BACKBONES["keras:VGG16"]
        grey = np.random.default_rng(7).integers(0, 256, (2, 64, 64, 1)).astype(np.float32)
        features = run(card.load(str(tmp_path / "weights.h5"), SMALL).trunk(TOP), grey)
        colour = card.load(str(tmp_path / "weights.h5"), (64, 64, 3))
        assert_close(features, run(colour.trunk(TOP), np.repeat(grey, 3, axis=-1)))

    def test_a_file_that_keras_saves_is_read(self, tmp_path: Path) -> None:
        network = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(64, 64, 3))
        network.save_weights(tmp_path / "mine.weights.h5")
        loaded = BACKBONES["keras:EfficientNetB0"].load(str(tmp_path / "mine.weights.h5"), SMALL).network
        assert_same = np.testing.assert_array_equal
        assert_same(loaded.get_layer("top_conv").get_weights(), network.get_layer("top_conv").get_weights())

    def test_a_file_of_another_network_is_refused(self, tmp_path: Path) -> None:
        write_weights("MobileNet", 64, tmp_path / "other.h5")
        with pytest.raises(
            UserError,
            match=r"other\.h5 \(sha256 [0-9a-f]{64}\) does not contain ConvNeXtTiny weights without top "
            r"\(it has \d+ arrays, and keras-ConvNeXtTiny has 180\): "
            r"use https://.*convnext_tiny_notop\.h5 \(sha256 [0-9a-f]{64}\)",
        ):
            BACKBONES["keras:ConvNeXtTiny"].load(str(tmp_path / "other.h5"), SMALL)

    def test_where_to_get_a_file_that_can_not_be_downloaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        requests = []

        def no_network(*arguments: object, **options: object) -> None:
            requests.append((*arguments, options["file_hash"]))
            raise Exception("URL fetch failure: name resolution")

        monkeypatch.setattr(keras.utils, "get_file", no_network)
        with pytest.raises(
            UserError,
            match=r"The ImageNet weights of keras:MobileNet can't be downloaded: fetch "
            r"https://storage\S*/mobilenet_1_0_224_tf_no_top\.h5 on a machine with network and name the file with "
            r"--weights, or use --backbone efficientnet-lite0, which needs no download\.",
        ):
            BACKBONES["keras:MobileNet"].load("imagenet", SMALL)
        facts = NETWORKS["MobileNet"]
        assert requests == [(facts.file_name, facts.address, None)]


class TestImageSize:
    def test_images_that_are_too_small_are_refused(self) -> None:
        with pytest.raises(
            UserError,
            match=r"keras:InceptionV3 needs images of at least 75 x 75 pixels, and these have 64 x 64: use another",
        ):
            BACKBONES["keras:InceptionV3"].load("random", SMALL)
        BACKBONES["keras:InceptionV3"].check_image_size((75, 75, 3))

    @pytest.mark.parametrize("command", ["run", "plan"])
    def test_the_data_are_compared_with_it_first(
        self, command: str, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
    ) -> None:
        large = replace(BACKBONES["keras:MobileNetV3Small"], min_size=300)
        monkeypatch.setitem(BACKBONES, large.name, large)
        words = [command, "--backbone", large.name, "--data", str(small_data), "--out", str(tmp_path)]
        assert main(words) == 2
        assert "needs images of at least 300 x 300 pixels, and these have 227 x 227" in capsys.readouterr().err


class TestCutPoints:
    def test_a_chain(self) -> None:
        pixels = keras.Input((32, 32, 3))
        x = pixels
        for stage in (1, 2):
            for index in (1, 2):
                x = keras.layers.Conv2D(4, 3, padding="same", name=f"conv{stage}_{index}")(x)
            x = keras.layers.MaxPooling2D(name=f"pool{stage}")(x)
        points = find_cut_points(keras.Model(pixels, x))
        layers = {cut: each.layer for cut, each in points.cuts.items()}
        assert layers == {"last_block": "conv2_1", "last_stage": "pool1"}
        assert points.layers == ("conv2_1", "pool1")

    def test_blocks_with_additions(self) -> None:
        pixels = keras.Input((32, 32, 3))
        x = keras.layers.Conv2D(4, 3, padding="same", name="stem")(pixels)
        for stage in (1, 2):
            x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name=f"down{stage}")(x)
            for index in (1, 2, 3):
                y = keras.layers.Conv2D(4, 3, padding="same", name=f"conv{stage}_{index}")(x)
                x = keras.layers.Add(name=f"add{stage}_{index}")([x, y])
                x = keras.layers.ReLU(name=f"relu{stage}_{index}")(x)
        points = find_cut_points(keras.Model(pixels, x))
        # The activation after an addition is the end of its block.
        layers = {cut: each.layer for cut, each in points.cuts.items()}
        assert layers == {"last_block": "relu2_2", "last_stage": "relu1_3"}
        assert points.cuts["last_stage"].shape == (16, 16, 4)
        assert points.cuts["last_stage"].n_above == 4 * 9 * 4 * 4
        assert points.layers == ("relu2_2", "relu2_1", "relu1_3")

    def test_paths_around_every_layer(self) -> None:
        pixels = keras.Input((32, 32, 3))
        left = keras.layers.Conv2D(4, 3, name="left")(pixels)
        right = keras.layers.Conv2D(4, 3, name="right")(pixels)
        network = keras.Model(pixels, keras.layers.Add()([left, right]), name="forked")
        with pytest.raises(ValueError, match=r"No layer of forked below the top is passed by every path\."):
            find_cut_points(network)


@pytest.mark.networks
class TestEveryNetwork:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_the_table_is_up_to_date(self, name: str) -> None:
        assert asdict(describe_keras_networks.describe(name)) == asdict(NETWORKS[name])

    @pytest.mark.parametrize("name", NETWORKS)
    def test_it_passes_the_contract(self, name: str) -> None:
        check_backbone(make_card(NETWORKS[name]))

    @pytest.mark.parametrize("name", NETWORKS)
    @pytest.mark.filterwarnings("ignore:`input_shape` is undefined or non-square")
    def test_weights_and_preprocessing_are_those_of_keras(self, name: str, tmp_path: Path) -> None:
        assert_same_as_keras(name, 96, tmp_path)
        next(tmp_path.iterdir()).unlink()  # up to 1.4 GB

    @pytest.mark.parametrize("name", NETWORKS)
    def test_four_images_are_extracted(self, name: str) -> None:
        backbone: Backbone = BACKBONES[f"keras:{name}"].load("random", HIRISE.image_shape)
        pixels = np.random.default_rng(9).integers(0, 256, (4, *HIRISE.image_shape)).astype(np.float32)
        outputs = [backbone.network.get_layer(layer).output for layer in backbone.card.layers]
        maps = keras.Model(backbone.network.input, [backbone.network.output, *outputs])(pixels, training=False)
        for values in map(np.asarray, maps):
            assert values.shape[0] == 4
            assert np.isfinite(values).all()
            assert (values.mean((1, 2)).std(axis=0) > 0).any()
        assert maps[0].shape[-1] == backbone.card.feature_width
