"""Classifiers that are computed: against scikit-learn and the papers' formulas in plain numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from builders import as_landmarks, quick
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler, normalize

from hirise_imb.data.dataset import ClassSet
from hirise_imb.data.hirise import HIRISE
from hirise_imb.models import newton
from hirise_imb.models.closed_form import ABSENT, Discriminant, Logistic, NearestMean
from hirise_imb.models.linear import LinearClassifier
from hirise_imb.models.preparation import Preparation
from hirise_imb.models.reweighting import DeepFeatureReweighting
from hirise_imb.utils.errors import NotApplicable

Array = np.ndarray
Direct = NearestMean | Discriminant | Logistic | DeepFeatureReweighting
WIDTH = 6
SIZES = (60, 20, 12, 9, 8, 5, 4, 2)
DIRECT = [
    NearestMean("none", 0.0),
    NearestMean("unit", 0.5),
    NearestMean("centred_unit", 0.1),
    Discriminant(0.3, 1.0),
    Discriminant(1.0, 0.0),
    Logistic(0.5, 1.0),
    DeepFeatureReweighting(0.5, 0.5, draws=3),
]
each = pytest.mark.parametrize("direct", DIRECT, ids=str)


def landmarks(seed: int, classes: tuple[int, ...] = tuple(range(8))) -> tuple[Array, Array, Array]:
    """Noisy clusters of unequal size, in several sources each, in random order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(classes, [SIZES[k] for k in classes]))
    sources = rng.integers(0, 12, len(labels))
    centres, shifts = 2 * rng.normal(size=(8, WIDTH)), rng.normal(size=(12, WIDTH))
    features = centres[labels] + shifts[sources] + rng.normal(size=(len(labels), WIDTH)) * [3, 1, 1, 1, 1, 0.1] + 4
    return features, labels, np.array([f"ESP_{s:06}_1000" for s in sources])


def plain(seed: int, **changes: object) -> LinearClassifier:
    """Any classifier."""
    rng = np.random.default_rng(seed)
    kernel, bias, centre = rng.normal(size=(8, WIDTH)), rng.normal(size=8), rng.normal(size=WIDTH)
    made = LinearClassifier(kernel, bias, centre, rng.uniform(0.5, 2, WIDTH))
    return replace(made, **changes)  # type: ignore[arg-type]


def some_directions(seed: int, rank: int = 2) -> Array:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(WIDTH, rank)))[0]


def centred(logits: Array) -> Array:
    """Without what all classes share, which changes no probability."""
    return np.asarray(logits - logits.mean(axis=1, keepdims=True))


# --- the classifier itself ---


@quick
@given(st.integers(0, 1000), st.booleans(), st.booleans())
def test_logits_are_the_formula(seed: int, unit: bool, projected: bool) -> None:
    directions = some_directions(seed) if projected else None
    classifier = plain(seed, unit=unit, preparation=Preparation(directions=directions))
    features = np.random.default_rng(seed + 1).normal(size=(7, WIDTH)).astype(np.float32)
    before = features.copy()
    rows = features.astype(float)
    if directions is not None:
        rows = rows @ (np.eye(WIDTH) - directions @ directions.T)
    x = (rows - classifier.centre) * classifier.gain
    x = normalize(x) if unit else x
    found = classifier.logits(features)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, x @ classifier.kernel.T + classifier.bias, rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(features, before)


def test_many_rows_are_each_computed_once() -> None:
    features = np.random.default_rng(0).normal(size=(2500, WIDTH)).astype(np.float32)
    classifier = plain(0)
    expected = (features - classifier.centre) * classifier.gain @ classifier.kernel.T + classifier.bias
    np.testing.assert_allclose(classifier.logits(features), expected, rtol=1e-9, atol=1e-9)
    assert classifier.logits(features[:0]).shape == (0, 8)


def test_directions_of_rank_0_are_none() -> None:
    features = landmarks(0)[0]
    none = plain(0, preparation=Preparation(directions=np.zeros((WIDTH, 0))))
    np.testing.assert_array_equal(none.logits(features), plain(0).logits(features))


@quick
@given(st.integers(0, 1000))
def test_directions_that_are_taken_out_make_no_difference(seed: int) -> None:
    directions = some_directions(seed)
    classifier = plain(seed, preparation=Preparation(directions=directions))
    features = landmarks(seed)[0]
    moved = features + 50 * np.random.default_rng(seed).normal(size=(len(features), 2)) @ directions.T
    np.testing.assert_allclose(classifier.logits(moved), classifier.logits(features), atol=1e-9)


