"""Class weights and losses, against scikit-learn and the papers' formulas in plain numpy."""

import keras
import numpy as np
import pytest
from builders import quick
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from hirise_imb.imbalance import losses
from hirise_imb.imbalance.class_weights import (
    ClassCounts,
    EffectiveNumber,
    InversePower,
    effective_number,
    inverse_power,
)
from hirise_imb.imbalance.losses import (
    CrossEntropy,
    Focal,
    LabelDistributionAwareMargin,
    LogitAdjustedCrossEntropy,
    Loss,
)

TRAIN_LANDMARKS = np.array([5717, 514, 88, 132, 223, 49, 183, 91])
"""Of the official training split."""

TRAIN_SOURCES = np.array([150, 60, 12, 9, 31, 4, 22, 5])

Array = np.ndarray
COUNTS = st.lists(st.integers(1, 10_000), min_size=8, max_size=8).map(np.array)


def counted(
    landmarks: Array = TRAIN_LANDMARKS, sources: Array = TRAIN_SOURCES, shares: Array | None = None
) -> ClassCounts:
    """Counts of rows that are sampled as they are, or in these shares."""
    return ClassCounts(landmarks, sources, landmarks / landmarks.sum() if shares is None else shares)


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
    np.testing.assert_allclose(InversePower().weights(counted(counts)), np.ones(8), rtol=1e-12)


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
    counts = counted()
    np.testing.assert_array_equal(InversePower(0.5).weights(counts), inverse_power(TRAIN_LANDMARKS, 0.5))
    np.testing.assert_array_equal(EffectiveNumber(0.999).weights(counts), effective_number(TRAIN_LANDMARKS, 0.999))


@quick
@given(COUNTS, COUNTS, st.floats(0, 3), st.floats(0, 0.9999))
def test_the_unit_decides_what_is_rare_and_landmarks_the_scale(
    landmarks: Array, sources: Array, power: float, beta: float
) -> None:
    counts = counted(landmarks, sources)
    numbers = (1 - beta) / (1 - beta ** sources.astype(float))
    for ingredient, expected in (
        (InversePower(power, "sources"), sources.astype(float) ** -power),
        (EffectiveNumber(beta, "sources"), numbers),
    ):
        weights = ingredient.weights(counts)
        np.testing.assert_allclose(weights / weights[0], expected / expected[0], rtol=1e-9)
        assert np.average(weights, weights=landmarks) == pytest.approx(1)


@pytest.mark.parametrize("unit", ["landmarks", "sources"])
def test_in_either_unit_beta_goes_from_equal_weights_to_inverse_frequency(unit: str) -> None:
    counts = counted()
    equal, limit = (EffectiveNumber(beta, unit).weights(counts) for beta in (0.0, 1 - 1e-9))  # type: ignore[arg-type]
    np.testing.assert_allclose(equal, np.ones(8), rtol=1e-12)
    n = {"landmarks": TRAIN_LANDMARKS, "sources": TRAIN_SOURCES}[unit].astype(float)
    np.testing.assert_allclose(limit / limit[0], n[0] / n, rtol=1e-5)


@pytest.mark.parametrize("unit", ["landmarks", "sources"])
def test_a_class_that_is_not_there_has_no_weight(unit: str) -> None:
    there = np.array([1, 1, 0, 1, 1, 1, 0, 1])
    counts = counted(TRAIN_LANDMARKS * there, TRAIN_SOURCES * there)
    for ingredient in (InversePower(0.0, unit), InversePower(1.3, unit), EffectiveNumber(0.99, unit)):  # type: ignore[arg-type]
        weights = ingredient.weights(counts)
        np.testing.assert_array_equal(weights > 0, there > 0)
        assert np.isfinite(weights).all()
        assert np.average(weights, weights=counts.landmarks) == pytest.approx(1)


@pytest.mark.parametrize("beta", [-0.1, 1.0, 1.5, float("nan")])
def test_a_beta_outside_the_range_is_refused(beta: float) -> None:
    with pytest.raises(ValueError, match=rf"^beta must be in \[0, 1\), got {beta}$"):
        EffectiveNumber(beta)


