"""Steps of a head and the backbone's tail below it, against plain Keras."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from plain import ALL_KINDS, FURTHER, KINDS, RARE, Kind, agree, block_of, kept_in, weights_of
from worlds import LATE, WIDTH, make_features, make_task

from hirise_imb.backbones import Backbone
from hirise_imb.features.arrays import Features
from hirise_imb.models.heads import initial_state
from hirise_imb.training.tail_network import EVALUATION_BATCH, HeadOptions, Network, TrainingState
from hirise_imb.utils.errors import NotApplicable

BATCH = 20
DROPOUT = 0.3
STEPS = 55
"""Nearly eight epochs of 131 rows: six whole mini-batches and one of 11 rows."""
BLOCKS = (1, 1, 7, 3, 16)
"""Steps of a block, over and over; so the short mini-batch comes first, last and in the midst of a block."""

Batches = list[tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def network(backbone: Backbone) -> Network:
    """One for all tests: what it compiles does not depend on recipes."""
    return Network(backbone, "late")


def start(network: Network, kind: Kind) -> TrainingState:
    """The initial state below a head as Keras initialises it."""
    return network.start(initial_state(WIDTH, 8, kind.seed, kind.scale))


def options(kind: Kind, backbone_rate: float = 0.0, dropout: float = DROPOUT) -> HeadOptions:
    ones, zeros = np.ones(8), np.zeros(8)
    weights = np.prod([ones if part is None else part for part in (kind.weights, kind.alpha)], axis=0)
    return HeadOptions(
        class_weights=weights.astype(np.float32),
        focus=np.float32(kind.gamma),
        offsets=(zeros if kind.offsets is None else kind.offsets).astype(np.float32),
        margins=(zeros if kind.margins is None else kind.margins).astype(np.float32),
        learning_rate=np.float32(kind.rate),
        weight_decay=np.float32(kind.decay),
        backbone_learning_rate=np.float32(backbone_rate),
        dropout=np.float32(dropout),
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.asarray(tf.nn.softmax(logits))


def batches(steps: int) -> Batches:
    """Mini-batches of as many epochs as it takes."""
    rng = np.random.default_rng(0)
    task = make_task()
    x, labels = make_features(task, "late").take(task.split.train), task.images.labels[task.split.train]
    found: Batches = []
    while len(found) < steps:
        order = rng.permutation(len(x))
        found += [(x[rows], labels[rows]) for rows in np.split(order, range(BATCH, len(x), BATCH))]
    return found[:steps]


def blocks(found: Batches) -> Iterator[tuple[Batches, np.ndarray]]:
    """Mini-batches of each block, and the block's dropout masks."""
    done = 0
    while done < len(found):
        for steps in BLOCKS:
            part = found[done : done + steps]
            if part:
                yield part, kept_in((len(part), BATCH, WIDTH), DROPOUT, done)
            done += len(part)


# --- steps ---


def compare(network: Network, kind: Kind, steps: int = STEPS) -> None:
    """Trains a head above a tail that does not move."""
    state, plain = start(network, kind), kind.plain_head(DROPOUT)
    first = [values.copy() for values in weights_of(state.head())]
    for part, kept in blocks(batches(steps)):
        expected = np.zeros(2)
        for step, (x, labels) in enumerate(part):
            pooled = network.pooled(state.tail, Features.of(x))
            expected += plain.step(pooled, labels, kept[step, : len(x)], kind.weights)
        sums = network.train(state, options(kind), block_of(part, BATCH, state.steps))
        assert sums.shape == (2,)
        np.testing.assert_allclose(sums, expected, rtol=2e-5)  # the loss curve
        agree(weights_of(state.head()), plain.model.get_weights())
    assert state.steps == steps
    moved = [np.abs(a - b).max() for a, b in zip(first, weights_of(state.head()), strict=True)]
    assert min(moved) > 20 * 2e-5  # else anything would agree


