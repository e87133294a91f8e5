"""The swap test against loops over exchanged images, Holm against the paper, and both where the truth is known."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import simulated
from builders import quick
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn import metrics

from hirise_imb.metrics.bootstrap import SourceCounts
from hirise_imb.metrics.permutation import ALPHA, SwapTest, holm, swap_test

EIGHT = list(range(8))

# Label, predictions of both arms (two fits and three, of which some are used) and source of each image.
IMAGES = st.integers(1, 7).flatmap(
    lambda most: st.lists(
        st.tuples(st.integers(0, most), *[st.integers(0, most)] * 5, st.integers(0, 3)), min_size=1, max_size=24
    )
)
Images = list[tuple[int, ...]]
CHANCES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def columns(images: Images) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels, predictions of two fits and of three, sources numbered without gaps."""
    labels, *predicted, sources = np.array(images).T
    return labels, np.stack(predicted[:2]), np.stack(predicted[2:]), np.unique(sources, return_inverse=True)[1]


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over fits, by the definition."""
    values = []
    for fit in predicted:
        for k in EIGHT:
            hits, both = ((labels == k) & (fit == k)).sum(), (labels == k).sum() + (fit == k).sum()
            values.append(2 * hits / both if both else 0.0)
    return float(np.mean(values))


def exchange_sources(labels: np.ndarray, one: np.ndarray, other: np.ndarray, sources: np.ndarray) -> list[float]:
    """The difference after each exchange of whole sources, of all there are."""
    found = []
    for swapped in itertools.product((False, True), repeat=int(sources.max()) + 1):
        here = np.array(swapped)[sources]
        found.append(macro_f1(labels, np.where(here, other, one)) - macro_f1(labels, np.where(here, one, other)))
    return found


def two_arms(
    sources: int, fits: tuple[int, int] = (1, 1), seed: int = 0, worse: float = 0.5
) -> tuple[SourceCounts, SourceCounts]:
    """Arms of which the second makes more mistakes, on ten images of each source."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 8, 10 * sources)
    predicted = [
        np.where(rng.random((n, len(labels))) < share, rng.integers(0, 8, (n, len(labels))), labels)
        for n, share in zip(fits, (0.3, worse), strict=True)
    ]
    places = np.arange(len(labels)) % sources
    return SourceCounts.of(labels, predicted[0], places, 8), SourceCounts.of(labels, predicted[1], places, 8)


def renumbered(counts: SourceCounts, order: np.ndarray) -> SourceCounts:
    return SourceCounts(counts.support[order], counts.hits[:, order], counts.predicted[:, order])


# --- the test ---


@quick
@given(IMAGES, st.integers(1, 2))
def test_all_exchanges_are_those_of_a_loop(images: Images, fits: int) -> None:
    labels, one, other, sources = columns(images)
    one, other = one[:fits], other[:fits]
    found = swap_test(SourceCounts.of(labels, one, sources, 8), SourceCounts.of(labels, other, sources, 8))
    differences = exchange_sources(labels, one, other, sources)
    sizes = sorted(abs(value) for value in differences)
    assert found.exact
    assert found.difference == pytest.approx(differences[0], abs=1e-12)
    assert found.p == pytest.approx(np.mean([size >= abs(differences[0]) - 1e-9 for size in sizes]), abs=1e-12)
    enough = [size for size in sizes if np.mean([other >= size - 1e-9 for other in sizes]) <= ALPHA]
    assert found.min_detectable_difference == (pytest.approx(enough[0], abs=1e-9) if enough else None)


@pytest.mark.parametrize("seed", range(4))
def test_the_minimum_detectable_difference_is_that_of_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, sources = rng.integers(0, 3, 56), np.arange(56) % 7
    one, other = (np.where(rng.random((1, 56)) < 0.4, rng.integers(0, 3, (1, 56)), labels) for _ in range(2))
    found = swap_test(SourceCounts.of(labels, one, sources, 8), SourceCounts.of(labels, other, sources, 8))
    sizes = [abs(value) for value in exchange_sources(labels, one, other, sources)]
    enough = [size for size in sizes if np.mean([other >= size - 1e-9 for other in sizes]) <= ALPHA]
    assert found.exact
    assert enough
    assert found.min_detectable_difference == pytest.approx(min(enough), abs=1e-9)


@quick
@given(IMAGES)
def test_the_difference_is_that_of_mean_macro_f1_whatever_the_numbers_of_fits(images: Images) -> None:
    labels, one, other, sources = columns(images)

    def score(fits: np.ndarray) -> float:
        return float(
            np.mean([metrics.f1_score(labels, f, labels=EIGHT, average="macro", zero_division=0) for f in fits])
        )

    for first, second in ((one, other), (one[:1], other), (other, one), (other[:1], other)):
        found = swap_test(SourceCounts.of(labels, first, sources, 8), SourceCounts.of(labels, second, sources, 8))
        assert found.difference == pytest.approx(score(first) - score(second), abs=1e-12)


