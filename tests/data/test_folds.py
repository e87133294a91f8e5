"""Folds of sources."""

from __future__ import annotations

import numpy as np
import pytest
from builders import CLASSES, quick
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from hirise_imb.data.folds import N_FOLDS, FoldAssignment, assign_folds
from hirise_imb.data.hirise import HIRISE

few = settings(quick, max_examples=6)
"""An assignment takes a tenth of a second."""

Landmarks = tuple[np.ndarray, np.ndarray]


def divide(labels: np.ndarray, sources: np.ndarray, n_folds: int = N_FOLDS, number: int = 0) -> FoldAssignment:
    return assign_folds(labels, sources, HIRISE.classes, n_folds, number)


def drawn(seed: int, sources: int) -> Landmarks:
    """Labels and sources of some landmarks, `other` the most frequent; every source has one."""
    rng = np.random.default_rng(seed)
    source = np.concatenate([np.arange(sources), rng.integers(0, sources, 8 * sources)])
    return rng.choice(8, len(source), p=[0.51, *[0.07] * 7]), 3 * source + 5


@pytest.fixture(scope="module")
def plenty() -> Landmarks:
    """Of each class as many sources as there are folds, one class a source."""
    return np.repeat(np.arange(8), 3 * N_FOLDS), np.repeat(np.arange(8 * N_FOLDS), 3)


@few
@given(st.integers(0, 2**32 - 1), st.integers(N_FOLDS, 25), st.integers(0, 4))
def test_no_source_is_divided_and_no_fold_is_empty(seed: int, sources: int, number: int) -> None:
    labels, source = drawn(seed, sources)
    found = divide(labels, source, number=number).folds
    assert found.shape == labels.shape
    assert set(found.tolist()) == set(range(N_FOLDS))
    for one in np.unique(source):
        assert len(np.unique(found[source == one])) == 1


@few
@given(st.integers(0, 2**32 - 1), st.integers(N_FOLDS, 15))
def test_what_is_missing_is_named_with_its_sources(seed: int, sources: int) -> None:
    labels, source = drawn(seed, sources)
    found = divide(labels, source)
    expected = []
    for k, name in enumerate(CLASSES):
        mine = labels == k
        if mine.any() and len(set(found.folds[mine].tolist())) < N_FOLDS:
            n = len(set(source[mine].tolist()))
            expected.append(f"{name} ({n} source{'' if n == 1 else 's'})")
    assert list(found.incomplete) == expected


@pytest.mark.parametrize("number", range(3))
def test_every_fold_has_every_class_where_sources_suffice(number: int, plenty: Landmarks) -> None:
    found = divide(*plenty, number=number)
    assert found.incomplete == ()
    for fold in range(N_FOLDS):
        assert set(plenty[0][found.folds == fold].tolist()) == set(range(8))


def test_assignments_differ(plenty: Landmarks) -> None:
    """Whatever the folds are called."""
    together = [np.equal.outer(found, found) for found in (divide(*plenty, number=k).folds for k in range(4))]
    assert len({pairs.tobytes() for pairs in together}) == 4


def test_assignments_of_different_numbers_have_little_in_common() -> None:
    """As little as random ones, not only in the order of ties: otherwise their mean is that of one."""
    labels, source = drawn(0, 60)
    folds = [divide(labels, source, number=k).folds for k in range(4)]
    agreement = [adjusted_rand_score(folds[a], folds[b]) for a in range(4) for b in range(a)]
    assert np.mean(agreement) < 0.1
    assert max(agreement) < 0.25


def test_a_class_of_one_source_is_in_one_fold() -> None:
    labels = np.concatenate([np.zeros(40, np.int64), np.full(3, 5)])
    source = np.concatenate([np.arange(40) % 8, np.full(3, 7)])
    found = divide(labels, source)
    assert found.incomplete == (f"{CLASSES[5]} (1 source)",)
    assert len(np.unique(found.folds)) == N_FOLDS


def test_folds_are_alike() -> None:
    labels, source = drawn(0, 40)
    counts = np.bincount(divide(labels, source).folds)
    assert counts.max() < 1.3 * counts.min()


@few
@given(st.integers(0, 2**32 - 1))
def test_folds_depend_on_the_data_alone(seed: int) -> None:
    labels, source = drawn(seed, 9)
    for number in (0, 2):
        one, other = divide(labels, source, number=number), divide(labels.copy(), source.copy(), number=number)
        np.testing.assert_array_equal(one.folds, other.folds)
        assert one.incomplete == other.incomplete


def test_there_are_no_more_folds_than_sources() -> None:
    labels, source = np.zeros(9, np.int64), np.arange(9) % 3
    assert set(divide(labels, source).folds.tolist()) == {0, 1, 2}
    assert set(divide(labels, source, 2).folds.tolist()) == {0, 1}


@pytest.mark.parametrize("folds", [4, 1])
def test_landmarks_that_can_not_be_divided_are_refused(folds: int) -> None:
    source = np.zeros(5, np.int64) if folds > 1 else np.arange(5)
    with pytest.raises(ValueError, match=r"can't be divided into folds$"):
        divide(np.arange(5), source, folds)


def test_few_landmarks_of_each_class_can_be_divided_too() -> None:
    labels, sources = np.repeat(np.arange(8), 2), np.arange(16)
    found = divide(labels, sources)
    assert np.bincount(found.folds).tolist() == [4, 4, 4, 4]
    assert len(found.incomplete) == 8  # two landmarks are not in four folds