def test_a_row_without_length_stays_zero() -> None:
    classifier = plain(0, unit=True, centre=np.zeros(WIDTH))
    np.testing.assert_array_equal(classifier.logits(np.zeros((1, WIDTH))), classifier.bias[None])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("kernel", np.ones((7, WIDTH)), r"kernel must have shape \(8, 6\), got \(7, 6\)"),
        ("kernel", np.full((8, WIDTH), np.nan), "kernel must be finite, got nan"),
        ("bias", np.zeros(7), r"kernel must have shape \(7, 6\), got \(8, 6\)"),
        ("bias", np.zeros((8, 1)), r"bias must have shape \(8,\), got \(8, 1\)"),
        ("bias", np.full(8, -np.inf), "bias must be finite, got -inf"),
        ("centre", np.zeros(WIDTH + 1), "centre must have shape"),
        ("gain", np.zeros((1, WIDTH)), "gain must have shape"),
        ("gain", np.full(WIDTH, np.nan), "gain must be finite"),
        ("preparation", Preparation(directions=np.eye(5, 1)), "preparation must be of 6 features, got one of 5"),
    ],
)
def test_what_is_no_classifier_is_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plain(0, **{field: value})


# --- tau-normalisation ---


@quick
@given(st.integers(0, 1000), st.floats(0, 2), st.booleans())
def test_weights_are_divided_by_their_length_to_tau(seed: int, tau: float, projected: bool) -> None:
    directions = some_directions(seed) if projected else np.zeros((WIDTH, 0))
    classifier = plain(seed, preparation=Preparation(directions=directions))
    features = landmarks(seed)[0]
    acting = np.eye(WIDTH) - directions @ directions.T
    weights = classifier.kernel * classifier.gain
    lengths = np.sqrt(((weights @ acting) ** 2).sum(axis=1))
    expected = (features @ acting - classifier.centre) @ (weights / lengths[:, None] ** tau).T
    np.testing.assert_allclose(
        classifier.normalise_weights(tau, HIRISE.classes).logits(features), expected, rtol=1e-9, atol=1e-9
    )


@quick
@given(st.integers(0, 1000), st.floats(0, 2))
def test_where_the_scale_of_features_stands_makes_no_difference(seed: int, tau: float) -> None:
    classifier = plain(seed)
    folded = replace(classifier, kernel=classifier.kernel * classifier.gain, gain=np.ones(WIDTH))
    features = landmarks(seed)[0]
    expected = folded.normalise_weights(tau, HIRISE.classes).logits(features)
    np.testing.assert_allclose(
        classifier.normalise_weights(tau, HIRISE.classes).logits(features), expected, rtol=1e-9, atol=1e-9
    )


@quick
@given(st.integers(0, 1000))
def test_tau_0_drops_the_bias_and_no_more_and_tau_1_forgets_the_lengths(seed: int) -> None:
    classifier = plain(seed)
    features = landmarks(seed)[0]
    found = classifier.normalise_weights(0.0, HIRISE.classes).logits(features)
    np.testing.assert_allclose(found, classifier.logits(features) - classifier.bias, rtol=1e-9, atol=1e-9)
    longer = replace(classifier, kernel=classifier.kernel * np.arange(1, 9)[:, None])
    one, other = (c.normalise_weights(1.0, HIRISE.classes).logits(features) for c in (classifier, longer))
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def test_what_has_no_lengths_is_not_normalised() -> None:
    with pytest.raises(ValueError, match="unit must be False"):
        plain(0, unit=True).normalise_weights(0.5, HIRISE.classes)
    for tau in (-0.1, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"tau must .*, got {tau}"):
            plain(0).normalise_weights(tau, HIRISE.classes)
    with pytest.raises(NotApplicable, match="weights of crater have no length"):
        Discriminant(0.5, 1).fit(as_landmarks(*landmarks(0, (0, 2, 3)))).normalise_weights(0.5, HIRISE.classes)


# --- nearest mean ---


def transformed(normalise: str, features: Array, train: Array) -> Array:
    match normalise:
        case "unit":
            return np.asarray(normalize(features))
        case "centred_unit":
            return np.asarray(normalize(features - train.mean(axis=0)))
    return features


