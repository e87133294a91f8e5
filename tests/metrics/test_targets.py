"""Target metrics against scikit-learn, imbalanced-learn and counting by hand; their resampling and swap test."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from imblearn.metrics import geometric_mean_score
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, precision_recall_curve

from hirise_imb.metrics.bootstrap import SourceCounts, bootstrap_sources, draw_resamples
from hirise_imb.metrics.permutation import swap_test
from hirise_imb.metrics.target_inference import ArmScores, swap_test_of
from hirise_imb.metrics.targets import MACRO_F1, TARGETS, Target, find_target
from hirise_imb.utils.errors import UserError

CLASSES = ("dune", "crater", "other", "ice")
COSTS = ("crater, *, 2", "crater, other, 10", "other, ice, 0.5")
EVERY = ("macro_f1", "balanced_accuracy", "g_mean", "mean_average_precision", "recall_at_precision:0.6", "cost")


def target_named(name: str) -> Target:
    return find_target(name, COSTS if name == "cost" else (), CLASSES)


def make_arm(name: str, seed: int, *, fits: int = 2, n: int = 240, every_class: bool = True) -> ArmScores:
    """Predictions that are better than chance, on landmarks of twelve sources; ties in probabilities are frequent."""
    rng = np.random.default_rng(7)
    labels = rng.permutation(np.resize([0, 1, 1, 2, 2, 2, 2, 3], n))
    sources = np.repeat(np.arange(12), n // 12)
    if not every_class:
        labels[sources > 2] = np.where(labels[sources > 2] == 0, 2, labels[sources > 2])
    draw = np.random.default_rng(seed)
    logits = 1.2 * np.eye(4)[labels] + draw.normal(size=(fits, n, 4))
    shares = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    return ArmScores(target_named(name), labels, sources, np.round(shares, 2).astype(np.float32))


def by_hand(name: str, labels: np.ndarray, shares: np.ndarray) -> float:
    """The score as other libraries, or plain loops, compute it."""
    predicted = shares.argmax(axis=1)
    present = np.unique(labels)
    if name == "macro_f1":
        return float(f1_score(labels, predicted, average="macro", labels=range(4), zero_division=0))
    if name == "balanced_accuracy":
        with warnings.catch_warnings(action="ignore"):  # of classes without landmarks
            return float(balanced_accuracy_score(labels, predicted))
    if name == "g_mean":
        return float(geometric_mean_score(labels, predicted, labels=present, average="multiclass"))
    if name == "mean_average_precision":
        return float(np.mean([average_precision_score(labels == k, shares[:, k]) for k in present]))
    if name.startswith("recall"):
        curves = [precision_recall_curve(labels == k, shares[:, k]) for k in present]
        # The last point of scikit-learn's curve, precision 1 at recall 0, is no threshold.
        return float(np.mean([recall[precision >= 0.6].max() for precision, recall, _ in curves]))
    matrix = np.array([[0, 1, 1, 1], [2, 0, 10, 2], [1, 1, 0, 0.5], [1, 1, 1, 0]])
    constant = min(sum(matrix[k, guess] for k in labels) for guess in range(4))
    return float(1 - sum(matrix[k, guess] for k, guess in zip(labels, predicted, strict=True)) / constant)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("absent", [False, True], ids=["every class", "a class without landmarks"])
def test_scores_are_those_of_other_libraries(name: str, absent: bool) -> None:
    arm = make_arm(name, 3)
    chosen = arm.labels != 3 if absent else np.full(len(arm.labels), True)
    shares = arm.probabilities[0][chosen]
    expected = by_hand(name, arm.labels[chosen], shares)
    assert arm.target.score(arm.labels[chosen], shares) == pytest.approx(expected, abs=1e-12)
    assert 0 < expected < 1


@pytest.mark.parametrize("name", EVERY)
def test_the_best_and_the_worst_predictions_have_the_scores_that_they_should(name: str) -> None:
    arm = make_arm(name, 3)
    perfect = np.eye(4)[arm.labels]
    assert arm.target.score(arm.labels, perfect) == pytest.approx(1)
    if name == "cost":
        constant = np.tile(np.eye(4)[1], (len(arm.labels), 1))  # missing craters costs most
        assert arm.target.score(arm.labels, constant) == pytest.approx(0)


@pytest.mark.parametrize("name", EVERY)
def test_a_weighted_source_counts_like_copies_of_its_landmarks(name: str) -> None:
    arm = make_arm(name, 4, every_class=False)
    weights = np.array([[2, 0, 1, 3, 1, 1, 0, 0, 1, 2, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 2, 1]], float)
    scores = arm.score_draws(weights)
    assert scores.shape == (2, 2)
    for draw, row in enumerate(weights):
        copies = np.repeat(np.arange(len(arm.labels)), row[arm.sources].astype(int))
        for fit in range(2):
            expected = by_hand(name, arm.labels[copies], arm.probabilities[fit][copies])
            assert scores[fit, draw] == pytest.approx(expected, abs=1e-9)


def test_resamples_of_macro_f1_are_those_of_the_faster_code() -> None:
    arm = make_arm("macro_f1", 5)
    counts = SourceCounts.of(arm.labels, arm.probabilities.argmax(axis=2), arm.sources, 4)
    resamples = bootstrap_sources(counts)
    assert resamples.complete_share == 1  # otherwise undrawn classes count differently
    np.testing.assert_allclose(arm.resample(), resamples.macro_f1(), atol=1e-12)


@pytest.mark.parametrize("fits", [(2, 2), (1, 3)])
def test_the_swap_test_of_macro_f1_is_that_of_the_faster_code(fits: tuple[int, int]) -> None:
    one, other = (make_arm("macro_f1", seed, fits=n) for seed, n in zip((5, 6), fits, strict=True))
    first, second = (
        SourceCounts.of(arm.labels, arm.probabilities.argmax(axis=2), arm.sources, 4) for arm in (one, other)
    )
    ours, faster = swap_test_of(one, other), swap_test(first, second)
    assert ours.exact
    assert faster.exact
    assert ours.p == faster.p
    assert ours.informative_sources == faster.informative_sources
    assert ours.difference == pytest.approx(faster.difference)
    assert ours.min_detectable_difference == pytest.approx(faster.min_detectable_difference)


@pytest.mark.parametrize("name", EVERY)
def test_the_swap_test_counts_every_exchange_of_predictions(name: str) -> None:
    one, other = make_arm(name, 8, fits=1, n=240), make_arm(name, 9, fits=1, n=240)
    # Only four sources differ, so that sixteen exchanges are all there are.
    same = one.sources >= 4
    shares = np.where(same[None, :, None], one.probabilities, other.probabilities)
    other = ArmScores(one.target, one.labels, one.sources, shares.astype(np.float32))
    differences = []
    for number in range(16):
        swapped = np.isin(one.sources, [place for place in range(4) if number >> place & 1])
        first = np.where(swapped[:, None], shares[0], one.probabilities[0])
        second = np.where(swapped[:, None], one.probabilities[0], shares[0])
        differences.append(by_hand(name, one.labels, first) - by_hand(name, one.labels, second))
    sizes = np.abs(differences)
    test = swap_test_of(one, other)
    assert test.exact
    assert test.informative_sources == 4
    assert test.difference == pytest.approx(differences[0])
    assert test.p == np.mean(sizes >= sizes[0] - 1e-12)


def test_arms_with_equal_predictions_have_nothing_to_test() -> None:
    for name in EVERY:
        test = swap_test_of(make_arm(name, 2), make_arm(name, 2))
        assert (test.p, test.informative_sources, test.difference) == (1, 0, 0)
    with pytest.raises(ValueError, match="not tested on the same landmarks"):
        swap_test_of(make_arm("g_mean", 2), make_arm("g_mean", 2, every_class=False))


def test_fits_are_resampled_with_sources() -> None:
    arm = make_arm("g_mean", 2)
    weights, shares = draw_resamples(12, 2, 10_000)
    expected = [arm.score_draws(weights[[n]])[:, 0] @ shares[n] for n in (0, 17, 9_999)]
    np.testing.assert_allclose(arm.resample()[[0, 17, 9_999]], expected)


WRONG: dict[str, tuple[Any, ...]] = {
    "an unknown name": ("f2", (), "There is no metric 'f2': use macro_f1, balanced_accuracy, g_mean,"),
    "no precision": ("recall_at_precision", (), "There is no metric 'recall_at_precision'"),
    "a precision above 1": ("recall_at_precision:1.5", (), "a precision P above 0 and up to 1"),
    "no costs": ("cost", (), "metric is cost, but costs is empty"),
    "costs of another metric": ("g_mean", ("a, b, 1",), "costs are given, but metric is g_mean"),
    "an unknown class": ("cost", ("hill, other, 1",), "there is no class 'hill'; there are dune, crater, other, ice."),
    "a negative cost": ("cost", ("dune, other, -1",), "with a cost of 0 or more"),
    "an infinite cost": ("cost", ("dune, other, inf",), "with a cost of 0 or more"),
    "no number": ("cost", ("dune, other",), "write 'true class, predicted class, cost'"),
    "a cost of being right": ("cost", ("dune, dune, 1",), "a correct prediction costs nothing"),
    "no cost at all": ("cost", ("*, *, 0",), "at least one must cost something"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_target_is_refused_in_a_sentence(case: str) -> None:
    name, costs, message = WRONG[case]
    with pytest.raises(UserError) as refused:
        find_target(name, costs, CLASSES)
    assert message in str(refused.value)


def test_the_default_is_macro_f1_and_every_name_can_be_used() -> None:
    assert find_target("macro_f1", (), CLASSES) is MACRO_F1
    assert {name.split(":")[0] for name in TARGETS} == {name.split(":")[0] for name in EVERY}
    assert target_named("recall_at_precision:0.6").label == "recall at precision 0.6"
