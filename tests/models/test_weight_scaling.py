"""Learnable weight scaling, against another optimiser and finite differences."""

import numpy as np
import pytest
from builders import quick
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, minimize
from sklearn.linear_model import LogisticRegression

from hirise_imb.models import weight_scaling
from hirise_imb.models.linear import LinearClassifier
from hirise_imb.models.preparation import Preparation
from hirise_imb.models.weight_scaling import WeightScaling
from hirise_imb.utils.errors import NotApplicable

Array = np.ndarray
SIZES = np.array([60, 20, 12, 9, 8, 5, 5, 1])
SEEDS = st.integers(0, 1000)


def draw_logits(seed: int, sizes: Array = SIZES, signal: float = 1.5) -> tuple[Array, Array]:
    """Logits of images of unequally large classes, and the class of each."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    logits = rng.normal(size=(len(labels), len(sizes))) * rng.uniform(0.5, 2, len(sizes))
    return logits + signal * np.eye(len(sizes))[labels], labels


def objective(factors: Array, logits: Array, labels: Array, power: float, strength: float) -> float:
    """The loss of rows drawn by class, class by class, and the penalty."""
    counts = np.bincount(labels, minlength=logits.shape[1])
    drawn = np.where(counts > 0, counts.astype(float) ** power, 0)
    odds = np.exp(logits * factors)
    losses = -np.log(odds[np.arange(len(labels)), labels] / odds.sum(axis=1))
    by_class = [losses[labels == k].mean() for k in np.flatnonzero(counts)]
    mean = np.average(by_class, weights=drawn[counts > 0])
    return float(mean + strength / 2 * ((factors - 1) ** 2).sum())


@quick
@given(SEEDS, st.floats(0, 1), st.floats(1e-3, 10))
def test_factors_minimise_the_penalised_loss_of_images_drawn_by_class(seed: int, power: float, strength: float) -> None:
    logits, labels = draw_logits(seed)
    found = WeightScaling(power, strength).fit(logits, labels, SIZES)
    given_ = (logits, labels, power, strength)
    slope = approx_fprime(found, objective, 1e-7, *given_)
    assert np.abs(slope).max() < 1e-5
    best = minimize(objective, np.ones(8), given_, method="Powell", options={"xtol": 1e-8, "ftol": 1e-14})
    np.testing.assert_allclose(found, best.x, atol=1e-3)


def test_factors_are_the_weights_of_a_conditional_logit_without_penalty() -> None:
    # With two classes, f_1 z_1 - f_0 z_0 is logistic regression on (-z_0, z_1), here with next to no penalty.
    logits, labels = draw_logits(0, np.array([120, 40]), signal=0.7)
    for power, balanced in ((0.0, "balanced"), (1.0, None)):
        model = LogisticRegression(C=1e6, fit_intercept=False, class_weight=balanced, tol=1e-10, max_iter=1000)
        expected = model.fit(logits * [-1, 1], labels).coef_[0]
        found = WeightScaling(power, 1e-9).fit(logits, labels, np.array([120, 40]))
        np.testing.assert_allclose(found, expected, rtol=1e-3)


@quick
@given(SEEDS, st.floats(0, 1))
def test_a_strong_penalty_leaves_the_logits_as_they_are(seed: int, power: float) -> None:
    logits, labels = draw_logits(seed)
    distances = [
        np.abs(WeightScaling(power, strength).fit(logits, labels, SIZES) - 1).max() for strength in (0.1, 10, 1e3, 1e6)
    ]
    assert sorted(distances, reverse=True) == distances
    assert distances[-1] < 1e-5


def test_separated_training_images_have_finite_factors() -> None:
    _, labels = draw_logits(0)
    found = WeightScaling(0.0, 0.01).fit(50 * np.eye(8)[labels], labels, SIZES)
    np.testing.assert_allclose(found, 1, atol=1e-3)


def test_a_rare_class_with_low_logits_is_scaled_up_by_balanced_draws() -> None:
    logits, labels = draw_logits(1)
    logits[:, 7] *= 0.2
    balanced, natural = (WeightScaling(power, 1e-3).fit(logits, labels, SIZES)[7] for power in (0.0, 1.0))
    assert balanced > natural
    assert balanced > 1


@quick
@given(SEEDS)
def test_classes_without_images_keep_factor_1_and_inputs_are_untouched(seed: int) -> None:
    sizes = SIZES.copy()
    sizes[[2, 5, 7]] = 0
    logits, labels = draw_logits(seed, sizes)
    logits[:, 5] = -1e4
    before = logits.copy(), labels.copy(), sizes.copy()
    found = WeightScaling(0.5, 0.1).fit(logits, labels, sizes)
    assert found[[2, 5, 7]].tolist() == [1, 1, 1]
    assert (found[[0, 1, 3, 4, 6]] != 1).all()
    for values, unchanged in zip((logits, labels, sizes), before, strict=True):
        np.testing.assert_array_equal(values, unchanged)


def test_the_prior_is_that_of_the_draws() -> None:
    counts = np.array([16, 4, 0, 1])
    np.testing.assert_allclose(WeightScaling(0.5, 1.0).prior(counts), np.array([4, 2, 0, 1]) / 7)
    np.testing.assert_allclose(WeightScaling(0.0, 1.0).prior(counts), np.array([1, 1, 0, 1]) / 3)


def test_scaled_classifiers_have_scaled_logits() -> None:
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(6, 2)))[0]
    classifier = LinearClassifier(
        rng.normal(size=(8, 6)),
        rng.normal(size=8),
        rng.normal(size=6),
        rng.uniform(1, 2, 6),
        True,
        Preparation(directions=directions),
    )
    features, factors = rng.normal(size=(20, 6)), rng.uniform(0.5, 2, 8)
    scaled = classifier.scale_logits(factors).logits(features)
    np.testing.assert_allclose(scaled, classifier.logits(features) * factors, rtol=1e-10)


def test_a_search_that_stops_on_a_slope_is_not_applicable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_scaling, "_SLOPE_TOLERANCE", 0.0)
    with pytest.raises(NotApplicable, match=r"^Learnable weight scaling did not converge: [A-Z].*\.$"):
        WeightScaling(0.5, 0.1).fit(*draw_logits(0), SIZES)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_powers_outside_0_to_1_are_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=rf"^power must be in \[0, 1\], got {wrong}$"):
        WeightScaling(wrong, 1.0)


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("inf"), float("nan")])
def test_strengths_that_are_not_positive_are_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=rf"^strength must be positive and finite, got {wrong}$"):
        WeightScaling(0.0, wrong)


def test_inputs_that_do_not_fit_are_refused() -> None:
    logits, labels = draw_logits(0)
    scaling = WeightScaling(0.0, 1.0)
    with pytest.raises(ValueError, match=r"^logits must have shape \(119, 8\) and not be empty, got \(120, 8\)$"):
        scaling.fit(logits, labels[1:], SIZES)
    with pytest.raises(ValueError, match=r"^logits must have shape \(0, 8\) and not be empty, got \(0, 8\)$"):
        scaling.fit(logits[:0], labels[:0], SIZES)
    with pytest.raises(ValueError, match=r"^counts must be the number of labels of each class$"):
        scaling.fit(logits, labels, SIZES + 1)
    logits[3, 2] = np.nan
    with pytest.raises(ValueError, match=r"^logits must be finite$"):
        scaling.fit(logits, labels, SIZES)
