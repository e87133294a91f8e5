"""Random pairings against all pairings there are, and the best way to a sum against all ways there are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from builders import quick
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics

from hirise_imb.forensics import PermutationNull, sums
from hirise_imb.forensics.sums import Choices

HIRISE = np.array([1482, 89, 66, 49, 16, 7, 42, 42])
PREDICTED = np.array([1545, 73, 62, 35, 12, 3, 43, 20])

# Labels and predictions of the same few images.
PAIRS = st.integers(1, 3).flatmap(
    lambda most: st.lists(st.tuples(st.integers(0, most), st.integers(0, most)), min_size=2, max_size=6)
)
CLASSES = 4


def null_of(labels: Sequence[int], predicted: Sequence[int]) -> PermutationNull:
    return PermutationNull(np.bincount(labels, minlength=CLASSES), np.bincount(predicted, minlength=CLASSES))


def all_hits(labels: Sequence[int], predicted: Sequence[int]) -> np.ndarray:
    """Hits of each class in every permutation of the predictions, shape (n!, classes)."""
    orders = np.array(list(itertools.permutations(predicted)))
    right = orders == np.array(labels)
    return np.stack([(right & (np.array(labels) == k)).sum(axis=1) for k in range(CLASSES)], axis=1)


# --- moments ---


@quick
@given(PAIRS)
def test_moments_are_those_of_all_permutations(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = zip(*pairs, strict=True)
    null, hits = null_of(labels, predicted), all_hits(labels, predicted)
    largest = max(range(CLASSES), key=lambda k: (labels.count(k), -k))
    others = [k for k in range(CLASSES) if k != largest]
    assert (null.largest_class, null.rare) == (largest, others)
    for classes in (list(range(CLASSES)), others, [0], [1, 2]):
        together = [Fraction(int(value)) for value in hits[:, classes].sum(axis=1)]
        mean = sum(together) / len(together)
        variance = sum((value - mean) ** 2 for value in together) / len(together)
        assert null.mean(classes) == pytest.approx(float(mean), abs=1e-12)
        assert null.variance(classes) == pytest.approx(float(variance), abs=1e-12)
    assert null.mean() == null.mean(range(CLASSES))
    assert null.variance() == null.variance(range(CLASSES))


def test_moments_are_those_of_shuffled_labels_of_the_official_test_split() -> None:
    random = np.random.default_rng(0)
    labels, predicted = (np.repeat(np.arange(8), counts) for counts in (HIRISE, PREDICTED))
    hits = []
    for _ in range(20_000):
        random.shuffle(labels)
        hits.append(np.bincount(labels[labels == predicted], minlength=8))
    null = PermutationNull(HIRISE, PREDICTED)
    for classes in (slice(None), null.rare, [1, 6]):
        found = np.array(hits)[:, classes].sum(axis=1)
        deviation = math.sqrt(null.variance(classes))
        assert found.mean() == pytest.approx(null.mean(classes), abs=5 * deviation / math.sqrt(len(hits)))
        # The standard error of a variance is some sqrt(2 / draws) of it, 1 %.
        assert found.var() == pytest.approx(deviation**2, rel=0.05)
    assert null.rare == list(range(1, 8))


@quick
@given(PAIRS)
def test_kappa_is_that_of_scikit_learn_and_spreads_as_over_all_permutations(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = zip(*pairs, strict=True)
    assume(len(set(labels) | set(predicted)) > 1)
    null = null_of(labels, predicted)
    hits = sum(one == other for one, other in pairs)
    assert null.kappa(hits) == pytest.approx(metrics.cohen_kappa_score(labels, predicted), abs=1e-12)
    kappas = [null.kappa(float(value)) for value in all_hits(labels, predicted).sum(axis=1)]
    assert np.mean(kappas) == pytest.approx(0, abs=1e-12)
    assert null.kappa_deviation() == pytest.approx(np.std(kappas), abs=1e-9)


def test_where_chance_is_always_right_kappa_is_zero_and_does_not_spread() -> None:
    null = PermutationNull(np.array([3, 0]), np.array([3, 0]))
    assert (null.kappa(3), null.kappa_deviation(), null.variance()) == (0, 0, 0)
    assert null.draw(5).tolist() == [[3, 0]] * 5


# --- draws ---


@quick
@given(PAIRS)
def test_the_law_of_a_class_is_that_of_all_permutations(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = zip(*pairs, strict=True)
    null, every = null_of(labels, predicted), all_hits(labels, predicted)
    for k in range(CLASSES):
        values, counts = np.unique(every[:, k], return_counts=True)
        hits, chances = null.hit_distribution(k)
        assert hits.tolist() == values.tolist()
        assert chances == pytest.approx(counts / len(every), abs=1e-12)


def test_draws_have_the_hypergeometric_law_in_every_class() -> None:
    null, draws = PermutationNull(HIRISE, PREDICTED), 20_000
    drawn = null.draw(draws, seed=1)
    assert drawn.shape == (draws, 8)
    total = 1793
    for k, (n, m) in enumerate(zip(HIRISE.tolist(), PREDICTED.tolist(), strict=True)):
        mean = n * m / total
        variance = mean * (1 - n / total) * (total - m) / (total - 1)
        assert drawn[:, k].mean() == pytest.approx(mean, abs=5 * math.sqrt(variance / draws))
        # Counts near 0 have heavier tails than a normal law: the standard error of their variance.
        error = math.sqrt((2 + 1 / variance) / draws)
        assert drawn[:, k].var() == pytest.approx(variance, rel=5 * error)
    assert drawn.sum(axis=1).var() == pytest.approx(null.variance(), rel=0.06)
    np.testing.assert_array_equal(null.draw(draws, seed=1), drawn)
    assert (null.draw(draws, seed=2) != drawn).any()


def test_pairings_are_9999_of_seed_0_by_default() -> None:
    null, hits = PermutationNull(HIRISE, PREDICTED), np.array([1280, 3, 2, 1, 0, 0, 1, 1])
    np.testing.assert_array_equal(null.draw(), null.draw(9_999, 0))
    assert null.compare(hits) == null.compare(hits, slice(None), 9_999, 0)
    assert null.compare(hits).p_above != null.compare(hits, seed=1).p_above


@pytest.mark.parametrize("entries", [0, 64, 64 * 7 + 1, 64 * 100])
def test_pairings_drawn_in_parts_are_those_drawn_at_once(monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    null = PermutationNull(HIRISE, PREDICTED)
    at_once = null.draw(100, seed=1)
    monkeypatch.setattr("hirise_imb.forensics.null._ENTRIES", entries)
    np.testing.assert_array_equal(null.draw(100, seed=1), at_once)


@settings(quick, max_examples=25)
@given(PAIRS)
def test_chances_are_those_of_all_permutations(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = zip(*pairs, strict=True)
    null, every = null_of(labels, predicted), all_hits(labels, predicted)
    hits = np.bincount([one for one, other in pairs if one == other], minlength=CLASSES)
    for classes in (slice(None), null.rare):
        found = null.compare(hits, classes, draws=4000, seed=3)
        together, observed = every[:, classes].sum(axis=1), hits[classes].sum()
        assert found.observed == observed
        assert found.mean == pytest.approx(together.mean())
        assert found.deviation == pytest.approx(together.std(), abs=1e-9)
        for chance, exact in (
            (found.p_above, (together >= observed).mean()),
            (found.p_below, (together <= observed).mean()),
        ):
            assert chance == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 4000) + 2 / 4000)


def test_a_chance_counts_the_table_itself_as_one_of_the_pairings() -> None:
    null = PermutationNull(HIRISE, HIRISE)
    perfect = null.compare(HIRISE)
    assert (perfect.observed, perfect.p_above, perfect.p_below) == (1793, 1 / 10_000, 1)
    none = null.compare(np.zeros(8, int), draws=99)
    assert (none.observed, none.p_above, none.p_below) == (0, 1, 1 / 100)
    hits = np.array([1225, 5, 2, 1, 0, 0, 1, 1])
    drawn = null.draw(500, seed=7)[:, null.rare].sum(axis=1)
    found = null.compare(hits, null.rare, draws=500, seed=7)
    assert 0.002 < found.p_above < 0.998
    assert found.p_above * 501 == pytest.approx(1 + sum(value >= 10 for value in drawn.tolist()))
    assert found.p_below * 501 == pytest.approx(1 + sum(value <= 10 for value in drawn.tolist()))


@pytest.mark.parametrize(
    ("support", "predicted", "message"),
    [
        ([1, 2], [3], "^labels and predictions must have the same classes and the same number$"),
        ([1, 2], [2, 2], "^labels and predictions must have the same classes and the same number$"),
        ([4, -1], [1, 2], "^margins are counts, of two images or more$"),
        ([1, 2], [4, -1], "^margins are counts, of two images or more$"),
        ([1, 0], [0, 1], "^margins are counts, of two images or more$"),
    ],
)
def test_margins_of_no_confusion_matrix_are_refused(support: list[int], predicted: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PermutationNull(np.array(support), np.array(predicted))


def test_two_images_are_enough() -> None:
    null = PermutationNull(np.array([1, 1]), np.array([1, 1]))
    assert (null.mean(), null.variance()) == (1, 1)


# --- sums ---

VALUES = st.one_of(st.floats(-1e6, 1e6), st.floats(-1, 1), st.integers(-3, 3).map(float))


@st.composite
def choices(draw: st.DrawFn) -> Choices:
    """Values with holes, or concave ones."""
    first = draw(st.integers(0, 4))
    values = draw(st.lists(VALUES, min_size=1, max_size=6))
    if draw(st.booleans()):
        return Choices(first, np.cumsum(sorted(values, reverse=True)))
    for place in draw(st.sets(st.integers(1, 4))):
        if place < len(values) - 1:
            values[place] = -math.inf
    return Choices(first, np.array(values))


def ways(entries: Sequence[Choices]) -> list[list[tuple[int, float]]]:
    """Of each class, the numbers that can be chosen and what they are worth."""
    return [[(e.first + i, float(v)) for i, v in enumerate(e.values) if v > -math.inf] for e in entries]


@settings(quick, max_examples=400)
@given(st.lists(choices(), min_size=1, max_size=4), st.data())
def test_the_best_sum_is_the_best_of_all_ways(entries: list[Choices], data: st.DataObject) -> None:
    reached: dict[int, float] = {}
    for chosen in itertools.product(*ways(entries)):
        total, value = sum(number for number, _ in chosen), math.fsum(value for _, value in chosen)
        reached[total] = max(value, reached.get(total, -math.inf))
    total = data.draw(st.integers(0, max(reached) + 2))
    if total not in reached:
        with pytest.raises(ValueError, match=f"add up to {total}"):
            sums.maximise_sum(entries, total)
        return
    value, numbers = sums.maximise_sum(entries, total)
    worth = [dict(pairs) for pairs in ways(entries)]
    scale = sum(max(abs(value) for value in pairs.values()) for pairs in worth)
    assert sum(numbers) == total
    assert value == pytest.approx(reached[total], abs=1e-8 * (1 + scale), rel=0)
    # Where they are read from, the numbers are worth what is said.
    assert math.fsum(w[n] for w, n in zip(worth, numbers, strict=True)) == pytest.approx(
        reached[total], abs=1e-8 * (1 + scale), rel=0
    )


def test_a_total_between_sums_is_reached_by_no_numbers() -> None:
    even = Choices(0, np.array([0, -math.inf, 1]))
    assert sums.maximise_sum([even, even], 2)[0] == 1
    with pytest.raises(ValueError, match="no numbers add up to 3"):
        sums.maximise_sum([even, even], 3)


def test_the_best_sum_may_need_a_number_far_from_the_best_of_its_class() -> None:
    no = -math.inf
    entries = [
        Choices(1, np.array([-107, no, no, -181, -174, 197.0])),
        Choices(0, np.array([0, 0, 0, no, 0, 0.0])),
        Choices(1, np.array([9, -6, -7, no, no, -2.0])),
    ]
    assert sums.maximise_sum(entries, 6) == (-98, [1, 4, 1])


@pytest.mark.parametrize("seed", range(12))
def test_the_best_sum_of_long_tables_is_that_of_every_sum_gone_through(seed: int) -> None:
    random = np.random.default_rng(seed)
    entries = []
    for _ in range(5):
        size = int(random.integers(60, 200))
        values = np.cumsum(random.normal(0, 1, size)) if seed % 2 else -(np.linspace(-3, 5, size) ** 2) * 9
        values[1:-1][random.random(size - 2) < (0, 0.3, 0.9)[seed % 3]] = -math.inf
        entries.append(Choices(int(random.integers(0, 9)), values + random.normal(0, 0.1, size)))
    table = {0: 0.0}
    for pairs in ways(entries):
        longer: dict[int, float] = {}
        for (total, value), (number, more) in itertools.product(table.items(), pairs):
            longer[total + number] = max(value + more, longer.get(total + number, -math.inf))
        table = longer
    for total in random.choice(sorted(table), 6).tolist():
        value, numbers = sums.maximise_sum(entries, total)
        assert value == pytest.approx(table[total], abs=1e-6)
        assert sum(numbers) == total
        worth = [dict(pairs)[number] for pairs, number in zip(ways(entries), numbers, strict=True)]
        assert sum(worth) == pytest.approx(table[total], abs=1e-6)


@quick
@given(st.lists(st.sets(st.integers(0, 9)), min_size=1, max_size=4), st.integers(9, 20))
def test_reachable_sums_of_the_others_are_those_of_all_ways(chosen: list[set[int]], total: int) -> None:
    found = sums.find_reachable([np.array(sorted(numbers), np.int64) for numbers in chosen], total)
    for k, flags in enumerate(found):
        others = {sum(way) for way in itertools.product(*(n for j, n in enumerate(chosen) if j != k))}
        assert flags.shape == (total + 1,)
        assert set(np.flatnonzero(flags).tolist()) == {number for number in others if number <= total}
