"""Temperature scaling, against scikit-learn and SciPy."""

from typing import Any

import numpy as np
import pytest
from builders import quick
from heldout_logits import PRIOR, SEEDS, UNIFORM, Array, draw_logits, loss_of
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss

from hirise_imb.imbalance import temperature as temperature_module
from hirise_imb.imbalance.logit_adjustment import softmax
from hirise_imb.imbalance.temperature import Temperature


@quick
@given(SEEDS, st.floats(-2, 2))
def test_temperature_changes_no_decision_and_improves_the_likelihood(seed: int, size: float) -> None:
    z, labels = draw_logits(seed)
    z *= 10**size
    correction = Temperature().fit(z, labels, PRIOR)
    np.testing.assert_array_equal(correction(z).argmax(axis=1), z.argmax(axis=1))
    assert not correction.offsets.any()
    assert 0.05 <= 1 / correction.scale <= 20 * (1 + 1e-12)
    assert loss_of(correction(z), labels) <= loss_of(z, labels) + 1e-12


@quick
@given(SEEDS)
def test_no_temperature_is_more_likely(seed: int) -> None:
    z, labels = draw_logits(seed, 30, signal=0.5)
    correction = Temperature().fit(z, labels, PRIOR)
    reached = loss_of(correction(z), labels)
    for temperature in np.geomspace(0.05, 20, 100):
        assert loss_of(z / temperature, labels) >= reached - 1e-12
    if 0.051 < 1 / correction.scale < 19.9:
        steps = [loss_of(correction.scale * np.exp(step) * z, labels) for step in (-1e-4, 1e-4)]
        assert abs(steps[1] - steps[0]) / 2e-4 < 1e-6


