"""Synthetic rows, against the papers' definitions."""

from typing import get_args

import numpy as np
import pytest
from builders import CLASSES, as_landmarks, quick
from hypothesis import assume, given
from hypothesis import strategies as st

from hirise_imb.imbalance.smote import Method, SyntheticOversampling, SyntheticRows

Array = np.ndarray

METHODS: tuple[Method, ...] = get_args(Method)
SEEDS = st.integers(0, 2**32 - 1)
RATIOS = st.floats(0.05, 1)
NEIGHBOURS = st.integers(1, 4)


def synthesise(
    sampler: SyntheticOversampling, features: Array, labels: Array, seed: int, counts: Array | None = None
) -> SyntheticRows:
    """The synthetic rows, with canonical images alone as training images unless counts are given."""
    canonical = as_landmarks(features, labels, np.arange(len(labels)))
    return sampler.resample(canonical, canonical.counts() if counts is None else counts, seed)


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
    new = synthesise(SyntheticOversampling("smote", ratio, neighbours), features, labels, seed)
    wanted = targets(labels, ratio)
    assert set(new.labels.tolist()) == set(wanted)
    assert new.notes == ()
    for k, target in wanted.items():
        own = features[labels == k]
        assert len(own) + (new.labels == k).sum() == target
        assert from_segments(new.features[new.labels == k], own, own, neighbours)


@quick
@given(WORLDS, NEIGHBOURS, SEEDS)
def test_borderline_smote_starts_from_rows_in_danger(given_: tuple[Array, Array], neighbours: int, seed: int) -> None:
    features, labels = given_
    wanted = targets(labels, 1.0)
    new = synthesise(SyntheticOversampling("borderline_smote", 1.0, neighbours), features, labels, seed)
    assert set(new.labels.tolist()) == set(wanted)
    notes = []
    for k, target in wanted.items():
        own = features[labels == k]
        others = foreign(features, labels, k, 10)
        danger = (others >= 5) & (others < 10)  # Han et al. 2005: m/2 <= m' < m, with m = 10
        if not danger.any():
            notes.append(f"{CLASSES[k]}: smote instead of borderline_smote, which finds no landmark to start from")
        assert len(own) + (new.labels == k).sum() == target
        assert from_segments(new.features[new.labels == k], own[danger] if danger.any() else own, own, neighbours)
    assert sorted(new.notes) == sorted(notes)


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
    new = synthesise(SyntheticOversampling("adasyn", ratio, neighbours), features, labels, seed)
    for k, target in wanted.items():
        own, made = features[labels == k], new.features[new.labels == k]
        assert len(made) == times[k].sum()
        assert abs(len(own) + len(made) - target) <= len(own) / 2  # what the docstring promises
        for start, row in zip(np.repeat(np.arange(len(own)), times[k]), made, strict=True):
            assert from_segments(row[None], own[[start]], own, neighbours)
    assert set(new.labels.tolist()) == set(wanted)
    assert new.notes == ()


@pytest.mark.parametrize("method", METHODS)
@quick
@given(seed=SEEDS)
def test_inputs_are_untouched_and_the_same_seed_makes_the_same_rows(method: Method, seed: int) -> None:
    features, labels = world({0: 40, 3: 12, 6: 9}, 4)
    before, before_labels = features.copy(), labels.copy()
    synthesis = SyntheticOversampling(method, 0.8, 3)
    new = synthesise(synthesis, features, labels, seed)
    assert (
        new.features.dtype == synthesise(synthesis, features.astype(float), labels, seed).features.dtype == np.float32
    )
    assert new.labels.dtype == np.int64
    assert len(new.features) == len(new.labels) > 0
    assert features.tolist() == before.tolist()
    assert labels.tolist() == before_labels.tolist()
    assert sorted(new.labels.tolist()) == new.labels.tolist()
    again = synthesise(synthesis, features, labels, seed)
    assert again.features.tolist() == new.features.tolist()
    other = synthesise(synthesis, features, labels, (seed + 1) % 2**32)
    assert not set(map(tuple, other.features.tolist())) & set(map(tuple, new.features.tolist()))