@quick
@given(st.integers(0, 1000), st.sampled_from(["none", "unit", "centred_unit"]), st.floats(0, 2))
def test_nearest_mean_is_the_formula(seed: int, normalise: str, power: float) -> None:
    features, labels, sources = landmarks(seed)
    x = transformed(normalise, features, features)
    means = []
    for k in range(8):
        per_source = [x[(labels == k) & (sources == s)].mean(axis=0) for s in sorted(set(sources[labels == k]))]
        means.append(np.mean(per_source, axis=0))
    spread = np.mean([np.sum((row - means[k]) ** 2) for row, k in zip(x, labels, strict=True)])

    def near(rows: np.ndarray) -> np.ndarray:
        return np.asarray(-np.stack([((rows - mean) ** 2).sum(axis=1) for mean in means], axis=1) / (2 * spread))

    own = near(x)

    def loss(log_temperature: float) -> float:
        logits = own / np.exp(log_temperature)
        return float((logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]).mean())

    limits = (np.log(0.05), np.log(20))
    temperature = np.exp(minimize_scalar(loss, bounds=limits, method="bounded", options={"xatol": 1e-9}).x)
    new = landmarks(seed + 1)[0]
    expected = near(transformed(normalise, new, features)) / temperature
    expected += power * np.log(np.bincount(labels) / len(labels))
    found = NearestMean(normalise, power).fit(as_landmarks(features, labels, sources)).logits(new)  # type: ignore[arg-type]
    np.testing.assert_allclose(centred(found), centred(expected), rtol=1e-4, atol=1e-4)


@quick
@given(st.integers(0, 1000))
def test_with_one_landmark_a_source_it_is_the_nearest_centroid(seed: int) -> None:
    features, labels, _ = landmarks(seed)
    new = landmarks(seed + 1)[0]
    found = NearestMean("none", 0.0).fit(as_landmarks(features, labels, np.arange(len(labels)))).logits(new)
    assert (found.argmax(axis=1) == NearestCentroid().fit(features, labels).predict(new)).all()


def test_a_large_source_has_one_voice() -> None:
    features = np.array([[0.0], [0.2], [10.0], [10.0], [10.0], [4.0]])
    labels = np.array([0, 0, 0, 0, 0, 1])
    sources = np.array([1, 1, 2, 2, 2, 3])
    found = NearestMean("none", 0.0).fit(as_landmarks(features, labels, sources))
    edge = (5.05 + 4) / 2  # between mean(0.1, 10) and 4; the mean of landmarks would be 6.04
    assert found.logits(np.array([[edge - 0.01], [edge + 0.01]])).argmax(axis=1).tolist() == [1, 0]


# --- linear discriminant ---


@quick
@given(st.integers(0, 1000), st.floats(0.01, 1), st.floats(0, 2))
def test_discriminant_is_that_of_scikit_learn(seed: int, shrinkage: float, power: float) -> None:
    features, labels, sources = landmarks(seed)
    priors = (np.bincount(labels) / len(labels)) ** power
    model = LinearDiscriminantAnalysis("lsqr", shrinkage=shrinkage, priors=priors / priors.sum()).fit(features, labels)
    new = landmarks(seed + 1)[0]
    found = Discriminant(shrinkage, power).fit(as_landmarks(features, labels, sources)).logits(new)
    np.testing.assert_allclose(centred(found), centred(model.decision_function(new)), rtol=1e-6, atol=1e-6)


def test_two_classes_give_the_probabilities_of_scikit_learn() -> None:
    features, labels, sources = landmarks(0, (2, 5))
    lda = LinearDiscriminantAnalysis("lsqr", shrinkage=0.2).fit(features, labels)
    scaler = StandardScaler().fit(features)
    regression = LogisticRegression(C=0.3, tol=1e-9).fit(scaler.transform(features), labels)
    found = Discriminant(0.2, 1.0).fit(as_landmarks(features, labels, sources)).logits(features)
    np.testing.assert_allclose(softmax(found, axis=1)[:, [2, 5]], lda.predict_proba(features), atol=1e-8)
    found = Logistic(0.3, 0.0).fit(as_landmarks(features, labels, sources)).logits(features)
    expected = regression.predict_proba(scaler.transform(features))
    np.testing.assert_allclose(softmax(found, axis=1)[:, [2, 5]], expected, atol=1e-5)


def test_a_discriminant_of_more_features_than_landmarks() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [20, 5, 2])
    features = rng.normal(size=(27, 60)) + rng.normal(size=(3, 60))[labels]
    model = LinearDiscriminantAnalysis("lsqr", shrinkage=0.1).fit(features, labels)
    found = Discriminant(0.1, 1.0).fit(as_landmarks(features, labels, labels)).logits(features)[:, :3]
    np.testing.assert_allclose(centred(found), centred(model.decision_function(features)), rtol=1e-6, atol=1e-6)


def test_a_covariance_that_shrinkage_does_not_mend_is_refused() -> None:
    features, labels, sources = landmarks(0)
    twins = np.concatenate([features, features], axis=1)
    with pytest.raises(NotApplicable, match="shrinkage of 1e-18 leaves the covariance singular"):
        Discriminant(1e-18, 1.0).fit(as_landmarks(twins, labels, sources))