@pytest.mark.parametrize("fits", [(1, 1), (2, 3)])
def test_random_exchanges_are_a_sample_of_all(fits: tuple[int, int]) -> None:
    one, other = two_arms(11, fits, seed=1, worse=0.35)
    every, some = swap_test(one, other, draws=2048), swap_test(one, other, draws=2047)
    assert (every.exact, some.exact) == (True, False)
    assert (
        (every.informative_sources, every.difference)
        == (some.informative_sources, some.difference)
        == (11, some.difference)
    )
    assert 0.02 < every.p < 0.9
    assert abs(some.p - every.p) < 4 * np.sqrt(every.p * (1 - every.p) / 2047)
    assert every.min_detectable_difference is not None
    assert some.min_detectable_difference == pytest.approx(every.min_detectable_difference, rel=0.1)
    assert swap_test(one, other, 2047, seed=1) != some == swap_test(one, other, 2047, seed=0)


def test_a_difference_that_no_random_exchange_reaches_counts_itself() -> None:
    labels = np.repeat([0, 1], 40)
    places = np.arange(80) % 40
    right, wrong = (SourceCounts.of(labels, fit[None], places, 8) for fit in (labels, 1 - labels))
    found = swap_test(right, wrong, draws=199)
    # (1 + 0) / (1 + 199): never 0.
    assert (found.p, found.informative_sources, found.exact) == (1 / 200, 40, False)
    assert found.difference == 2 / 8


# --- laws ---


@quick
@given(IMAGES, st.integers(1, 3))
def test_an_arm_against_itself(images: Images, fits: int) -> None:
    labels, _, predicted, sources = columns(images)
    own = SourceCounts.of(labels, predicted[:fits], sources, 8)
    twice = SourceCounts.of(labels, np.tile(predicted[:fits], (2, 1)), sources, 8)
    for found in (swap_test(own, own), swap_test(own, twice), swap_test(twice, own)):
        assert found == SwapTest(
            difference=0.0, p=1.0, min_detectable_difference=None, informative_sources=0, exact=True
        )


@pytest.mark.parametrize("fits", [(1, 1), (1, 4), (2, 4), (4, 2), (3, 2)])
@pytest.mark.parametrize("sources", [6, 20])
def test_exchanging_the_arms_turns_the_sign(fits: tuple[int, int], sources: int) -> None:
    one, other = two_arms(sources, fits)
    there, back = swap_test(one, other, 500), swap_test(other, one, 500)
    assert there.difference == pytest.approx(-back.difference, abs=1e-12)
    assert (there.p, there.informative_sources, there.exact) == (back.p, back.informative_sources, back.exact)
    assert there.min_detectable_difference == pytest.approx(back.min_detectable_difference)
    assert there.exact == (sources == 6)


@quick
@given(IMAGES, st.permutations(range(4)))
def test_the_order_of_sources_plays_no_part(images: Images, order: Sequence[int]) -> None:
    labels, one, other, sources = columns(images)
    first, second = (SourceCounts.of(labels, predicted, sources, 8) for predicted in (one, other))
    places = np.array([place for place in order if place <= sources.max()])
    found, again = swap_test(first, second), swap_test(renumbered(first, places), renumbered(second, places))
    assert (found.p, found.informative_sources) == (again.p, again.informative_sources)
    assert found.difference == pytest.approx(again.difference, abs=1e-12)


@quick
@given(IMAGES)
def test_p_is_bound_by_the_sources_that_tell(images: Images) -> None:
    labels, one, other, sources = columns(images)
    found = swap_test(SourceCounts.of(labels, one, sources, 8), SourceCounts.of(labels, other, sources, 8))
    # No exchange and the exchange of all are as large as what was seen.
    assert min(1, 2 / 2**found.informative_sources) <= found.p <= 1
    # At most four sources: 1/8 at best.
    assert found.min_detectable_difference is None
    told = (
        SourceCounts.of(labels, one, sources, 8).hits.tolist(),
        SourceCounts.of(labels, other, sources, 8).hits.tolist(),
    )
    assert found.informative_sources > 0 or told[0][0] == told[1][0]


def test_five_sources_can_never_tell_and_six_can() -> None:
    for sources, p, can in ((5, 1 / 16, False), (6, 1 / 32, True)):
        labels = np.repeat([0, 1], sources)
        places = np.arange(2 * sources) % sources
        right, wrong = (SourceCounts.of(labels, fit[None], places, 8) for fit in (labels, 1 - labels))
        found = swap_test(right, wrong)
        assert found.p == p
        assert (found.min_detectable_difference is not None) == can


@pytest.mark.parametrize("sources", [3, 6, 9, 25])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_detectable_is_what_is_significant(sources: int, seed: int) -> None:
    found = swap_test(*two_arms(sources, seed=seed), draws=1000)
    reaches = (
        found.min_detectable_difference is not None and abs(found.difference) >= found.min_detectable_difference - 1e-12
    )
    assert (found.p <= ALPHA) == reaches


def test_few_random_exchanges_resolve_nothing() -> None:
    # The largest of 38 has p = (1 + 1) / (1 + 38), that of 39 has .05.
    arms = two_arms(20)
    assert swap_test(*arms, draws=38).min_detectable_difference is None
    assert swap_test(*arms, draws=39).min_detectable_difference is not None


