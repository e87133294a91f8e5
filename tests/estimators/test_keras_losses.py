"""The Keras losses, against the papers' formulas in numpy; saved, loaded and trained with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from hirise_imb.losses import (
    FocalLoss,
    LDAMLoss,
    LogitAdjustedLoss,
    effective_number_weights,
    inverse_power_weights,
)

Array = NDArray[Any]
Kind = Any
COUNTS = np.array([900, 80, 20])
RNG = np.random.default_rng(0)
LABELS, LOGITS = RNG.integers(0, 3, 40), 3 * RNG.normal(size=(40, 3))


def softmax(logits: Array) -> Array:
    exponentials = np.exp(logits)
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def true_class(values: Array) -> Array:
    return np.asarray(values[np.arange(len(LABELS)), LABELS])


def focal(gamma: float, weights: Array) -> Array:
    """Lin et al. 2017, equation 5."""
    p = true_class(softmax(LOGITS))
    return weights[LABELS] * (1 - p) ** gamma * -np.log(p)


def logit_adjusted(tau: float) -> Array:
    """Menon et al. 2021, equation 10: log(1 + sum over other classes of (prior' / prior)^tau e^(z' - z))."""
    prior = COUNTS / COUNTS.sum()
    ratios = (prior[None] / prior[LABELS][:, None]) ** tau * np.exp(LOGITS - true_class(LOGITS)[:, None])
    return np.asarray(np.log(ratios.sum(axis=1)))


def without_rows_of_the_last_class() -> Array:
    """A class without training rows has no prior to add."""
    return -np.log(true_class(softmax(LOGITS + np.log([0.9, 0.1, 1]))))


def balanced_softmax() -> Array:
    """Ren et al. 2020, equation 4."""
    weighted = COUNTS * np.exp(LOGITS)
    return -np.log(true_class(weighted / weighted.sum(axis=1, keepdims=True)))


def ldam(max_margin: float, scale: float) -> Array:
    """Cao et al. 2019, equation 12, with the scale of their code: logits are `scale` times cosines."""
    margins = COUNTS**-0.25 * max_margin / (COUNTS**-0.25).max()
    z = LOGITS.copy()
    z[np.arange(len(LABELS)), LABELS] -= scale * margins[LABELS]
    return -np.log(true_class(softmax(z)))


WEIGHTS = np.array([0.5, 2.0, 3.0])
EXPECTED = [
    (FocalLoss, {"gamma": 2.0}, focal(2.0, np.ones(3))),
    (FocalLoss, {"gamma": 0.7, "class_weights": WEIGHTS}, focal(0.7, WEIGHTS)),
    (FocalLoss, {"gamma": 0.0, "class_weights": [1, 1, 1]}, focal(0.0, np.ones(3))),
    (LogitAdjustedLoss, {"class_counts": COUNTS, "tau": 0.6}, logit_adjusted(0.6)),
    (LogitAdjustedLoss, {"class_counts": COUNTS}, balanced_softmax()),
    (LogitAdjustedLoss, {"class_counts": COUNTS / 7}, balanced_softmax()),
    (LogitAdjustedLoss, {"class_counts": [90, 10, 0]}, without_rows_of_the_last_class()),
    (LDAMLoss, {"class_counts": COUNTS, "max_margin": 0.4, "scale": 5.0}, ldam(0.4, 5.0)),
]


@pytest.mark.parametrize(("kind", "settings", "expected"), EXPECTED)
def test_a_loss_is_the_formula_of_its_paper(kind: Kind, settings: dict[str, Any], expected: Array) -> None:
    loss = kind(**settings, from_logits=True, reduction="none")
    np.testing.assert_allclose(loss(LABELS, LOGITS), expected, rtol=2e-5, atol=1e-6)
    # The same for one-hot labels, a column of labels, and probabilities.
    one_hot = np.eye(3)[LABELS]
    np.testing.assert_allclose(loss(one_hot, LOGITS), expected, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(loss(LABELS[:, None], LOGITS), expected, rtol=2e-5, atol=1e-6)
    of_probabilities = kind(**settings, reduction="none")
    np.testing.assert_allclose(of_probabilities(LABELS, softmax(LOGITS)), expected, rtol=1e-3, atol=1e-5)
    mean = kind(**settings, from_logits=True)
    assert float(mean(LABELS, LOGITS)) == pytest.approx(expected.mean(), rel=1e-5)
    assert float(mean(LABELS, LOGITS, sample_weight=np.arange(40) == 3)) == pytest.approx(expected[3] / 40, rel=1e-4)


@pytest.mark.parametrize(("kind", "settings", "expected"), EXPECTED)
def test_a_loss_can_be_serialised(kind: Kind, settings: dict[str, Any], expected: Array) -> None:
    loss = kind(**settings, from_logits=True, name="mine", reduction="none")
    config = keras.losses.serialize(loss)
    restored = keras.losses.deserialize(config)
    assert type(restored) is kind
    assert restored.get_config() == loss.get_config()
    assert restored.name == "mine"
    np.testing.assert_array_equal(restored(LABELS, LOGITS), loss(LABELS, LOGITS))


def test_a_model_is_trained_and_saved_with_them(tmp_path: Path) -> None:
    x = np.repeat(np.eye(3), [60, 8, 4], axis=0)
    y = x.argmax(axis=1)
    weights = effective_number_weights(np.bincount(y), 0.9)
    losses = [
        FocalLoss(class_weights=weights, from_logits=True),
        LogitAdjustedLoss(np.bincount(y), from_logits=True),
        LDAMLoss(np.bincount(y), scale=5.0, from_logits=True),
    ]
    keras.utils.set_random_seed(0)
    rows = keras.Input((3,))
    model = keras.Model(rows, [keras.layers.Dense(3, name=loss.name)(rows) for loss in losses])
    model.compile(keras.optimizers.Adam(0.1), losses, jit_compile=False)
    history = model.fit(x, [y, y, y], epochs=15, batch_size=24, verbose=0).history
    for loss, logits in zip(losses, model(x), strict=True):
        values = history[f"{loss.name}_loss"]
        assert values[-1] < values[0] / 2
        assert (np.argmax(logits, axis=1) == y).all()
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    assert [loss.get_config() for loss in restored.loss] == [loss.get_config() for loss in losses]


def test_class_weights_are_those_of_the_papers() -> None:
    n = COUNTS.astype(float)
    for weights, shape in (
        (effective_number_weights(COUNTS, 0.99), (1 - 0.99) / (1 - 0.99**n)),
        (inverse_power_weights(COUNTS.tolist(), 0.5), n**-0.5),
    ):
        np.testing.assert_allclose(weights, shape * n.sum() / (n @ shape))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: FocalLoss(gamma=-1), "gamma must not be negative, got -1"),
        (lambda: FocalLoss(class_weights=[1, -1]), "class_weights must be one number for each class"),
        (lambda: LogitAdjustedLoss([0, 0]), "class_counts must be one number for each class"),
        (lambda: LDAMLoss([1.5, 2]), "class_counts must be integers, got 1.5"),
        (lambda: LDAMLoss([1, 2], scale=0), "scale must be positive and finite, got 0"),
        (lambda: effective_number_weights([1, 2], 1.0), r"beta must be in \[0, 1\), got 1.0"),
        (lambda: inverse_power_weights([1, 2], np.nan), "power must be finite, got nan"),
        (
            lambda: LogitAdjustedLoss([1, 2], name="balanced")(LABELS, LOGITS),
            "balanced was created for 2 classes; the model has 3",
        ),
        (
            lambda: FocalLoss(name="focal")(LABELS, LOGITS[:, 0]),
            r"focal needs predictions of shape \(batch, n_classes\)",
        ),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
