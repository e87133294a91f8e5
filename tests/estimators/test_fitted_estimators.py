"""The estimators are the suite's heads and adjustments, and agree with scikit-learn where it has the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold, cross_val_score, cross_validate
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hirise_imb import estimators
from hirise_imb.data.dataset import ClassSet
from hirise_imb.estimators import (
    ClassBiasClassifier,
    ClassWeightedLogisticRegression,
    FeatureReweightingClassifier,
    LogitAdjustmentClassifier,
    NearestMeanClassifier,
    NuisanceProjection,
    ShrunkDiscriminantClassifier,
    TauNormalisedClassifier,
    TemperatureScalingClassifier,
)
from hirise_imb.features import TrainingFeatures
from hirise_imb.imbalance import ClassBias, Temperature
from hirise_imb.models import DeepFeatureReweighting, NearestMean, projection

Array = NDArray[Any]
Estimator = Any
NAMES = np.array(["crater", "dune", "other"])
RNG = np.random.default_rng(0)
LABELS = RNG.permutation(np.repeat([0, 1, 2], [15, 6, 60]))
SOURCES = RNG.integers(0, 9, len(LABELS))
X = 2 * RNG.normal(size=(3, 4))[LABELS] + RNG.normal(size=(9, 4))[SOURCES] + RNG.normal(size=(len(LABELS), 4))
Y = NAMES[LABELS]
GROUPS = np.array([f"ESP_{number}" for number in SOURCES])
TRAINING = TrainingFeatures(X, LABELS, SOURCES, ClassSet(tuple(NAMES), "other"))


@pytest.mark.parametrize(
    ("estimator", "head"),
    [
        (NearestMeanClassifier("centred_unit", 0.3), NearestMean("centred_unit", 0.3)),
        (FeatureReweightingClassifier(0.5, 0.2, 3), DeepFeatureReweighting(0.5, 0.2, 3)),
    ],
)
def test_sources_are_used_as_in_the_suite(estimator: Estimator, head: NearestMean | DeepFeatureReweighting) -> None:
    expected = head.fit(TRAINING).logits(X)
    with_groups = clone(estimator).fit(X, Y, groups=GROUPS)
    np.testing.assert_allclose(with_groups.decision_function(X), expected)
    assert with_groups.predict(X).tolist() == NAMES[expected.argmax(axis=1)].tolist()
    without = clone(estimator).fit(X, Y)
    assert not np.allclose(without.decision_function(X), expected)


def test_heads_agree_with_scikit_learn() -> None:
    ours = ShrunkDiscriminantClassifier(shrinkage=0.3).fit(X, Y)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(X, Y)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-6)
    ours = ClassWeightedLogisticRegression(C=0.5, power=1.0).fit(X, Y)
    scaled = StandardScaler().fit(X).transform(X)
    theirs = LogisticRegression(C=0.5, class_weight="balanced", tol=1e-8, max_iter=1000).fit(scaled, Y)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(scaled), atol=1e-4)


def test_a_data_frame_gives_feature_names_and_any_label_is_a_class() -> None:
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    for estimator in (NearestMeanClassifier(), LogitAdjustmentClassifier(), TauNormalisedClassifier()):
        fitted = clone(estimator).fit(frame, pd.Series(Y))
        assert fitted.feature_names_in_.tolist() == ["a", "b", "c", "d"]
        assert fitted.n_features_in_ == 4
        assert fitted.classes_.tolist() == NAMES.tolist()
        numbers = clone(estimator).fit(X, LABELS - 7)
        assert numbers.classes_.tolist() == [-7, -6, -5]
        np.testing.assert_array_equal(NAMES[numbers.predict(X) + 7], fitted.predict(frame))


def test_two_classes_have_one_decision_value() -> None:
    rare = LABELS > 1
    for estimator in (NearestMeanClassifier(), TemperatureScalingClassifier(), TauNormalisedClassifier()):
        fitted = clone(estimator).fit(X, rare)
        values = fitted.decision_function(X)
        assert values.shape == (len(X),)
        np.testing.assert_array_equal(values > 0, fitted.predict(X))
        np.testing.assert_allclose(1 / (1 + np.exp(-values)), fitted.predict_proba(X)[:, 1])


def test_the_projection_removes_the_directions_of_the_sources() -> None:
    expected = projection.NuisanceProjection(2).directions(TRAINING)
    fitted = NuisanceProjection(rank=2).fit(X, Y, groups=GROUPS)
    np.testing.assert_allclose(fitted.directions_, expected)
    np.testing.assert_allclose(fitted.transform(X) @ expected, 0, atol=1e-12)
    assert fitted.transform(X.astype(np.float32)).dtype == np.float32
    covariances = NuisanceProjection(1, "covariances").fit(X, Y, groups=GROUPS)
    np.testing.assert_allclose(
        covariances.directions_, projection.NuisanceProjection(1, "covariances").directions(TRAINING)
    )
    other = NuisanceProjection(majority="crater").fit(X, Y, groups=GROUPS)
    alone = NuisanceProjection().fit(X[LABELS == 0], groups=GROUPS[LABELS == 0])
    np.testing.assert_allclose(other.directions_, alone.directions_)


def test_logit_adjustment_divides_by_the_prior() -> None:
    prior = np.bincount(LABELS) / len(LABELS)
    base = GaussianNB().fit(X, Y)
    adjusted = LogitAdjustmentClassifier(GaussianNB(), tau=0.7).fit(X, Y)
    expected = base.predict_proba(X) / prior**0.7
    np.testing.assert_allclose(adjusted.predict_proba(X), expected / expected.sum(axis=1, keepdims=True), rtol=1e-6)
    given = LogitAdjustmentClassifier(FrozenEstimator(base), tau=0.7, prior=np.bincount(LABELS)).fit(X[:20], Y[:20])
    np.testing.assert_allclose(given.predict_proba(X), adjusted.predict_proba(X))


def test_tau_normalisation_divides_by_the_lengths() -> None:
    base = LogisticRegression().fit(X, Y)
    lengths = np.linalg.norm(base.coef_, axis=1)
    expected = (X @ base.coef_.T + base.intercept_) / lengths**0.5
    for estimator in (LogisticRegression(), FrozenEstimator(base)):
        fitted = TauNormalisedClassifier(estimator, tau=0.5).fit(X, Y)
        np.testing.assert_allclose(fitted.decision_function(X), expected)
    without = TauNormalisedClassifier(LogisticRegression(), tau=1.0, keep_bias=False).fit(X, Y)
    np.testing.assert_allclose(without.decision_function(X), X @ base.coef_.T / lengths)
    binary = LogisticRegression().fit(X, LABELS > 1)
    unchanged = TauNormalisedClassifier(FrozenEstimator(binary), tau=0.0).fit(X, LABELS > 1)
    np.testing.assert_allclose(unchanged.decision_function(X), binary.decision_function(X))
    with pytest.raises(ValueError, match="estimator must be a linear classifier with coef_ and intercept_, got Gauss"):
        TauNormalisedClassifier(GaussianNB()).fit(X, Y)


def heldout_log_probabilities(estimator: Estimator, folds: list[tuple[Array, Array]]) -> Array:
    logits = np.empty((len(X), 3))
    for train, test in folds:
        logits[test] = np.log(clone(estimator).fit(X[train], Y[train]).predict_proba(X[test]))
    return logits


@pytest.mark.parametrize("groups", [None, GROUPS])
def test_adjustments_that_learn_do_so_on_rows_the_classifier_did_not_see(groups: Array | None) -> None:
    base, prior = GaussianNB(), np.bincount(LABELS) / len(LABELS)
    splitter = GroupKFold(3) if groups is not None else StratifiedKFold(3)
    logits = heldout_log_probabilities(base, list(splitter.split(X, Y, groups)))
    for estimator, adjustment in (
        (TemperatureScalingClassifier(base, cv=splitter), Temperature()),
        (TemperatureScalingClassifier(base, bias=True, cv=splitter), Temperature(bias=True)),
        (ClassBiasClassifier(base, strength=0.2, cv=splitter), ClassBias(0.2)),
    ):
        fitted = estimator.fit(X, Y, groups=groups)
        expected = adjustment.fit(logits, LABELS, prior)
        assert fitted.correction_.scale == pytest.approx(expected.scale, rel=1e-6)
        np.testing.assert_allclose(fitted.correction_.offsets, expected.offsets, atol=1e-6)
        whole = np.log(clone(base).fit(X, Y).predict_proba(X))
        np.testing.assert_allclose(fitted.predict_log_proba(X), log_softmax(expected(whole), axis=1), rtol=1e-6)


def test_a_number_of_folds_keeps_groups_together() -> None:
    class Watch(GaussianNB):  # type: ignore[misc]
        seen: list[Array] = []  # noqa: RUF012

        def fit(self, X: Array, y: Array, groups: Array | None = None) -> Watch:
            if groups is not None:
                self.seen.append(groups)
            fitted: Watch = super().fit(X, y)
            return fitted

    TemperatureScalingClassifier(Watch(), cv=3).fit(X, Y, groups=GROUPS)
    whole, *folds = Watch.seen
    assert len(whole) == len(X)
    assert len(folds) == 3
    for fold in folds:
        left_out = set(GROUPS) - set(fold)
        assert left_out
        assert len(fold) == np.sum(~np.isin(GROUPS, list(left_out)))


def test_classes_with_a_single_row_do_not_stop_the_cross_validation() -> None:
    x, y = np.vstack([X, X[:1] + 1]), np.append(Y, "spider")
    fitted = TemperatureScalingClassifier(GaussianNB(var_smoothing=0.1), cv=4).fit(x, y)
    assert fitted.classes_.tolist() == ["crater", "dune", "other", "spider"]
    # A classifier that never saw the class gave its row no chance; that must not set the temperature.
    alone = TemperatureScalingClassifier(GaussianNB(var_smoothing=0.1), cv=4).fit(X, Y)
    assert fitted.temperature_ == pytest.approx(alone.temperature_, rel=0.1)


def test_precomputed_scores_are_adjusted() -> None:
    logits = 4 * np.eye(3)[LABELS] + 3 * np.random.default_rng(1).normal(size=(len(LABELS), 3))
    prior = np.bincount(LABELS) / len(LABELS)
    for estimator, adjustment in (
        (TemperatureScalingClassifier("precomputed"), Temperature()),
        (ClassBiasClassifier("precomputed"), ClassBias(0.1)),
    ):
        fitted = estimator.fit(logits, Y)
        expected = adjustment.fit(logits, LABELS, prior)(logits)
        np.testing.assert_allclose(fitted.decision_function(logits), expected)
        np.testing.assert_array_equal(fitted.predict(logits), NAMES[expected.argmax(axis=1)])
    calibrated = TemperatureScalingClassifier("precomputed").fit(logits, Y)
    assert log_loss(Y, calibrated.predict_proba(logits)) < log_loss(Y, np.exp(log_softmax(logits, axis=1)))
    few = LABELS < 2  # held-out rows may lack a class, if the columns are named
    named = LogitAdjustmentClassifier("precomputed", prior=prior, classes=NAMES).fit(logits[few], Y[few])
    np.testing.assert_allclose(named.decision_function(logits), logits - np.log(prior))
    with pytest.raises(ValueError, match=r"a column of scores for each of 2 classes, got 3 columns\. Name"):
        LogitAdjustmentClassifier("precomputed").fit(logits[few], Y[few])
    with pytest.raises(ValueError, match="y has a class that the scores lack: other"):
        LogitAdjustmentClassifier("precomputed", classes=["crater", "dune", "x"]).fit(logits, Y)


def test_a_classifier_without_probabilities_is_adjusted_by_its_decision_values() -> None:
    base = RidgeClassifier().fit(X, Y)
    fitted = TemperatureScalingClassifier(FrozenEstimator(base)).fit(X, Y)
    np.testing.assert_allclose(fitted.decision_function(X), base.decision_function(X) / fitted.temperature_)
    base = RidgeClassifier().fit(X, LABELS > 1)
    unchanged = LogitAdjustmentClassifier(FrozenEstimator(base), tau=0.0).fit(X, LABELS > 1)
    np.testing.assert_allclose(unchanged.decision_function(X), base.decision_function(X))


def test_estimators_work_in_pipelines_and_searches() -> None:
    pipeline = make_pipeline(NuisanceProjection(), ShrunkDiscriminantClassifier())
    search = GridSearchCV(pipeline, {"shrunkdiscriminantclassifier__prior_power": [0.0, 1.0]}, cv=3, scoring="f1_macro")
    assert search.fit(X, Y).best_score_ > 0.5
    wrapped = LogitAdjustmentClassifier(pipeline)
    assert cross_val_score(wrapped, X, Y, cv=3).mean() > 0.5


def test_cross_validation_passes_groups_on() -> None:
    folds = list(GroupKFold(3).split(X, Y, GROUPS))
    head = NearestMeanClassifier("centred_unit")
    scores = cross_validate(head, X, Y, groups=GROUPS, params={"groups": GROUPS}, cv=GroupKFold(3))["test_score"]
    expected = [clone(head).fit(X[train], Y[train], GROUPS[train]).score(X[test], Y[test]) for train, test in folds]
    assert scores.tolist() == expected
    assert scores.tolist() != cross_validate(head, X, Y, groups=GROUPS, cv=GroupKFold(3))["test_score"].tolist()


@pytest.mark.parametrize("name", estimators.__all__)
def test_unfitted_and_wrong_use_is_named(name: str) -> None:
    estimator = getattr(estimators, name)()
    with pytest.raises(NotFittedError):
        (estimator.predict if hasattr(estimator, "predict") else estimator.transform)(X)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        estimator.fit(X, Y, groups=GROUPS[:-1])


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (NearestMeanClassifier("l2"), "normalise must be one of none, unit, centred_unit, got 'l2'"),  # type: ignore[arg-type]
        (ShrunkDiscriminantClassifier(0.0), r"shrinkage must be in \(0, 1\], got 0.0"),
        (ClassWeightedLogisticRegression(C=-1), "c must be positive and finite, got -1"),
        (NuisanceProjection(majority="spider"), "majority must be one of the classes in y, got 'spider'"),
        (
            NuisanceProjection(rank=5),
            "A projection of rank 5 needs as many directions in which sources of other",
        ),
        (LogitAdjustmentClassifier(tau=-1), "tau must be finite and not negative, got -1"),
        (TauNormalisedClassifier(tau=-1), "tau must not be negative, got -1"),
        (
            TemperatureScalingClassifier("logits"),
            "estimator must be a classifier, None or \"precomputed\", got 'logits'",
        ),
        (LogitAdjustmentClassifier(prior=[1, 1]), "prior must be 3 shares that sum to 1"),
    ],
)
def test_wrong_hyperparameters_are_named(estimator: Estimator, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimator.fit(X, Y)
