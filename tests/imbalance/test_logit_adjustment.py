"""Adjustments of stored logits, against scikit-learn, SciPy and the papers' formulas in plain numpy."""

from typing import Any

import numpy as np
import pytest
from builders import quick
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax as scipy_log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import f1_score, log_loss

from hirise_imb.imbalance.class_bias import ClassBias
from hirise_imb.imbalance.logit_adjustment import (
    Adjustment,
    Correction,
    NoAdjustment,
    PosthocLogitAdjustment,
    cross_fit_adjustment,
    log_softmax,
    softmax,
)
from hirise_imb.imbalance.temperature import Temperature

Array = np.ndarray
SEEDS = st.integers(0, 2**32 - 1)
PRIOR = np.array([0.81, 0.07, 0.03, 0.02, 0.03, 0.005, 0.02, 0.015])
UNIFORM = np.full(8, 1 / 8)
EVERY: list[Adjustment] = [
    NoAdjustment(),
    PosthocLogitAdjustment(1.0),
    ClassBias(0.1),
    Temperature(),
    Temperature(bias=True),
]
LEARNERS = [adjustment for adjustment in EVERY if adjustment.learns]


def drawn(seed: int, n: int = 60, classes: int = 8, signal: float = 2.0) -> tuple[Array, Array]:
    """Logits that know something of labels, which are of the first `classes` classes."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, n, p=PRIOR[:classes] / PRIOR[:classes].sum())
    return rng.normal(size=(n, 8)) + signal * np.eye(8)[labels] + np.log(PRIOR), labels


def macro(labels: Array, logits: Array) -> float:
    return float(f1_score(labels, logits.argmax(axis=1), labels=range(8), average="macro", zero_division=0))


def plain_macro(labels: Array, logits: Array) -> float:
    """The same from the counts, as scikit-learn is too slow to try thousands of offsets with."""
    chosen = logits.argmax(axis=1)
    found = 0.0
    for k in range(8):
        told = int((labels == k).sum() + (chosen == k).sum())
        found += 2 * int(((labels == k) & (chosen == k)).sum()) / told if told else 0.0
    return found / 8


def loss_of(logits: Array, labels: Array) -> float:
    """Mean negative log likelihood."""
    return -float(scipy_log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def anchor_of(logits: Array, labels: Array, prior: Array) -> Array:
    """The logit adjustment with the first best tau of 0, 0.05 .. 2."""
    taus = [0.05 * step for step in range(41)]
    scores = [plain_macro(labels, logits - tau * np.log(prior)) for tau in taus]
    return np.asarray(-taus[scores.index(max(scores))] * np.log(prior))


# Corrections


@quick
@given(SEEDS, st.floats(0.01, 100))
def test_a_correction_is_affine(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    z, other, offsets = rng.normal(size=(5, 8)), rng.normal(size=(5, 8)), rng.normal(size=8)
    correction = Correction(scale, offsets)
    np.testing.assert_allclose(correction(z), scale * z + offsets, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(correction(z) - correction(other), scale * (z - other), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(correction(np.zeros((1, 8))), offsets[None])


def test_corrections_are_computed_in_double_precision() -> None:
    corrected = Correction(1.0, np.full(8, 1e-9))(np.ones((2, 8), np.float32))
    assert corrected.dtype == np.float64
    assert (corrected > 1).all()


@pytest.mark.parametrize("adjustment", EVERY, ids=repr)
def test_logits_that_come_in_stay_as_they_are(adjustment: Adjustment) -> None:
    z, labels = drawn(0)
    before = z.copy()
    adjustment.fit(z, labels, PRIOR)(z)
    cross_fit_adjustment(adjustment, z, labels, np.tile(PRIOR, (2, 1)), np.arange(len(z)) % 2)
    np.testing.assert_array_equal(z, before)


@quick
@given(SEEDS, st.floats(1e-3, 1e3))
def test_softmax_is_that_of_scipy(seed: int, size: float) -> None:
    z = size * np.random.default_rng(seed).normal(size=(4, 8)).astype(np.float32)
    np.testing.assert_allclose(log_softmax(z), scipy_log_softmax(z.astype(float), axis=1), rtol=1e-12)
    np.testing.assert_allclose(softmax(z).sum(axis=1), 1)


def test_softmax_of_enormous_logits_is_finite() -> None:
    assert softmax(np.array([[1e4, 0.0], [-1e4, 0.0]])).tolist() == [[1, 0], [0, 1]]
    assert log_softmax(np.array([1e4, 0.0])).tolist() == [0, -1e4]


# Logit adjustment


def test_nothing_is_adjusted_by_default() -> None:
    z, labels = drawn(1)
    np.testing.assert_array_equal(NoAdjustment().fit(z, labels, PRIOR)(z), z)


@quick
@given(SEEDS, st.floats(0, 3))
def test_logit_adjustment_is_the_formula_of_menon(seed: int, tau: float) -> None:
    z, labels = drawn(seed)
    corrected = PosthocLogitAdjustment(tau).fit(z, labels, PRIOR)(z)
    # Equation 9 of the paper, with f = z: the class with the largest exp(f_y) / pi_y^tau.
    np.testing.assert_allclose(np.exp(corrected), np.exp(z) / PRIOR**tau, rtol=1e-9)


@quick
@given(SEEDS, st.floats(0, 3))
def test_logit_adjustment_after_uniform_training_changes_no_decision(seed: int, tau: float) -> None:
    z, labels = drawn(seed)
    correction = PosthocLogitAdjustment(tau).fit(z, labels, UNIFORM)
    assert np.ptp(correction.offsets) == 0
    np.testing.assert_array_equal(correction(z).argmax(axis=1), z.argmax(axis=1))


def test_logit_adjustment_with_tau_zero_is_the_identity() -> None:
    z, labels = drawn(2)
    np.testing.assert_array_equal(PosthocLogitAdjustment(0.0).fit(z, labels, PRIOR)(z), z)


def test_logit_adjustment_needs_no_labels() -> None:
    z, labels = drawn(3)
    expected = PosthocLogitAdjustment(1.0).fit(z, labels, PRIOR).offsets
    for rows in (z[:0], z):
        found = PosthocLogitAdjustment(1.0).fit(rows, np.zeros(len(rows), int), PRIOR)
        np.testing.assert_array_equal(found.offsets, expected)


@pytest.mark.parametrize("adjustment", EVERY, ids=repr)
def test_a_class_never_trained_on_has_offset_zero(adjustment: Adjustment) -> None:
    prior = np.array([0.7, 0.1, 0.1, 0.02, 0.03, 0.0, 0.03, 0.02])
    z, labels = drawn(4, 400)
    assert 5 in labels
    assert adjustment.fit(z, labels, prior).offsets[5] == 0


# Class bias


@quick
@given(SEEDS, st.floats(1e-6, 10), st.booleans())
def test_class_bias_is_no_worse_than_its_logit_adjustment(seed: int, strength: float, tied: bool) -> None:
    z, labels = drawn(seed)
    z = z.round() if tied else z  # rows whose decisions change together
    anchor = anchor_of(z, labels, PRIOR)
    b = ClassBias(strength).fit(z, labels, PRIOR).offsets
    assert macro(labels, z + b) - strength * ((b - anchor) ** 2).mean() >= macro(labels, z + anchor) - 1e-9


@quick
@given(SEEDS)
def test_class_bias_of_two_classes_is_the_best_threshold_there_is(seed: int) -> None:
    z, labels = drawn(seed, 40, classes=2, signal=0.7)
    z[:, 2:] = -1e3
    gaps = np.sort(z[:, 0] - z[:, 1])
    thresholds = [gaps[0] - 1, *(gaps[1:] + gaps[:-1]) / 2, gaps[-1] + 1]
    best = max(macro(labels, z + np.eye(8)[1] * threshold) for threshold in thresholds)
    found = ClassBias(1e-9).fit(z, labels, PRIOR)
    assert macro(labels, found(z)) == pytest.approx(best, abs=1e-12)


@quick
@given(SEEDS, st.integers(2, 8), st.sampled_from([1e-6, 0.01, 0.1, 1.0]))
def test_no_change_of_one_class_improves_class_bias(seed: int, classes: int, strength: float) -> None:
    z, labels = drawn(seed, 25, classes, signal=1.0)
    anchor = anchor_of(z, labels, PRIOR)
    b = ClassBias(strength).fit(z, labels, PRIOR).offsets

    def objective(offsets: Array) -> float:
        return plain_macro(labels, z + offsets) - strength * float(((offsets - anchor) ** 2).mean())

    reached = objective(b)
    assert plain_macro(labels, z + b) == pytest.approx(macro(labels, z + b))
    for k in set(labels.tolist()):
        rivals = np.delete(z + b, k, axis=1).max(axis=1) - z[:, k]  # where the decision of a row changes
        tries = [*np.linspace(-12, 12, 49), *(rivals + 1e-5), *(rivals - 1e-5), anchor[k], anchor[k] + 1e-3]
        for offset in tries:
            tried = b.copy()
            tried[k] = offset
            # Within 1e-6 of a change the search does not go, which the penalty can feel.
            assert objective(tried) <= reached + 1e-7


@quick
@given(SEEDS)
def test_class_bias_held_with_all_strength_is_the_best_logit_adjustment(seed: int) -> None:
    z, labels = drawn(seed)
    found = ClassBias(1e9).fit(z, labels, PRIOR).offsets
    np.testing.assert_allclose(found, anchor_of(z, labels, PRIOR), atol=1e-4)


def test_class_bias_of_equal_taus_is_held_by_the_smallest() -> None:
    labels = np.arange(8)  # all right whatever the tau
    np.testing.assert_array_equal(ClassBias(1e9).fit(100 * np.eye(8), labels, PRIOR).offsets, np.zeros(8))


@quick
@given(SEEDS, st.sampled_from([1e-6, 0.1]))
def test_the_order_of_landmarks_does_not_matter_to_class_bias(seed: int, strength: float) -> None:
    z, labels = drawn(seed)
    order = np.random.default_rng(seed).permutation(len(z))
    one, other = (ClassBias(strength).fit(z[rows], labels[rows], PRIOR) for rows in (slice(None), order))
    np.testing.assert_array_equal(one.offsets, other.offsets)


def test_class_bias_leaves_classes_without_landmarks_at_the_logit_adjustment() -> None:
    z, labels = drawn(5, classes=3, signal=0.5)
    moved = ClassBias(1e-6).fit(z, labels, PRIOR).offsets - anchor_of(z, labels, PRIOR)
    np.testing.assert_allclose(moved[3:], 0, atol=1e-12)
    assert np.abs(moved[:3]).max() > 1e-3


def test_class_bias_finds_what_a_shift_of_logits_hides() -> None:
    labels = np.repeat(np.arange(8), 5)
    hidden = np.array([3.0, 0, 0, -2, 0, 1, 0, 0])
    z = np.eye(8)[labels] + hidden
    assert macro(labels, z) < 0.5
    assert macro(labels, ClassBias(1e-3).fit(z, labels, UNIFORM)(z)) == 1


def test_class_bias_stands_ties_and_single_landmarks() -> None:
    for labels in (np.array([3]), np.array([0, 1, 1, 5])):  # best is to call them all 3, or 1
        z = np.zeros((len(labels), 8))
        b = ClassBias(0.01).fit(z, labels, UNIFORM).offsets
        assert b.argmax() == np.bincount(labels).argmax()
        assert macro(labels, z + b) == max(macro(labels, z + np.eye(8)[k]) for k in range(8))


# Temperature


@quick
@given(SEEDS, st.floats(-2, 2))
def test_temperature_changes_no_decision_and_improves_the_likelihood(seed: int, size: float) -> None:
    z, labels = drawn(seed)
    z *= 10**size
    correction = Temperature().fit(z, labels, PRIOR)
    np.testing.assert_array_equal(correction(z).argmax(axis=1), z.argmax(axis=1))
    assert not correction.offsets.any()
    assert 0.05 <= 1 / correction.scale <= 20 * (1 + 1e-12)
    assert loss_of(correction(z), labels) <= loss_of(z, labels) + 1e-12


@quick
@given(SEEDS)
def test_no_temperature_is_more_likely(seed: int) -> None:
    z, labels = drawn(seed, 30, signal=0.5)
    correction = Temperature().fit(z, labels, PRIOR)
    reached = loss_of(correction(z), labels)
    for temperature in np.geomspace(0.05, 20, 100):
        assert loss_of(z / temperature, labels) >= reached - 1e-12
    if 0.051 < 1 / correction.scale < 19.9:
        steps = [loss_of(correction.scale * np.exp(step) * z, labels) for step in (-1e-4, 1e-4)]
        assert abs(steps[1] - steps[0]) / 2e-4 < 1e-6


class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier whose features are its logits."""

    def fit(self, x: Array, y: Array) -> "Given":
        self.classes_ = np.arange(8)
        return self

    def decision_function(self, x: Array) -> Array:
        return x

    def predict(self, x: Array) -> Array:
        return np.asarray(x.argmax(axis=1))


