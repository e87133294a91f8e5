"""Nuisance projection, against the eigenvectors of the scatter that its paper's formula gives."""

import numpy as np
import pytest
from builders import as_landmarks, quick
from hypothesis import given
from hypothesis import strategies as st

from hirise_imb.data.dataset import ClassSet
from hirise_imb.data.hirise import HIRISE
from hirise_imb.models.projection import NuisanceProjection, project_out, source_means
from hirise_imb.utils.errors import NotApplicable

Array = np.ndarray
WIDTH = 9


def landmarks(seed: int, n: int = 120, sources: int = 12) -> tuple[Array, Array, Array]:
    """Features, labels (half of them `other`) and source names, with sources of very different sizes."""
    rng = np.random.default_rng(seed)
    weights = np.arange(1, sources + 1) ** 2
    source = np.concatenate([np.arange(sources), rng.choice(sources, n - sources, p=weights / weights.sum())])
    labels = np.where(np.arange(n) < sources, 0, rng.integers(0, 2, n) * rng.integers(1, 8, n))
    features = rng.normal(size=(n, WIDTH)) + 2 * rng.normal(size=(sources, WIDTH))[source] + 5
    return features, labels, np.array([f"ESP_{s:06}_1000" for s in source])


def scatter(features: Array, sources: Array) -> Array:
    """sum_s n_s (m_s - m)(m_s - m)^T, source by source."""
    total = np.zeros((WIDTH, WIDTH))
    for source in set(sources.tolist()):
        rows = features[sources == source]
        gap = rows.mean(axis=0) - features.mean(axis=0)
        total += len(rows) * np.outer(gap, gap)
    return total


def onto(directions: Array) -> Array:
    """The projection onto directions, which knows no signs."""
    return np.asarray(directions @ directions.T)


@quick
@given(st.integers(0, 1000), st.integers(1, 6))
def test_they_are_the_strongest_eigenvectors_of_the_scatter_of_other(seed: int, rank: int) -> None:
    features, labels, sources = landmarks(seed)
    found = NuisanceProjection(rank).directions(as_landmarks(features, labels, sources))
    _, vectors = np.linalg.eigh(scatter(features[labels == 0], sources[labels == 0]))
    assert found.shape == (WIDTH, rank)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found.T @ found, np.eye(rank), atol=1e-12)
    np.testing.assert_allclose(np.abs(found.T @ vectors[:, ::-1][:, :rank]), np.eye(rank), atol=1e-6)


@quick
@given(st.integers(0, 1000))
def test_other_classes_and_the_order_of_rows_make_no_difference(seed: int) -> None:
    features, labels, sources = landmarks(seed)
    before = features.copy(), labels.copy(), sources.copy()
    found = NuisanceProjection(3).directions(as_landmarks(features, labels, sources))
    order = np.random.default_rng(seed).permutation(len(labels))
    moved = features + 100 * (labels > 0)[:, None] * np.random.default_rng(seed).normal(size=features.shape)
    again = NuisanceProjection(3).directions(as_landmarks(moved[order], labels[order], sources[order]))
    np.testing.assert_allclose(onto(again), onto(found), atol=1e-8)
    for values, kept in zip((features, labels, sources), before, strict=True):
        np.testing.assert_array_equal(values, kept)


def test_a_rare_class_in_a_source_of_its_own_keeps_its_mean() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 0, 0, 0, 6], 20)
    sources = np.repeat(np.arange(5), 20)
    features = 0.1 * rng.normal(size=(100, WIDTH))
    features[:80, 0] += np.repeat([-3.0, -1, 1, 3], 20)
    features[80:, 1] = 50.0  # the mark of the class, and of its source
    directions = NuisanceProjection(1).directions(as_landmarks(features, labels, sources))
    left = project_out(features, directions)
    assert abs(directions[0, 0]) > 0.99
    assert left[80:, 1].mean() > 49
    assert np.ptp([left[sources == s, 0].mean() for s in range(4)]) < 0.1