def test_a_source_that_both_count_alike_changes_nothing() -> None:
    one, other = two_arms(6)
    extra = np.eye(8, dtype=np.int64)[:1]
    more = [
        SourceCounts(
            np.vstack([arm.support, extra]),
            *(np.concatenate([part, extra[None]], axis=1) for part in (arm.hits, arm.predicted)),
        )
        for arm in (one, other)
    ]
    few, many = swap_test(one, other), swap_test(more[0], more[1])
    assert few.informative_sources == many.informative_sources == 6


def test_edge_cases() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    places = np.array([0, 0, 1, 1, 2])
    perfect, other, never = (
        SourceCounts.of(labels, np.array([p]), places, 8) for p in (labels, labels * 0, labels * 0 + 7)
    )
    # By hand: macro F1 of 2/8, and of 2 * 3 / 8 / 8.
    assert swap_test(perfect, other).difference == pytest.approx((2 - 6 / 8) / 8)
    assert swap_test(perfect, other).informative_sources == 2
    # A class without a label is predicted: nothing is right.
    assert swap_test(perfect, never).difference == 2 / 8
    assert swap_test(other, never).informative_sources == 3
    single = [SourceCounts.of(labels, np.array([p]), labels * 0, 8) for p in (labels, labels * 0)]
    found = swap_test(single[0], single[1])
    assert (found.p, found.informative_sources, found.min_detectable_difference) == (1.0, 1, None)


def test_other_landmarks_are_refused() -> None:
    one, other = two_arms(6)
    moved = SourceCounts(other.support[::-1], other.hits, other.predicted)
    fewer = renumbered(other, np.arange(5))
    for wrong in (moved, fewer):
        with pytest.raises(ValueError, match=r"^the arms were not tested on the same landmarks$"):
            swap_test(one, wrong)


# --- Holm ---


def holm_by_loop(p: Sequence[float]) -> list[float]:
    """The smallest level at which the step-down procedure of Holm (1979) rejects each hypothesis."""
    adjusted = [0.0] * len(p)
    running = 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        running = max(running, (len(p) - rank) * p[place])
        adjusted[place] = min(running, 1.0)
    return adjusted


def rejected_by_holm(p: Sequence[float], alpha: float) -> list[bool]:
    """The procedure as it is written: reject while p is at most alpha / (number of those that are left)."""
    rejected = [False] * len(p)
    for rank, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[place] > alpha / (len(p) - rank):
            break
        rejected[place] = True
    return rejected


@quick
@given(CHANCES)
def test_holm_is_that_of_a_loop(p: list[float]) -> None:
    assert holm(p) == pytest.approx(holm_by_loop(p), abs=1e-15)


@quick
@given(CHANCES, st.floats(0.001, 0.3))
def test_holm_rejects_what_the_procedure_rejects(p: list[float], alpha: float) -> None:
    assume(all(abs(value * left - alpha) > 1e-9 for value in p for left in range(1, len(p) + 1)))
    assert [value <= alpha for value in holm(p)] == rejected_by_holm(p, alpha)


@quick
@given(CHANCES)
def test_holm_keeps_the_order_and_lowers_nothing(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(before <= after <= 1 for before, after in zip(p, adjusted, strict=True))
    ranked = [after for _, after in sorted(zip(p, adjusted, strict=True))]
    assert ranked == sorted(ranked)
    assert holm(p[::-1]) == pytest.approx(adjusted[::-1])


def test_holm_by_hand() -> None:
    # 4 * .01; 3 * .02; max with 2 * .03; then .5.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.2]) == [0.2]
    assert holm([0.7, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


# --- simulated test sets on the layout of the official one ---


def rejections(law: simulated.Law, gain: float, sets: int) -> tuple[float, float]:
    """How often two arms are told apart by exchanging sources, and by exchanging images."""
    found = []
    for number in range(sets):
        base, better = law.draw(np.random.default_rng((12, number)), (0.0, gain))
        by_source = law.layout.count(better), law.layout.count(base)
        places = np.arange(len(law.layout.labels))
        by_image = tuple(SourceCounts.of(law.layout.labels, predicted[None], places, 8) for predicted in (better, base))
        found.append([swap_test(arms[0], arms[1], draws=499).p <= ALPHA for arms in (by_source, by_image)])
    sources, images = np.mean(found, axis=0)
    return float(sources), float(images)


def test_equally_good_arms_are_distinguished_no_more_often_than_stated() -> None:
    sources, images = rejections(simulated.Law(between=1.2, own=0.6), 0.0, 400)
    # The standard error of 5 % is 1.1 points with 400 sets: two and a half of them above; and it is a test at all.
    assert 0.01 < sources <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 400)
    # What exchanging images would do.
    assert images > 0.15


def test_a_better_arm_is_found() -> None:
    sources, _ = rejections(simulated.Law(between=1.2, own=0.6), 2.0, 100)
    assert sources > 0.65
