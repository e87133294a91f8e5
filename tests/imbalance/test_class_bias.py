"""Class offsets tuned for macro F1, against scikit-learn and trials of other offsets."""

import numpy as np
import pytest
from builders import quick
from heldout_logits import PRIOR, SEEDS, UNIFORM, Array, anchor_of, anchors_of, draw_logits, macro, plain_macro
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from hirise_imb.imbalance.class_bias import ClassBias


@quick
@given(SEEDS, st.floats(1e-6, 10), st.booleans())
def test_class_bias_is_no_worse_than_its_logit_adjustment(seed: int, strength: float, tied: bool) -> None:
    z, labels = draw_logits(seed)
    z = z.round() if tied else z  # rows whose decisions change together
    anchor = anchor_of(z, labels, PRIOR)
    b = ClassBias(strength).fit(z, labels, PRIOR).offsets
    assert macro(labels, z + b) - strength * ((b - anchor) ** 2).mean() >= macro(labels, z + anchor) - 1e-9


@quick
@given(SEEDS)
def test_class_bias_of_two_classes_is_the_best_threshold_there_is(seed: int) -> None:
    z, labels = draw_logits(seed, 40, classes=2, signal=0.7)
    z[:, 2:] = -1e3
    gaps = np.sort(z[:, 0] - z[:, 1])
    thresholds = [gaps[0] - 1, *(gaps[1:] + gaps[:-1]) / 2, gaps[-1] + 1]
    best = max(macro(labels, z + np.eye(8)[1] * threshold) for threshold in thresholds)
    found = ClassBias(1e-9).fit(z, labels, PRIOR)
    assert macro(labels, found(z)) == pytest.approx(best, abs=1e-12)


@quick
@given(SEEDS, st.integers(2, 8), st.sampled_from([1e-6, 0.01, 0.1, 1.0]))
@example(1, 3, 1.0)  # other classes are far above or below their anchors
@example(153, 4, 1.0)
def test_no_change_of_one_class_improves_class_bias(seed: int, classes: int, strength: float) -> None:
    z, labels = draw_logits(seed, 25, classes, signal=1.0)
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
@example(3422977276)  # two taus whose scores differ by rounding
def test_class_bias_of_all_strength_is_the_best_logit_adjustment(seed: int) -> None:
    z, labels = draw_logits(seed)
    found = ClassBias(1e9).fit(z, labels, PRIOR).offsets
    assert min(np.abs(found - anchor).max() for anchor in anchors_of(z, labels, PRIOR)) < 1e-4


def test_class_bias_of_equal_taus_is_held_by_the_smallest() -> None:
    labels = np.arange(8)  # all right whatever the tau
    np.testing.assert_array_equal(ClassBias(1e9).fit(100 * np.eye(8), labels, PRIOR).offsets, np.zeros(8))


@quick
@given(SEEDS, st.sampled_from([1e-6, 0.1]))
def test_the_order_of_landmarks_does_not_matter_to_class_bias(seed: int, strength: float) -> None:
    z, labels = draw_logits(seed)
    order = np.random.default_rng(seed).permutation(len(z))
    one, other = (ClassBias(strength).fit(z[rows], labels[rows], PRIOR) for rows in (slice(None), order))
    np.testing.assert_array_equal(one.offsets, other.offsets)


def test_class_bias_leaves_classes_without_landmarks_at_the_logit_adjustment() -> None:
    z, labels = draw_logits(5, classes=3, signal=0.5)
    moved = ClassBias(1e-6).fit(z, labels, PRIOR).offsets - anchor_of(z, labels, PRIOR)
    np.testing.assert_allclose(moved[3:], 0, atol=1e-12)
    assert np.abs(moved[:3]).max() > 1e-3


def test_class_bias_finds_what_a_shift_of_logits_hides() -> None:
    labels = np.repeat(np.arange(8), 5)
    hidden = np.array([3.0, 0, 0, -2, 0, 1, 0, 0])
    z = np.eye(8)[labels] + hidden
    assert macro(labels, z) < 0.5
    assert macro(labels, ClassBias(1e-3).fit(z, labels, UNIFORM)(z)) == 1


def test_class_bias_silences_a_class_that_only_takes_from_others() -> None:
    z = np.full((9, 8), -10.0)
    labels = np.array([1, 1, 1, 1, 2, 2, 2, 2, 0])
    z[np.arange(8), labels[:8]] = 0
    z[:8, 0] = 1
    z[8, 1] = 0
    np.testing.assert_allclose(ClassBias(0.01).fit(z, labels, UNIFORM).offsets, -np.eye(8)[0], atol=2e-6)


def test_class_bias_turns_against_the_logit_adjustment_where_that_is_better() -> None:
    # A rare class that gains by a higher offset, as the adjustment gives it, and gains more by a lower one.
    margins, labels = np.repeat([1.5, 0.5, -0.5, -1.5], [4, 4, 1, 10]), np.repeat([1, 0, 1, 0], [4, 4, 1, 10])
    z = np.stack([np.zeros(19), margins], axis=1)
    prior = np.array([0.75, 0.25])
    tau = 0.5  # the smallest of the grid that changes a decision: 0.5 log 3 > 0.5
    adjusted = z - tau * np.log(prior)
    assert f1_score(labels, adjusted.argmax(axis=1), average="macro") > f1_score(labels, margins > 0, average="macro")
    found = ClassBias(1e-6).fit(z, labels, prior)(z)
    np.testing.assert_array_equal(found.argmax(axis=1), margins > 1)


@pytest.mark.parametrize(("gap", "score"), [(2e-6, 1), (1.9e-6, 1 / 3)])
def test_class_bias_enters_gaps_of_at_least_twice_its_clearance(gap: float, score: float) -> None:
    z, labels = np.full((2, 8), -10.0), np.array([1, 0])
    z[:, :2] = [[0, 0], [gap, 0]]  # only between -gap and 0 has class 0 an offset that tells both rows
    assert macro(labels, ClassBias(1e-3).fit(z, labels, UNIFORM)(z)) == pytest.approx(score * 2 / 8)


def test_class_bias_stands_ties_and_single_landmarks() -> None:
    for labels in (np.array([3]), np.array([0, 1, 1, 5])):  # best is to call them all 3, or 1
        z = np.zeros((len(labels), 8))
        b = ClassBias(0.01).fit(z, labels, UNIFORM).offsets
        assert b.argmax() == np.bincount(labels).argmax()
        assert macro(labels, z + b) == max(macro(labels, z + np.eye(8)[k]) for k in range(8))
