"""Which rows an epoch goes through."""

import numpy as np
import pytest
from builders import quick
from hypothesis import given
from hypothesis import strategies as st

from hirise_imb.sampling import EveryImage, RandomOversampling, Sampling, SplitFileRows

Array = np.ndarray

LABELS = st.lists(st.integers(0, 7), min_size=1, max_size=80).map(np.array)
SEVERAL = LABELS.filter(lambda labels: len(set(labels.tolist())) > 1)
RATIOS = st.floats(0.001, 1)


def copies_of(labels: Array) -> Array:
    return np.random.default_rng(0).integers(1, 4, len(labels))


@quick
@given(LABELS)
def test_every_image_comes_once_in_order(labels: Array) -> None:
    rows = EveryImage().rows(labels, copies_of(labels), seed=0)
    assert rows.tolist() == list(range(len(labels)))


@quick
@given(LABELS)
def test_split_file_rows_repeat_each_image_by_its_copies(labels: Array) -> None:
    copies = copies_of(labels)
    rows = SplitFileRows().rows(labels, copies, seed=0)
    assert len(rows) == copies.sum()
    assert np.bincount(rows, minlength=len(labels)).tolist() == copies.tolist()


@quick
@given(SEVERAL, RATIOS, st.integers(0, 2**32 - 1))
def test_oversampling_lifts_each_class_to_the_ratio(labels: Array, ratio: float, seed: int) -> None:
    rows = RandomOversampling(ratio).rows(labels, copies_of(labels), seed)
    assert rows.dtype == np.int64
    # Every image is kept, first and in order; what follows is drawn again.
    assert rows[: len(labels)].tolist() == list(range(len(labels)))
    before, after = np.bincount(labels, minlength=8), np.bincount(labels[rows], minlength=8)
    target = round(ratio * before.max())
    for count, found in zip(before.tolist(), after.tolist(), strict=True):
        assert found == (0 if count == 0 else max(count, target))


@quick
@given(SEVERAL, RATIOS, st.integers(0, 2**32 - 1))
def test_the_same_seed_draws_the_same_rows(labels: Array, ratio: float, seed: int) -> None:
    first, second = (RandomOversampling(ratio).rows(labels, copies_of(labels), seed) for _ in range(2))
    assert first.tolist() == second.tolist()


def test_another_seed_draws_other_rows_and_all_images_have_a_chance() -> None:
    labels = np.array([0] * 400 + [7] * 20)
    copies = np.ones(420, int)
    draws = [RandomOversampling(1.0).rows(labels, copies, seed)[420:] for seed in (0, 1, 0)]
    assert draws[0].tolist() != draws[1].tolist()
    assert draws[0].tolist() == draws[2].tolist()
    for drawn in draws:
        assert len(drawn) == 380
        assert set(drawn.tolist()) == set(range(400, 420))


def test_full_balance_of_a_class_as_large_as_the_largest_says_nothing() -> None:
    # imbalanced-learn warns about ties, and warnings are errors here.
    labels = np.array([0, 0, 0, 1, 1, 1, 2])
    rows = RandomOversampling(1.0).rows(labels, np.ones(7, int), 0)
    assert np.bincount(labels[rows]).tolist() == [3, 3, 3]


@pytest.mark.parametrize("sampling", [EveryImage(), SplitFileRows(), RandomOversampling(0.5)])
def test_a_single_class_is_left_as_it_is(sampling: Sampling) -> None:
    labels = np.full(5, 3)
    assert sampling.rows(labels, np.ones(5, int), 0).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("ratio", [0.0, -0.5, 1.0001, float("nan"), float("inf")])
def test_a_ratio_outside_the_range_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match=rf"^ratio must be in \(0, 1\], got {ratio}$"):
        RandomOversampling(ratio)