def test_temperature_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(6)
    labels = np.repeat(np.arange(8), 40)
    z = 3 * (rng.normal(size=(len(labels), 8)) + np.eye(8)[labels])
    theirs = CalibratedClassifierCV(FrozenEstimator(Given().fit(z, labels)), method="temperature").fit(z, labels)
    corrected = Temperature().fit(z, labels, UNIFORM)(z)
    np.testing.assert_allclose(softmax(corrected), theirs.predict_proba(z), atol=1e-4)
    assert loss_of(corrected, labels) == pytest.approx(log_loss(labels, theirs.predict_proba(z)), abs=1e-6)


@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
def test_a_known_temperature_is_recovered(true: float) -> None:
    rng = np.random.default_rng(7)
    z = 3 * true * rng.normal(size=(20_000, 8))
    labels = (z / true + rng.gumbel(size=z.shape)).argmax(axis=1)  # drawn from softmax(z / T)
    assert 1 / Temperature().fit(z, labels, UNIFORM).scale == pytest.approx(true, rel=0.03)


@pytest.mark.parametrize("bias", [False, True])
def test_temperature_ends_at_its_bounds(bias: bool) -> None:
    labels = np.repeat(np.arange(8), 3)
    for logits, temperature in ((10 * np.eye(8)[labels], 0.05), (-10 * np.eye(8)[labels], 20.0)):
        correction = Temperature(bias).fit(logits, labels, UNIFORM)
        assert 1 / correction.scale == pytest.approx(temperature, rel=1e-12)
        np.testing.assert_allclose(correction.offsets, 0, atol=1e-6)


