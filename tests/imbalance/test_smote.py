"""Rows of features that are made, not found."""

from typing import get_args

import numpy as np
import pytest
from builders import as_landmarks, quick
from hypothesis import assume, given
from hypothesis import strategies as st

from hirise_imb.imbalance.smote import NO_SOURCE, Method, SyntheticOversampling
from hirise_imb.utils.errors import NotApplicable

Array = np.ndarray

METHODS: tuple[Method, ...] = get_args(Method)
SEEDS = st.integers(0, 2**32 - 1)
RATIOS = st.floats(0.05, 1)
NEIGHBOURS = st.integers(1, 4)


def resample(sampler: SyntheticOversampling, features: Array, labels: Array, seed: int) -> tuple[Array, Array]:
    """Features and labels after over-sampling; sources play no part."""
    landmarks = as_landmarks(features, labels, np.arange(len(labels)))
    rows = sampler.resample(landmarks, seed)
    assert (rows.sources[: len(labels)] == np.arange(len(labels))).all()
    assert (rows.sources[len(labels) :] == NO_SOURCE).all()
    return np.asarray(rows.features), rows.labels


def world(counts: dict[int, int], seed: int, apart: float = 0.5, width: int = 6) -> tuple[Array, Array]:
    """Rows of each class around a centre of its own, mixed; `apart` is how far the centres are from each other."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(list(counts), list(counts.values())))
    centres = rng.normal(0, apart, (8, width))
    return (centres[labels] + rng.normal(0, 1, (len(labels), width))).astype(np.float32), labels


WORLDS = st.builds(
    world,
    st.dictionaries(st.integers(0, 7), st.integers(5, 25), min_size=2).filter(lambda counts: sum(counts.values()) > 10),
    st.integers(0, 10**6),
)


def nearest(of: Array, among: Array, k: int) -> Array:
    """Positions in `among` of the k nearest to each row but for itself, shape (len(of), k); by hand, in double."""
    gaps = ((of[:, None].astype(float) - among[None].astype(float)) ** 2).sum(axis=2)
    return np.asarray(gaps.argsort(axis=1)[:, 1 : k + 1])


def foreign(features: Array, labels: Array, k: int, m: int) -> Array:
    """How many of the m nearest rows of any class are of another one, for each row of class k."""
    return np.asarray((labels[nearest(features[labels == k], features, m)] != k).sum(axis=1))


def from_segments(made: Array, starts: Array, own: Array, neighbours: int) -> bool:
    """Whether each made row lies between one of the starts and one of its nearest rows of the class."""
    ends = own[nearest(starts, own, neighbours)].astype(float)
    begin, way = starts[:, None].astype(float), ends - starts[:, None]
    for row in made.astype(float):
        along = ((row - begin) * way).sum(axis=2) / (way**2).sum(axis=2)
        miss = np.linalg.norm(begin + along.clip(0, 1)[..., None] * way - row, axis=2)
        if miss.min() > 1e-5:
            return False
    return True


def targets(labels: Array, ratio: float) -> dict[int, int]:
    """Rows that each class which is too small should have."""
    counts = {k: int((labels == k).sum()) for k in set(labels.tolist())}
    target = round(ratio * max(counts.values()))
    return {k: target for k, n in counts.items() if n < target}


@quick
@given(WORLDS, RATIOS, NEIGHBOURS, SEEDS)
def test_smote_lifts_each_class_to_the_ratio_with_rows_between_near_rows(
    given_: tuple[Array, Array], ratio: float, neighbours: int, seed: int
) -> None:
    features, labels = given_
    found, classes = resample(SyntheticOversampling("smote", ratio, neighbours), features, labels, seed)
    made, of = found[len(features) :], classes[len(labels) :]
    wanted = targets(labels, ratio)
    assert set(of.tolist()) == set(wanted)
    for k, target in wanted.items():
        own = features[labels == k]
        assert (classes == k).sum() == target
        assert from_segments(made[of == k], own, own, neighbours)


@quick
@given(WORLDS, NEIGHBOURS, SEEDS)
def test_borderline_smote_starts_from_rows_in_danger(given_: tuple[Array, Array], neighbours: int, seed: int) -> None:
    features, labels = given_
    wanted = targets(labels, 1.0)
    danger = {}
    for k in wanted:  # Han et al. 2005: m/2 <= m' < m, with m = 10
        others = foreign(features, labels, k, 10)
        danger[k] = (others >= 5) & (others < 10)
    synthesis = SyntheticOversampling("borderline_smote", 1.0, neighbours)
    if not all(mask.any() for mask in danger.values()):
        with pytest.raises(NotApplicable, match=r"^borderline_smote finds no landmark of "):
            resample(synthesis, features, labels, seed)
        return
    found, classes = resample(synthesis, features, labels, seed)
    made, of = found[len(features) :], classes[len(labels) :]
    assert set(of.tolist()) == set(wanted)
    for k, target in wanted.items():
        own = features[labels == k]
        assert (classes == k).sum() == target
        assert from_segments(made[of == k], own[danger[k]], own, neighbours)


@quick
@given(WORLDS, RATIOS, NEIGHBOURS, SEEDS)
def test_adasyn_starts_from_each_row_by_its_share_of_foreign_neighbours(
    given_: tuple[Array, Array], ratio: float, neighbours: int, seed: int
) -> None:
    features, labels = given_
    wanted = targets(labels, ratio)
    times = {}
    for k, target in wanted.items():  # He et al. 2008: g_i = r_i / sum(r) x G, rounded
        others = foreign(features, labels, k, neighbours) / neighbours
        assume(others.any())
        times[k] = np.rint(others / others.sum() * (target - (labels == k).sum())).astype(int)
        assume(times[k].any())
    found, classes = resample(SyntheticOversampling("adasyn", ratio, neighbours), features, labels, seed)
    for k, target in wanted.items():
        own, made = features[labels == k], found[len(features) :][classes[len(labels) :] == k]
        assert len(made) == times[k].sum()
        assert abs((classes == k).sum() - target) <= len(own) / 2  # what the docstring promises
        for start, row in zip(np.repeat(np.arange(len(own)), times[k]), made, strict=True):
            assert from_segments(row[None], own[[start]], own, neighbours)
    assert set(classes[len(labels) :].tolist()) == set(wanted)


@pytest.mark.parametrize("method", METHODS)
@quick
@given(seed=SEEDS)
def test_given_rows_come_first_untouched_and_the_same_seed_makes_the_same(method: Method, seed: int) -> None:
    features, labels = world({0: 40, 3: 12, 6: 9}, 4)
    before, before_labels = features.copy(), labels.copy()
    synthesis = SyntheticOversampling(method, 0.8, 3)
    found, classes = resample(synthesis, features, labels, seed)
    assert found.dtype == np.float32
    assert classes.dtype == np.int64
    assert len(found) == len(classes) > len(features)
    assert found[: len(features)].tolist() == before.tolist() == features.tolist()
    assert classes[: len(labels)].tolist() == before_labels.tolist() == labels.tolist()
    assert sorted(classes[len(labels) :].tolist()) == classes[len(labels) :].tolist()
    again, _ = resample(synthesis, features, labels, seed)
    assert again.tolist() == found.tolist()
    other, _ = resample(synthesis, features, labels, (seed + 1) % 2**32)
    assert not set(map(tuple, other[len(features) :].tolist())) & set(map(tuple, found[len(features) :].tolist()))


def test_two_classes_do_not_share_their_draws() -> None:
    # Two classes with the same rows: with the same draws they would get the same synthetic ones.
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(6, 4))
    features = np.concatenate([rng.normal(size=(12, 4)), rows, rows]).astype(np.float32)
    found, _ = resample(SyntheticOversampling("smote", 1.0, 2), features, np.repeat([0, 1, 2], [12, 6, 6]), 0)
    assert found[24:30].tolist() != found[30:].tolist()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("counts", [{3: 5}, {0: 4, 2: 4}, {0: 10, 1: 2}])
def test_classes_that_are_large_enough_are_left(method: Method, counts: dict[int, int]) -> None:
    features, labels = world(counts, 0)
    found, classes = resample(SyntheticOversampling(method, 0.2, 5), features, labels, 0)
    assert found.tolist() == features.tolist()
    assert found.dtype == np.float32
    assert classes.tolist() == labels.tolist()
    assert classes.dtype == labels.dtype


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("rare", "neighbours", "sentence"),
    [
        ({5: 2}, 5, "6 landmarks of impact ejecta to interpolate between 5 neighbours; there are 2."),
        ({1: 20, 5: 5, 7: 9}, 5, "6 landmarks of impact ejecta to interpolate between 5 neighbours; there are 5."),
        ({7: 1}, 1, "2 landmarks of spider to interpolate between 1 neighbour; there is 1."),
    ],
)
def test_too_few_rows_to_interpolate_between_are_not_applicable(
    method: Method, rare: dict[int, int], neighbours: int, sentence: str
) -> None:
    with pytest.raises(NotApplicable) as caught:
        resample(SyntheticOversampling(method, 0.5, neighbours), *world({0: 40} | rare, 1), 0)
    assert str(caught.value) == f"{method} needs at least {sentence}"


@pytest.mark.parametrize("method", METHODS)
def test_one_row_more_than_neighbours_is_enough(method: Method) -> None:
    _, classes = resample(SyntheticOversampling(method, 0.5, 5), *world({0: 40, 5: 6}, 0, apart=0), 0)
    assert (classes == 5).sum() > 6


def lonely(rows: int) -> tuple[Array, Array]:
    """Class 6 far from the 30 rows of class 0."""
    features, labels = world({0: 30, 6: rows}, 3, apart=0)
    features[labels == 6] += 1000
    return features, labels


def test_borderline_smote_without_a_row_in_danger_is_not_applicable() -> None:
    # imbalanced-learn passes over the class and says nothing.
    with pytest.raises(NotApplicable) as caught:
        resample(SyntheticOversampling("borderline_smote", 1.0, 5), *lonely(12), 0)
    assert str(caught.value) == (
        "borderline_smote finds no landmark of swiss cheese to start from: none has other classes in at least half, "
        "but not all, of its nearest 10 landmarks."
    )


def test_one_class_that_cannot_be_lifted_is_enough_to_make_nothing() -> None:
    features, labels = world({0: 40, 2: 15}, 3, apart=0)
    far, _ = world({6: 12}, 3)
    both = np.concatenate([features, far + 1000]), np.concatenate([labels, np.full(12, 6)])
    assert len(resample(SyntheticOversampling("borderline_smote", 1.0, 5), features, labels, 0)[0]) == 80
    with pytest.raises(NotApplicable, match="of swiss cheese"):
        resample(SyntheticOversampling("borderline_smote", 1.0, 5), *both, 0)


def test_adasyn_without_a_foreign_neighbour_is_not_applicable() -> None:
    with pytest.raises(NotApplicable, match=r"^adasyn cannot make landmarks of swiss cheese: Not any neig.*majority"):
        resample(SyntheticOversampling("adasyn", 1.0, 5), *lonely(12), 0)


def test_adasyn_whose_rows_are_all_rounded_away_is_not_applicable() -> None:
    # Ten pairs, far from each other, of one row of each class: all shares are the same, 1 / 10 of 3 rows.
    at = np.repeat(np.arange(10) * 100.0, 2)[:, None] + np.tile([0.0, 1.0], 10)[:, None]
    features = np.concatenate([at, [[5000.0], [5001], [5002]]]).astype(np.float32)
    labels = np.array([0, 4] * 10 + [0] * 3)
    with pytest.raises(NotApplicable, match=r"^adasyn cannot make landmarks of bright dune: No samples will be gen"):
        resample(SyntheticOversampling("adasyn", 1.0, 1), features, labels, 0)


def test_what_the_library_refuses_is_not_applicable_with_its_reason() -> None:
    with pytest.raises(NotApplicable, match=r"^borderline_smote cannot make landmarks of spider: .*n_samples_fit = 9"):
        resample(SyntheticOversampling("borderline_smote", 1.0, 2), *world({0: 6, 7: 3}, 0), 0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_a_mistake(value: float) -> None:
    features, labels = world({0: 20, 1: 8}, 0)
    features[5, 2] = value
    with pytest.raises(ValueError, match=r"^features must be finite$"):
        resample(SyntheticOversampling("smote", 1.0, 5), features, labels, 0)


def test_labels_of_another_number_than_rows_are_a_mistake() -> None:
    features, labels = world({0: 20, 1: 8}, 0)
    with pytest.raises(ValueError, match=r"^features, labels and sources must have one entry for each landmark, "):
        resample(SyntheticOversampling("smote", 1.0, 5), features, labels[1:], 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("svm", 0.5, 5), "method must be one of smote, borderline_smote, adasyn, got 'svm'"),
        (("smote", 0.0, 5), "ratio must be in (0, 1], got 0.0"),
        (("smote", 1.01, 5), "ratio must be in (0, 1], got 1.01"),
        (("smote", float("nan"), 5), "ratio must be in (0, 1], got nan"),
        (("smote", 0.5, 0), "neighbours must be a positive integer, got 0"),
        (("smote", 0.5, 2.5), "neighbours must be a positive integer, got 2.5"),
        (("smote", 0.5, float("nan")), "neighbours must be a positive integer, got nan"),
    ],
)
def test_values_outside_their_ranges_are_refused(values: tuple[Method, float, int], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        SyntheticOversampling(*values)
    assert str(caught.value) == message
