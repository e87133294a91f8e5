"""The samplers choose the rows that recipes choose, and work as steps of an imbalanced-learn pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from imblearn.pipeline import make_pipeline
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn import config_context
from sklearn.base import clone

from hirise_imb.data.dataset import ClassSet
from hirise_imb.data.splits import TrainingPool
from hirise_imb.estimators import NearestMeanClassifier
from hirise_imb.imbalance import ClassSampling, RandomOversampling, Undersampling
from hirise_imb.imbalance.sampling import Sampling
from hirise_imb.samplers import ClassPowerSampler, MajorityUndersampler, RatioOversampler, SyntheticOversampler

Array = NDArray[Any]
Sampler = Any
NAMES = np.array(["crater", "dune", "other"])
LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [12, 5, 60]))
SOURCES = np.random.default_rng(1).integers(0, 9, len(LABELS))
X = np.column_stack([np.arange(len(LABELS), dtype=float), LABELS])
Y = NAMES[LABELS]
POOL = TrainingPool(LABELS, np.ones(len(LABELS), np.int64), SOURCES, ClassSet(tuple(NAMES), "other"))


@pytest.mark.parametrize(
    ("sampler", "sampling", "metadata"),
    [
        (ClassPowerSampler(0.3, random_state=5), ClassSampling(0.3), {}),
        (ClassPowerSampler(0.0, random_state=5), ClassSampling(0.0, by_source=True), {"groups": SOURCES.astype(str)}),
        (RatioOversampler(0.4, random_state=5), RandomOversampling(0.4), {}),
        (MajorityUndersampler(1.5, random_state=5), Undersampling(1.5), {}),
    ],
)
def test_rows_are_those_of_the_recipe(sampler: Sampler, sampling: Sampling, metadata: dict[str, Array]) -> None:
    expected = sampling.rows(POOL, 5, 1, 1.0)
    rows, labels = sampler.fit_resample(X, Y, **metadata)
    np.testing.assert_array_equal(sampler.sample_indices_, expected)
    np.testing.assert_array_equal(rows, X[expected])
    np.testing.assert_array_equal(labels, Y[expected])
    frame, series = clone(sampler).fit_resample(pd.DataFrame(X, columns=["a", "b"]), pd.Series(Y), **metadata)
    assert frame.columns.tolist() == ["a", "b"]
    assert series.tolist() == labels.tolist()


def test_with_groups_every_source_of_a_class_is_drawn_equally_often() -> None:
    y = np.repeat([0, 1], [1000, 1000])
    groups = np.repeat(["large", "small", "other"], [990, 10, 1000])
    sampler = ClassPowerSampler(0.0, random_state=0)
    sampler.fit_resample(np.zeros((2000, 1)), y, groups=groups)
    drawn = groups[sampler.sample_indices_]
    assert 400 < np.sum(drawn == "small") < 600


def test_another_class_can_be_the_majority() -> None:
    _, labels = MajorityUndersampler(0.1, majority="crater", random_state=0).fit_resample(X, Y)
    assert pd.Series(labels).value_counts().to_dict() == {"other": 60, "crater": 6, "dune": 5}
    with pytest.raises(ValueError, match="majority must be one of the classes in y, got 'spider'"):
        MajorityUndersampler(majority="spider").fit_resample(X, Y)
    with pytest.raises(ValueError, match="leaves no image of other"):
        MajorityUndersampler(ratio=0.01).fit_resample(X, Y)


def test_synthetic_rows_lie_between_canonical_rows() -> None:
    y = np.repeat([0, 1], [20, 8])
    # Canonical rows of class 1 are 0, 10, 20, 30; the others are copies nearby.
    x = np.concatenate([np.linspace(100, 200, 20), np.repeat([0.0, 10.0, 20.0, 30.0], 2) + np.tile([0, 0.1], 4)])
    canonical = np.concatenate([np.ones(20, bool), np.tile([True, False], 4)])
    sampler = SyntheticOversampler(neighbours=1, random_state=0)
    rows, labels = sampler.fit_resample(x[:, None], y, canonical=canonical)
    np.testing.assert_array_equal(rows[:28, 0], x)
    assert np.bincount(labels).tolist() == [20, 20]
    assert len(np.unique(rows[28:] // 10)) == 3
    assert ((rows[28:] > 0) & (rows[28:] < 30)).all()
    with_copies, _ = SyntheticOversampler(neighbours=1, random_state=0).fit_resample(x[:, None], y)
    # Copies are each other's nearest neighbours: nothing new is made.
    assert (np.abs(with_copies[28:, 0][:, None] - x[None]).min(axis=1) <= 0.1).all()
    sparse, _ = SyntheticOversampler(neighbours=1, random_state=0).fit_resample(csr_array(x[:, None]), y)
    np.testing.assert_allclose(sparse.toarray(), with_copies, rtol=1e-6)
    with pytest.raises(ValueError, match="canonical must mark a row of every class; the class 1 has none"):
        sampler.fit_resample(x[:, None], y, canonical=np.arange(28) < 20)


def test_samplers_are_steps_of_a_pipeline() -> None:
    pipeline = make_pipeline(ClassPowerSampler(0.0, random_state=0), NearestMeanClassifier()).fit(X, Y)
    rows, labels = ClassPowerSampler(0.0, random_state=0).fit_resample(X, Y)
    # The head sees the drawn rows, and predictions are made of all rows.
    expected = NearestMeanClassifier().fit(rows, labels).decision_function(X)
    np.testing.assert_allclose(pipeline.decision_function(X), expected)


def test_a_pipeline_passes_groups_by_metadata_routing() -> None:
    sampler = ClassPowerSampler(0.0, random_state=0)
    rows, labels = clone(sampler).fit_resample(X, Y, groups=SOURCES)
    expected = NearestMeanClassifier().fit(rows, labels).decision_function(X)
    with config_context(enable_metadata_routing=True):
        requests = sampler.set_fit_resample_request(groups=True)
        pipeline = make_pipeline(requests, NearestMeanClassifier().set_fit_request(groups=False))
        pipeline.fit(X, Y, groups=SOURCES)
    np.testing.assert_allclose(pipeline.decision_function(X), expected)


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (ClassPowerSampler(2.0), r"power must be in \[0, 1\], got 2.0"),
        (RatioOversampler(0.0), r"ratio must be in \(0, 1\], got 0.0"),
        (MajorityUndersampler(-1.0), "ratio must be positive and finite, got -1.0"),
        (SyntheticOversampler("magic"), "method must be one of smote, borderline_smote, adasyn, got 'magic'"),  # type: ignore[arg-type]
    ],
)
def test_wrong_hyperparameters_are_named(sampler: Sampler, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampler.fit_resample(X, Y)


def test_a_generator_gives_another_draw_each_time() -> None:
    state = np.random.RandomState(0)
    sampler = ClassPowerSampler(random_state=state)
    sampler.fit_resample(X, Y)
    first = sampler.sample_indices_
    sampler.fit_resample(X, Y)
    assert not np.array_equal(first, sampler.sample_indices_)