def test_logits_that_tell_nothing_keep_temperature_one() -> None:
    for logits in (np.zeros((8, 8)), 1e4 * np.eye(8)):
        assert Temperature().fit(logits, np.arange(8), UNIFORM).scale == 1


def test_known_offsets_are_recovered() -> None:
    rng = np.random.default_rng(8)
    z = 4 * rng.normal(size=(30_000, 8))
    shift = np.log(PRIOR) - np.log(PRIOR).mean()
    labels = (z / 2 + shift + rng.gumbel(size=z.shape)).argmax(axis=1)  # drawn from softmax(z / 2 + shift)
    correction = Temperature(bias=True).fit(z, labels, UNIFORM)
    assert 1 / correction.scale == pytest.approx(2, rel=0.03)
    np.testing.assert_allclose(correction.offsets, shift, atol=0.12)


@pytest.mark.parametrize("classes", [8, 4])
def test_bias_is_where_another_optimiser_finds_it(classes: int) -> None:
    z, labels = drawn(9, 500, classes, signal=1.0)
    assert len(set(labels.tolist())) == classes

    def correction(free: Array) -> Array:
        """The last offset is what makes their mean 0; classes that are not there have 0."""
        offsets = np.zeros(8)
        offsets[:classes] = [*free[1:], -free[1:].sum()]
        return np.array(free[0] * z + offsets)

    theirs: Any = minimize(
        lambda free: loss_of(correction(free), labels), [1.0, *np.zeros(classes - 1)], tol=1e-6, method="BFGS"
    )
    ours = Temperature(bias=True).fit(z, labels, PRIOR)
    assert loss_of(ours(z), labels) == pytest.approx(theirs.fun, abs=1e-8)
    np.testing.assert_allclose(ours(z), correction(theirs.x), atol=0.01)