class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier whose features are its logits."""

    def fit(self, x: Array, y: Array) -> "Given":
        self.classes_ = np.arange(8)
        return self

    def decision_function(self, x: Array) -> Array:
        return x

    def predict(self, x: Array) -> Array:
        return np.asarray(x.argmax(axis=1))


def test_temperature_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(6)
    labels = np.repeat(np.arange(8), 40)
    z = 3 * (rng.normal(size=(len(labels), 8)) + np.eye(8)[labels])
    theirs = CalibratedClassifierCV(FrozenEstimator(Given().fit(z, labels)), method="temperature").fit(z, labels)
    corrected = Temperature().fit(z, labels, UNIFORM)(z)
    np.testing.assert_allclose(softmax(corrected), theirs.predict_proba(z), atol=1e-4)
    assert loss_of(corrected, labels) == pytest.approx(log_loss(labels, theirs.predict_proba(z)), abs=1e-6)


@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
def test_a_known_temperature_is_recovered(true: float) -> None:
    rng = np.random.default_rng(7)
    z = 3 * true * rng.normal(size=(20_000, 8))
    labels = (z / true + rng.gumbel(size=z.shape)).argmax(axis=1)  # drawn from softmax(z / T)
    assert 1 / Temperature().fit(z, labels, UNIFORM).scale == pytest.approx(true, rel=0.03)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("size", "temperature"), [(100, 0.05), (10, 0.05), (0.5, 0.05), (-0.5, 20.0), (-10, 20.0)])
def test_temperature_ends_at_its_bounds(size: float, temperature: float, bias: bool) -> None:
    labels = np.repeat(np.arange(8), 3)
    correction = Temperature(bias).fit(size * np.eye(8)[labels], labels, UNIFORM)
    assert correction.scale == pytest.approx(1 / temperature, rel=1e-15 if bias else 0, abs=0)
    np.testing.assert_allclose(correction.offsets, 0, atol=1e-6)


@pytest.mark.parametrize("bias", [False, True])
def test_logits_that_tell_nothing_keep_temperature_one(bias: bool) -> None:
    for size in (0, 1e3, 1e4):
        assert Temperature(bias).fit(size * np.eye(8), np.arange(8), UNIFORM).scale == 1


def test_equal_logits_leave_the_frequencies_to_the_offsets() -> None:
    counts = np.array([12, 6, 5, 4, 3, 2, 1, 1])
    correction = Temperature(bias=True).fit(np.full((34, 8), 3.0), np.repeat(np.arange(8), counts), UNIFORM)
    assert correction.scale == 1
    np.testing.assert_allclose(correction.offsets, np.log(counts) - np.log(counts).mean(), atol=1e-6)


@pytest.mark.parametrize("bias", [False, True])
def test_a_constant_added_to_all_logits_of_a_row_changes_nothing(bias: bool) -> None:
    z, labels = draw_logits(17)
    z = (z * 1024).round() / 1024
    shifts = 2.0**40 * np.random.default_rng(17).integers(-3, 4, (len(z), 1))  # sums are exact
    plain, shifted = (Temperature(bias).fit(logits, labels, PRIOR) for logits in (z, z + shifts))
    assert shifted.scale == plain.scale
    np.testing.assert_array_equal(shifted.offsets, plain.offsets)


def test_a_search_that_stops_on_a_slope_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    z, labels = draw_logits(18)
    monkeypatch.setattr(temperature_module, "_SLOPE_TOLERANCE", 0.0)
    with pytest.raises(RuntimeError, match=r"^bias-corrected temperature scaling did not converge: [A-Z]"):
        Temperature(bias=True).fit(z, labels, PRIOR)


def test_known_offsets_are_recovered() -> None:
    rng = np.random.default_rng(8)
    z = 4 * rng.normal(size=(30_000, 8))
    shift = np.log(PRIOR) - np.log(PRIOR).mean()
    labels = (z / 2 + shift + rng.gumbel(size=z.shape)).argmax(axis=1)  # drawn from softmax(z / 2 + shift)
    correction = Temperature(bias=True).fit(z, labels, UNIFORM)
    assert 1 / correction.scale == pytest.approx(2, rel=0.03)
    np.testing.assert_allclose(correction.offsets, shift, atol=0.12)


@pytest.mark.parametrize("classes", [8, 4, 2])
def test_bias_is_where_another_optimiser_finds_it(classes: int) -> None:
    z, labels = draw_logits(9, 500, classes, signal=1.0)
    assert len(set(labels.tolist())) == classes

    def correction(free: Array) -> Array:
        """The last offset is what makes their mean 0; classes that are not there have 0."""
        offsets = np.zeros(8)
        offsets[:classes] = [*free[1:], -free[1:].sum()]
        return np.array(free[0] * z + offsets)

    theirs: Any = minimize(
        lambda free: loss_of(correction(free), labels), [1.0, *np.zeros(classes - 1)], tol=1e-6, method="BFGS"
    )
    ours = Temperature(bias=True).fit(z, labels, PRIOR)
    assert loss_of(ours(z), labels) == pytest.approx(theirs.fun, abs=1e-8)
    np.testing.assert_allclose(ours(z), correction(theirs.x), atol=0.01)


@quick
@given(SEEDS, st.integers(1, 8), st.floats(-1, 1))
@example(361, 6, -0.072265625)  # nearly separated: the first search ends too early
def test_bias_is_more_likely_than_temperature_alone(seed: int, classes: int, size: float) -> None:
    z, labels = draw_logits(seed, 50, classes)
    z *= 10**size
    plain, biased = (Temperature(bias).fit(z, labels, PRIOR) for bias in (False, True))
    assert loss_of(biased(z), labels) <= loss_of(plain(z), labels) + 1e-12
    assert abs(biased.offsets.mean()) < 1e-9
    assert not biased.offsets[[k for k in range(8) if k not in labels]].any()


def test_bias_has_nothing_to_fit_where_no_held_out_class_was_trained_on() -> None:
    z, _ = draw_logits(16, 5)
    assert not Temperature(bias=True).fit(z, np.full(5, 3), np.eye(8)[0]).offsets.any()
