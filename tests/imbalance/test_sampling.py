"""Which rows an epoch goes through."""

import dataclasses

import numpy as np
import pytest
from builders import quick
from hypothesis import given
from hypothesis import strategies as st

from hirise_imb.data.dataset import ClassSet
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.splits import TrainingPool
from hirise_imb.imbalance.sampling import (
    ClassSampling,
    EveryImage,
    RandomOversampling,
    Sampling,
    SplitFileRows,
    Undersampling,
)
from hirise_imb.utils.errors import NotApplicable

Array = np.ndarray

SEEDS = st.integers(0, 2**32 - 1)
EPOCHS = st.integers(1, 100)
RATIOS = st.floats(0.001, 1)
POWERS = st.floats(0, 1)
SAMPLINGS = [
    EveryImage(),
    SplitFileRows(),
    RandomOversampling(0.5),
    ClassSampling(0.5),
    ClassSampling(0.0, by_source=True),
    ClassSampling(0.0, progressive=True),
    Undersampling(2.0),
]


def pool_of(
    labels: list[int] | Array, sources: list[int] | Array | None = None, classes: ClassSet = HIRISE.classes
) -> TrainingPool:
    """A pool with some copies; one source, where none are given."""
    labels = np.array(labels)
    copies = np.random.default_rng(0).integers(1, 4, len(labels))
    sources = np.zeros(len(labels), int) if sources is None else np.array(sources)
    return TrainingPool(labels, copies, sources, classes)


MOSTLY_OTHER = st.integers(-12, 7).map(lambda k: max(k, 0))
IMAGES = st.lists(st.tuples(MOSTLY_OTHER, st.integers(0, 4)), min_size=1, max_size=80)
POOLS = IMAGES.map(lambda images: pool_of([label for label, _ in images], [source for _, source in images]))
SEVERAL = POOLS.filter(lambda pool: len(set(pool.labels.tolist())) > 1)
WITH_RARE = POOLS.filter(lambda pool: pool.labels.any())
UNEVEN = pool_of([0] * 400 + [1] * 80 + [2] * 15 + [7] * 5, [0] * 390 + [1] * 10 + [1] * 70 + [2] * 10 + [3] * 20)
"""Four classes, each with one or two sources, most of them uneven; source 1 holds two classes."""


def shares_of(pool: TrainingPool, rows: Array) -> Array:
    return np.bincount(pool.labels[rows], minlength=8) / len(rows)


def near(found: Array, expected: Array, draws: int) -> bool:
    """Whether shares found in that many independent draws fit: Bernstein's bound at less than 1 in 10^7 a share."""
    return bool((np.abs(found - expected) <= 6 * np.sqrt(expected / draws) + 12 / draws).all())


@quick
@given(POOLS, EPOCHS)
def test_every_image_comes_once_in_order(pool: TrainingPool, epoch: int) -> None:
    assert EveryImage().rows(pool, 0, epoch, 0.0).tolist() == list(range(len(pool.labels)))


@quick
@given(POOLS, EPOCHS)
def test_split_file_rows_repeat_each_image_by_its_copies(pool: TrainingPool, epoch: int) -> None:
    rows = SplitFileRows().rows(pool, 0, epoch, 0.0)
    assert len(rows) == pool.copies.sum()
    assert np.bincount(rows, minlength=len(pool.labels)).tolist() == pool.copies.tolist()


@quick
@given(SEVERAL, RATIOS, SEEDS, EPOCHS)
def test_oversampling_lifts_each_class_to_the_ratio(pool: TrainingPool, ratio: float, seed: int, epoch: int) -> None:
    n = len(pool.labels)
    rows = RandomOversampling(ratio).rows(pool, seed, epoch, 0.0)
    # Every image is kept, first and in order; what follows is drawn again.
    assert rows[:n].tolist() == list(range(n))
    before, after = np.bincount(pool.labels, minlength=8), np.bincount(pool.labels[rows], minlength=8)
    target = round(ratio * before.max())
    for count, found in zip(before.tolist(), after.tolist(), strict=True):
        assert found == (0 if count == 0 else max(count, target))
    assert rows.tolist() == RandomOversampling(ratio).rows(pool, seed, epoch + 1, 1.0).tolist()


def test_another_seed_oversamples_other_rows_and_all_images_have_a_chance() -> None:
    pool = pool_of([0] * 400 + [7] * 20)
    draws = [RandomOversampling(1.0).rows(pool, seed, 1, 0.0)[420:] for seed in (0, 1)]
    assert draws[0].tolist() != draws[1].tolist()
    assert draws[0].tolist() == RandomOversampling(1.0).rows(pool, 0, 1, 0.0)[420:].tolist()
    for drawn in draws:
        assert len(drawn) == 380
        assert set(drawn.tolist()) == set(range(400, 420))


