"""What probabilities tell, against scikit-learn and against loops that follow the definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from builders import quick
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn import metrics

from hirise_imb.metrics.calibration import ReliabilityDiagram, apply_temperature, expected_calibration_error, log_loss
from hirise_imb.metrics.operating_point import CONFIDENCE_THRESHOLD, OperatingPoint
from hirise_imb.metrics.ranking import average_precision, mean_average_precision, precision_at_hits, risk_at_coverage

EIGHT = range(8)
# How many landmarks, how many classes among them, how sharp; rounded probabilities are tied.
SEEDS = st.tuples(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 8), st.floats(0, 6), st.booleans())
Case = tuple[int, int, int, float, bool]


def drawn(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and float32 probabilities as a network gives them."""
    seed, n, classes, sharpness, tied = case
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = sharpness * (rng.normal(size=(n, 8)) + np.eye(8)[labels])
    if tied:
        logits = np.round(logits)
    return labels, softmax(logits, axis=1).astype(np.float32)


# --- log loss and temperature ---


@quick
@given(SEEDS)
def test_log_loss_is_that_of_scikit_learn(case: Case) -> None:
    labels, probabilities = drawn(case)
    rows = probabilities.astype(float) / probabilities.astype(float).sum(axis=1, keepdims=True)
    assert log_loss(labels, rows) == pytest.approx(metrics.log_loss(labels, rows, labels=list(EIGHT)), abs=1e-9)


def test_a_probability_that_underflowed_is_no_infinite_loss() -> None:
    probabilities = np.eye(8, dtype=np.float32)[[0, 0]]
    assert log_loss(np.array([0, 1]), probabilities) == pytest.approx(-math.log(np.finfo(np.float32).tiny) / 2)


@quick
@given(SEEDS, st.floats(0.1, 10))
def test_a_temperature_divides_logits(case: Case, temperature: float) -> None:
    _, probabilities = drawn(case)
    found = apply_temperature(probabilities, temperature)
    expected = softmax(np.log(probabilities.astype(float)) / temperature, axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-15)
    np.testing.assert_array_equal(found.argmax(axis=1), probabilities.argmax(axis=1))
    # A second temperature multiplies.
    np.testing.assert_allclose(
        apply_temperature(found, 1 / temperature), apply_temperature(probabilities, 1.0), atol=1e-9
    )


def test_temperature_of_one_and_the_ends() -> None:
    _, probabilities = drawn((0, 20, 8, 2.0, False))
    np.testing.assert_allclose(apply_temperature(probabilities, 1.0), probabilities, atol=1e-7)
    np.testing.assert_allclose(apply_temperature(probabilities, 1e6), np.full((20, 8), 1 / 8), atol=1e-4)
    np.testing.assert_allclose(
        apply_temperature(probabilities, 1e-3), np.eye(8)[probabilities.argmax(axis=1)], atol=1e-6
    )
    # Zero stays zero, and nothing overflows.
    sure = np.eye(8, dtype=np.float32)
    np.testing.assert_array_equal(apply_temperature(sure, 0.05), sure)
    np.testing.assert_array_equal(apply_temperature(sure, 20), sure)


def test_each_row_can_have_its_own_temperature() -> None:
    _, probabilities = drawn((0, 3, 8, 2.0, False))
    temperatures = np.array([0.5, 1.0, 3.0])
    expected = softmax(np.log(probabilities.astype(float)) / temperatures[:, None], axis=1)
    np.testing.assert_allclose(apply_temperature(probabilities, temperatures), expected, rtol=1e-10)


@quick
@given(st.integers(0, 1000), st.floats(0.2, 5))
def test_the_temperature_of_a_softmax_is_undone(seed: int, temperature: float) -> None:
    logits = np.random.default_rng(seed).normal(size=(10, 8))
    expected = np.exp(log_softmax(logits, axis=1))
    np.testing.assert_allclose(
        apply_temperature(softmax(logits / temperature, axis=1), 1 / temperature), expected, atol=1e-9
    )


# --- calibration ---


