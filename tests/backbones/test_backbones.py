"""The two backbones with names of their own: cuts, weights, preprocessing, downloads, and what training may change."""

from __future__ import annotations

import functools
import hashlib
import http.client
import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import keras
import numpy as np
import numpy.typing as npt
import pytest
from published_weights import write_published_format

from hirise_imb.backbones import BACKBONES, TOP, Backbone, efficientnet_lite0
from hirise_imb.backbones.keras_applications import NETWORKS, make_card
from hirise_imb.data.hirise import HIRISE
from hirise_imb.utils.errors import UserError

Array = npt.NDArray[np.float32]

NAMES = ["efficientnet-lite0", "resnet50v2"]
CUTS = [(name, cut) for name in NAMES for cut in BACKBONES[name].cuts]
RESNET = NETWORKS["ResNet50V2"]


@pytest.fixture(scope="module")
def images() -> Array:
    """Three grey images, `(3, 227, 227, 1)` in 0..255: noise, a ramp, a constant."""
    noise = np.random.default_rng(5).integers(0, 256, (227, 227))
    ramp = np.linspace(0, 255, 227)[:, np.newaxis] * np.ones(227)
    return np.stack([noise, ramp, np.full((227, 227), 90)]).astype(np.float32)[..., np.newaxis]


@pytest.fixture(scope="module")
def lite() -> Backbone:
    return BACKBONES["efficientnet-lite0"].load("imagenet", HIRISE.image_shape)


@pytest.fixture(scope="module")
def resnet() -> Backbone:
    return BACKBONES["resnet50v2"].load("random", HIRISE.image_shape)


@pytest.fixture(scope="module")
def plain_resnet(resnet: Backbone) -> keras.Model:
    """Keras's own ResNet50V2 on three channels, with the weights of `resnet`."""
    model = keras.applications.ResNet50V2(include_top=False, weights=None, input_shape=(227, 227, 3))
    model.set_weights(resnet.network.get_weights())
    return model


@pytest.fixture(scope="module")
def plain_features(plain_resnet: keras.Model, images: Array) -> Array:
    """What Keras's own preprocessing and ResNet50V2 make of the images as three equal channels."""
    colour = np.repeat(images, 3, axis=-1)  # a copy; preprocess_input works in place
    return run(plain_resnet, keras.applications.resnet_v2.preprocess_input(colour))


@pytest.fixture(scope="module")
def both(lite: Backbone, resnet: Backbone) -> dict[str, Backbone]:
    return {"efficientnet-lite0": lite, "resnet50v2": resnet}


@pytest.fixture(scope="module")
def pooled(both: dict[str, Backbone], images: Array) -> dict[str, Array]:
    """Each backbone's pooled features of the images."""
    return {name: run(backbone.trunk(TOP), images) for name, backbone in both.items()}


def run(model: keras.Model, batch: Array) -> Array:
    return np.asarray(model(batch, training=False))


def assert_close(ours: Array, theirs: Array) -> None:
    """Equal within float32 rounding, relative to the largest value."""
    assert np.abs(theirs).max() > 0
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


class TestCuts:
    @pytest.mark.parametrize(("name", "cut"), CUTS)
    def test_tail_of_trunk_is_the_whole(
        self, name: str, cut: str, both: dict[str, Backbone], images: Array, pooled: dict[str, Array]
    ) -> None:
        cached = run(both[name].trunk(cut), images)
        assert_close(run(both[name].tail(cut), cached), pooled[name])

    @pytest.mark.parametrize("name", NAMES)
    def test_features_are_pooled_and_as_wide_as_the_card_says(self, name: str, pooled: dict[str, Array]) -> None:
        assert pooled[name].shape == (3, BACKBONES[name].feature_width)

    @pytest.mark.parametrize("name", NAMES)
    def test_tail_at_top_is_the_identity(self, name: str, both: dict[str, Backbone], pooled: dict[str, Array]) -> None:
        np.testing.assert_array_equal(run(both[name].tail(TOP), pooled[name]), pooled[name])

    @pytest.mark.parametrize(("name", "cut"), CUTS)
    def test_every_path_from_pixels_passes_the_cut(self, name: str, cut: str, both: dict[str, Backbone]) -> None:
        # A tail that reached around its cut would have to contain the pixels as a second input.
        tail = both[name].tail(cut)
        assert len(tail.inputs) == 1
        assert tail.inputs[0].shape == both[name].trunk(cut).output.shape
        assert tail.output.shape == (None, BACKBONES[name].feature_width)

    def test_shapes_at_the_cuts_of_lite0(self, lite: Backbone) -> None:
        assert {cut: lite.trunk(cut).output.shape[1:] for cut in lite.card.cuts} == {
            "head_conv": (8, 8, 320),
            "block7": (8, 8, 192),
            "block6d": (8, 8, 192),
        }
        assert lite.network.output.shape == (None, 8, 8, 1280)

    @pytest.mark.parametrize("name", NAMES)
    def test_cuts_are_ordered_by_how_much_they_train(self, name: str, both: dict[str, Backbone]) -> None:
        trained = [
            sum(int(np.prod(weight.shape)) for weight in both[name].tail(cut).trainable_weights)
            for cut in (TOP, *BACKBONES[name].cuts)
        ]
        assert trained == sorted(trained)
        assert len(set(trained)) == len(trained)