@quick
@given(POOLS, st.sampled_from(SAMPLINGS), SEEDS, EPOCHS, st.floats(0, 1))
def test_the_same_seed_and_epoch_draw_the_same_rows_of_the_pool(
    pool: TrainingPool, sampling: Sampling, seed: int, epoch: int, progress: float
) -> None:
    try:
        first = sampling.rows(pool, seed, epoch, progress)
    except NotApplicable:
        assert isinstance(sampling, Undersampling)
        assert not pool.labels.any()
        return
    assert first.dtype == np.int64
    assert first.ndim == 1
    assert first.size
    assert set(first.tolist()) <= set(range(len(pool.labels)))
    assert first.tolist() == sampling.rows(pool, seed, epoch, progress).tolist()


@pytest.mark.parametrize("sampling", SAMPLINGS)
@quick
@given(pool=WITH_RARE, seed=SEEDS)
def test_shares_are_those_of_the_last_epoch(sampling: Sampling, pool: TrainingPool, seed: int) -> None:
    shares = sampling.shares(pool)
    assert shares.shape == (8,)
    assert shares.sum() == pytest.approx(1)
    if isinstance(sampling, ClassSampling):
        rows = np.concatenate([sampling.rows(pool, seed, epoch, 1.0) for epoch in range(1, 41)])
        assert near(shares_of(pool, rows), shares, len(rows))
    else:  # their counts are no matter of chance
        np.testing.assert_allclose(shares_of(pool, sampling.rows(pool, seed, 9, 1.0)), shares, atol=1e-12)


@quick
@given(POOLS, POWERS, st.booleans(), SEEDS, EPOCHS)
def test_class_sampling_draws_as_many_images_as_there_are(
    pool: TrainingPool, power: float, by_source: bool, seed: int, epoch: int
) -> None:
    rows = ClassSampling(power, by_source).rows(pool, seed, epoch, 0.5)
    assert len(rows) == len(pool.labels)


@quick
@given(POOLS, POWERS)
def test_class_shares_follow_the_power_of_counts(pool: TrainingPool, power: float) -> None:
    counts = np.bincount(pool.labels, minlength=8)
    parts = [float(n) ** power if n else 0.0 for n in counts.tolist()]
    expected = [part / sum(parts) for part in parts]
    for sampling in (
        ClassSampling(power),
        ClassSampling(power, by_source=True),
        ClassSampling(power, progressive=True),
    ):
        np.testing.assert_allclose(sampling.shares(pool), expected, rtol=1e-12)


def test_shares_of_the_other_samplings() -> None:
    pool = TrainingPool(np.array([0] * 10 + [2] * 3), np.array([1] * 10 + [4, 4, 2]), np.zeros(13, int), HIRISE.classes)
    assert EveryImage().shares(pool) == pytest.approx([10 / 13, 0, 3 / 13, 0, 0, 0, 0, 0])
    assert SplitFileRows().shares(pool) == pytest.approx([1 / 2, 0, 1 / 2, 0, 0, 0, 0, 0])
    assert RandomOversampling(0.76).shares(pool) == pytest.approx([10 / 18, 0, 8 / 18, 0, 0, 0, 0, 0])
    assert Undersampling(1.2).shares(pool) == pytest.approx([4 / 7, 0, 3 / 7, 0, 0, 0, 0, 0])
    assert Undersampling(9.0).shares(pool) == pytest.approx([10 / 13, 0, 3 / 13, 0, 0, 0, 0, 0])


def test_class_shares_at_the_powers_that_have_names() -> None:
    pool = pool_of([0] * 64 + [3] * 16 + [5] * 4)
    assert ClassSampling(1).shares(pool) == pytest.approx([64 / 84, 0, 0, 16 / 84, 0, 4 / 84, 0, 0])  # natural
    assert ClassSampling(0.5).shares(pool) == pytest.approx([8 / 14, 0, 0, 4 / 14, 0, 2 / 14, 0, 0])  # square root
    assert ClassSampling(0).shares(pool) == pytest.approx([1 / 3, 0, 0, 1 / 3, 0, 1 / 3, 0, 0])  # balanced


def drawn_in(sampling: Sampling, pool: TrainingPool, progress: float, epochs: int = 400) -> Array:
    return np.concatenate([sampling.rows(pool, 5, epoch, progress) for epoch in range(1, epochs + 1)])


