"""Standardisation and projection of features, against scikit-learn and their formulas."""

import numpy as np
import pytest
from builders import quick
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from hirise_imb.models.linear import LinearClassifier
from hirise_imb.models.preparation import Preparation, Standardisation

WIDTH = 5


def some_features(seed: int, n: int = 40) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, WIDTH)) * [1e-4, 1, 30, 2, 5] + [0, 5, -100, 0, 1]


def some_directions(seed: int, rank: int = 2) -> np.ndarray:
    return np.asarray(np.linalg.qr(np.random.default_rng(seed).normal(size=(WIDTH, rank)))[0])


@quick
@given(st.integers(0, 1000))
def test_standardisation_is_that_of_scikit_learn(seed: int) -> None:
    training, others = some_features(seed), some_features(seed + 1)
    preparation = Preparation(Standardisation.of(training))
    np.testing.assert_allclose(preparation.apply(others), StandardScaler().fit(training).transform(others), rtol=1e-9)
    assert preparation.apply(others.astype(np.float32)).dtype == np.float32


def test_a_constant_feature_becomes_0() -> None:
    """Its spread over training images says nothing about that over others, which could be scaled beyond measure."""
    training = some_features(0)
    training[:, 1] = np.float32(0.1)
    found = Preparation(Standardisation.of(training)).apply(some_features(1))
    np.testing.assert_array_equal(found[:, 1], 0)
    assert np.abs(found[:, [0, 2, 3, 4]]).max() < 10


@quick
@given(st.integers(0, 1000))
def test_directions_are_projected_out_after_standardisation(seed: int) -> None:
    training, u = some_features(seed), some_directions(seed)
    scaled = StandardScaler().fit(training).transform(some_features(seed + 1))
    found = Preparation(Standardisation.of(training), u).apply(some_features(seed + 1))
    np.testing.assert_allclose(found, scaled @ (np.eye(WIDTH) - u @ u.T), atol=1e-9)
    np.testing.assert_allclose(found @ u, 0, atol=1e-9)


def test_a_classifier_prepares_its_features() -> None:
    rng, training = np.random.default_rng(0), some_features(0)
    preparation = Preparation(Standardisation.of(training), some_directions(0))
    bare = LinearClassifier(rng.normal(size=(3, WIDTH)), rng.normal(size=3), rng.normal(size=WIDTH), np.ones(WIDTH))
    whole = LinearClassifier(bare.kernel, bare.bias, bare.centre, bare.gain, preparation=preparation)
    np.testing.assert_allclose(whole.logits(training), bare.logits(preparation.apply(training)), atol=1e-9)


def test_without_parts_features_stay_as_they_are() -> None:
    features = some_features(0)
    assert Preparation().apply(features) is features
    assert Preparation().is_identity
    assert not Preparation(Standardisation.of(features)).is_identity
    assert not Preparation(directions=some_directions(0)).is_identity


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Preparation(directions=np.ones((WIDTH, 1))), "directions must be orthonormal"),
        (lambda: Preparation(directions=np.ones(WIDTH)), r"directions must have shape \(width, rank\), got \(5,\)"),
        (
            lambda: Preparation(Standardisation.of(some_features(0)), np.eye(4, 1)),
            r"directions must have shape \(5, rank\), got \(4, 1\)",
        ),
        (lambda: Standardisation(np.zeros(3), np.ones(2)), r"must have shape \(width,\), got \(3,\) and \(2,\)"),
        (lambda: Standardisation(np.zeros(3), np.full(3, np.nan)), "must be finite"),
    ],
)
def test_what_is_no_preparation_is_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
