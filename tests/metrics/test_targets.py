"""Target metrics against scikit-learn, imbalanced-learn and counting by hand; their resampling and swap test."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from imblearn.metrics import geometric_mean_score
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, precision_recall_curve

from hirise_imb.metrics.bootstrap import SourceCounts, bootstrap_sources, draw_resamples
from hirise_imb.metrics.permutation import swap_test
from hirise_imb.metrics.target_inference import ArmScores, swap_test_of
from hirise_imb.metrics.targets import (
    MACRO_F1,
    TARGETS,
    CostSavings,
    DecisionTarget,
    RankingTarget,
    Target,
    find_target,
)
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


@pytest.mark.parametrize("name", ["balanced_accuracy", "g_mean"])
def test_a_class_with_a_single_landmark_counts_like_any_other(name: str) -> None:
    target = target_named(name)
    assert isinstance(target, DecisionTarget)
    for recall in (0, 1):
        confusion = np.array([[2, 2, 0], [1 - recall, recall, 0], [0, 0, 0]])
        expected = (0.5 + recall) / 2 if name == "balanced_accuracy" else (0.5 * recall) ** 0.5
        assert target.of_confusion(confusion) == pytest.approx(expected)


@pytest.mark.parametrize(("name", "expected"), [("mean_average_precision", 0.25), ("recall_at_precision:0.125", 1.0)])
def test_landmarks_with_equal_scores_are_all_found_at_one_threshold(name: str, expected: float) -> None:
    labels = make_arm(name, 3).labels
    # The precision is the share of the class, of which the smallest is 1/8.
    assert target_named(name).score(labels, np.full((len(labels), 4), 0.25)) == pytest.approx(expected)


def test_rankings_are_scored_in_draws_of_one_class_and_undefined_in_draws_of_none() -> None:
    target = target_named("mean_average_precision")
    assert isinstance(target, RankingTarget)
    labels, groups = np.array([0, 0, 1]), np.array([0, 1, 2])
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    weights = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1]], float)
    # Ranked by class 0: first, third, second landmark. Ranked by class 1: the reverse.
    expected = [np.nan, 1, (1 / 2 + 1 / 2) / 2, ((1 + 2 / 3) / 2 + 1 / 2) / 2]
    np.testing.assert_allclose(target.of_weights(labels, scores, groups, weights), expected)


def test_savings_are_undefined_where_a_constant_prediction_costs_nothing() -> None:
    confusions = np.array([[[3, 0], [0, 0]], [[1, 2], [0, 0]], [[2, 0], [1, 0]], [[2, 1], [0, 1]]])
    # Always predicting the first class costs nothing, nothing, 1 and 1; whole numbers are costs as well.
    savings = CostSavings(costs=((0, 1), (1, 0))).of_confusion(confusions)
    np.testing.assert_array_equal(savings, [np.nan, np.nan, 0, 0])
    half = CostSavings(costs=((0.0, 0.25), (0.5, 0.0))).of_confusion(confusions)
    np.testing.assert_array_equal(half, [np.nan, np.nan, 0, 0.5])


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


@pytest.mark.parametrize("fits", [(2, 2), (1, 3), (2, 1)])
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
    one, other = make_arm(name, 8, fits=2), make_arm(name, 9, fits=1)
    # Only four sources differ, so that sixteen exchanges are all there are.
    same = (one.sources >= 4)[:, None]
    first, second = (np.where(same, one.probabilities[0], arm.probabilities) for arm in (one, other))
    one, other = (ArmScores(one.target, one.labels, one.sources, shares) for shares in (first, second))
    differences = []
    for number in range(16):
        swapped = np.isin(one.sources, [place for place in range(4) if number >> place & 1])[:, None]
        pairs = [(np.where(swapped, second[0], fit), np.where(swapped, fit, second[0])) for fit in first]
        scores = [[by_hand(name, one.labels, shares) for shares in pair] for pair in pairs]
        differences.append(np.mean(scores, axis=0) @ [1, -1])
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
    with pytest.raises(ValueError, match=r"^the arms were not tested on the same landmarks$"):
        swap_test_of(make_arm("g_mean", 2), make_arm("g_mean", 2, every_class=False))


def test_random_exchanges_follow_the_seed_which_is_zero_by_default() -> None:
    one, other = make_arm("mean_average_precision", 5, fits=1), make_arm("mean_average_precision", 6, fits=1)
    default, zero, another = swap_test_of(one, other), swap_test_of(one, other, 0), swap_test_of(one, other, 1)
    assert default == zero
    assert not zero.exact
    assert zero.p != another.p


def test_fits_are_resampled_with_sources() -> None:
    arm = make_arm("g_mean", 2)
    weights, shares = draw_resamples(12, 2, 10_000)
    expected = [arm.score_draws(weights[[n]])[:, 0] @ shares[n] for n in (0, 17, 9_999)]
    np.testing.assert_allclose(arm.resample()[[0, 17, 9_999]], expected)


NO_METRIC = (
    "There is no metric {!r}: use macro_f1, balanced_accuracy, g_mean, mean_average_precision, recall_at_precision:P "
    "with a precision P above 0 and up to 1, or cost."
)
NO_COST = (
    "costs contains {!r}: write 'true class, predicted class, cost' with a cost of 0 or more, such as "
    "'impact ejecta, other, 10'."
)
WRONG: dict[str, tuple[str, tuple[str, ...], str]] = {
    "an unknown name": ("f2", (), NO_METRIC.format("f2")),
    "no precision": ("recall_at_precision", (), NO_METRIC.format("recall_at_precision")),
    "a precision of another metric": ("g_mean:0.5", (), NO_METRIC.format("g_mean:0.5")),
    "a precision of 0": ("recall_at_precision:0", (), NO_METRIC.format("recall_at_precision:0")),
    "a precision above 1": ("recall_at_precision:1.5", (), NO_METRIC.format("recall_at_precision:1.5")),
    "no costs": (
        "cost",
        (),
        "metric is cost, but costs is empty: list them as 'true class, predicted class, cost'.",
    ),
    "costs of another metric": (
        "g_mean",
        ("a, b, 1",),
        "costs are given, but metric is g_mean: set metric to cost, or leave out costs.",
    ),
    "an unknown class": (
        "cost",
        ("dune, other, 1", "hill, other, 1"),
        "costs contains 'hill, other, 1', but there is no class 'hill'; there are dune, crater, other, ice.",
    ),
    "a negative cost": ("cost", ("dune, other, -1",), NO_COST.format("dune, other, -1")),
    "an infinite cost": ("cost", ("dune, other, inf",), NO_COST.format("dune, other, inf")),
    "no number": ("cost", ("dune, other",), NO_COST.format("dune, other")),
    "a word as cost": ("cost", ("dune, other, much",), NO_COST.format("dune, other, much")),
    "a cost of being right": (
        "cost",
        ("dune, dune, 1",),
        "costs contains 'dune, dune, 1': a correct prediction costs nothing.",
    ),
    "no cost at all": ("cost", ("*, *, 0",), "costs gives every mistake the cost 0: at least one must cost something."),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_target_is_refused_in_a_sentence(case: str) -> None:
    name, costs, message = WRONG[case]
    with pytest.raises(UserError) as refused:
        find_target(name, costs, CLASSES)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("classes", "lines", "expected"),
    [
        (("a", "b"), ["*, *, 2"], ((0, 2), (2, 0))),
        (("rock, flat", "b"), ["rock, flat, b, 3"], ((0, 3), (1, 0))),
        (("a", "b", "c"), ["b, *, 0", "b,c,0.5"], ((0, 1, 1), (0, 0, 0.5), (1, 1, 0))),
    ],
    ids=["every mistake", "a class with a comma", "a later line"],
)
def test_costs_are_read_into_a_matrix(
    classes: tuple[str, ...], lines: list[str], expected: tuple[tuple[float, ...], ...]
) -> None:
    target = find_target("cost", lines, classes)
    assert isinstance(target, CostSavings)
    assert target.costs == expected


def test_the_default_is_macro_f1_and_every_name_can_be_used() -> None:
    assert find_target("macro_f1", (), CLASSES) is MACRO_F1
    assert {name.split(":")[0] for name in TARGETS} == {name.split(":")[0] for name in EVERY}
    assert [target_named(name).name for name in EVERY] == list(EVERY)
    assert target_named("recall_at_precision:0.6").label == "recall at precision 0.6"
    assert target_named("recall_at_precision:1").label == "recall at precision 1"
