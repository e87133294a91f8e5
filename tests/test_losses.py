"""Class weights and losses, against scikit-learn and the papers' formulas in plain numpy."""

import numpy as np
import pytest
from builders import quick
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from hirise_imb.losses import CrossEntropy, EffectiveNumber, Focal, InversePower, Loss, effective_number, inverse_power

TRAIN_LANDMARKS = np.array([5717, 514, 88, 132, 223, 49, 183, 91])
"""Of the official training split."""

Array = np.ndarray
COUNTS = st.lists(st.integers(1, 10_000), min_size=8, max_size=8).map(np.array)


@quick
@given(st.lists(st.integers(1, 300), min_size=8, max_size=8).map(np.array))
def test_power_one_is_what_scikit_learn_calls_balanced(counts: Array) -> None:
    labels = np.repeat(np.arange(8), counts)
    expected = compute_class_weight("balanced", classes=np.arange(8), y=labels)
    np.testing.assert_allclose(inverse_power(counts, 1.0), expected, rtol=1e-12)


def test_official_weights_of_inverse_frequency() -> None:
    # N / (8 n_k) of the landmarks, as scikit-learn gives it for the unique training files too (each class x 7).
    expected = [0.153, 1.702, 9.939, 6.626, 3.922, 17.849, 4.779, 9.611]
    np.testing.assert_allclose(inverse_power(TRAIN_LANDMARKS, 1.0), expected, atol=5e-4)


@quick
@given(COUNTS, st.floats(0, 3))
def test_inverse_power_is_a_power_law_with_mean_one_over_landmarks(counts: Array, power: float) -> None:
    weights = inverse_power(counts, power)
    assert weights.dtype == np.float64
    assert np.average(weights, weights=counts) == pytest.approx(1)
    np.testing.assert_allclose(weights / weights[0], (counts / counts[0]) ** -power, rtol=1e-9)


@quick
@given(COUNTS)
def test_power_zero_and_beta_zero_weigh_all_alike(counts: Array) -> None:
    np.testing.assert_allclose(inverse_power(counts, 0.0), np.ones(8), rtol=1e-12)
    np.testing.assert_allclose(effective_number(counts, 0.0), np.ones(8), rtol=1e-12)
    np.testing.assert_allclose(InversePower().weights(counts), np.ones(8), rtol=1e-12)


@quick
@given(COUNTS, st.floats(0, 0.9999))
def test_effective_numbers_follow_the_formula_of_cui(counts: Array, beta: float) -> None:
    # Equation 2 of the paper: the sum of a geometric series, E_n = 1 + beta E_(n-1).
    numbers = [sum(beta**i for i in range(min(n, 10_000))) for n in counts.tolist()]
    weights = effective_number(counts, beta)
    np.testing.assert_allclose(weights / weights[0], numbers[0] / np.array(numbers), rtol=1e-8)
    assert np.average(weights, weights=counts) == pytest.approx(1)


def test_beta_towards_one_is_inverse_frequency() -> None:
    limit = inverse_power(TRAIN_LANDMARKS, 1.0)
    gaps = [np.abs(effective_number(TRAIN_LANDMARKS, 1 - 10.0**-k) / limit - 1).max() for k in (3, 5, 7, 9)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-5


def test_the_ingredients_pass_their_settings_on() -> None:
    np.testing.assert_array_equal(InversePower(0.5).weights(TRAIN_LANDMARKS), inverse_power(TRAIN_LANDMARKS, 0.5))
    np.testing.assert_array_equal(
        EffectiveNumber(0.999).weights(TRAIN_LANDMARKS), effective_number(TRAIN_LANDMARKS, 0.999)
    )


@pytest.mark.parametrize("beta", [-0.1, 1.0, 1.5, float("nan")])
def test_a_beta_outside_the_range_is_refused(beta: float) -> None:
    with pytest.raises(ValueError, match=rf"^beta must be in \[0, 1\), got {beta}$"):
        EffectiveNumber(beta)


@pytest.mark.parametrize("gamma", [-0.1, float("-inf"), float("nan")])
def test_a_gamma_that_is_negative_or_no_number_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match=rf"^gamma must not be negative, got {gamma}$"):
        Focal(gamma=gamma)


# --- losses ---


def softmax(logits: Array) -> Array:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def rows(seed: int, size: float = 2.0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 8, 30), size * rng.normal(size=(30, 8))


def rowwise(loss: Loss, labels: Array, logits: Array, counts: Array = TRAIN_LANDMARKS) -> Array:
    """The loss as training computes it: in float32, with what varies given as tensors."""
    import tensorflow as tf

    values = {name: tf.constant(value) for name, value in loss.tensors(counts).items()}
    one_hot = np.eye(8, dtype=np.float32)[labels]
    found = loss.rowwise(tf.constant(one_hot), tf.constant(logits.astype(np.float32)), values)
    assert found.shape == labels.shape
    return np.asarray(found.numpy())