def test_two_classes_do_not_share_their_draws() -> None:
    # Two classes with the same rows: with the same draws they would get the same synthetic ones.
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(6, 4))
    features = np.concatenate([rng.normal(size=(12, 4)), rows, rows]).astype(np.float32)
    new = synthesise(SyntheticOversampling("smote", 1.0, 2), features, np.repeat([0, 1, 2], [12, 6, 6]), 0)
    assert new.features[:6].tolist() != new.features[6:].tolist()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("counts", [{3: 5}, {0: 4, 2: 4}, {0: 10, 1: 2}])
def test_classes_that_are_large_enough_get_no_rows(method: Method, counts: dict[int, int]) -> None:
    new = synthesise(SyntheticOversampling(method, 0.2, 5), *world(counts, 0), 0)
    assert new.features.shape == (0, 6)
    assert new.features.dtype == np.float32
    assert new.labels.shape == (0,)
    assert new.labels.dtype == np.int64
    assert new.notes == ()


# --- rows are added to all training images ---


@pytest.mark.parametrize("method", ["smote", "borderline_smote"])
def test_targets_count_all_training_images(method: Method) -> None:
    features, labels = world({0: 40, 3: 12, 6: 9}, 4, apart=0)
    counts = np.array([100, 0, 0, 84, 0, 0, 9, 0])
    new = synthesise(SyntheticOversampling(method, 0.9, 3), features, labels, 0, counts)
    assert np.bincount(new.labels, minlength=8).tolist() == [0, 0, 0, 6, 0, 0, 81, 0]


def test_a_class_may_get_more_rows_than_the_largest_class_has_landmarks() -> None:
    features, labels = world({0: 10, 3: 8}, 4)
    new = synthesise(SyntheticOversampling("smote", 1.0, 3), features, labels, 0, np.array([70, 0, 0, 8, 0, 0, 0, 0]))
    assert new.labels.tolist() == [3] * 62
    assert from_segments(new.features, features[labels == 3], features[labels == 3], 3)


@pytest.mark.parametrize("counts", [[0, 0, 0, 8, 0, 0, 0, 0], [10, 2, 0, 8, 0, 0, 0, 0], [10, 8]])
def test_counts_of_other_classes_are_refused(counts: list[int]) -> None:
    with pytest.raises(ValueError, match=r"^counts must be positive for exactly the classes of the canonical images$"):
        synthesise(SyntheticOversampling("smote", 1.0, 3), *world({0: 10, 3: 8}, 4), 0, np.array(counts))


# --- small classes ---


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("rare", "neighbours", "note"),
    [
        ({5: 2}, 5, "impact ejecta: 1 neighbour instead of 5, it has 2 landmarks"),
        ({5: 3}, 5, "impact ejecta: 2 neighbours instead of 5, it has 3 landmarks"),
        ({1: 20, 5: 5, 7: 9}, 5, "impact ejecta: 4 neighbours instead of 5, it has 5 landmarks"),
    ],
)
def test_a_small_class_has_as_many_neighbours_as_it_has_landmarks(
    method: Method, rare: dict[int, int], neighbours: int, note: str
) -> None:
    features, labels = world({0: 40} | rare, 1, apart=0)
    new = synthesise(SyntheticOversampling(method, 0.5, neighbours), features, labels, 0)
    assert new.notes[0] == note
    own = features[labels == 5]
    assert abs((new.labels == 5).sum() + len(own) - 20) <= len(own) / 2
    assert from_segments(new.features[new.labels == 5], own, own, len(own) - 1)


@pytest.mark.parametrize("method", METHODS)
def test_a_single_landmark_is_copied(method: Method) -> None:
    features, labels = world({0: 40, 7: 1}, 1)
    new = synthesise(SyntheticOversampling(method, 0.5, 2), features, labels, 0)
    np.testing.assert_array_equal(new.features, features[labels == 7].repeat(19, axis=0))
    assert new.features.dtype == np.float32
    assert new.labels.tolist() == [7] * 19
    assert new.notes == ("spider: copies of its only landmark, which has no neighbour",)