@pytest.mark.parametrize("gamma", [-0.1, float("-inf"), float("nan")])
def test_a_gamma_that_is_negative_or_no_number_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match=rf"^gamma must not be negative, got {gamma}$"):
        Focal(gamma=gamma)


@pytest.mark.parametrize("tau", [-0.1, float("inf"), float("nan")])
def test_a_tau_that_is_negative_or_no_number_is_refused(tau: float) -> None:
    with pytest.raises(ValueError, match=rf"^tau must not be negative, got {tau}$"):
        LogitAdjustedCrossEntropy(tau)


@pytest.mark.parametrize("margin", [-0.1, 2.1, float("nan")])
def test_a_margin_that_no_cosine_has_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match=rf"^max_margin must be in \[0, 2\], got {margin}$"):
        LabelDistributionAwareMargin(margin)


@pytest.mark.parametrize("margin", [0, 2])
def test_a_margin_may_be_any_difference_of_cosines(margin: float) -> None:
    assert LabelDistributionAwareMargin(margin).max_margin == margin


# --- losses ---


def softmax(logits: Array) -> Array:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def rows(seed: int, size: float = 2.0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 8, 30), size * rng.normal(size=(30, 8))


def gradient(
    loss: Loss, labels: Array, logits: Array, counts: ClassCounts | None = None, scale: float = 1.0
) -> tuple[Array, Array]:
    """The loss of each row and its slopes, as training computes them: in float32.

    `scale` is that of a head that measures cosines.
    """
    import tensorflow as tf

    terms = loss.terms(counted() if counts is None else counts)
    one_hot = np.eye(8, dtype=np.float32)[labels]
    variable = tf.Variable(logits.astype(np.float32))
    with tf.GradientTape() as tape:
        shifts = [np.broadcast_to(part, 8) for part in (terms.offsets, terms.margins * scale)]
        numbers = [np.asarray(part, np.float32) for part in (terms.weights, terms.focus, *shifts)]
        found = losses.row_losses(tf.constant(one_hot), variable, *map(tf.constant, numbers))
    assert found.shape == (len(labels),)
    return found.numpy(), tape.gradient(found, variable).numpy()


def rowwise(loss: Loss, labels: Array, logits: Array) -> Array:
    return gradient(loss, labels, logits)[0]


def alphas(power: float) -> Array:
    n = TRAIN_LANDMARKS.astype(float)
    return np.asarray(n**-power * n.sum() / (n * n**-power).sum())


@quick
@given(st.integers(0, 2**32 - 1))
def test_cross_entropy_is_minus_log_p(seed: int) -> None:
    labels, logits = rows(seed)
    expected = -np.log(softmax(logits)[np.arange(30), labels])
    np.testing.assert_allclose(rowwise(CrossEntropy(), labels, logits), expected, rtol=1e-5, atol=1e-6)


@quick
@given(st.integers(0, 2**32 - 1), st.floats(0, 5), st.floats(0, 1.5))
def test_focal_loss_is_the_formula_of_lin(seed: int, gamma: float, power: float) -> None:
    labels, logits = rows(seed)
    p = softmax(logits)[np.arange(30), labels]
    expected = -alphas(power)[labels] * (1 - p) ** gamma * np.log(p)
    np.testing.assert_allclose(rowwise(Focal(gamma, power), labels, logits), expected, rtol=1e-4, atol=1e-6)


@quick
@given(st.integers(0, 2**32 - 1), st.floats(0, 5), st.floats(0, 1.5))
def test_the_slopes_of_focal_loss_are_its_derivative(seed: int, gamma: float, power: float) -> None:
    labels, logits = rows(seed)
    chances = softmax(logits)
    p = chances[np.arange(30), labels][:, None]
    # d/dp of -(1 - p)^gamma log p, times dp/dz = p (one_hot - softmax).
    slope = gamma * (1 - p) ** (gamma - 1) * np.log(p) - (1 - p) ** gamma / p
    expected = alphas(power)[labels][:, None] * slope * p * (np.eye(8)[labels] - chances)
    np.testing.assert_allclose(gradient(Focal(gamma, power), labels, logits)[1], expected, rtol=1e-3, atol=1e-5)


