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


# --- covariances ---


def covariance_scatter(features: Array, sources: Array) -> Array:
    """sum_s v_s (C_s - C)^2, source by source, for sources of two rows or more."""
    groups = [features[sources == source] for source in set(sources.tolist())]
    groups = [rows for rows in groups if len(rows) > 1]
    covariances = [np.cov(rows.T, ddof=1) for rows in groups]
    pooled = np.average(covariances, axis=0, weights=[len(rows) - 1 for rows in groups])
    return np.asarray(
        sum((len(rows) - 1) * (one - pooled) @ (one - pooled) for rows, one in zip(groups, covariances, strict=True))
    )


def coral_loss(features: Array, sources: Array) -> float:
    """Squared Frobenius distance of the covariances of all pairs of sources, weighted by degrees of freedom."""
    groups = [features[sources == source] for source in set(sources.tolist())]
    groups = [rows for rows in groups if len(rows) > 1]
    loss = 0.0
    for one in groups:
        for other in groups:
            difference = np.cov(one.T, ddof=1) - np.cov(other.T, ddof=1)
            loss += (len(one) - 1) * (len(other) - 1) * float((difference**2).sum())
    return loss


def landmarks_of_unequal_spread(seed: int) -> tuple[Array, Array, Array]:
    """Those of `landmarks`, with a scale of each feature in each source."""
    features, labels, sources = landmarks(seed)
    scales = np.random.default_rng(seed).uniform(0.2, 3, (12, WIDTH))
    number = np.unique(sources, return_inverse=True)[1]
    means = np.stack([features[sources == source].mean(axis=0) for source in np.unique(sources)])[number]
    return means + scales[number] * (features - means), labels, sources


@quick
@given(st.integers(0, 1000), st.integers(1, 6))
def test_they_are_the_strongest_eigenvectors_of_the_scatter_of_covariances(seed: int, rank: int) -> None:
    features, labels, sources = landmarks_of_unequal_spread(seed)
    found = NuisanceProjection(rank, "covariances").directions(as_landmarks(features, labels, sources))
    expected = covariance_scatter(features[labels == 0], sources[labels == 0])
    values = np.linalg.eigvalsh(expected)
    assert found.shape == (WIDTH, rank)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found.T @ found, np.eye(rank), atol=1e-12)
    # By eigenvalues: two that nearly agree would mix their vectors.
    np.testing.assert_allclose(np.diag(found.T @ expected @ found), values[::-1][:rank], rtol=1e-8)
    np.testing.assert_allclose(expected @ found, found * values[::-1][:rank], atol=1e-8 * values[-1])


@quick
@given(st.integers(0, 1000), st.integers(1, 5))
def test_the_loss_of_coral_falls_more_than_without_random_directions(seed: int, rank: int) -> None:
    features, labels, sources = landmarks_of_unequal_spread(seed)
    directions = NuisanceProjection(rank, "covariances").directions(as_landmarks(features, labels, sources))
    of_other, groups = features[labels == 0], sources[labels == 0]
    left = coral_loss(project_out(of_other, directions), groups)
    rng = np.random.default_rng(seed)
    random = [np.linalg.qr(rng.normal(size=(WIDTH, rank)))[0] for _ in range(8)]
    # The directions minimise a bound of the loss, so single others can be as good.
    assert left < np.mean([coral_loss(project_out(of_other, others), groups) for others in random])
    assert left < coral_loss(of_other, groups)


@quick
@given(st.integers(0, 1000))
def test_covariances_ignore_means_other_classes_single_images_and_the_order_of_rows(seed: int) -> None:
    features, labels, sources = landmarks_of_unequal_spread(seed)
    projection = NuisanceProjection(3, "covariances")
    found = projection.directions(as_landmarks(features, labels, sources))
    rng = np.random.default_rng(seed)
    number = np.unique(sources, return_inverse=True)[1]
    moved = features + 5 * rng.normal(size=(12, WIDTH))[number]
    moved += 100 * (labels > 0)[:, None] * rng.normal(size=features.shape)
    single = rng.normal(size=(2, WIDTH)) * 1000
    order = rng.permutation(len(labels) + 2)
    again = projection.directions(
        as_landmarks(
            np.concatenate([moved, single])[order],
            np.append(labels, [0, 0])[order],
            np.append(sources, ["ESP_100000_1000", "ESP_100001_1000"])[order],
        )
    )
    np.testing.assert_allclose(onto(again), onto(found), atol=1e-6)


def test_a_source_of_more_variance_in_one_feature_loses_that_feature() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, WIDTH))
    sources = np.repeat(np.arange(4), 100)
    features[:100, 4] *= 5
    rows = as_landmarks(features, np.zeros(400, int), sources)
    assert abs(NuisanceProjection(1, "covariances").directions(rows)[4, 0]) > 0.99


def test_too_few_sources_with_a_covariance_are_not_applicable() -> None:
    features, labels, sources = landmarks(0)
    in_one = (labels == 0) & (sources == np.unique(sources)[-1])
    alone = np.where(in_one | (np.arange(len(labels)) < 12), 0, 3)  # one other image of `other` in each other source
    with pytest.raises(
        NotApplicable, match=r"rank 3 needs at least 2 sources with two or more images of other; there is 1\.$"
    ):
        NuisanceProjection(3, "covariances").directions(as_landmarks(features, alone, sources))
    flat = np.outer(features[:, 0], np.ones(WIDTH))
    NuisanceProjection(1, "covariances").directions(as_landmarks(flat, labels, sources))
    with pytest.raises(NotApplicable, match=r"rank 2 needs as many directions .* differ; there is 1\.$"):
        NuisanceProjection(2, "covariances").directions(as_landmarks(flat, labels, sources))
    two = np.isin(sources, np.unique(sources)[-2:])
    found = NuisanceProjection(4, "covariances").directions(as_landmarks(features[two], labels[two], sources[two]))
    assert found.shape == (WIDTH, 4)


def test_an_unknown_statistic_is_refused() -> None:
    with pytest.raises(ValueError, match="statistic must be one of means, covariances, got 'medians'"):
        NuisanceProjection(1, "medians")  # type: ignore[arg-type]