@quick
@given(SEEDS, st.integers(1, 8), st.floats(-1, 1))
def test_bias_is_more_likely_than_temperature_alone(seed: int, classes: int, size: float) -> None:
    z, labels = drawn(seed, 50, classes)
    z *= 10**size
    plain, biased = (Temperature(bias).fit(z, labels, PRIOR) for bias in (False, True))
    assert loss_of(biased(z), labels) <= loss_of(plain(z), labels) + 1e-12
    assert abs(biased.offsets.mean()) < 1e-9
    assert not biased.offsets[[k for k in range(8) if k not in labels]].any()


def test_bias_has_nothing_to_fit_where_no_held_out_class_was_trained_on() -> None:
    z, _ = drawn(16, 5)
    assert not Temperature(bias=True).fit(z, np.full(5, 3), np.eye(8)[0]).offsets.any()


# Cross-fitting


@pytest.mark.parametrize("adjustment", LEARNERS, ids=repr)
def test_labels_of_a_group_do_not_reach_its_own_logits(adjustment: Adjustment) -> None:
    z, labels = drawn(10, 120, signal=1.0)
    groups, priors = np.arange(120) % 3, np.tile(PRIOR, (3, 1))
    swapped = np.where(groups == 1, (labels + 1) % 8, labels)
    one, other = (cross_fit_adjustment(adjustment, z, which, priors, groups) for which in (labels, swapped))
    np.testing.assert_array_equal(one[groups == 1], other[groups == 1])
    for group in (0, 2):
        assert not np.allclose(one[groups == group], other[groups == group])