@quick
@given(st.integers(0, 2**32 - 1), st.floats(0, 5), st.floats(0, 1.5))
def test_focal_loss_is_that_of_keras_where_keras_does_not_clip(seed: int, gamma: float, power: float) -> None:
    labels, logits = rows(seed)
    expected = keras.losses.categorical_focal_crossentropy(
        np.eye(8)[labels], softmax(logits), alpha=alphas(power), gamma=gamma
    )
    np.testing.assert_allclose(rowwise(Focal(gamma, power), labels, logits), expected, rtol=1e-4, atol=1e-6)


@quick
@given(st.integers(0, 2**32 - 1))
def test_focal_loss_without_gamma_and_alpha_is_cross_entropy(seed: int) -> None:
    labels, logits = rows(seed)
    found = rowwise(Focal(gamma=0.0, alpha_power=0.0), labels, logits)
    np.testing.assert_allclose(found, rowwise(CrossEntropy(), labels, logits), rtol=1e-6)


def test_the_papers_gamma_is_the_default_and_alpha_weighs_nothing() -> None:
    assert Focal() == Focal(gamma=2.0, alpha_power=0.0)
    labels, logits = np.array([0, 5]), np.zeros((2, 8))
    np.testing.assert_allclose(rowwise(Focal(), labels, logits), 2 * [(7 / 8) ** 2 * np.log(8)], rtol=1e-5)


def test_a_loss_gives_its_numbers() -> None:
    plain = CrossEntropy().terms(counted())
    np.testing.assert_array_equal(plain.weights, np.ones(8))
    assert plain.focus == 0
    focal = Focal(1.5, 1.0).terms(counted())
    assert focal.focus == 1.5
    np.testing.assert_allclose(focal.weights, alphas(1.0), rtol=1e-12)


@pytest.mark.parametrize("focus", [0.0, 1.0, 2.5])
def test_weights_focus_offsets_and_margins_go_together(focus: float) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, 30)
    logits, weights = rng.normal(size=(30, 8)), rng.uniform(0.5, 2, 8)
    offsets, margins = rng.normal(size=8), rng.uniform(0, 2, 8)
    hot = np.eye(8, dtype=np.float32)[labels]
    p = softmax(logits + offsets - hot * margins)[np.arange(30), labels]
    expected = -weights[labels] * (1 - p) ** focus * np.log(p)
    numbers = (logits, weights, np.float32(focus), offsets, margins)
    found = losses.row_losses(hot, *(values.astype(np.float32) for values in numbers))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_padding_costs_nothing() -> None:
    """A row without a label."""
    numbers = (np.ones((2, 8)), np.full(8, 3.0), np.float32(0), np.zeros(8), np.zeros(8))
    hot = np.zeros((2, 8), np.float32)
    hot[0, 3] = 1
    found = np.asarray(losses.row_losses(hot, *(values.astype(np.float32) for values in numbers)))
    np.testing.assert_allclose(found, [3 * np.log(8), 0], rtol=1e-6)


