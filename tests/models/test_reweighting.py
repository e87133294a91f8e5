"""Deep feature reweighting, against scikit-learn on the same subsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from builders import as_landmarks, quick
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from hirise_imb.features.training_features import TrainingFeatures
from hirise_imb.models import newton
from hirise_imb.models.closed_form import Logistic
from hirise_imb.models.reweighting import DeepFeatureReweighting
from hirise_imb.utils.errors import NotApplicable

Array = np.ndarray
WIDTH = 6
SIZES = (60, 20, 12, 9, 8, 5, 4, 1)


def make_landmarks(seed: int, classes: tuple[int, ...] = tuple(range(8)), n_sources: int = 7) -> TrainingFeatures:
    """Noisy clusters of unequal size, in sources of unequal size, in random order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(classes, [SIZES[k] for k in classes]))
    sources = (rng.random(len(labels)) ** 2 * n_sources).astype(int)
    features = 2 * rng.normal(size=(8, WIDTH))[labels] + rng.normal(size=(len(labels), WIDTH)) * [3, 1, 1, 1, 1, 0.1]
    return as_landmarks(features + 4, labels, sources)


def average_by_hand(head: DeepFeatureReweighting, training: TrainingFeatures, new: Array) -> Array:
    """Mean of the logits of scikit-learn's models of all subsets, shape (n, number of present classes)."""
    scaler = StandardScaler().fit(training.features)
    logits = []
    for rows, weights in head.subsets(training):
        model = LogisticRegression(C=head.c, tol=1e-9, max_iter=5000)
        model.fit(scaler.transform(training.features[rows]), training.labels[rows], weights)
        values = model.decision_function(scaler.transform(new))
        logits.append(np.stack([-values / 2, values / 2], axis=1) if values.ndim == 1 else values)
    return np.asarray(np.mean(logits, axis=0))


@pytest.mark.parametrize("c", [0.03, 1.0])
@pytest.mark.parametrize("subset_size", [0.0, 0.5, 1.0])
def test_it_averages_the_models_of_scikit_learn(c: float, subset_size: float) -> None:
    training, new = make_landmarks(1), make_landmarks(2).features
    head = DeepFeatureReweighting(c, subset_size, draws=4)
    found = softmax(head.fit(training).logits(new), axis=1)
    np.testing.assert_allclose(found, softmax(average_by_hand(head, training, new), axis=1), atol=1e-3)


def test_two_classes_are_the_binomial_model() -> None:
    training, new = make_landmarks(1, (2, 5)), make_landmarks(2).features
    head = DeepFeatureReweighting(0.3, 0.5, draws=3)
    found = softmax(head.fit(training).logits(new), axis=1)[:, [2, 5]]
    np.testing.assert_allclose(found, softmax(average_by_hand(head, training, new), axis=1), atol=1e-4)


@pytest.mark.parametrize(
    ("classes", "subset_size", "expected"),
    [
        (range(8), 0.0, 1),
        (range(8), 0.5, 8),
        (range(8), 0.75, 22),
        (range(8), 1.0, 60),
        ((0, 1, 5), 0.0, 5),
        ((0, 1, 5), 0.5, 17),
        ((0, 1, 5), 1.0, 60),
    ],
)
def test_classes_have_the_same_number_of_rows_or_all_of_theirs(
    classes: Sequence[int], subset_size: float, expected: int
) -> None:
    training = make_landmarks(3, tuple(classes))
    sizes = [SIZES[k] for k in classes]
    for rows, weights in DeepFeatureReweighting(1.0, subset_size).subsets(training):
        labels = training.labels[rows]
        assert len(np.unique(rows)) == len(rows)
        assert np.bincount(labels)[list(classes)].tolist() == np.minimum(sizes, expected).tolist()
        np.testing.assert_allclose(np.bincount(labels, weights)[list(classes)], expected)
        assert all(len(set(weights[labels == k])) == 1 for k in classes)


@quick
@given(st.integers(0, 1000), st.floats(0, 1))
def test_rows_of_a_class_are_spread_evenly_over_its_sources(seed: int, subset_size: float) -> None:
    training = make_landmarks(seed)
    for rows, _ in DeepFeatureReweighting(1.0, subset_size, draws=2).subsets(training):
        for k in range(8):
            available = np.bincount(training.sources[training.labels == k], minlength=7)
            taken = np.bincount(training.sources[rows[training.labels[rows] == k]], minlength=7)
            assert (taken <= available).all()
            # A source that has rows left has as many in the subset as any other, up to one.
            assert not (taken < available).any() or taken[taken < available].min() >= taken.max() - 1