@pytest.mark.parametrize("method", METHODS)
def test_one_row_more_than_neighbours_is_enough(method: Method) -> None:
    new = synthesise(SyntheticOversampling(method, 0.5, 5), *world({0: 40, 5: 6}, 0, apart=0), 0)
    assert set(new.labels.tolist()) == {5}
    assert new.notes == ()


def lonely(rows: int) -> tuple[Array, Array]:
    """Class 6 far from the 30 rows of class 0."""
    features, labels = world({0: 30, 6: rows}, 3, apart=0)
    features[labels == 6] += 1000
    return features, labels


def expect_smote(method: Method, name: str, ratio: float, neighbours: int, given_: tuple[Array, Array]) -> None:
    """The method makes the rows of SMOTE, and says so."""
    new = synthesise(SyntheticOversampling(method, ratio, neighbours), *given_, 0)
    assert new.notes == (f"{name}: smote instead of {method}, which finds no landmark to start from",)
    expected = synthesise(SyntheticOversampling("smote", ratio, neighbours), *given_, 0)
    assert new.features.tolist() == expected.features.tolist()
    assert new.labels.tolist() == expected.labels.tolist()


def test_borderline_smote_without_a_row_in_danger_is_smote() -> None:
    # imbalanced-learn passes over the class and says nothing.
    expect_smote("borderline_smote", "swiss cheese", 1.0, 5, lonely(12))


@pytest.mark.parametrize("others", [6, 7])
def test_borderline_smote_without_ten_other_rows_is_smote(others: int) -> None:
    expect_smote("borderline_smote", "spider", 1.0, 2, world({0: others, 7: 3}, 0))


def test_the_method_is_kept_for_classes_that_it_can_over_sample() -> None:
    features, labels = world({0: 40, 2: 15}, 3, apart=0)
    far, _ = world({6: 12}, 3)
    both = np.concatenate([features, far + 1000]), np.concatenate([labels, np.full(12, 6)])
    borderline = SyntheticOversampling("borderline_smote", 1.0, 5)
    new, without = synthesise(borderline, *both, 0), synthesise(borderline, features, labels, 0)
    assert new.notes == ("swiss cheese: smote instead of borderline_smote, which finds no landmark to start from",)
    assert without.notes == ()
    assert new.features[new.labels == 2].tolist() == without.features.tolist()
    assert (new.labels == 6).sum() == 28


def test_adasyn_without_a_foreign_neighbour_is_smote() -> None:
    expect_smote("adasyn", "swiss cheese", 1.0, 5, lonely(12))


def test_adasyn_whose_rows_are_all_rounded_away_is_smote() -> None:
    # Ten pairs, far from each other, of one row of each class: all shares are the same, 1 / 10 of 3 rows.
    at = np.repeat(np.arange(10) * 100.0, 2)[:, None] + np.tile([0.0, 1.0], 10)[:, None]
    features = np.concatenate([at, [[5000.0], [5001], [5002]]]).astype(np.float32)
    expect_smote("adasyn", "bright dune", 1.0, 1, (features, np.array([0, 4] * 10 + [0] * 3)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_a_mistake(value: float) -> None:
    features, labels = world({0: 20, 1: 8}, 0)
    features[5, 2] = value
    with pytest.raises(ValueError, match=r"^features must be finite$"):
        synthesise(SyntheticOversampling("smote", 1.0, 5), features, labels, 0)


def test_labels_of_another_number_than_rows_are_a_mistake() -> None:
    features, labels = world({0: 20, 1: 8}, 0)
    with pytest.raises(ValueError, match=r"^features, labels and sources must have one entry for each image, "):
        synthesise(SyntheticOversampling("smote", 1.0, 5), features, labels[1:], 0)


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