@pytest.mark.parametrize("progress", [0.0, 0.25, 1.0])
def test_progressive_shares_move_in_a_straight_line_from_natural_ones(progress: float) -> None:
    rows = drawn_in(ClassSampling(0.0, progressive=True), UNEVEN, progress)
    natural = np.bincount(UNEVEN.labels, minlength=8) / 500
    balanced = np.array([1, 1, 1, 0, 0, 0, 0, 1]) / 4
    expected = natural + progress * (balanced - natural)
    assert near(shares_of(UNEVEN, rows), expected, len(rows))


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_shares_that_are_not_progressive_stand_still(progress: float) -> None:
    rows = drawn_in(ClassSampling(0.0), UNEVEN, progress)
    assert near(shares_of(UNEVEN, rows), np.array([1, 1, 1, 0, 0, 0, 0, 1]) / 4, len(rows))


def test_within_a_class_all_images_have_the_same_chance() -> None:
    rows = drawn_in(ClassSampling(0.0), UNEVEN, 1.0)
    sizes = np.bincount(UNEVEN.labels, minlength=8)
    assert near(np.bincount(rows, minlength=500) / len(rows), 1 / (4 * sizes[UNEVEN.labels]), len(rows))


@quick
@given(POOLS, SEEDS)
def test_by_source_each_source_of_a_class_and_each_image_of_a_source_has_the_same_chance(
    pool: TrainingPool, seed: int
) -> None:
    sampling = ClassSampling(0.0, by_source=True)
    rows = np.concatenate([sampling.rows(pool, seed, epoch, 1.0) for epoch in range(1, 41)])
    places = list(zip(pool.labels.tolist(), pool.sources.tolist(), strict=True))
    classes = len(set(pool.labels.tolist()))
    expected = [1 / classes / len({s for k, s in set(places) if k == at[0]}) / places.count(at) for at in places]
    assert near(np.bincount(rows, minlength=len(places)) / len(rows), np.array(expected), len(rows))


def test_the_uneven_pool_by_source() -> None:
    rows = drawn_in(ClassSampling(0.0, by_source=True), UNEVEN, 1.0)
    place = UNEVEN.labels[rows] * 10 + UNEVEN.sources[rows]
    found = [(place == at).mean() for at in (0, 1, 11, 12, 23, 73)]
    assert near(np.array(found), np.array([1, 1, 1, 1, 2, 2]) / 8, len(rows))


@pytest.mark.parametrize("sampling", [s for s in SAMPLINGS if isinstance(s, ClassSampling)])
def test_each_epoch_and_each_seed_has_its_own_draw(sampling: Sampling) -> None:
    draws = [sampling.rows(UNEVEN, seed, epoch, 1.0).tolist() for seed in (0, 1, 2) for epoch in (1, 2, 3)]
    assert all(a != b for i, a in enumerate(draws) for b in draws[:i])


@quick
@given(WITH_RARE, st.floats(0.5, 20), SEEDS)
def test_undersampling_keeps_all_rare_images_and_some_others(pool: TrainingPool, ratio: float, seed: int) -> None:
    counts = np.bincount(pool.labels, minlength=8).tolist()
    most = round(ratio * max(counts[1:]))
    if counts[0] and not most:  # half of one image, rounded to even
        with pytest.raises(NotApplicable):
            Undersampling(ratio).rows(pool, seed, 1, 0.0)
        return
    rows = Undersampling(ratio).rows(pool, seed, 1, 0.0).tolist()
    assert rows == sorted(set(rows))
    assert [row for row in rows if pool.labels[row]] == np.flatnonzero(pool.labels).tolist()
    assert sum(pool.labels[row] == 0 for row in rows) == min(counts[0], most)


def test_undersampling_keeps_its_subset_in_all_epochs() -> None:
    subsets = [Undersampling(2.0).rows(UNEVEN, 5, epoch, epoch / 9).tolist() for epoch in range(1, 10)]
    assert all(subset == subsets[0] for subset in subsets)
    assert len(subsets[0]) == 260


def test_undersampling_draws_another_subset_with_another_seed_and_any_image_of_other() -> None:
    subsets = [set(Undersampling(2.0).rows(UNEVEN, seed, 1, 0.0)[:160].tolist()) for seed in range(30)]
    assert all(len(subset) == 160 and max(subset) < 400 for subset in subsets)
    assert all(a != b for i, a in enumerate(subsets) for b in subsets[:i])
    times = np.bincount([row for subset in subsets for row in subset], minlength=400)
    assert times.min() >= 1  # each comes with a chance of 0.4
    assert times.max() <= 25