# --- logistic regression ---


@pytest.mark.parametrize("c", [0.01, 1.0])
@pytest.mark.parametrize("power", [0.0, 0.7, 1.0, 2.0])
def test_logistic_regression_is_that_of_scikit_learn(c: float, power: float) -> None:
    features, labels, sources = landmarks(1)
    raw = np.bincount(labels) ** -power
    weights = raw[labels] / raw[labels].mean()
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(C=c, tol=1e-8, max_iter=5000).fit(scaler.transform(features), labels, weights)
    new = landmarks(2)[0]
    found = softmax(Logistic(c, power).fit(as_landmarks(features, labels, sources)).logits(new), axis=1)
    np.testing.assert_allclose(found, model.predict_proba(scaler.transform(new)), atol=1e-3)


def test_the_regression_minimises_what_it_says() -> None:
    features, labels, sources = landmarks(3)
    fitted = Logistic(0.2, 1.0).fit(as_landmarks(features, labels, sources))
    weights = len(labels) / (8 * np.bincount(labels))

    def objective(classifier: LinearClassifier) -> float:
        own = log_softmax(classifier.logits(features), axis=1)[np.arange(len(labels)), labels]
        return float(-0.2 * (weights[labels] * own).sum() + (classifier.kernel**2).sum() / 2)

    least = objective(fitted)
    rng = np.random.default_rng(0)
    for _ in range(20):
        step = replace(fitted, kernel=fitted.kernel + 0.05 * rng.normal(size=(8, WIDTH)))
        assert objective(step) > least
    for factor in (0.95, 1.05):
        assert objective(replace(fitted, kernel=fitted.kernel * factor)) > least


@pytest.mark.parametrize("c", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("power", [0.0, 1.0])
@pytest.mark.parametrize("width", [6, 150], ids=["narrow", "wider than the number of images"])
def test_logistic_regression_reaches_the_optimum(c: float, power: float, width: int) -> None:
    features, labels, sources = landmarks(6)
    rng = np.random.default_rng(0)
    features = (features @ rng.normal(size=(WIDTH, width)) + rng.normal(size=(len(labels), width))).astype(np.float32)
    x = StandardScaler().fit_transform(features.astype(float))
    model = LogisticRegression(C=c, tol=1e-12, max_iter=500, solver="newton-cholesky", class_weight=None)
    raw = np.bincount(labels) ** -power
    model.fit(x, labels, raw[labels] / raw[labels].mean())
    found = Logistic(c, power).fit(as_landmarks(features, labels, sources)).logits(features)
    np.testing.assert_allclose(centred(found), centred(model.decision_function(x)), atol=1e-4)


def test_a_regression_that_did_not_converge_is_not_applicable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newton, "_MAX_ITERATIONS", 2)
    message = r"^Logistic regression with c 1000\.0 did not converge: after 2 steps .* the gradient is \S+ long\.$"
    with pytest.raises(NotApplicable, match=message):
        Logistic(1000.0, 0.0).fit(as_landmarks(*landmarks(0)))


def test_features_of_any_scale_are_standardised() -> None:
    features, labels, sources = landmarks(0)
    scaled = features * np.logspace(-12, 12, WIDTH)
    one, other = (Logistic(0.1, 1.0).fit(as_landmarks(values, labels, sources)) for values in (features, scaled))
    np.testing.assert_allclose(one.logits(features), other.logits(scaled), atol=1e-4)


def test_a_feature_that_never_varies_makes_no_difference() -> None:
    features, labels, sources = landmarks(0)
    wider = np.concatenate([features, np.full((len(labels), 1), 3.3)], axis=1)
    one, other = (
        Logistic(0.1, 1.0).fit(as_landmarks(features, labels, sources)),
        Logistic(0.1, 1.0).fit(as_landmarks(wider, labels, sources)),
    )
    np.testing.assert_allclose(one.logits(features), other.logits(wider), atol=1e-6)


# --- all of them ---


@each
def test_a_class_without_images_never_wins_and_costs_no_infinity(direct: Direct) -> None:
    fitted = direct.fit(as_landmarks(*landmarks(0, (0, 2, 3, 6))))
    far = 1e6 * np.random.default_rng(0).normal(size=(200, WIDTH))
    near = landmarks(1)[0]
    for features in (far, near):
        logits = fitted.logits(features)
        assert set(logits.argmax(axis=1)) <= {0, 2, 3, 6}
        assert np.isfinite(log_softmax(logits, axis=1)).all()
        assert (logits[:, [1, 4, 5, 7]] == ABSENT).all()
    assert len(set(fitted.logits(near).argmax(axis=1))) > 1