@quick
@given(SEEDS, st.sampled_from([1, 10, 15]))
def test_the_reliability_diagram_is_that_of_a_loop(case: Case, bins: int) -> None:
    labels, probabilities = drawn(case)
    count, confidence, hits = [0] * bins, [0.0] * bins, [0] * bins
    for label, row in zip(labels.tolist(), probabilities.tolist(), strict=True):
        sure = max(row)
        which = next(k for k in range(bins) if sure * bins < k + 1 or k == bins - 1)
        count[which] += 1
        confidence[which] += sure
        hits[which] += row.index(sure) == label
    found = ReliabilityDiagram.of(labels, probabilities, bins)
    assert found.count.tolist() == count
    assert found.hits.tolist() == hits
    np.testing.assert_allclose(found.confidence, confidence, atol=1e-9)
    error = sum(n / len(labels) * abs(h / n - c / n) for n, h, c in zip(count, hits, confidence, strict=True) if n)
    assert found.error == pytest.approx(error, abs=1e-9)
    assert expected_calibration_error(labels, probabilities, bins) == found.error


def test_certain_predictions_fall_in_the_last_bin() -> None:
    found = ReliabilityDiagram.of(np.arange(8), np.eye(8, dtype=np.float32))
    assert found.count.tolist() == [0] * 14 + [8]
    assert found.error == 0
    even = ReliabilityDiagram.of(np.arange(8), np.full((8, 8), 1 / 8, np.float32))
    assert even.count[0] == 0
    assert even.error == 0


# --- ranking ---


@quick
@given(SEEDS)
def test_average_precision_is_that_of_scikit_learn(case: Case) -> None:
    labels, probabilities = drawn(case)
    found = average_precision(labels, probabilities)
    for k in EIGHT:
        if (labels == k).any():
            assert found[k] == pytest.approx(metrics.average_precision_score(labels == k, probabilities[:, k]))
        else:
            assert np.isnan(found[k])
            assert precision_at_hits(labels, probabilities, k).shape == (0,)
    present = sorted(set(labels.tolist()))
    expected = metrics.average_precision_score(labels[:, None] == present, probabilities[:, present], average="macro")
    assert mean_average_precision(labels, probabilities) == pytest.approx(expected)


@quick
@given(SEEDS)
def test_the_precision_recall_curve_is_that_of_scikit_learn(case: Case) -> None:
    labels, probabilities = drawn(case)
    for k in set(labels.tolist()):
        found = precision_at_hits(labels, probabilities, k)
        precision, recall, _ = metrics.precision_recall_curve(labels == k, probabilities[:, k])
        for hit, value in enumerate(found, start=1):
            # Thresholds ascend: the last one that finds so many is the strictest.
            strictest = np.flatnonzero(recall >= hit / len(found) - 1e-9)[-1]
            assert value == pytest.approx(precision[strictest])


@quick
@given(st.integers(0, 1000), st.permutations(range(20)))
def test_the_order_of_images_plays_no_part(seed: int, order: list[int]) -> None:
    labels, probabilities = drawn((seed, 20, 4, 1.0, True))
    mixed = labels[order], probabilities[order]
    np.testing.assert_allclose(average_precision(*mixed), average_precision(labels, probabilities))
    np.testing.assert_allclose(risk_at_coverage(*mixed), risk_at_coverage(labels, probabilities))
    assert ReliabilityDiagram.of(*mixed).error == pytest.approx(ReliabilityDiagram.of(labels, probabilities).error)


def test_perfect_reversed_and_uninformed_rankings() -> None:
    labels = np.repeat(EIGHT, (20, 3, 3, 3, 3, 3, 3, 2))
    perfect = np.where(np.eye(8)[labels] > 0, 0.3, 0.1)
    assert average_precision(labels, perfect).tolist() == [1] * 8
    # The only threshold finds all: the share of the class.
    shares = np.bincount(labels) / len(labels)
    np.testing.assert_allclose(average_precision(labels, np.full((40, 8), 1 / 8)), shares)
    # Two landmarks of the last class come last: precision 1/39 and 2/40.
    backwards = np.full((40, 8), 1 / 8)
    backwards[:, 7] = np.linspace(0.9, 0.1, 40)
    assert precision_at_hits(labels, backwards, 7) == pytest.approx([1 / 39, 2 / 40])