class TestWhatTrainingMayChange:
    @pytest.mark.parametrize(("cut", "layers"), [("head_conv", 1), ("block7", 1 + 3), ("block6d", 1 + 3 + 3)])
    def test_a_step_moves_kernels_and_no_batch_norm(self, cut: str, layers: int, lite: Backbone, images: Array) -> None:
        network_before = lite.network.get_weights()
        tail = lite.tail(cut)
        before = tail.get_weights()
        model = keras.Sequential([tail, keras.layers.Dense(8)])
        model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.train_on_batch(run(lite.trunk(cut), images), np.array([0, 1, 2]))

        kernels = {weight.path for weight in tail.weights if weight.name == "kernel"}
        moved = {
            weight.path for weight, was in zip(tail.weights, before, strict=True) if (np.array(weight) != was).any()
        }
        assert len(kernels) == layers
        assert moved == kernels
        # The backbone itself, and with it every tail to come, stays as published.
        for weight, was in zip(lite.network.get_weights(), network_before, strict=True):
            np.testing.assert_array_equal(weight, was)

    @pytest.mark.parametrize("name", NAMES)
    def test_the_network_is_frozen(self, name: str, both: dict[str, Backbone]) -> None:
        assert not both[name].network.trainable_weights


class TestResnet50V2:
    def test_parameters_are_those_of_the_reference(self, resnet: Backbone) -> None:
        assert resnet.network.count_params() == 23_564_800

        features = resnet.trunk(TOP)
        x = keras.layers.BatchNormalization()(features.output)
        x = keras.layers.Dropout(0.2)(x)
        model = keras.Model(features.input, keras.layers.Dense(8)(x))
        assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == 20_488
        assert sum(int(np.prod(weight.shape)) for weight in model.non_trainable_weights) == 23_568_896

    def test_grey_is_preprocessed_as_keras_does_with_colour(
        self, resnet: Backbone, plain_features: Array, images: Array
    ) -> None:
        assert_close(run(resnet.network, images), plain_features)


class TestEfficientNetLite0:
    def test_grey_is_preprocessed_as_published(self, lite: Backbone, images: Array) -> None:
        scaled = run(keras.Model(lite.network.input, lite.network.get_layer("rescaling").output), images)
        np.testing.assert_allclose(scaled, np.repeat((images - 127) / 128, 3, axis=-1), rtol=0, atol=1e-6)

    def test_activations_stay_in_the_range_of_relu6(self, lite: Backbone, images: Array) -> None:
        features = run(lite.network, images)
        assert features.min() == 0
        assert 1 < features.max() <= 6

    def test_features_are_those_of_the_original(self, pooled: dict[str, Array]) -> None:
        # Strongest channels and their values, and the length, from the original PyTorch network at 227x227.
        ours = pooled["efficientnet-lite0"]
        strongest = [[113, 455, 994], [872, 468, 71], [468, 872, 29]]
        theirs = [[4.909116, 4.5778213, 3.9774854], [4.683133, 4.456169, 4.2475224], [5.2649255, 3.3206947, 2.9136808]]
        np.testing.assert_array_equal(np.argsort(-ours, axis=1)[:, :3], strongest)
        np.testing.assert_allclose(np.take_along_axis(ours, np.array(strongest), 1), theirs, rtol=1e-3)
        np.testing.assert_allclose(np.linalg.norm(ours, axis=1), [15.855877, 12.366893, 10.645566], rtol=1e-4)

    def test_parameters(self, lite: Backbone) -> None:
        assert lite.network.count_params() == 3_413_024

    def test_the_weights_file_is_small_and_computed_with_in_float32(self, lite: Backbone) -> None:
        assert efficientnet_lite0.EMBEDDED_WEIGHTS.stat().st_size < 8_000_000
        assert {weight.dtype for weight in lite.network.weights} == {"float32"}

    def test_a_saved_file_gives_the_same_network(self, lite: Backbone, tmp_path: Path) -> None:
        lite.network.save_weights(tmp_path / "copy.weights.h5")
        assert lite.card.load(str(tmp_path / "copy.weights.h5"), HIRISE.image_shape).digest == lite.digest


