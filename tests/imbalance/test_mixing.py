"""Mixup and Remix, against the papers' formulas row by row."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from builders import quick
from hypothesis import given
from hypothesis import strategies as st

from hirise_imb.imbalance.mixing import Mixing, Mixture, Mixup, Remix

LANDMARKS = np.array([60, 24, 12, 9, 8, 7, 6, 5])
BATCH = 20
Array = np.ndarray


def remix_label(share: float, own: int, partner: int, kappa: float, tau: float) -> float:
    """Equation 8 of Chou et al. (2020): the weight of the row's own label."""
    if own / partner >= kappa and share < tau:
        return 0.0
    if own / partner <= 1 / kappa and 1 - share < tau:
        return 1.0
    return share


def mix_plainly(x: Array, y: Array, mixture: Mixture) -> tuple[Array, Array]:
    """The mixed rows one by one."""
    features, labels = np.zeros_like(x), np.zeros((len(y), 8))
    for row, (partner, share, label_share) in enumerate(zip(*mixture, strict=True)):
        features[row] = share * x[row] + (1 - share) * x[partner]
        labels[row, y[row]] += label_share
        labels[row, y[partner]] += 1 - label_share
    return features, labels


@pytest.fixture
def labels() -> Array:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(8), LANDMARKS))


@quick
@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 500), st.integers(1, 500)), min_size=1, max_size=20),
    st.sampled_from([1.5, 3.0, 10.0]),
    st.floats(0.1, 1),
)
def test_labels_of_remix_are_those_of_the_paper(rows: list[tuple[float, int, int]], kappa: float, tau: float) -> None:
    weights, own, partner = (np.array(column) for column in zip(*rows, strict=True))
    expected = [remix_label(*row, kappa, tau) for row in rows]
    np.testing.assert_array_equal(Remix(1.0, kappa, tau).label_weights(weights, own, partner), expected)
    np.testing.assert_array_equal(Mixup(1.0).label_weights(weights, own, partner), weights)


@pytest.mark.parametrize(
    ("share", "own", "partner", "expected"),
    [
        (0.4, 30, 10, 0.0),  # the frequent class has less than half of the features
        (0.6, 30, 10, 0.6),
        (0.4, 29, 10, 0.4),  # it is not three times as frequent
        (0.6, 10, 30, 1.0),
        (0.4, 10, 30, 0.4),
        (0.6, 10, 29, 0.6),
        (0.5, 30, 10, 0.5),
        (0.5, 10, 30, 0.5),
        (0.2, 10, 10, 0.2),
    ],
)
def test_the_rarer_class_has_the_label_if_it_has_most_of_the_features(
    share: float, own: int, partner: int, expected: float
) -> None:
    found = Remix().label_weights(np.array([share]), np.array([own]), np.array([partner]))
    assert found == pytest.approx([expected])


def test_with_tau_one_the_rarer_class_has_the_label_if_it_has_any_of_the_features() -> None:
    shares, own, partner = np.array([0.0, 0.01, 0.99, 1.0]), np.array([30, 10, 30, 10]), np.array([10, 30, 10, 30])
    assert Remix(tau=1.0).label_weights(shares, own, partner).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("mixing", [Mixup(0.3), Remix(1.0), Remix(2.0, 1.5, 0.9)], ids=str)
def test_rows_are_mixed_with_partners_of_their_mini_batch(mixing: Mixing, labels: Array) -> None:
    x = np.random.default_rng(1).normal(size=(len(labels), 3, 3, 2)).astype(np.float32)
    mixture = Mixture.draw(mixing, labels, LANDMARKS, BATCH, np.random.default_rng(2))
    assert mixture.weights.dtype == mixture.label_weights.dtype == np.float32
    np.testing.assert_array_equal(mixture.partners // BATCH, np.arange(len(labels)) // BATCH)
    assert sorted(mixture.partners) == list(range(len(labels)))  # so that every row has the same part in the epoch
    expected_labels = [
        remix_label(float(share), int(LANDMARKS[own]), int(LANDMARKS[other]), mixing.kappa, mixing.tau)
        if isinstance(mixing, Remix)
        else share
        for share, own, other in zip(mixture.weights, labels, labels[mixture.partners], strict=True)
    ]
    np.testing.assert_allclose(mixture.label_weights, expected_labels, rtol=1e-6)
    expected = mix_plainly(x, labels, mixture)
    one_hot = np.eye(8, dtype=np.float32)[labels]
    np.testing.assert_allclose(mixture.mix_features(x), expected[0], atol=1e-6)
    np.testing.assert_allclose(mixture.mix_labels(one_hot), expected[1], atol=1e-6)
    part = slice(2 * BATCH, 4 * BATCH)
    selected = mixture.select(part)
    np.testing.assert_array_equal(selected.mix_features(x[part]), mixture.mix_features(x)[part])
    np.testing.assert_array_equal(selected.mix_labels(one_hot[part]), mixture.mix_labels(one_hot)[part])


def test_mixup_leaves_the_class_shares_and_remix_moves_them_to_rare_classes(labels: Array) -> None:
    many = np.tile(labels, 100)
    one_hot, share = np.eye(8, dtype=np.float32)[many], LANDMARKS / LANDMARKS.sum()

    def shares(mixing: Mixing) -> Array:
        mixture = Mixture.draw(mixing, many, LANDMARKS, 32, np.random.default_rng(0))
        return np.asarray(mixture.mix_labels(one_hot).mean(axis=0))

    np.testing.assert_allclose(shares(Mixup()), share, atol=0.005)
    # With alpha 1, labels of a class lose an eighth of their weight to one that is at most a third as frequent.
    ratios = LANDMARKS[:, None] / LANDMARKS
    kept = np.where(ratios >= 3, 3 / 8, np.where(ratios <= 1 / 3, 5 / 8, 1 / 2))
    expected = 2 * share * (kept @ share)
    assert (np.sign(expected[[0, -1]] - share[[0, -1]]) == [-1, 1]).all()
    np.testing.assert_allclose(shares(Remix()), expected, atol=0.005)


def test_weights_have_the_beta_distribution(labels: Array) -> None:
    many = np.tile(labels, 200)
    for alpha in (0.2, 1.0, 2.0):
        weights = Mixture.draw(Mixup(alpha), many, LANDMARKS, 32, np.random.default_rng(0)).weights
        assert weights.mean() == pytest.approx(0.5, abs=0.01)
        assert weights.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: Mixup(0.0), "alpha must be positive and finite, got 0.0"),
        (lambda: Mixup(float("inf")), "alpha must be positive and finite, got inf"),
        (lambda: Mixup(float("nan")), "alpha must be positive and finite, got nan"),
        (lambda: Remix(-1.0), "alpha must be positive and finite, got -1.0"),
        (lambda: Remix(1.0, 1.0), "kappa must be above 1 and finite, got 1.0"),
        (lambda: Remix(1.0, float("inf")), "kappa must be above 1 and finite, got inf"),
        (lambda: Remix(1.0, 3.0, 0.0), "tau must be in (0, 1], got 0.0"),
        (lambda: Remix(1.0, 3.0, 1.1), "tau must be in (0, 1], got 1.1"),
    ],
)
def test_wrong_values_are_refused(create: Callable[[], Mixing], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        create()