def test_a_perfect_ranking_needs_no_right_decision() -> None:
    # Everything is called `other`, and the probability of crater is still higher for craters.
    labels = np.array([0, 0, 0, 1, 1])
    probabilities = np.zeros((5, 8))
    probabilities[:, 1] = [0.1, 0.2, 0.1, 0.3, 0.4]
    probabilities[:, 0] = 1 - probabilities[:, 1]
    assert (probabilities.argmax(axis=1) == 0).all()
    found = average_precision(labels, probabilities)
    assert found[:2].tolist() == [1, 1]
    assert np.isnan(found[2:]).all()


# --- what is left to a person ---


@quick
@given(SEEDS)
def test_risk_is_that_of_a_loop(case: Case) -> None:
    labels, probabilities = drawn(case)
    rows = [(max(row), row.index(max(row)) != label) for row, label in zip(probabilities.tolist(), labels, strict=True)]
    expected = []
    for place in range(1, len(rows) + 1):
        threshold = sorted((sure for sure, _ in rows), reverse=True)[place - 1]
        shown = [wrong for sure, wrong in rows if sure >= threshold]
        expected.append(sum(shown) / len(shown))
    found = risk_at_coverage(labels, probabilities)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    # Everything shown: the share of mistakes.
    assert found[-1] == pytest.approx(1 - metrics.accuracy_score(labels, probabilities.argmax(axis=1)))


@quick
@given(SEEDS)
def test_the_operating_point_is_that_of_a_loop(case: Case) -> None:
    labels, probabilities = drawn(case)
    support, decided, shown, right = ([0] * 8 for _ in range(4))
    for label, row in zip(labels.tolist(), probabilities.tolist(), strict=True):
        support[label] += 1
        if max(row) >= np.float32(0.9):
            chosen = row.index(max(row))
            decided[label] += 1
            shown[chosen] += 1
            right[label] += chosen == label
    found = OperatingPoint.of(labels, probabilities)
    assert found.support.tolist() == support
    assert found.decided.tolist() == decided
    assert found.shown.tolist() == shown
    assert found.right.tolist() == right


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_confidence_of_exactly_the_limit_is_shown(kind: type[np.floating]) -> None:
    rest = (1 - CONFIDENCE_THRESHOLD) / 7
    at: np.ndarray = np.full((1, 8), rest, kind)
    at[0, 3] = CONFIDENCE_THRESHOLD
    below = at.copy()
    below[0, 3] = np.nextafter(at[0, 3], kind(0))
    labels = np.array([3])
    assert OperatingPoint.of(labels, at).right.tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
    assert OperatingPoint.of(labels, below).shown.sum() == 0


def test_operating_points_of_several_fits_are_averaged() -> None:
    one = OperatingPoint(*np.array([[4, 2, 1], [3, 2, 0], [3, 1, 1], [3, 1, 0]]))
    other = OperatingPoint(*np.array([[4, 2, 1], [2, 2, 1], [1, 4, 0], [1, 2, 0]]))
    mean = OperatingPoint.mean([one, other])
    assert mean.support.tolist() == [4, 2, 1]
    assert mean.decided.tolist() == [2.5, 2, 0.5]
    assert mean.shown.tolist() == [2, 2.5, 0.5]
    assert mean.right.tolist() == [2, 1.5, 0]


def test_nobody_is_sure() -> None:
    labels = np.arange(8)
    found = OperatingPoint.of(labels, np.full((8, 8), 1 / 8, np.float32))
    assert found.support.tolist() == [1] * 8
    assert found.decided.sum() == found.shown.sum() == found.right.sum() == 0
    # All equally confident: taken together.
    assert risk_at_coverage(labels, np.full((8, 8), 1 / 8, np.float32)).tolist() == [7 / 8] * 8
