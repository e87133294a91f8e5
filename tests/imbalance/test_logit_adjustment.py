"""Corrections of logits, post-hoc logit adjustment and cross-fitting; and what all adjustments have in common."""

import re

import numpy as np
import pytest
from builders import quick
from heldout_logits import PRIOR, SEEDS, UNIFORM, Array, draw_logits
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax as scipy_log_softmax

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
from hirise_imb.utils.errors import NotFinite

EVERY: list[Adjustment] = [
    NoAdjustment(),
    PosthocLogitAdjustment(1.0),
    ClassBias(0.1),
    Temperature(),
    Temperature(bias=True),
]
LEARNERS = [adjustment for adjustment in EVERY if adjustment.learns]


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
    corrected = Correction(1 / 3, np.full(8, 1e-9))(np.ones((2, 8), np.float32))
    np.testing.assert_array_equal(corrected, np.full((2, 8), 1 / 3 + 1e-9))


def test_corrections_that_overflow_are_refused() -> None:
    with pytest.raises(NotFinite, match=r"^logits must be finite, got infinity or NaN$"):
        Correction(1e200, np.zeros(8))(np.full((2, 8), 1e200))


@pytest.mark.parametrize("adjustment", EVERY, ids=repr)
def test_logits_that_come_in_stay_as_they_are(adjustment: Adjustment) -> None:
    z, labels = draw_logits(0)
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
    z, labels = draw_logits(1)
    np.testing.assert_array_equal(NoAdjustment().fit(z, labels, PRIOR)(z), z)


@quick
@given(SEEDS, st.floats(0, 3))
def test_logit_adjustment_is_the_formula_of_menon(seed: int, tau: float) -> None:
    z, labels = draw_logits(seed)
    corrected = PosthocLogitAdjustment(tau).fit(z, labels, PRIOR)(z)
    # Equation 9 of the paper, with f = z: the class with the largest exp(f_y) / pi_y^tau.
    np.testing.assert_allclose(np.exp(corrected), np.exp(z) / PRIOR**tau, rtol=1e-9)


@quick
@given(SEEDS, st.floats(0, 3))
def test_logit_adjustment_after_uniform_training_changes_no_decision(seed: int, tau: float) -> None:
    z, labels = draw_logits(seed)
    correction = PosthocLogitAdjustment(tau).fit(z, labels, UNIFORM)
    assert np.ptp(correction.offsets) == 0
    np.testing.assert_array_equal(correction(z).argmax(axis=1), z.argmax(axis=1))


def test_offsets_of_a_prior_in_single_precision_are_computed_in_double_precision() -> None:
    z, labels = draw_logits(2)
    prior: Array = PRIOR.astype(np.float32)
    expected: Array = -np.log(prior.astype(np.float64))
    np.testing.assert_allclose(PosthocLogitAdjustment().fit(z, labels, prior).offsets, expected, rtol=1e-14)


def test_logit_adjustment_with_tau_zero_is_the_identity() -> None:
    z, labels = draw_logits(2)
    np.testing.assert_array_equal(PosthocLogitAdjustment(0.0).fit(z, labels, PRIOR)(z), z)


def test_logit_adjustment_needs_no_labels() -> None:
    z, labels = draw_logits(3)
    expected = PosthocLogitAdjustment(1.0).fit(z, labels, PRIOR).offsets
    for rows in (z[:0], z):
        found = PosthocLogitAdjustment(1.0).fit(rows, np.zeros(len(rows), int), PRIOR)
        np.testing.assert_array_equal(found.offsets, expected)


@pytest.mark.parametrize("adjustment", EVERY, ids=repr)
def test_a_class_never_trained_on_has_offset_zero(adjustment: Adjustment) -> None:
    prior = np.array([0.7, 0.1, 0.1, 0.02, 0.03, 0.0, 0.03, 0.02])
    z, labels = draw_logits(4, 400)
    assert 5 in labels
    assert adjustment.fit(z, labels, prior).offsets[5] == 0


# Cross-fitting


@pytest.mark.parametrize("adjustment", LEARNERS, ids=repr)
def test_labels_of_a_group_do_not_reach_its_own_logits(adjustment: Adjustment) -> None:
    z, labels = draw_logits(10, 120, signal=1.0)
    groups, priors = np.arange(120) % 3, np.tile(PRIOR, (3, 1))
    swapped = np.where(groups == 1, (labels + 1) % 8, labels)
    one, other = (cross_fit_adjustment(adjustment, z, which, priors, groups) for which in (labels, swapped))
    np.testing.assert_array_equal(one[groups == 1], other[groups == 1])
    for group in (0, 2):
        assert not np.allclose(one[groups == group], other[groups == group])


@pytest.mark.parametrize("adjustment", EVERY, ids=repr)
def test_each_group_is_corrected_by_all_others_and_its_own_prior(adjustment: Adjustment) -> None:
    z, labels = draw_logits(11, 90)
    groups = np.random.default_rng(11).integers(0, 3, 90) * 2  # priors of groups that have no landmark are not used
    priors = np.stack([PRIOR, UNIFORM, np.roll(PRIOR, 1), UNIFORM, PRIOR[::-1]])
    found = cross_fit_adjustment(adjustment, z, labels, priors, groups)
    for group in (0, 2, 4):
        rest = groups != group
        expected = adjustment.fit(z[rest], labels[rest], priors[group])(z[~rest])
        np.testing.assert_array_equal(found[~rest], expected)


def test_one_group_has_nothing_to_learn_from() -> None:
    z, labels = draw_logits(12)
    priors, groups = PRIOR[None], np.zeros(len(z), int)
    for adjustment in LEARNERS:
        with pytest.raises(ValueError, match="learns from the other groups"):
            cross_fit_adjustment(adjustment, z, labels, priors, groups)
    np.testing.assert_array_equal(cross_fit_adjustment(NoAdjustment(), z, labels, priors, groups), z)
    np.testing.assert_allclose(
        cross_fit_adjustment(PosthocLogitAdjustment(1.0), z, labels, priors, groups), z - np.log(PRIOR)
    )


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (np.zeros(59, int), "one integer for each of 60 rows, got (59,) int64"),
        (np.zeros(60), "one integer for each of 60 rows, got (60,) float64"),
        (np.full(60, 2), "rows 0 to 1 of priors, got [2]"),
        (np.arange(60) % 2 - 1, "rows 0 to 1 of priors, got [-1, 0]"),
    ],
)
def test_groups_without_prior_are_refused(groups: Array, message: str) -> None:
    z, labels = draw_logits(13)
    with pytest.raises(ValueError, match=f"^groups must be {re.escape(message)}$"):
        cross_fit_adjustment(NoAdjustment(), z, labels, np.tile(PRIOR, (2, 1)), groups)


def test_cross_fitting_refuses_labels_of_other_rows() -> None:
    z, labels = draw_logits(14)
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


Z, LABELS = draw_logits(15)
WRONG = {
    "logits must have shape": [(Z[0], LABELS[:1], PRIOR)],
    "logits must be finite": [(np.where(Z > 2, np.nan, Z), LABELS, PRIOR), (Z + np.inf, LABELS, PRIOR)],
    "labels must be one": [(Z, LABELS[1:], PRIOR), (Z, LABELS.astype(float), PRIOR)],
    r"labels must be classes 0 to 7, got \[-1, 0, ": [(Z, LABELS - 1, PRIOR)],
    r"labels must be classes 0 to 7, got \[1, 8\]$": [(Z, np.where(LABELS > 0, 8, 1), PRIOR)],
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