@quick
@given(st.integers(0, 1000), st.sampled_from([np.float32, np.float64]))
def test_what_is_taken_out_is_gone_and_nothing_else(seed: int, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(WIDTH, 3)))[0]
    features: Array = rng.normal(size=(20, WIDTH)).astype(dtype)
    before = features.copy()
    left = project_out(features, directions)
    assert left.dtype == dtype
    np.testing.assert_array_equal(features, before)
    np.testing.assert_allclose(left @ directions, np.zeros((20, 3)), atol=1e-5)
    np.testing.assert_allclose(left, features @ (np.eye(WIDTH) - onto(directions)), atol=1e-5)
    np.testing.assert_allclose(project_out(left, directions), left, atol=1e-5)
    np.testing.assert_array_equal(project_out(features, directions[:, :0]), features)


@quick
@given(st.integers(0, 1000))
def test_source_means_are_means(seed: int) -> None:
    features, _, sources = landmarks(seed)
    means, sizes = source_means(features.astype(np.float32), sources)
    names = sorted(set(sources.tolist()))
    assert sizes.tolist() == [int((sources == name).sum()) for name in names]
    expected = [features[sources == name].mean(axis=0) for name in names]
    np.testing.assert_allclose(means, expected, rtol=1e-5, atol=1e-5)
    assert means.dtype == np.float64


def test_too_few_sources_of_other_are_told_with_both_numbers() -> None:
    features, labels, sources = landmarks(0)
    rare = np.where(sources == sources[0], labels, 3)  # `other` is left in one source
    with pytest.raises(NotApplicable, match=r"rank 4 needs at least 5 sources of other; there is 1\.$"):
        NuisanceProjection(4).directions(as_landmarks(features, rare, sources))
    with pytest.raises(NotApplicable, match=r"rank 12 needs at least 13 sources of other; there are 12\.$"):
        NuisanceProjection(12).directions(as_landmarks(features, labels, sources))
    few = np.isin(sources, np.unique(sources)[:5])
    assert NuisanceProjection(4).directions(as_landmarks(features[few], labels[few], sources[few])).shape == (WIDTH, 4)


def test_directions_that_only_rounding_made_are_refused() -> None:
    _, labels, sources = landmarks(0)
    number = np.unique(sources, return_inverse=True)[1]
    flat = np.outer(number, np.ones(WIDTH)) / 3 + 7.7
    NuisanceProjection(1).directions(as_landmarks(flat, labels, sources))
    with pytest.raises(NotApplicable, match=r"rank 2 needs as many directions .* differ; there is 1\.$"):
        NuisanceProjection(2).directions(as_landmarks(flat, labels, sources))
    with pytest.raises(NotApplicable, match=r"there are 9\.$"):  # more than the features have
        NuisanceProjection(10).directions(as_landmarks(*landmarks(0)))


@pytest.mark.parametrize("rank", [0, -1, 1.5, float("nan")])
def test_a_rank_that_is_no_count_is_refused(rank: float) -> None:
    with pytest.raises(ValueError, match=f"rank must be a positive integer, got {rank}"):
        NuisanceProjection(rank)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["nan", "short", "label", "flat"])
def test_inconsistent_training_features_are_refused(wrong: str) -> None:
    features, labels, sources = landmarks(0)
    messages = {"nan": "features must be finite", "label": "labels must be from 0 to 7, got 0 to 8"}
    match wrong:
        case "nan":
            features[3, 2] = np.nan
        case "short":
            sources = sources[1:]
        case "label":
            labels[0] = 8
        case "flat":
            features = features[:, 0]
    with pytest.raises(
        ValueError,
        match=messages.get(wrong, r"features, labels and sources must have one entry for each image, got shapes"),
    ):
        NuisanceProjection(1).directions(as_landmarks(features, labels, sources))


def test_without_a_majority_class_there_is_no_nuisance_projection() -> None:
    features, labels, sources = landmarks(0)
    rows = as_landmarks(features, labels % 3, sources, ClassSet(("dust", "olivine", "pyroxene")))
    with pytest.raises(NotApplicable) as caught:
        NuisanceProjection(1).directions(rows)
    assert str(caught.value) == "A nuisance projection needs a majority class, and this data set names none."


def test_the_majority_class_need_not_be_the_first() -> None:
    features, labels, sources = landmarks(0)
    names = HIRISE.classes.names
    reordered = ClassSet((*names[1:], names[0]), majority=names[0])
    found = NuisanceProjection(2).directions(as_landmarks(features, (labels - 1) % 8, sources, reordered))
    expected = NuisanceProjection(2).directions(as_landmarks(features, labels, sources))
    np.testing.assert_array_equal(found, expected)