@quick
@given(st.integers(0, 2**32 - 1))
def test_cross_entropy_is_minus_log_p(seed: int) -> None:
    labels, logits = rows(seed)
    expected = -np.log(softmax(logits)[np.arange(30), labels])
    np.testing.assert_allclose(rowwise(CrossEntropy(), labels, logits), expected, rtol=1e-4, atol=1e-5)


@quick
@given(st.integers(0, 2**32 - 1), st.floats(0, 5), st.floats(0, 1.5))
def test_focal_loss_is_the_formula_of_lin(seed: int, gamma: float, power: float) -> None:
    labels, logits = rows(seed)
    p = softmax(logits)[np.arange(30), labels]
    n = TRAIN_LANDMARKS.astype(float)
    alpha = n**-power * n.sum() / (n * n**-power).sum()
    expected = -alpha[labels] * (1 - p) ** gamma * np.log(p)
    found = rowwise(Focal(gamma, power), labels, logits)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@quick
@given(st.integers(0, 2**32 - 1))
def test_focal_loss_without_gamma_and_alpha_is_cross_entropy(seed: int) -> None:
    labels, logits = rows(seed)
    found = rowwise(Focal(gamma=0.0, alpha_power=0.0), labels, logits)
    np.testing.assert_allclose(found, rowwise(CrossEntropy(), labels, logits), rtol=1e-4, atol=1e-5)


def test_the_papers_gamma_is_the_default_and_alpha_weighs_nothing() -> None:
    assert Focal() == Focal(gamma=2.0, alpha_power=0.0)
    labels, logits = np.array([0, 5]), np.zeros((2, 8))
    np.testing.assert_allclose(rowwise(Focal(), labels, logits), 2 * [(7 / 8) ** 2 * np.log(8)], rtol=1e-5)


def test_what_varies_has_the_shapes_that_are_promised() -> None:
    assert CrossEntropy().tensors(TRAIN_LANDMARKS) == {}
    found = Focal(1.5, 1.0).tensors(TRAIN_LANDMARKS)
    assert {name: (value.shape, value.dtype) for name, value in found.items()} == {
        "gamma": ((), np.float32),
        "alpha": ((8,), np.float32),
    }
    assert found["gamma"] == 1.5
    np.testing.assert_allclose(found["alpha"], inverse_power(TRAIN_LANDMARKS, 1.0), rtol=1e-6)
    assert len({CrossEntropy.name, Focal.name}) == 2


def gradient(loss: Loss, labels: Array, logits: Array) -> tuple[Array, Array]:
    import tensorflow as tf

    values = {name: tf.constant(value) for name, value in loss.tensors(TRAIN_LANDMARKS).items()}
    variable = tf.Variable(logits.astype(np.float32))
    with tf.GradientTape() as tape:
        found = loss.rowwise(tf.constant(np.eye(8, dtype=np.float32)[labels]), variable, values)
    return found.numpy(), tape.gradient(found, variable).numpy()


@pytest.mark.parametrize("size", [50.0, 1e4, 1e30])
@pytest.mark.parametrize("loss", [CrossEntropy(), Focal(0.0), Focal(0.5), Focal(2.0, 1.0), Focal(5.0, 1.5)], ids=str)
def test_extreme_logits_have_finite_losses_and_gradients(loss: Loss, size: float) -> None:
    labels = np.arange(8)
    logits = np.concatenate([size * np.eye(8), -size * np.eye(8), size * np.roll(np.eye(8), 1, axis=0)])
    found, slopes = gradient(loss, np.tile(labels, 3), logits)
    assert np.isfinite(found).all()
    assert np.isfinite(slopes).all()
    assert found[:8] == pytest.approx(0, abs=1e-5)  # surely right
    assert (found[8:] > 0.1).all()  # surely wrong


def test_a_row_that_is_surely_wrong_costs_its_margin_and_still_teaches() -> None:
    found, slopes = gradient(CrossEntropy(), np.array([0]), 40 * np.eye(8)[[1]])
    assert found == pytest.approx(40, rel=1e-4)
    assert slopes[0, 0] == pytest.approx(-1, rel=1e-3)


def test_focal_loss_is_level_where_keras_clips_the_probability() -> None:
    # Below p_y = 1e-7 Keras takes 1e-7, as the docstring says; should a later Keras not, the docstring is to change.
    found, slopes = gradient(Focal(2.0), np.array([0, 0]), np.array([[10.0], [40.0]]) * np.eye(8)[[1]])
    assert found == pytest.approx([10, -np.log(1e-7)], rel=1e-3)
    assert slopes[0, 0] == pytest.approx(-1, rel=1e-2)
    assert slopes[1, 0] == pytest.approx(0, abs=1e-6)


def test_gradients_point_towards_the_true_class() -> None:
    labels, logits = rows(3)
    for loss in (CrossEntropy(), Focal(2.0, 1.0)):
        _, slopes = gradient(loss, labels, logits)
        assert (slopes[np.arange(30), labels] < 0).all()
        np.testing.assert_allclose(slopes.sum(axis=1), 0, atol=1e-5)
    _, slopes = gradient(CrossEntropy(), labels, logits)
    np.testing.assert_allclose(slopes, softmax(logits) - np.eye(8)[labels], atol=1e-5)