@pytest.mark.parametrize(
    ("labels", "ratio", "sentence"),
    [
        ([0] * 9, 1.0, "1 x the largest rare class, which has 0 training images, leaves no image of other."),
        ([0] * 9 + [3, 3], 0.2, "0.2 x the largest rare class, which has 2 training images, leaves no image of other."),
    ],
)
def test_undersampling_that_would_leave_nothing_of_other_is_not_applicable(
    labels: list[int], ratio: float, sentence: str
) -> None:
    for act in (Undersampling(ratio).shares, lambda pool: Undersampling(ratio).rows(pool, 0, 1, 0.0)):
        with pytest.raises(NotApplicable) as caught:
            act(pool_of(labels))
        assert str(caught.value) == f"Under-sampling to {sentence}"


def test_undersampling_without_other_leaves_all_as_it_is() -> None:
    pool = pool_of([4, 2, 2])
    assert Undersampling(0.1).rows(pool, 0, 1, 0.0).tolist() == [0, 1, 2]
    assert Undersampling(0.1).shares(pool) == pytest.approx([0, 0, 2 / 3, 0, 1 / 3, 0, 0, 0])


def test_undersampling_without_a_majority_class_is_not_applicable() -> None:
    pool = pool_of([0] * 9 + [1] * 3, classes=ClassSet(("dust", "olivine", "pyroxene")))
    for act in (Undersampling(1.0).shares, lambda pool: Undersampling(1.0).rows(pool, 0, 1, 0.0)):
        with pytest.raises(NotApplicable) as caught:
            act(pool)
        assert str(caught.value) == "Under-sampling needs a majority class, and this data set names none."


def test_the_majority_class_need_not_be_the_first() -> None:
    pool = pool_of([0] * 3 + [2] * 9 + [1] * 2, classes=ClassSet(("olivine", "pyroxene", "dust"), majority="dust"))
    rows = Undersampling(2.0).rows(pool, 0, 1, 0.0)
    assert np.bincount(pool.labels[rows]).tolist() == [3, 2, 6]
    assert Undersampling(2.0).shares(pool) == pytest.approx([3 / 11, 2 / 11, 6 / 11])


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_shares_are_of_the_classes_of_the_data_set(sampling: Sampling) -> None:
    pool = pool_of([0] * 6 + [1] * 2, classes=ClassSet(("dust", "olivine", "pyroxene"), majority="dust"))
    assert sampling.shares(pool).shape == (3,)
    assert sampling.shares(pool)[2] == 0


@pytest.mark.parametrize("sampling", [EveryImage(), RandomOversampling(0.5), Undersampling(1.0)])
def test_a_single_class_is_left_as_it_is(sampling: Sampling) -> None:
    assert sampling.rows(pool_of([3] * 5), 0, 1, 0.0).tolist() == [0, 1, 2, 3, 4]
    assert sampling.shares(pool_of([3] * 5)).tolist() == [0, 0, 0, 1, 0, 0, 0, 0]


@quick
@given(WITH_RARE, st.sampled_from(SAMPLINGS))
def test_the_pool_is_not_changed(pool: TrainingPool, sampling: Sampling) -> None:
    names = [field.name for field in dataclasses.fields(pool) if field.name != "classes"]
    before = [getattr(pool, name).tolist() for name in names]
    sampling.rows(pool, 0, 1, 0.5)
    sampling.shares(pool)
    assert [getattr(pool, name).tolist() for name in names] == before


@pytest.mark.parametrize("ratio", [0.0, -0.5, 1.0001, float("nan"), float("inf")])
def test_a_ratio_of_oversampling_outside_the_range_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match=rf"^ratio must be in \(0, 1\], got {ratio}$"):
        RandomOversampling(ratio)


@pytest.mark.parametrize("ratio", [0.0, -0.5, float("nan"), float("inf")])
def test_a_ratio_of_undersampling_outside_the_range_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match=rf"^ratio must be positive and finite, got {ratio}$"):
        Undersampling(ratio)


@pytest.mark.parametrize("power", [-0.001, 1.001, float("nan")])
def test_a_power_outside_the_range_is_refused(power: float) -> None:
    with pytest.raises(ValueError, match=rf"^power must be in \[0, 1\], got {power}$"):
        ClassSampling(power)


@pytest.mark.parametrize("lengths", [(0, 0, 0), (2, 1, 2), (2, 2, 1)])
def test_a_pool_that_is_empty_or_uneven_is_refused(lengths: tuple[int, int, int]) -> None:
    labels, copies, sources = (np.zeros(n, int) for n in lengths)
    with pytest.raises(ValueError, match=r"^labels, copies and sources must have the same length .* got \("):
        TrainingPool(labels, copies, sources, HIRISE.classes)