def test_a_head_above_a_tail_is_trained_as_by_keras(network: Network) -> None:
    compare(network, KINDS["class weights"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL_KINDS)
def test_every_kind_of_head_is_trained_as_by_keras(name: str, network: Network) -> None:
    """AdamW that spares all but the kernel; logits shifted in the loss alone."""
    compare(network, ALL_KINDS[name])


def test_the_end_of_the_backbone_is_trained_as_by_keras_with_a_rate_of_its_own(
    backbone: Backbone, network: Network
) -> None:
    kind, backbone_rate = Kind(rate=2e-3, weights=RARE), 5e-4
    state = start(network, kind)
    plain = kind.plain_head(DROPOUT)
    tail = backbone.tail("late")
    before = tail.get_weights()
    optimizers = keras.optimizers.Adam(kind.rate), keras.optimizers.Adam(backbone_rate)

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def step(x: Any, one_hot: Any, kept: Any, weights: Any) -> Any:  # noqa: ANN401
        with tf.GradientTape() as tape:
            probabilities = plain.model([tail(x, training=True), kept], training=True)
            entropy = keras.losses.categorical_crossentropy(one_hot, probabilities)
            loss = tf.reduce_mean(entropy * weights)
        variables = plain.model.trainable_variables, tail.trainable_variables
        for optimizer, some, slopes in zip(optimizers, variables, tape.gradient(loss, variables), strict=True):
            optimizer.apply_gradients(zip(slopes, some, strict=True))
        return tf.reduce_sum(entropy)

    for part, kept in blocks(batches(42)):
        sums = network.train(state, options(kind, backbone_rate), block_of(part, BATCH, state.steps))
        expected = 0.0
        for number, (x, labels) in enumerate(part):
            one_hot = np.eye(8, dtype=np.float32)[labels]
            mask = kept[number, : len(x)].astype(np.float32)
            expected += float(step(*map(tf.constant, (x, one_hot, mask, RARE[labels].astype(np.float32)))))
        assert sums[0] == pytest.approx(expected, rel=1e-4)
    kernel, bias = (np.asarray(values) for values in state.moving.parameters[2:])
    agree([kernel], [tail.trainable_variables[0].numpy()])
    # Where a rectifier lets every row through, the head's batch normalisation takes the bias off again: its gradient
    # is rounding, of which Adam makes steps of any sign.
    rectified = keras.Model(tail.input, tail.layers[-3].output)
    every = np.concatenate([x for x, _ in batches(7)])
    decided = (np.asarray(rectified(every)) <= 0).any(axis=(0, 1, 2))
    assert decided.sum() > WIDTH / 2
    agree([bias[decided]], [tail.trainable_variables[1].numpy()[decided]])
    *by_feature, last = zip(weights_of(state.head()), plain.model.get_weights(), strict=True)
    agree(*([values[decided] for values in side] for side in zip(*by_feature, strict=True)))
    agree(*([values] for values in last))
    moved = [np.abs(a - b).max() for a, b in zip(before, tail.get_weights(), strict=True)]
    assert sum(size > 1e-3 for size in moved) == 2  # the convolution's kernel and bias
    assert sum(size == 0 for size in moved) == 4  # batch normalisation
    x = batches(1)[0][0]
    found = softmax(network.logits(state, Features.of(x)))
    plain.model.set_weights(weights_of(state.head()))
    for variable, value in zip(tail.trainable_variables, (kernel, bias), strict=True):
        variable.assign(value)
    np.testing.assert_allclose(found, plain.probabilities(np.asarray(tail(x, training=False))), atol=1e-5)


@pytest.mark.parametrize("kind", ["batch", "layer", "group"])
def test_only_scales_and_shifts_of_normalisation_move_where_they_alone_are_trained(
    kind: str, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = {
        "batch": keras.layers.BatchNormalization,
        "layer": keras.layers.LayerNormalization,
        "group": lambda: keras.layers.GroupNormalization(4),
    }
    x = features = keras.Input(LATE)
    x = keras.layers.Conv2D(WIDTH, 3, strides=2)(x)
    x = keras.layers.ReLU()(layers[kind]()(x))
    tail = keras.Model(features, keras.layers.GlobalAveragePooling2D()(x))
    monkeypatch.setattr(backbone, "tail", lambda _: tail)
    network = Network(backbone, "late", "norms")
    norm = tail.layers[2]
    assert [variable.path for variable in tail.trainable_variables] == [norm.gamma.path, norm.beta.path]
    before = tail.get_weights()
    state = start(network, Kind())
    expected = [np.asarray(network.pooled(state.tail, Features.of(x))) for x, _ in batches(1)]
    np.testing.assert_allclose(expected[0], np.asarray(tail(batches(1)[0][0], training=False)), rtol=1e-5, atol=1e-5)
    network.train(state, options(Kind(), 1e-2), block_of(batches(7), BATCH, 0))
    gamma, beta = (np.asarray(values) for values in state.moving.parameters[2:])
    assert min(np.abs(gamma - 1).max(), np.abs(beta).max()) > 0.01
    for now, old in zip(tail.get_weights(), before, strict=True):  # kernel and moving statistics
        np.testing.assert_array_equal(now, old)
    norm.gamma.assign(gamma)
    norm.beta.assign(beta)
    x = batches(1)[0][0]
    found = network.pooled(state.tail, Features.of(x))
    np.testing.assert_allclose(found, np.asarray(tail(x, training=False)), rtol=1e-5, atol=1e-5)
    assert np.abs(found - expected[0]).max() > 1e-3


def test_a_tail_without_normalisation_says_so(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    features = keras.Input(LATE)
    tail = keras.Model(features, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(WIDTH, 3)(features)))
    monkeypatch.setattr(backbone, "tail", lambda _: tail)
    with pytest.raises(
        NotApplicable,
        match=r"^The layers of toy above the cut late have no scales and shifts of normalisation to train; train all "
        r"weights, or choose an earlier cut\.$",
    ):
        Network(backbone, "late", "norms")


def test_padding_of_a_batch_counts_for_nothing(network: Network) -> None:
    # There is no mask whose shape would tell the two apart.
    x, labels = batches(1)[0]
    ends = []
    for size in (BATCH, BATCH + 9):
        state = start(network, Kind())
        network.train(state, options(Kind(), 1e-3, dropout=0.0), block_of([(x, labels)], size, state.steps))
        ends.append([*weights_of(state.head()), *map(np.asarray, state.moving.parameters)])
    agree(*ends)


# --- the initial state ---


@pytest.mark.parametrize("scale", [0.0, 7.0])
def test_training_goes_on_from_a_head_and_the_backbone(scale: float, backbone: Backbone, network: Network) -> None:
    head = initial_state(WIDTH, 8, 3, scale)
    state = network.start(head)
    for mine, theirs in zip(weights_of(state.head()), weights_of(head), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    tail = backbone.tail("late")
    assert len(state.moving.parameters) == 2 + len(tail.trainable_variables)
    for now, variable in zip(state.moving.parameters[2:], tail.trainable_variables, strict=True):
        np.testing.assert_array_equal(now, variable)
    assert state.steps == 0
    assert (state.scale, state.head().scale) == (scale, scale)
    assert not any(np.asarray(moment).any() for moment in state.moving.first_moments + state.moving.second_moments)


def test_training_changes_neither_the_head_it_started_from_nor_a_detached_state(network: Network) -> None:
    head = initial_state(WIDTH, 8, 3)
    before = head.copy()
    state = network.start(head)
    x, labels = batches(1)[0]
    network.train(state, options(Kind(), 1e-2), block_of([(x, labels)], BATCH, 0))
    detached, snapshot = state.detach(), state.head()
    expected, kernel = network.logits(detached, Features.of(x)), snapshot.stacked.copy()
    network.train(state, options(Kind(), 1e-2), block_of([(x, labels)], BATCH, 1))
    np.testing.assert_array_equal(network.logits(detached, Features.of(x)), expected)
    np.testing.assert_array_equal(snapshot.stacked, kernel)
    np.testing.assert_array_equal(head.stacked, before.stacked)
    assert np.abs(network.logits(state, Features.of(x)) - expected).max() > 1e-3


# --- predictions ---


@pytest.mark.parametrize("name", ["faster", "cosine"])
@pytest.mark.parametrize("rows", [3, EVALUATION_BATCH, 2 * EVALUATION_BATCH + 5])
def test_logits_are_those_of_keras_in_order(rows: int, name: str, backbone: Backbone, network: Network) -> None:
    kind = ALL_KINDS[name]
    state = start(network, kind)
    for _ in range(3):
        network.train(state, options(kind, 1e-3), block_of(batches(14), BATCH, state.steps))
    x = np.random.default_rng(1).uniform(0, 2, (rows, *LATE)).astype(np.float32)
    found = network.logits(state, Features.of(x))
    assert found.shape == (rows, 8)
    plain, tail = kind.plain_head(DROPOUT), backbone.tail("late")
    plain.model.set_weights(weights_of(state.head()))
    for variable, value in zip(tail.trainable_variables, state.moving.parameters[2:], strict=True):
        variable.assign(value)
    pooled = np.asarray(tail(x, training=False))
    np.testing.assert_allclose(network.pooled(state.tail, Features.of(x)), pooled, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(softmax(found), plain.probabilities(pooled), atol=2e-6)
    np.testing.assert_allclose(found, state.head().classifier().logits(pooled), rtol=1e-3, atol=1e-4)


def test_a_cosine_head_keeps_what_it_does_not_use(network: Network) -> None:
    kind = FURTHER["cosine with margins"]
    state = start(network, kind)
    network.train(state, options(kind), block_of(batches(14), BATCH, 0))
    head = state.head()
    np.testing.assert_array_equal(head.stacked[0], np.ones(WIDTH))
    assert not head.stacked[1].any()
    assert not head.bias.any()


def test_no_rows_have_no_pooled_features(network: Network) -> None:
    found = network.pooled(start(network, Kind()).tail, Features.of(np.empty((0, *LATE), np.float32)))
    assert found.shape == (0, WIDTH)
