"""Inputs of a head: statistics of layers against numpy, and one pass for all of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.data.images import decode_image
from hirise_imb.features import extraction
from hirise_imb.features.extraction import extract_features
from hirise_imb.features.inputs import (
    MAP,
    PLAIN,
    POOLINGS,
    TOP_MEAN,
    FeatureKey,
    Input,
    feature_keys,
    have_one_scale,
    with_view,
)

STATISTICS = ("mean", "std", "max", "gem")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(2)
    files = [folder / f"{number}.jpg" for number in range(5)]
    for file in files:
        Image.fromarray(rng.integers(0, 256, (9, 9), np.uint8)).resize((227, 227)).save(file, "JPEG")
    return files


def pool(maps: np.ndarray, statistic: str) -> np.ndarray:
    values = maps.astype(np.float64).reshape(len(maps), -1, maps.shape[-1])
    pooled = {
        "mean": values.mean(axis=1),
        "std": values.std(axis=1),
        "max": values.max(axis=1),
        "gem": np.cbrt((np.maximum(values, 1e-6) ** 3).mean(axis=1)),
    }
    return np.asarray(pooled[statistic])


def test_statistics_are_those_of_the_layer_in_one_pass(
    backbone: Backbone, paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: Counter[str] = Counter()

    def counting(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
        decoded[path.name] += 1
        return decode_image(path, shape)

    monkeypatch.setattr(extraction, "decode_image", counting)
    layers = ("early", "middle", "late", TOP)
    keys = [FeatureKey("plain", layer, statistic) for layer in layers for statistic in STATISTICS]
    features = extract_features(backbone, [*keys, FeatureKey("plain", "late", MAP)], paths, tmp_path)
    assert decoded == {path.name: 1 for path in paths}
    pixels = np.stack([decode_image(path, backbone.input_shape) for path in paths]).astype(np.float32)
    for key in keys:
        network = backbone.network
        layer = network.output if key.layer == TOP else network.get_layer(key.layer).output
        import keras

        expected = pool(np.asarray(keras.Model(network.input, layer)(pixels, training=False)), key.statistic)
        values = features[key].take(np.arange(len(paths)))
        assert values.dtype == np.float32
        assert expected.std() > 0.01  # otherwise anything would agree
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5, err_msg=str(key))
    again = extract_features(backbone, keys[::-1], paths, tmp_path)
    assert decoded.total() == len(paths)
    assert all(np.array_equal(again[key].stored, features[key].stored) for key in keys)


def test_features_of_a_key_are_not_those_of_another(backbone: Backbone, paths: list[Path], tmp_path: Path) -> None:
    keys = [FeatureKey(view, layer, s) for view in ("plain", "fh") for layer in ("late", TOP) for s in STATISTICS]
    features = extract_features(backbone, keys, paths, tmp_path)
    stores = {values.stored.filename for values in features.values() if isinstance(values.stored, np.memmap)}
    assert len(stores) == len(keys)
    assert len({values.stored.tobytes() for values in features.values()}) == len(keys)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (FeatureKey("plain", "late", "median"), "there is no statistic 'median'"),
        (FeatureKey("r45", TOP, "mean"), "view must be one of plain, r90"),
        (FeatureKey("plain", "nowhere", "std"), "No such layer: nowhere"),
    ],
)
def test_a_key_that_names_nothing_is_refused(
    key: FeatureKey, message: str, backbone: Backbone, paths: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        extract_features(backbone, [key], paths, tmp_path)


def test_an_input_is_a_concatenation_of_statistics() -> None:
    assert PLAIN[0].keys == (TOP_MEAN,)
    for pooling in ("mean", "mean_std", "mean_std_max"):
        assert [key.statistic for key in Input("fh", "late", pooling).keys] == pooling.split("_")
    assert Input(layer="late", pooling="gem").keys == (FeatureKey("plain", "late", "gem"),)
    assert set(POOLINGS) == {"mean", "mean_std", "mean_std_max", "gem"}
    inputs = (Input(layer="late"), Input(layer="late", pooling="mean_std"))
    assert feature_keys(inputs) == inputs[1].keys  # the mean once
    assert with_view(inputs, "fh") == (Input("fh", "late"), Input("fh", "late", "mean_std"))


def test_only_means_at_the_top_have_one_scale() -> None:
    assert have_one_scale(PLAIN)
    assert have_one_scale((Input(), Input("photometric")))
    assert not have_one_scale((Input(), Input(layer="late")))
    assert not have_one_scale((Input(pooling="mean_std"),))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"view": "r45"}, "view must be one of plain, r90"),
        ({"pooling": "std"}, "pooling must be one of mean, mean_std"),
    ],
)
def test_an_impossible_input_is_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Input(**fields)  # type: ignore[arg-type]