def test_every_source_and_every_row_of_it_is_as_likely() -> None:
    sources = np.repeat([0, 1, 2], [1, 3, 20])
    labels = np.concatenate([np.zeros(24, int), np.ones(1, int)])
    features = np.random.default_rng(0).normal(size=(25, 2))
    training = as_landmarks(features, labels, np.append(sources, 3))
    subsets = DeepFeatureReweighting(1.0, 0.0, draws=3000).subsets(training)
    rows = np.concatenate([rows[labels[rows] == 0] for rows, _ in subsets])
    assert len(rows) == 3000
    by_source = np.bincount(sources[rows]) / 3000
    np.testing.assert_allclose(by_source, 1 / 3, atol=0.03)
    np.testing.assert_allclose(np.bincount(rows)[1:4] / 3000, 1 / 9, atol=0.02)


@pytest.mark.parametrize("offset", [0, 1e8])  # added to 1e8, all rows have the same sum in single precision
def test_draws_are_different_and_do_not_depend_on_the_order_of_rows(offset: float) -> None:
    training = make_landmarks(5)
    features = np.append(training.features, np.full((len(training.labels), 1), offset), axis=1).astype(np.float32)
    training = replace(training, features=features)
    head = DeepFeatureReweighting(1.0, 0.5)
    order = np.random.default_rng(0).permutation(len(training.labels))
    moved = TrainingFeatures(features[order], training.labels[order], training.sources[order], training.classes)
    subsets = [frozenset(rows.tolist()) for rows, _ in head.subsets(training)]
    assert len(subsets) == len(set(subsets)) == 10
    assert subsets == [frozenset(order[rows].tolist()) for rows, _ in head.subsets(moved)]
    fewer = replace(head, draws=4)
    assert subsets[:4] == [frozenset(rows.tolist()) for rows, _ in fewer.subsets(training)]
    assert subsets[:1] == [frozenset(rows.tolist()) for rows, _ in replace(head, draws=1).subsets(training)]


def test_subsets_of_all_rows_are_one_weighted_regression() -> None:
    training, new = make_landmarks(6), make_landmarks(7).features
    head = DeepFeatureReweighting(0.1, 1.0)
    [(rows, weights)] = head.subsets(training)
    assert sorted(rows.tolist()) == list(range(len(training.labels)))
    # The balanced weights of `Logistic` have the mean 1 over images, these the sum 60 in each class.
    same = Logistic(0.1 * float(weights.mean()), 1.0).fit(training)
    np.testing.assert_allclose(head.fit(training).logits(new), same.logits(new), atol=1e-4)


def test_its_prior_is_that_of_balanced_classes() -> None:
    head = DeepFeatureReweighting(1.0, 0.5)
    np.testing.assert_array_equal(head.prior(np.array([60, 0, 5, 1, 2])), [0.25, 0, 0.25, 0.25, 0.25])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"c": 0.0}, "c must be positive and finite, got 0.0"),
        ({"c": float("inf")}, "c must be positive and finite, got inf"),
        ({"c": float("nan")}, "c must be positive and finite, got nan"),
        ({"subset_size": -0.1}, r"subset_size must be in \[0, 1\], got -0.1"),
        ({"subset_size": 1.1}, r"subset_size must be in \[0, 1\], got 1.1"),
        ({"subset_size": float("nan")}, r"subset_size must be in \[0, 1\], got nan"),
        ({"draws": 0}, "draws must be a positive integer, got 0"),
        ({"draws": 2.0}, "draws must be a positive integer, got 2.0"),
    ],
)
def test_values_out_of_range_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        DeepFeatureReweighting(**{"c": 1.0, "subset_size": 0.5, **fields})  # type: ignore[arg-type]


def test_a_subset_that_is_not_solved_is_not_applicable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newton, "_MAX_ITERATIONS", 1)
    with pytest.raises(NotApplicable, match=r"^Logistic regression with c 10\.0 did not converge: "):
        DeepFeatureReweighting(10.0, 0.5).fit(make_landmarks(0))
