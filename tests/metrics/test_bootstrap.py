"""Intervals over sources: against plain loops and full enumeration, and on simulated test sets of known truth."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from statistics import NormalDist
from typing import get_args

import numpy as np
import pytest
import simulated
from builders import quick
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from hirise_imb.metrics import classification
from hirise_imb.metrics.bootstrap import (
    Interval,
    Resamples,
    SourceCounts,
    UndrawnClasses,
    bootstrap_sources,
    draw_resamples,
    expanded_percentile_interval,
    image_interval,
    leave_one_source_out,
    macro_f1_bound,
)

EIGHT = range(8)
RULES = get_args(UndrawnClasses)

# Label, two predictions and source of each image. Few classes make classes absent or never predicted.
IMAGES = st.integers(0, 7).flatmap(
    lambda most: st.lists(
        st.tuples(st.integers(0, most), st.integers(0, most), st.integers(0, 7), st.integers(0, 4)),
        min_size=1,
        max_size=40,
    )
)
Images = list[tuple[int, int, int, int]]


def columns(images: Images) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, predictions of two fits, sources numbered without gaps."""
    labels, one, two, sources = np.array(images).T
    return labels, np.stack([one, two]), np.unique(sources, return_inverse=True)[1]


def f1_by_sklearn(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Of each class, NaN where it has no label."""
    values = metrics.f1_score(labels, predicted, labels=list(EIGHT), average=None, zero_division=0)
    return np.where(np.bincount(labels, minlength=8) > 0, values, np.nan)


def macro(f1: np.ndarray, split_f1: np.ndarray, rule: UndrawnClasses) -> float:
    """Mean over eight classes of F1 in a resample, NaN if undrawn, and in the split, NaN for an absent class."""
    drawn = [value for value in f1 if np.isfinite(value)]
    total = sum(drawn)
    for value, own in zip(f1, split_f1, strict=True):
        if np.isnan(value) and np.isfinite(own):
            total += sum(drawn) / len(drawn) if rule == "others_mean" else own
    return float(total / 8)


def layout(*rows: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and sources from the landmarks of each class in each source."""
    cells = [(k, place) for place, row in enumerate(rows) for k, count in row.items() for _ in range(count)]
    labels, sources = np.array(cells).T
    return labels, sources


EVEN = layout(*[dict.fromkeys(EIGHT, 3)] * 9)
"""Nine sources with three landmarks of each class."""


def some_mistakes(labels: np.ndarray, fits: int = 1, share: float = 0.3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    wrong = rng.random((fits, len(labels))) < share
    return np.where(wrong, rng.integers(0, 8, (fits, len(labels))), labels)


# --- counts ---


@quick
@given(IMAGES)
def test_counts_are_those_of_a_loop(images: Images) -> None:
    labels, predicted, sources = columns(images)
    counts = SourceCounts.of(labels, predicted, sources, 8)
    support = Counter(zip(sources.tolist(), labels.tolist(), strict=True))
    for place, k in itertools.product(range(sources.max() + 1), EIGHT):
        assert counts.support[place, k] == support[place, k]
        for fit in range(2):
            here = [(p, t) for p, t, s in zip(predicted[fit], labels, sources, strict=True) if s == place and p == k]
            assert counts.predicted[fit, place, k] == len(here)
            assert counts.hits[fit, place, k] == sum(p == t for p, t in here)
    assert counts.sources.tolist() == [sum(support[place, k] > 0 for place in range(sources.max() + 1)) for k in EIGHT]


@quick
@given(IMAGES, st.randoms(use_true_random=False))
def test_the_order_of_images_plays_no_part(images: Images, random: object) -> None:
    shuffled = list(images)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (SourceCounts.of(*columns(order), 8) for order in (images, shuffled))
    np.testing.assert_array_equal(one.support, other.support)
    np.testing.assert_array_equal(bootstrap_sources(one, 20).f1, bootstrap_sources(other, 20).f1)


@quick
@given(IMAGES, st.lists(st.integers(0, 3), min_size=5, max_size=5))
def test_a_weight_is_as_many_copies_of_a_source(images: Images, weights: list[int]) -> None:
    labels, predicted, sources = columns(images)
    copies = np.array(weights)[sources]
    counts = SourceCounts.of(labels, predicted, sources, 8)
    found = counts.f1(np.array([weights[: sources.max() + 1]], float))
    for fit in range(2):
        if copies.any():
            expected = f1_by_sklearn(labels.repeat(copies), predicted[fit].repeat(copies))
            np.testing.assert_allclose(found[fit, 0], expected, atol=1e-12)
        else:
            assert np.isnan(found).all()


# --- resamples ---


@pytest.mark.parametrize("rule", RULES)
def test_resamples_follow_the_law_of_all_resamples(rule: UndrawnClasses) -> None:
    labels, sources = layout({0: 4, 1: 2}, {0: 3, 2: 2}, {0: 2, 1: 1, 3: 2})
    predicted = some_mistakes(labels, fits=2, share=0.4, seed=5)
    split = np.array([f1_by_sklearn(labels, fit) for fit in predicted])
    law: defaultdict[float, float] = defaultdict(float)
    for places, fits in itertools.product(itertools.product(range(3), repeat=3), itertools.product(range(2), repeat=2)):
        rows = np.concatenate([np.flatnonzero(sources == place) for place in places])
        scores = [f1_by_sklearn(labels[rows], predicted[fit, rows]) for fit in fits]
        law[round(macro(np.mean(scores, axis=0), split[list(fits)].mean(axis=0), rule), 9)] += 1 / 27 / 4
    assert len(law) > 15

    draws = 20_000
    resamples = bootstrap_sources(SourceCounts.of(labels, predicted, sources, 8), draws)
    found = Counter(np.round(resamples.macro_f1(rule), 9).tolist())
    assert set(found) <= set(law)
    for value, probability in law.items():
        assert abs(found[value] / draws - probability) < 5 * np.sqrt(probability / draws)


def test_a_class_that_was_not_drawn_counts_as_the_others_and_one_that_is_nowhere_as_zero() -> None:
    f1 = np.array([[0.5, 1.0, *[np.nan] * 6], [0.5, np.nan, *[np.nan] * 6]])
    split_f1 = np.array([[0.6, 0.9, *[0.0] * 6], [0.6, 0.7, *[0.0] * 6]])
    found = Resamples(f1, split_f1, np.array([3, 1, 0, 0, 0, 0, 0, 0]), 3)
    np.testing.assert_allclose(found.macro_f1("others_mean"), [1.5 / 8, 1.0 / 8])
    np.testing.assert_allclose(found.macro_f1("own_f1"), [1.5 / 8, 1.2 / 8])
    assert found.complete_share == 0.5


@quick
@given(IMAGES)
def test_both_rules_agree_where_all_classes_are_drawn(images: Images) -> None:
    labels, predicted, sources = columns(images)
    found = bootstrap_sources(SourceCounts.of(labels, predicted, sources, 8), 50)
    complete = [all(np.isfinite(row[k]) for k in set(labels.tolist())) for row in found.f1]
    np.testing.assert_allclose(found.macro_f1("others_mean")[complete], found.macro_f1("own_f1")[complete], atol=1e-12)
    assert found.complete_share == np.mean(complete)


@quick
@given(IMAGES, st.integers(0, 7))
def test_a_class_with_its_own_f1_does_not_depend_on_which_others_are_drawn(images: Images, label: int) -> None:
    # In the second arm all other classes are one, so that other classes are drawn and all other scores differ.
    labels, predicted, sources = columns(images)
    others = [k for k in EIGHT if k != label]
    renamed = np.where(np.array(EIGHT) == label, label, others[0])
    one, other = (
        bootstrap_sources(SourceCounts.of(y, p, sources, 8), 50)
        for y, p in ((labels, predicted), (renamed[labels], renamed[predicted]))
    )
    first, second = (arm.macro_f1("own_f1") * 8 - _terms(arm, others) for arm in (one, other))
    np.testing.assert_allclose(first, second, atol=1e-12)
    np.testing.assert_allclose(first, _terms(one, [label]), atol=1e-12)


def _terms(found: Resamples, classes: list[int]) -> np.ndarray:
    """Sum of the F1 of some classes, each by itself, where an undrawn class keeps its F1; shape (draws,)."""
    chosen = [
        [own if np.isnan(value) else value for value, own in zip(row[classes], split[classes], strict=True)]
        for row, split in zip(found.f1, found.split_f1, strict=True)
    ]
    return np.asarray(np.sum(chosen, axis=1))


@pytest.mark.parametrize("rule", RULES)
def test_differences_are_paired(rule: UndrawnClasses) -> None:
    # The arms differ in craters alone, so the difference is that of one class in each resample, a spider drawn or not.
    labels, sources = layout(*[{0: 5, 1: 4}] * 9, {7: 6})
    worse = some_mistakes(labels, fits=2)
    better = np.where((labels == 1) & (worse == 0), 1, worse)
    one, other = (bootstrap_sources(SourceCounts.of(labels, fits, sources, 8), 400) for fits in (better, worse))
    gains = one.gain_over(other, rule)
    np.testing.assert_array_equal(gains, one.macro_f1(rule) - other.macro_f1(rule))
    craters = ((one.f1 - other.f1)[:, 0] + (one.f1 - other.f1)[:, 1]) / 8
    undrawn = np.isnan(one.f1[:, 7])
    assert 0.2 < undrawn.mean() < 0.5
    np.testing.assert_allclose(gains[~undrawn], craters[~undrawn], atol=1e-12)
    np.testing.assert_allclose(gains[undrawn], craters[undrawn] * (1 if rule == "own_f1" else 3 / 2), atol=1e-12)


def test_arms_share_the_sources_and_the_fits() -> None:
    # The same predictions with classes renamed in a ring: what one class scores, the next one scores in the other arm.
    labels, sources = EVEN
    predicted = some_mistakes(labels, 3)
    one, other = (
        bootstrap_sources(SourceCounts.of((labels + k) % 8, (predicted + k) % 8, sources, 8), 50) for k in (0, 1)
    )
    np.testing.assert_allclose(one.f1, np.roll(other.f1, -1, axis=1))
    np.testing.assert_array_equal(bootstrap_sources(SourceCounts.of(labels, predicted, sources, 8), 50).f1, one.f1)


def test_resamples_follow_the_seed_which_is_zero_by_default() -> None:
    labels, sources = EVEN
    counts = SourceCounts.of(labels, some_mistakes(labels), sources, 8)
    default, zero, one = (bootstrap_sources(counts, 1000, **seed).f1 for seed in ({}, {"seed": 0}, {"seed": 1}))
    np.testing.assert_array_equal(default, zero)
    assert (zero != one).any()
    # The bound is of a thousand resamples of the same sources.
    for quantile in (0.05, 0.5):
        assert macro_f1_bound(counts, quantile) == pytest.approx(np.quantile(zero.mean(axis=1), quantile), abs=1e-12)
    predicted = some_mistakes(labels, fits=2)
    assert image_interval(labels, predicted, 8, 200) == image_interval(labels, predicted, 8, 200)


def test_drawn_resamples_are_shared_and_cannot_be_changed() -> None:
    for drawn, again in zip(draw_resamples(5, 3, 10), draw_resamples(5, 3, 10), strict=True):
        np.testing.assert_array_equal(drawn, again)
    assert not draw_resamples(5, 3, 10)[0].flags.writeable


def test_fits_that_differ_widen_the_interval() -> None:
    labels, sources = EVEN
    good, bad = some_mistakes(labels, share=0.1)[0], some_mistakes(labels, share=0.6)[0]
    alike = bootstrap_sources(SourceCounts.of(labels, np.stack([good, good]), sources, 8)).interval()
    apart = bootstrap_sources(SourceCounts.of(labels, np.stack([good, bad]), sources, 8)).interval()
    assert alike is not None
    assert apart is not None
    assert apart.high - apart.low > 2 * (alike.high - alike.low)
    scores = [classification.macro_f1(classification.confusion_matrix(labels, fit, 8)) for fit in (bad, good)]
    assert apart.low < scores[0] < scores[1] < apart.high


# --- intervals ---


# Student's t of a printed table, two-sided 5 %, and the tail that the paper's formula makes of it.
@pytest.mark.parametrize(("clusters", "student"), [(6, 2.571), (10, 2.262), (17, 2.120), (29, 2.048), (1000, 1.962)])
def test_tails_are_those_of_the_paper(clusters: int, student: float) -> None:
    values = np.linspace(0, 1, 100_001)
    tail = NormalDist().cdf(-np.sqrt(clusters / (clusters - 1)) * student)
    found = expanded_percentile_interval(np.random.default_rng(0).permutation(values), clusters)
    assert found is not None
    assert found.low == pytest.approx(tail, abs=3e-5)
    assert found.high == pytest.approx(1 - tail, abs=3e-5)
    narrower = expanded_percentile_interval(values, clusters, level=0.8)
    assert narrower is not None
    assert found.low < narrower.low < 0.11 < 0.89 < narrower.high < found.high


def test_no_interval_below_six_sources() -> None:
    values = np.linspace(0, 1, 101)
    assert [expanded_percentile_interval(values, clusters) is None for clusters in range(9)] == [True] * 6 + [False] * 3
    rows = [{0: 4, 1: 2} if place < 5 else {0: 4} for place in range(6)]
    labels, sources = layout(*rows)
    found = bootstrap_sources(SourceCounts.of(labels, some_mistakes(labels), sources, 8), 500)
    assert found.total == 6
    assert found.interval() is not None
    assert found.class_interval(0) is not None
    assert [found.class_interval(k) for k in EIGHT if k] == [None] * 7


def test_the_interval_of_a_class_goes_by_its_own_sources() -> None:
    labels, sources = layout(*[{0: 4, 1: 2} if place < 6 else {0: 4} for place in range(20)])
    found = bootstrap_sources(SourceCounts.of(labels, some_mistakes(labels), sources, 8), 2000)
    drawn = found.f1[np.isfinite(found.f1[:, 1]), 1]
    assert found.class_interval(1) == expanded_percentile_interval(drawn, 6) != expanded_percentile_interval(drawn, 20)
    assert (
        found.interval()
        == expanded_percentile_interval(found.macro_f1(), 20)
        != expanded_percentile_interval(found.macro_f1(), 6)
    )


@pytest.mark.parametrize("fits", range(1, 13))
def test_a_classifier_without_mistakes_has_no_interval_instead_of_a_certain_one(fits: int) -> None:
    # Some resamples lack a class, and all lack five.
    labels, sources = layout(*[{0: 3, 1: 1} if place % 2 else {0: 2, 2: 2} for place in range(7)])
    found = bootstrap_sources(SourceCounts.of(labels, np.stack([labels] * fits), sources, 8), 3000)
    assert np.isnan(found.f1[:, :3]).any()
    assert found.interval() is None
    assert [found.class_interval(k) for k in EIGHT] == [None] * 8


def test_everything_called_other() -> None:
    labels, sources = layout(*[{0: 20 + place, 1: 3, 2: 3} for place in range(8)])
    found = bootstrap_sources(SourceCounts.of(labels, np.zeros((2, len(labels)), int), sources, 8), 500)
    interval, other = found.interval(), found.class_interval(0)
    assert interval is not None
    assert other is not None
    # The five classes that the test set lacks and the two that nobody predicts are all zero.
    assert interval.low == pytest.approx(other.low / 8)
    assert interval.high == pytest.approx(other.high / 8)
    assert [found.class_interval(k) for k in EIGHT if k] == [None] * 7


def test_intervals_hold_the_score_where_classes_are_absent() -> None:
    labels, sources = layout(*[{0: 5, 3: 4} for _ in range(10)])
    predicted = some_mistakes(labels, fits=3)
    scores = [classification.macro_f1(classification.confusion_matrix(labels, fit, 8)) for fit in predicted]
    found = bootstrap_sources(SourceCounts.of(labels, predicted, sources, 8)).interval()
    for interval in (found, image_interval(labels, predicted, 8, 500)):
        assert interval is not None
        assert interval.low < np.mean(scores) < interval.high < 2 / 8


def test_one_source_in_all() -> None:
    labels, sources = layout({0: 5, 1: 5})
    counts = SourceCounts.of(labels, some_mistakes(labels), sources, 8)
    found = bootstrap_sources(counts, 50)
    assert found.interval() is None
    assert found.class_interval(1) is None
    assert np.isnan(leave_one_source_out(counts, 1)).all()


def test_a_class_of_one_source_is_left_out_of_most_resamples_and_of_no_interval() -> None:
    labels, sources = layout(*[{0: 5}] * 9, {4: 6})
    found = bootstrap_sources(SourceCounts.of(labels, some_mistakes(labels), sources, 8), 4000)
    # (1 - 1/10)^10 of the resamples lack it.
    assert np.isnan(found.f1[:, 4]).mean() == pytest.approx(0.9**10, abs=0.03)
    assert found.interval() is not None
    assert found.class_interval(4) is None


@pytest.mark.parametrize("rule", RULES)
def test_the_image_interval_is_that_of_an_explicit_bootstrap(rule: UndrawnClasses) -> None:
    labels = np.repeat(EIGHT, (60, 20, 10, 10, 5, 1, 10, 10))
    predicted = some_mistakes(labels, fits=2)
    split = np.array([f1_by_sklearn(labels, fit) for fit in predicted])
    rng = np.random.default_rng(8)
    values = []
    for _ in range(4000):
        rows = rng.integers(0, len(labels), len(labels))
        support = np.bincount(labels[rows], minlength=8)
        scores = []
        fits = rng.integers(0, 2, 2)
        for fit in predicted[fits][:, rows]:
            hits, chosen = (np.bincount(part, minlength=8) for part in (fit[fit == labels[rows]], fit))
            scores.append(np.where(support > 0, 2 * hits / np.maximum(support + chosen, 1), np.nan))
        values.append(macro(np.mean(scores, axis=0), split[fits].mean(axis=0), rule))
    found = image_interval(labels, predicted, 8, undrawn=rule)
    assert found is not None
    # Monte-Carlo error of the loop's quantiles is about .003.
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=0.01)


@pytest.mark.parametrize("rule", RULES)
def test_the_bound_is_the_quantile_of_the_mean_over_fits(rule: UndrawnClasses) -> None:
    labels, sources = layout(*[{0: 4, 1: 2}] * 6, {0: 3, 2: 4})
    predicted = some_mistakes(labels, fits=3)
    split = np.mean([f1_by_sklearn(labels, fit) for fit in predicted], axis=0)
    rng = np.random.default_rng(5)
    values = []
    for _ in range(1000):
        rows = np.concatenate([np.flatnonzero(sources == place) for place in rng.integers(0, 7, 7)])
        scores = [f1_by_sklearn(labels[rows], fit[rows]) for fit in predicted]
        values.append(macro(np.mean(scores, axis=0), split, rule))
    counts = SourceCounts.of(labels, predicted, sources, 8)
    for quantile in (0.05, 0.5):
        expected = np.quantile(values, quantile)
        assert macro_f1_bound(counts, quantile, 4000, rule) == pytest.approx(expected, abs=0.01)
    # Resampled fits would widen the spread of fits that differ.
    apart = SourceCounts.of(labels, np.stack([labels, np.zeros_like(labels)]), sources, 8)
    assert macro_f1_bound(apart, 0.0, 200, "own_f1") > bootstrap_sources(apart, 200).macro_f1("own_f1").min()


# --- what is said of few sources ---


@quick
@given(IMAGES, st.integers(0, 7))
def test_scores_without_each_source_are_those_of_the_rest(images: Images, label: int) -> None:
    labels, predicted, sources = columns(images)
    found = leave_one_source_out(SourceCounts.of(labels, predicted, sources, 8), label)
    own = sorted(set(sources[labels == label].tolist()))
    assert found.shape == (len(own),)
    for value, place in zip(found, own, strict=True):
        rest = sources != place
        if rest.any():
            scores = [f1_by_sklearn(labels[rest], fit[rest])[label] for fit in predicted]
            np.testing.assert_allclose(value, np.mean(scores), atol=1e-12)
        else:
            assert np.isnan(value)


# --- simulated test sets on the layout of the official one ---


SETS, DRAWS = 400, 1000


@pytest.fixture(scope="module")
def coverage() -> dict[str, float]:
    """How often intervals contain the expected score, where sources differ by a logit of 1.2 (standard deviation)."""
    law = simulated.Law(between=1.2)
    truth = law.truth()
    found: Counter[str] = Counter()
    for number in range(SETS):
        predicted = law.draw(np.random.default_rng((11, number)))
        counts = law.layout.count(predicted[0])
        resamples = bootstrap_sources(counts, DRAWS)
        intervals = {
            "sources": (resamples.interval(), truth.mean()),
            "images": (image_interval(law.layout.labels, predicted, 8, DRAWS), truth.mean()),
            "other": (resamples.class_interval(0), truth[0]),
            "crater": (resamples.class_interval(1), truth[1]),
        }
        for label in (4, 6, 7):
            # Refused; what the resamples would give.
            assert resamples.class_interval(label) is None
            values = resamples.f1[np.isfinite(resamples.f1[:, label]), label]
            intervals[f"single {label}"] = expanded_percentile_interval(values, law.layout.n_sources), truth[label]
        for name, (interval, target) in intervals.items():
            found[name] += _contains(interval, target)
    return {name: count / SETS for name, count in found.items()}


def _contains(interval: Interval | None, target: float) -> bool:
    return interval is not None and bool(interval.low <= target <= interval.high)


@pytest.mark.parametrize("name", ["sources", "other", "crater"])
def test_intervals_over_sources_contain_the_truth_as_often_as_stated(coverage: dict[str, float], name: str) -> None:
    # The standard error of 95 % is 1.1 points with 400 sets: two and a half of them below, and no more than always.
    assert 0.92 <= coverage[name] <= 0.995


def test_intervals_over_images_do_not(coverage: dict[str, float]) -> None:
    assert coverage["images"] < 0.7


@pytest.mark.parametrize("label", [4, 6, 7])
def test_nor_would_those_of_a_class_of_one_source(coverage: dict[str, float], label: int) -> None:
    assert coverage[f"single {label}"] < 0.75


SPARSE = simulated.Law(1.2, 0.6, simulated.SAMPLE, never=(simulated.EJECTA, simulated.SPIDER))
"""Three classes have one source, and two of the eight have F1 0."""


def test_the_interval_of_a_difference_excludes_zero_too_often_if_undrawn_classes_keep_their_f1() -> None:
    found: Counter[str] = Counter()
    for number in range(SETS):
        one, other = (
            bootstrap_sources(SPARSE.layout.count(arm), DRAWS)
            for arm in SPARSE.draw(np.random.default_rng((13, number)), (0.0, 0.0))
        )
        for rule in RULES:
            found[rule] += not _contains(
                expanded_percentile_interval(one.gain_over(other, rule), SPARSE.layout.n_sources), 0.0
            )
    # 0.05 plus 2.5 standard errors, and the 2 points that the documentation admits.
    assert found["others_mean"] / SETS <= 0.10
    assert found["own_f1"] / SETS > 0.15


def test_undrawn_classes_widen_the_interval_where_some_have_f1_zero() -> None:
    predicted = SPARSE.draw(np.random.default_rng(14))[0]
    found = bootstrap_sources(SPARSE.layout.count(predicted))
    score = SPARSE.layout.f1(predicted).mean()
    others, own = found.interval("others_mean"), found.interval("own_f1")
    assert others is not None
    assert own is not None
    assert others.low < own.low < score < own.high < others.high
    assert others.high - others.low > 1.8 * (own.high - own.low)
    # (1 - (1 - 1 / 33)^33) for each of three classes, and somewhat less often for those with two or three sources.
    assert 0.15 < found.complete_share < 0.22