@pytest.mark.parametrize("name", NAMES)
class TestColour:
    def test_three_channels_are_used_as_they_are(self, name: str) -> None:
        grey, colour = (BACKBONES[name].load("random", (64, 64, channels)) for channels in (1, 3))
        assert colour.input_shape == (64, 64, 3)
        assert grey.input_shape == (64, 64, 1)
        assert colour.digest == grey.digest  # weights do not depend on the number of channels
        pixels = np.random.default_rng(6).integers(0, 256, (2, 64, 64, 3)).astype(np.float32)
        features = run(colour.trunk(TOP), pixels)
        assert features.shape == (2, BACKBONES[name].feature_width)
        equal = np.repeat(pixels[..., :1], 3, axis=-1)
        assert_close(run(colour.trunk(TOP), equal), run(grey.trunk(TOP), pixels[..., :1]))
        # The order of the channels matters, so none is dropped.
        assert np.abs(run(colour.trunk(TOP), pixels[..., ::-1]) - features).max() > 1e-3 * np.abs(features).max()
        [cut, *_] = BACKBONES[name].cuts
        assert_close(run(colour.tail(cut), run(colour.trunk(cut), pixels)), features)


class TestDigest:
    def test_is_stable_over_loads(self, lite: Backbone) -> None:
        assert len(lite.digest) == 64
        assert lite.card.load("imagenet", HIRISE.image_shape).digest == lite.digest

    def test_tells_weights_apart(self, lite: Backbone) -> None:
        assert lite.card.load("random", HIRISE.image_shape).digest != lite.digest

    @pytest.mark.parametrize("name", NAMES)
    def test_random_weights_are_the_same_each_time(self, name: str) -> None:
        # Otherwise a study on them could not be continued, and one seed would give two results.
        first, second = (BACKBONES[name].load("random", HIRISE.image_shape).digest for _ in range(2))
        assert first == second

    def test_sees_one_changed_number(self) -> None:
        before, after = (self.small_backbone(bias) for bias in (0.0, 1e-7))
        assert before.digest != after.digest

    @staticmethod
    def small_backbone(bias: float) -> Backbone:
        network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        network.set_weights([np.ones((2, 1)), np.array([bias])])
        return Backbone(BACKBONES["efficientnet-lite0"], network)