@pytest.mark.parametrize("n_classes", [2, 3, 8])
@pytest.mark.parametrize("loss", [CrossEntropy(), LogitAdjustedCrossEntropy(0.7)], ids=str)
def test_a_mixed_label_has_the_mean_of_the_losses_of_its_classes(loss: Loss, n_classes: int) -> None:
    """With the weights of mixup (Zhang et al. 2018); one partner may have all of the label."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40, n_classes)).astype(np.float32)
    terms = loss.terms(counted(TRAIN_LANDMARKS[:n_classes], TRAIN_SOURCES[:n_classes]))
    parts = (terms.weights, terms.focus, terms.offsets, terms.margins)
    numbers = [np.broadcast_to(part, () if np.ndim(part) == 0 else n_classes).astype(np.float32) for part in parts]
    share = np.concatenate([[0, 1], rng.uniform(size=38)]).astype(np.float32)[:, None]
    own, partner = (np.eye(n_classes, dtype=np.float32)[rng.integers(0, n_classes, 40)] for _ in range(2))
    variable = tf.Variable(logits)

    def compute(labels: Array) -> tuple[Array, Array]:
        with tf.GradientTape() as tape:
            found = losses.row_losses(labels, variable, *numbers)
        return found.numpy(), tape.gradient(found, variable).numpy()

    found, first, second = compute(share * own + (1 - share) * partner), compute(own), compute(partner)
    shares = share[:, 0], share
    for mixed, one, two, weight in zip(found, first, second, shares, strict=True):
        np.testing.assert_allclose(mixed, weight * one + (1 - weight) * two, rtol=1e-4, atol=1e-5)


EACH = pytest.mark.parametrize(
    "loss", [CrossEntropy(), Focal(0.0), Focal(0.5), Focal(2.0, 1.0), Focal(5.0, 1.5)], ids=str
)


@pytest.mark.parametrize("size", [50.0, 1e4, 1e30])
@EACH
def test_extreme_logits_have_finite_losses_and_gradients(loss: Loss, size: float) -> None:
    labels = np.arange(8)
    logits = np.concatenate([size * np.eye(8), -size * np.eye(8), size * np.roll(np.eye(8), 1, axis=0)])
    found, slopes = gradient(loss, np.tile(labels, 3), logits)
    assert np.isfinite(found).all()
    assert np.isfinite(slopes).all()
    assert found[:8] == pytest.approx(0, abs=1e-5)  # surely right
    # Surely wrong: all others alike, or one other; p_y is 0 and costs the margin.
    weights = loss.terms(counted()).weights
    np.testing.assert_allclose(found[8:16], weights * (size + np.log(7)), rtol=1e-5)
    np.testing.assert_allclose(found[16:], weights * size, rtol=1e-5)


@EACH
def test_equal_logits_have_finite_losses_and_gradients(loss: Loss) -> None:
    found, slopes = gradient(loss, np.arange(8), np.zeros((8, 8)))
    assert (found > 0).all()
    assert np.isfinite(slopes).all()


@pytest.mark.parametrize("margin", [5.0, 12.0, 17.0, 20.0, 30.0])
def test_a_row_that_is_nearly_right_has_a_small_loss_and_finite_slopes(margin: float) -> None:
    # Where p_y rounds to 1 in float32, the slope of (1 - p_y)^gamma would be infinite for gamma < 1.
    rest = 7 * np.exp(-margin)
    found, slopes = gradient(Focal(0.5), np.array([0]), margin * np.eye(8)[[0]])
    assert found == pytest.approx((rest / (1 + rest)) ** 0.5 * np.log1p(rest), rel=1e-3, abs=1e-6)
    assert np.isfinite(slopes).all()
    assert np.abs(slopes).max() < 2 * rest


def test_a_row_that_is_surely_wrong_costs_its_margin_and_still_teaches() -> None:
    for loss in (CrossEntropy(), Focal(2.0)):
        found, slopes = gradient(loss, np.array([0]), 40 * np.eye(8)[[1]])
        assert found == pytest.approx(40, rel=1e-4)
        assert slopes[0, 0] == pytest.approx(-1, rel=1e-3)


def test_gradients_point_towards_the_true_class() -> None:
    labels, logits = rows(3)
    for loss in (CrossEntropy(), Focal(2.0, 1.0)):
        _, slopes = gradient(loss, labels, logits)
        assert (slopes[np.arange(30), labels] < 0).all()
        np.testing.assert_allclose(slopes.sum(axis=1), 0, atol=1e-4)
    _, slopes = gradient(CrossEntropy(), labels, logits)
    np.testing.assert_allclose(slopes, softmax(logits) - np.eye(8)[labels], atol=1e-5)


# --- losses that move logits ---


@quick
@given(st.integers(0, 2**32 - 1), COUNTS)
def test_logit_adjustment_with_tau_one_is_balanced_softmax(seed: int, counts: Array) -> None:
    # Equation 4 of Ren et al. 2020: -log of n_y exp(z_y) / sum_j n_j exp(z_j); its slope is that softmax less one-hot.
    labels, logits = rows(seed)
    exponentials = counts * np.exp(logits)
    chances = exponentials / exponentials.sum(axis=1, keepdims=True)
    found, slopes = gradient(LogitAdjustedCrossEntropy(), labels, logits, counted(counts))
    np.testing.assert_allclose(found, -np.log(chances[np.arange(30), labels]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(slopes, chances - np.eye(8)[labels], atol=1e-5)


@quick
@given(st.integers(0, 2**32 - 1), st.floats(0, 3), COUNTS)
def test_logit_adjusted_loss_is_cross_entropy_of_shifted_logits(seed: int, tau: float, sampled: Array) -> None:
    """By the shares of rows as sampled, whatever the landmarks are."""
    labels, logits = rows(seed)
    shares = sampled / sampled.sum()
    found, slopes = gradient(LogitAdjustedCrossEntropy(tau), labels, logits, counted(shares=shares))
    expected, theirs = gradient(CrossEntropy(), labels, logits + tau * np.log(shares))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(slopes, theirs, atol=1e-4)


def test_logit_adjusted_loss_without_tau_or_with_equal_shares_is_cross_entropy() -> None:
    labels, logits = rows(1)
    expected = rowwise(CrossEntropy(), labels, logits)
    np.testing.assert_allclose(gradient(LogitAdjustedCrossEntropy(0.0), labels, logits)[0], expected, rtol=1e-6)
    even = counted(shares=np.full(8, 1 / 8))
    np.testing.assert_allclose(gradient(LogitAdjustedCrossEntropy(), labels, logits, even)[0], expected, rtol=1e-5)


def test_logits_of_a_class_without_rows_are_not_shifted() -> None:
    shares = np.array([0.5, 0, 0.25, 0, 0.125, 0.125, 0, 0])
    terms = LogitAdjustedCrossEntropy(2.0).terms(counted(shares=shares))
    np.testing.assert_allclose(terms.offsets, -2 * np.log([2, 1, 4, 1, 8, 8, 1, 1]), rtol=1e-12)


def test_margins_are_those_of_cao() -> None:
    # Section 3.2 of the paper: C / n_j^(1/4), tuned so that the largest is max_m; 49 landmarks are the fewest.
    terms = LabelDistributionAwareMargin(0.5).terms(counted())
    expected = [0.5 * (49 / n) ** 0.25 for n in TRAIN_LANDMARKS.tolist()]
    np.testing.assert_allclose(terms.margins, expected, rtol=1e-12)
    assert terms.margins.max() == terms.margins[5] == 0.5
    np.testing.assert_array_equal(terms.weights, np.ones(8))


@quick
@given(st.integers(0, 2**32 - 1), COUNTS, st.floats(0, 2), st.floats(1, 30))
def test_the_margin_loss_is_that_of_cao_row_by_row(seed: int, counts: Array, widest: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    labels, cosines = rng.integers(0, 8, 30), rng.uniform(-1, 1, (30, 8))
    margins = widest * (counts.min() / counts) ** 0.25
    expected = []
    for y, row in zip(labels.tolist(), cosines, strict=True):
        moved = [scale * (cosine - margins[y] * (k == y)) for k, cosine in enumerate(row.tolist())]
        expected.append(np.logaddexp.reduce(moved) - moved[y])
    found, _ = gradient(LabelDistributionAwareMargin(widest), labels, scale * cosines, counted(counts), scale)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "loss", [LogitAdjustedCrossEntropy(), LabelDistributionAwareMargin(), Focal(2.0, 1.0)], ids=str
)
def test_a_class_that_is_not_there_leaves_losses_finite(loss: Loss) -> None:
    there = np.array([1, 1, 0, 1, 1, 1, 0, 1])
    labels, logits = np.arange(8), rows(2)[1][:8]
    found, slopes = gradient(loss, labels, logits, counted(TRAIN_LANDMARKS * there, TRAIN_SOURCES * there))
    assert np.isfinite(found).all()
    assert np.isfinite(slopes).all()