@each
def test_the_order_of_rows_makes_no_difference_and_inputs_are_untouched(direct: Direct) -> None:
    given_rows = landmarks(4)
    before = [values.copy() for values in given_rows]
    order = np.random.default_rng(0).permutation(len(given_rows[0]))
    one, other = (
        direct.fit(as_landmarks(*given_rows)),
        direct.fit(as_landmarks(given_rows[0][order], given_rows[1][order], given_rows[2][order])),
    )
    again = direct.fit(as_landmarks(*given_rows))
    np.testing.assert_array_equal(again.kernel, one.kernel)
    np.testing.assert_allclose(softmax(other.logits(before[0])), softmax(one.logits(before[0])), atol=1e-6)
    for values, kept in zip(given_rows, before, strict=True):
        np.testing.assert_array_equal(values, kept)


@each
def test_single_precision_is_enough(direct: Direct) -> None:
    features, labels, sources = landmarks(5)
    one, other = (
        direct.fit(as_landmarks(values, labels, sources)) for values in (features, features.astype(np.float32))
    )
    assert other.kernel.dtype == np.float64
    np.testing.assert_allclose(other.logits(features), one.logits(features), atol=1e-3)


@each
def test_fewer_than_two_classes_are_refused(direct: Direct) -> None:
    with pytest.raises(NotApplicable, match="needs training images of at least two classes; the data has 1"):
        direct.fit(as_landmarks(*landmarks(0, (3,))))


@pytest.mark.parametrize("direct", DIRECT[:5], ids=str)
def test_images_without_spread_are_refused(direct: Direct) -> None:
    rows = np.random.default_rng(0).normal(size=(2, WIDTH)).repeat(3, axis=0)
    with pytest.raises(NotApplicable, match="no spread"):
        direct.fit(as_landmarks(rows, np.array([0, 0, 0, 1, 1, 1]), np.arange(6)))


@each
def test_inconsistent_training_features_are_refused(direct: Direct) -> None:
    features, labels, sources = landmarks(0)
    with pytest.raises(ValueError, match="features, labels and sources must have one entry for each image"):
        direct.fit(as_landmarks(features, labels, sources[1:]))
    with pytest.raises(ValueError, match="labels must be from 0 to 7, got 1 to 8"):
        direct.fit(as_landmarks(features, labels + 1, sources))
    features[0, 0] = np.nan
    with pytest.raises(ValueError, match="features must be finite"):
        direct.fit(as_landmarks(features, labels, sources))


@pytest.mark.parametrize("wrong", [-0.1, 2.1, float("nan")])
def test_powers_outside_0_to_2_are_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=rf"prior_power must be in \[0, 2\], got {wrong}"):
        NearestMean("none", wrong)
    with pytest.raises(ValueError, match=rf"prior_power must be in \[0, 2\], got {wrong}"):
        Discriminant(0.5, wrong)
    with pytest.raises(ValueError, match=rf"^power must be in \[0, 2\], got {wrong}"):
        Logistic(1.0, wrong)


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_other_wrong_values_are_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=f"c must be positive and finite, got {wrong}"):
        Logistic(wrong, 0.0)
    with pytest.raises(ValueError, match=rf"shrinkage must be in \(0, 1\], got {wrong}"):
        Discriminant(wrong, 0.0)
    with pytest.raises(ValueError, match="normalise must be one of none, unit, centred_unit, got 'l2'"):
        NearestMean("l2", 0.0)  # type: ignore[arg-type]


@each
def test_logits_are_of_the_classes_of_the_data_set(direct: Direct) -> None:
    features, labels, sources = landmarks(0, (0, 1))
    fitted = direct.fit(as_landmarks(features, labels, sources, ClassSet(("dust", "olivine", "pyroxene"))))
    logits = fitted.logits(features)
    assert logits.shape == (len(labels), 3)
    assert (logits[:, 2] == ABSENT).all()
    assert (logits.argmax(axis=1) == labels).mean() > 0.8


def test_a_class_whose_weights_have_no_length_is_named() -> None:
    classes = ClassSet(("dust", "olivine", "pyroxene"))
    features, labels, sources = landmarks(0, (0, 1))
    fitted = Discriminant(0.5, 1.0).fit(as_landmarks(features, labels, sources, classes))
    with pytest.raises(NotApplicable, match=r"^The weights of pyroxene have no length to normalise\.$"):
        fitted.normalise_weights(0.5, classes)