class TestUnusableWeights:
    @pytest.mark.parametrize("name", NAMES)
    def test_a_missing_file(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"no .*weights file .*absent\.weights\.h5: name a .*`random`"):
            BACKBONES[name].load(str(tmp_path / "absent.weights.h5"), HIRISE.image_shape)

    @pytest.mark.parametrize(
        ("name", "file_name"),
        [
            ("resnet50v2", "bad.h5"),
            *(("efficientnet-lite0", name) for name in ("bad.weights.h5", "bad.h5", "bad.keras", "bad.pth")),
        ],
    )
    def test_a_file_that_holds_no_weights(self, name: str, file_name: str, tmp_path: Path) -> None:
        (tmp_path / file_name).write_bytes(b"no weights" * 50)
        with pytest.raises(UserError, match=rf"{file_name} .*does not contain .*weights.*: (use|name) "):
            BACKBONES[name].load(str(tmp_path / file_name), HIRISE.image_shape)

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("file_name", ["other.weights.h5", "other.h5", "attribute.h5"])
    @pytest.mark.filterwarnings("default:Skipping nested container")
    def test_a_file_of_another_network(
        self, name: str, file_name: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
    ) -> None:
        path = tmp_path / file_name
        other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        if file_name == "other.weights.h5":
            other.save_weights(path)
        elif file_name == "other.h5":
            write_published_format(other, path)
        else:
            with h5py.File(path, "w") as file:
                file.attrs["layer_names"] = 3
        with pytest.raises(UserError, match=rf"{file_name} .*does not contain .*weights"):
            BACKBONES[name].load(str(path), HIRISE.image_shape)
        assert not [warning for warning in recwarn if "Skipping" in str(warning.message)]

    def test_half_of_the_right_file(self, tmp_path: Path) -> None:
        content = efficientnet_lite0.EMBEDDED_WEIGHTS.read_bytes()
        (tmp_path / "half.weights.h5").write_bytes(content[: len(content) // 2])
        with pytest.raises(UserError, match=r"half\.weights\.h5 does not contain weights"):
            BACKBONES["efficientnet-lite0"].load(str(tmp_path / "half.weights.h5"), HIRISE.image_shape)

    def test_the_embedded_file_is_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(efficientnet_lite0, "EMBEDDED_WEIGHTS", tmp_path / "lost.weights.h5")
        with pytest.raises(UserError, match=r"lost\.weights\.h5: install the package again"):
            BACKBONES["efficientnet-lite0"].load("imagenet", HIRISE.image_shape)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server of `tmp_path/served` on this machine, where `imagenet` weights are looked for; an empty Keras cache."""
    (tmp_path / "served").mkdir()
    handler = functools.partial(_Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        replace_facts(monkeypatch, address=f"{address}/{RESNET.file_name}")
        # Keras reads KERAS_HOME when it is imported; too late to move its cache by that.
        get_file = functools.partial(keras.utils.get_file, cache_dir=str(tmp_path / "cache"))
        monkeypatch.setattr(keras.utils, "get_file", get_file)
        yield address
        server.shutdown()


def replace_facts(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    """Replaces what is known of the published weights of `resnet50v2`."""
    [facts, name] = BACKBONES["resnet50v2"].build.args  # type: ignore[attr-defined]
    card = replace(BACKBONES["resnet50v2"], build=make_card(replace(facts, **changes), name=name).build)
    monkeypatch.setitem(BACKBONES, "resnet50v2", card)


@pytest.mark.usefixtures("address")
class TestDownload:
    def test_the_served_file_is_loaded_and_kept(
        self,
        plain_resnet: keras.Model,
        resnet: Backbone,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        served = tmp_path / "served" / RESNET.file_name
        write_published_format(plain_resnet, served)
        digest = hashlib.md5(served.read_bytes(), usedforsecurity=False).hexdigest()
        replace_facts(monkeypatch, digest=digest)
        card = BACKBONES["resnet50v2"]
        assert card.load("imagenet", HIRISE.image_shape).digest == resnet.digest

        # The second time without the server's file, and the third as a file that the user names.
        local = served.rename(tmp_path / "local.h5")
        assert card.load("imagenet", HIRISE.image_shape).digest == resnet.digest
        assert card.load(str(local), HIRISE.image_shape).digest == resnet.digest

    def test_not_found(self) -> None:
        with pytest.raises(UserError, match=r"can't be downloaded: fetch http://127.*md5 fac2f116.*--weights.*lite0"):
            BACKBONES["resnet50v2"].load("imagenet", HIRISE.image_shape)

    def test_wrong_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "served" / RESNET.file_name).write_bytes(b"wrong")
        with pytest.raises(
            UserError, match=r"can't be downloaded: fetch .*\(md5 fac2f116.*--backbone efficientnet-lite0"
        ):
            BACKBONES["resnet50v2"].load("imagenet", HIRISE.image_shape)

    def test_no_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        replace_facts(monkeypatch, address="http://127.0.0.1:9/weights.h5")
        with pytest.raises(UserError, match=r"can't be downloaded: fetch http://127\.0\.0\.1:9/weights\.h5"):
            BACKBONES["resnet50v2"].load("imagenet", HIRISE.image_shape)

    def test_a_server_that_speaks_no_http(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*arguments: object, **options: object) -> None:
            raise http.client.BadStatusLine("SSH-2.0")

        monkeypatch.setattr(keras.utils, "get_file", refuse)
        with pytest.raises(UserError, match="can't be downloaded"):
            BACKBONES["resnet50v2"].load("imagenet", HIRISE.image_shape)

    def test_a_fault_of_ours_is_not_called_a_download_fault(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*arguments: object, **options: object) -> None:
            raise TypeError("programming error")

        monkeypatch.setattr(keras.utils, "get_file", broken)
        with pytest.raises(TypeError, match="programming error"):
            BACKBONES["resnet50v2"].load("imagenet", HIRISE.image_shape)