@pytest.mark.parametrize("adjustment", EVERY, ids=repr)
def test_each_group_is_corrected_by_all_others_and_its_own_prior(adjustment: Adjustment) -> None:
    z, labels = drawn(11, 90)
    groups = np.random.default_rng(11).integers(0, 3, 90) * 2  # priors of groups that have no landmark are not used
    priors = np.stack([PRIOR, UNIFORM, np.roll(PRIOR, 1), UNIFORM, PRIOR[::-1]])
    found = cross_fit_adjustment(adjustment, z, labels, priors, groups)
    for group in (0, 2, 4):
        rest = groups != group
        expected = adjustment.fit(z[rest], labels[rest], priors[group])(z[~rest])
        np.testing.assert_array_equal(found[~rest], expected)


def test_one_group_has_nothing_to_learn_from() -> None:
    z, labels = drawn(12)
    priors, groups = PRIOR[None], np.zeros(len(z), int)
    for adjustment in LEARNERS:
        with pytest.raises(ValueError, match="learns from the other groups"):
            cross_fit_adjustment(adjustment, z, labels, priors, groups)
    np.testing.assert_array_equal(cross_fit_adjustment(NoAdjustment(), z, labels, priors, groups), z)
    np.testing.assert_allclose(
        cross_fit_adjustment(PosthocLogitAdjustment(1.0), z, labels, priors, groups), z - np.log(PRIOR)
    )


@pytest.mark.parametrize("groups", [np.zeros(59, int), np.full(60, 2), np.full(60, -1), np.zeros(60)])
def test_groups_without_prior_are_refused(groups: Array) -> None:
    z, labels = drawn(13)
    with pytest.raises(ValueError, match="groups must be"):
        cross_fit_adjustment(NoAdjustment(), z, labels, np.tile(PRIOR, (2, 1)), groups)


def test_cross_fitting_refuses_labels_of_other_rows() -> None:
    z, labels = drawn(14)
    with pytest.raises(ValueError, match="labels must be"):
        cross_fit_adjustment(NoAdjustment(), z, labels[1:], np.tile(PRIOR, (2, 1)), np.arange(60) % 2)


# Wrong values


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf])
def test_wrong_values_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"tau must be .* got"):
        PosthocLogitAdjustment(value)
    for strength in (value, 0.0):
        with pytest.raises(ValueError, match=r"strength must be .* got"):
            ClassBias(strength)
        with pytest.raises(ValueError, match=r"scale must be .* got"):
            Correction(strength, np.zeros(8))
    with pytest.raises(ValueError, match=r"bias must be .* got"):
        Temperature(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("offsets", [np.full(8, np.nan), np.zeros((1, 8)), np.float64(0)])
def test_wrong_offsets_are_refused(offsets: Array) -> None:
    with pytest.raises(ValueError, match="offsets must be"):
        Correction(1.0, offsets)


def test_a_correction_refuses_logits_of_another_number_of_classes() -> None:
    with pytest.raises(ValueError, match=r"^logits must have shape \(n, 7\), got \(5, 8\)$"):
        Correction(1.0, np.zeros(7))(np.zeros((5, 8)))


Z, LABELS = drawn(15)
WRONG = {
    "logits must have shape": [(Z[0], LABELS[:1], PRIOR)],
    "logits must be finite": [(np.where(Z > 2, np.nan, Z), LABELS, PRIOR), (Z + np.inf, LABELS, PRIOR)],
    "labels must be one": [(Z, LABELS[1:], PRIOR), (Z, LABELS.astype(float), PRIOR)],
    "labels must be classes": [(Z, LABELS - 1, PRIOR), (Z, LABELS + 8, PRIOR)],
    "prior must be": [
        *((Z, LABELS, prior) for prior in (PRIOR[:7], PRIOR * 2, PRIOR * np.nan, np.eye(8)[0] * 2 - 1 / 8)),
        (Z[:, :7], np.minimum(LABELS, 6), PRIOR),
    ],
}


@pytest.mark.parametrize("adjustment", EVERY, ids=repr)
@pytest.mark.parametrize(("match", "wrong"), [(match, wrong) for match, cases in WRONG.items() for wrong in cases])
def test_wrong_arguments_are_refused(adjustment: Adjustment, match: str, wrong: tuple[Array, Array, Array]) -> None:
    with pytest.raises(ValueError, match=match):
        adjustment.fit(*wrong)


@pytest.mark.parametrize("adjustment", LEARNERS, ids=repr)
def test_nothing_to_learn_from_is_refused(adjustment: Adjustment) -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        adjustment.fit(Z[:0], LABELS[:0], PRIOR)
