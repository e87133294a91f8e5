"""Steps of training against plain Keras, with the same batches and the same dropout masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from plain import PlainHead, block_of, kept_in, weights_of
from worlds import SIZES, WIDTH, make_features, make_task

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.features.arrays import Features
from hirise_imb.models.heads import dropout_bits, dropout_mask
from hirise_imb.training.train_step import EVALUATION_BATCH, HeadOptions, Network

BATCH = 20
DROPOUT = 0.3
STEPS = 203
"""29 epochs of 131 rows: six whole batches and one of 11 rows."""
BLOCKS = (1, 1, 7, 3, 16)
"""Steps of a block, over and over; so the short batch comes first, last and in the midst of a block."""
RARE = SIZES.sum() / (8 * SIZES)
"""Weights of inverse frequency."""

Batches = list[tuple[np.ndarray, np.ndarray]]


class Shifted(keras.losses.Loss):  # type: ignore[misc]
    """Cross-entropy of the softmax of log p + offsets, with a margin taken off the own class."""

    def __init__(self, offsets: np.ndarray, margins: np.ndarray) -> None:
        super().__init__()
        self.offsets, self.margins = (tf.constant(part, tf.float32) for part in (offsets, margins))

    def call(self, one_hot: Any, chances: Any) -> Any:  # noqa: ANN401
        shifted = tf.math.log(chances) + self.offsets - tf.cast(one_hot, tf.float32) * self.margins
        return tf.nn.softmax_cross_entropy_with_logits(one_hot, shifted)


@dataclass(frozen=True)
class Kind:
    """What one head is trained with."""

    rate: float = 1e-3
    weights: np.ndarray | None = None
    alpha: np.ndarray | None = None
    gamma: float = 0.0
    seed: int = 0
    decay: float = 0.0
    scale: float = 0.0
    """Of a head that measures cosines."""
    offsets: np.ndarray | None = None
    margins: np.ndarray | None = None

    @property
    def loss(self) -> str | keras.losses.Loss:
        if self.offsets is not None or self.margins is not None:
            return Shifted(*(np.zeros(8) if part is None else part for part in (self.offsets, self.margins)))
        if self.gamma == 0 and self.alpha is None:
            return "categorical_crossentropy"
        alpha = 1.0 if self.alpha is None else self.alpha.tolist()
        return keras.losses.CategoricalFocalCrossentropy(alpha=alpha, gamma=self.gamma)


KINDS = {
    "baseline": Kind(rate=1e-4),
    "faster": Kind(seed=1),
    "class weights": Kind(weights=RARE, rate=3e-3),
    # With gradients of 1e-7 and less, Adam's epsilon decides how large a step is.
    "tiny class weights": Kind(weights=1e-6 * np.arange(1, 9), seed=2),
    "focal": Kind(gamma=2.0, seed=3),
    "focal with alpha": Kind(gamma=1.0, alpha=RARE, rate=2e-3),
    "gentle focal": Kind(gamma=0.5, rate=5e-4, seed=4),
    "all": Kind(gamma=3.5, alpha=RARE**0.5, weights=RARE**0.5, rate=3e-4, seed=5),
}
FURTHER = {
    "weight decay": Kind(decay=0.5, rate=2e-3),
    "weak decay": Kind(decay=1e-2, weights=RARE, seed=1),
    "offsets": Kind(offsets=np.log(SIZES / SIZES.sum()), rate=2e-3),
    "cosine": Kind(scale=8.0, seed=2),
    "cosine with margins": Kind(scale=5.0, margins=5 * 0.4 * (SIZES / 5) ** -0.25, rate=2e-3, seed=3),
    "cosine with decay": Kind(scale=20.0, decay=0.3, weights=RARE, seed=4),
    "in one batch": Kind(gamma=2.0),
}


def settings(kinds: list[Kind], backbone_rate: float = 0.0, dropout: float = DROPOUT) -> HeadOptions:
    ones = np.ones(8)
    factors = [[ones if part is None else part for part in (kind.weights, kind.alpha)] for kind in kinds]
    return HeadOptions(
        class_weights=np.array([one * other for one, other in factors], np.float32),
        focus=np.array([kind.gamma for kind in kinds], np.float32),
        offsets=np.array([np.zeros(8) if kind.offsets is None else kind.offsets for kind in kinds], np.float32),
        margins=np.array([np.zeros(8) if kind.margins is None else kind.margins for kind in kinds], np.float32),
        scales=np.array([kind.scale for kind in kinds], np.float32),
        learning_rates=np.array([kind.rate for kind in kinds], np.float32),
        weight_decay=np.array([kind.decay for kind in kinds], np.float32),
        backbone_learning_rate=np.float32(backbone_rate),
        dropout=np.float32(dropout),
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.asarray(tf.nn.softmax(logits))


def batches(steps: int, cut: str = TOP) -> Batches:
    """Batches of as many epochs as it takes; features of other scales and means than batch normalisation wants."""
    rng = np.random.default_rng(0)
    task = make_task()
    x, labels = make_features(task, cut).take(task.split.train), task.images.labels[task.split.train]
    if cut == TOP:
        x = (0.02 + rng.uniform(0.05, 2, WIDTH) * x + rng.normal(size=WIDTH)).astype(np.float32)
    found: Batches = []
    while len(found) < steps:
        order = rng.permutation(len(x))
        found += [(x[rows], labels[rows]) for rows in np.split(order, range(BATCH, len(x), BATCH))]
    return found[:steps]


def blocks(found: Batches) -> Iterator[tuple[Batches, np.ndarray]]:
    """Batches of each block, and what the block's dropout keeps."""
    done = 0
    while done < len(found):
        for steps in BLOCKS:
            part = found[done : done + steps]
            if part:
                yield part, kept_in((len(part), BATCH, WIDTH), DROPOUT, done)
            done += len(part)


def agree(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    """Within what float32 leaves after 200 steps of Adam, whose steps have the size of the rate, 1e-4 to 3e-3."""
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=2e-5, atol=2e-5)


def compare(backbone: Backbone, kinds: list[Kind], steps: int = STEPS) -> None:
    network = Network(backbone, TOP, WIDTH, 8)
    state = network.start([kind.seed for kind in kinds])
    plain = [PlainHead(kind.seed, kind.loss, kind.rate, DROPOUT, kind.decay, kind.scale) for kind in kinds]
    first = [weights_of(state, head, cosine=kind.scale > 0) for head, kind in enumerate(kinds)]
    for part, kept in blocks(batches(steps)):
        sums = network.train(state, settings(kinds), block_of(part, BATCH, state.steps))
        assert sums.shape == (2, len(kinds))
        for head, (kind, keras_head) in enumerate(zip(kinds, plain, strict=True)):
            expected = sum(
                keras_head.step(x, y, kept[step, : len(x)], kind.weights) for step, (x, y) in enumerate(part)
            )
            np.testing.assert_allclose(sums[:, head], expected, rtol=2e-5)  # the loss curve
            agree(weights_of(state, head, cosine=kind.scale > 0), keras_head.model.get_weights())
    assert state.steps == steps
    for head, kind in enumerate(kinds):  # else anything would agree
        last = weights_of(state, head, cosine=kind.scale > 0)
        moved = [np.abs(a - b).max() for a, b in zip(first[head], last, strict=True)]
        assert min(moved) > 20 * 2e-5


# --- steps ---


def test_one_head_is_trained_as_by_keras(backbone: Backbone) -> None:
    compare(backbone, [KINDS["class weights"]])


@pytest.mark.slow
def test_eight_heads_at_once_are_each_trained_as_by_keras(backbone: Backbone) -> None:
    compare(backbone, list(KINDS.values()))


@pytest.mark.slow
def test_decay_offsets_margins_and_cosines_are_trained_as_by_keras(backbone: Backbone) -> None:
    """AdamW that spares all but the kernel; logits shifted in the loss alone; both beside heads without."""
    compare(backbone, list(FURTHER.values()), 55)


def test_the_end_of_the_backbone_is_trained_as_by_keras_with_a_rate_of_its_own(backbone: Backbone) -> None:
    kind, backbone_rate = Kind(rate=2e-3, weights=RARE), 5e-4
    network = Network(backbone, "late", WIDTH, 8)
    state = network.start([kind.seed])
    plain = PlainHead(kind.seed, rate=kind.rate, dropout=DROPOUT)
    tail = backbone.tail("late")
    before = tail.get_weights()
    optimizers = keras.optimizers.Adam(kind.rate), keras.optimizers.Adam(backbone_rate)

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def step(x: Any, one_hot: Any, kept: Any, weights: Any) -> Any:  # noqa: ANN401
        with tf.GradientTape() as tape:
            chances = plain.model([tail(x, training=True), kept], training=True)
            entropy = keras.losses.categorical_crossentropy(one_hot, chances)
            loss = tf.reduce_mean(entropy * weights)
        variables = plain.model.trainable_variables, tail.trainable_variables
        for optimizer, some, slopes in zip(optimizers, variables, tape.gradient(loss, variables), strict=True):
            optimizer.apply_gradients(zip(slopes, some, strict=True))
        return tf.reduce_sum(entropy)

    for part, kept in blocks(batches(42, "late")):
        sums = network.train(state, settings([kind], backbone_rate=backbone_rate), block_of(part, BATCH, state.steps))
        expected = 0.0
        for number, (x, labels) in enumerate(part):
            one_hot = np.eye(8, dtype=np.float32)[labels]
            mask = kept[number, : len(x)].astype(np.float32)
            expected += float(step(*map(tf.constant, (x, one_hot, mask, RARE[labels].astype(np.float32)))))
        assert sums[0, 0] == pytest.approx(expected, rel=1e-4)
    kernel, bias = (np.asarray(values) for values in state.moving.parameters[2:])
    agree([kernel], [tail.trainable_variables[0].numpy()])
    # Where a rectifier lets every row through, the head's batch normalisation takes the bias off again: its gradient
    # is rounding, of which Adam makes steps of any sign.
    rectified = keras.Model(tail.input, tail.layers[-3].output)
    every = np.concatenate([x for x, _ in batches(7, "late")])
    decided = (np.asarray(rectified(every)) <= 0).any(axis=(0, 1, 2))
    assert decided.sum() > WIDTH / 2
    agree([bias[decided]], [tail.trainable_variables[1].numpy()[decided]])
    *of_features, last = zip(weights_of(state, 0), plain.model.get_weights(), strict=True)
    agree(*([values[decided] for values in side] for side in zip(*of_features, strict=True)))
    agree(*([values] for values in last))
    moved = [np.abs(a - b).max() for a, b in zip(before, tail.get_weights(), strict=True)]
    assert sum(size > 1e-3 for size in moved) == 2  # the convolution's kernel and bias
    assert sum(size == 0 for size in moved) == 4  # batch normalisation
    x = batches(1, "late")[0][0]
    found = softmax(network.logits(state, Features.of(x), np.zeros(1, np.float32))[0])
    plain.model.set_weights(weights_of(state, 0))
    for variable, value in zip(tail.trainable_variables, (kernel, bias), strict=True):
        variable.assign(value)
    np.testing.assert_allclose(found, plain.probabilities(np.asarray(tail(x, training=False))), atol=1e-5)


def test_a_head_learns_the_same_in_company(backbone: Backbone) -> None:
    """Bit for bit, and in any place; idle heads rely on it."""
    kinds = list(KINDS.values())
    block = block_of(batches(14), BATCH, 0)

    def train(chosen: list[Kind]) -> tuple[list[bytes], np.ndarray]:
        network = Network(backbone, TOP, WIDTH, 8)
        state = network.start([kind.seed for kind in chosen])
        sums = network.train(state, settings(chosen), block)
        return [b"".join(part.tobytes() for part in weights_of(state, head)) for head in range(8)], sums

    together, sums = train(kinds)
    for place in (0, 3, 7):
        others, theirs = train([Kind(rate=0.1)] * place + [kinds[4]] + [Kind(seed=9, gamma=5.0)] * (7 - place))
        assert others[place] == together[4]
        np.testing.assert_array_equal(theirs[:, place], sums[:, 4])
    assert len(set(together)) == 8


def test_what_fills_up_a_batch_counts_for_nothing(backbone: Backbone) -> None:
    network = Network(backbone, TOP, WIDTH, 8)
    # All neighbours are idle, and there is no mask whose shape would tell the two apart.
    x, labels = batches(1)[0]
    ends = []
    for size in (BATCH, BATCH + 9):
        state = network.start([0])
        network.train(state, settings([Kind()], dropout=0.0), block_of([(x, labels)], size, state.steps))
        ends.append(weights_of(state, 0))
    agree(*ends)


# --- the start ---


def test_heads_start_as_keras_starts_them(backbone: Backbone) -> None:
    for cut in (TOP, "late"):
        state = Network(backbone, cut, WIDTH, 8).start([3])
        for mine, theirs in zip(weights_of(state, 0), PlainHead(3).model.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)
        assert state.steps == 0
    several = Network(backbone, TOP, WIDTH, 8).start([4, 3])
    np.testing.assert_array_equal(weights_of(several, 1)[4], weights_of(state, 0)[4])
    assert np.abs(weights_of(several, 0)[4] - weights_of(several, 1)[4]).max() > 0.1


def test_heads_can_not_share_the_end_of_a_backbone(backbone: Backbone) -> None:
    with pytest.raises(ValueError, match="can't share it"):
        Network(backbone, "late", WIDTH, 8).start([0, 1])


# --- dropout ---


def drawn(shape: tuple[int, ...], rate: float, seed: tuple[int, int]) -> np.ndarray:
    return np.asarray(dropout_mask(dropout_bits(shape, seed), np.float32(rate)))


def test_the_mask_has_the_values_of_keras_dropout() -> None:
    shape = (5, 400, WIDTH)
    mask = drawn(shape, 0.3, (0, 0))
    theirs = np.asarray(keras.layers.Dropout(0.3, seed=0)(np.ones(shape, np.float32), training=True))
    np.testing.assert_allclose(np.unique(mask), np.unique(theirs), rtol=1e-5)
    spread = (0.3 * 0.7 / mask.size) ** 0.5
    assert (mask == 0).mean() == pytest.approx(0.3, abs=5 * spread)
    assert mask.mean() == pytest.approx(1, abs=5 * spread / 0.7)
    np.testing.assert_array_equal(drawn(shape, 0.0, (0, 0)), np.ones(shape))


def test_each_seed_and_each_block_has_a_mask_of_its_own() -> None:
    masks = [drawn((1, 20, WIDTH), 0.5, seed) for seed in ((0, 0), (0, 7), (1, 0))]
    assert len({mask.tobytes() for mask in masks}) == 3


# --- predictions ---


@pytest.mark.parametrize("rows", [3, EVALUATION_BATCH, 2 * EVALUATION_BATCH + 5])
def test_logits_are_those_of_keras_in_order(rows: int, backbone: Backbone) -> None:
    network = Network(backbone, TOP, WIDTH, 8)
    kinds = [KINDS["faster"], KINDS["class weights"], FURTHER["cosine"]]
    state = network.start([kind.seed for kind in kinds])
    for _ in range(3):
        network.train(state, settings(kinds), block_of(batches(14), BATCH, state.steps))
    x = np.random.default_rng(1).normal(size=(rows, WIDTH)).astype(np.float32)
    found = network.logits(state, Features.of(x), settings(kinds).scales)
    assert found.shape == (3, rows, 8)
    for head, kind in enumerate(kinds):
        plain = PlainHead(0, scale=kind.scale)
        plain.model.set_weights(weights_of(state, head, cosine=kind.scale > 0))
        np.testing.assert_allclose(softmax(found[head]), plain.probabilities(x), atol=1e-6)


def test_a_cosine_head_gives_scaled_cosines(backbone: Backbone) -> None:
    network = Network(backbone, TOP, WIDTH, 8)
    kinds = [FURTHER["cosine"], KINDS["faster"], FURTHER["cosine with margins"]]
    state = network.start([kind.seed for kind in kinds])
    network.train(state, settings(kinds), block_of(batches(14), BATCH, 0))
    x = 3 * np.random.default_rng(1).normal(size=(20, WIDTH)).astype(np.float32)
    found = network.logits(state, Features.of(x), settings(kinds).scales)
    for head in (0, 2):
        mean, variance, kernel = weights_of(state, head, cosine=True)
        rows = (x - mean) / np.sqrt(variance + 1e-3)
        lengths = np.linalg.norm(rows, axis=1)[:, None] * np.linalg.norm(kernel, axis=0)
        np.testing.assert_allclose(found[head], kinds[head].scale * (rows @ kernel) / lengths, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(weights_of(state, head)[0], np.ones(WIDTH))
        assert not weights_of(state, head)[1].any()
        assert not weights_of(state, head)[5].any()


def test_the_width_of_a_head_on_frozen_features_is_free(backbone: Backbone) -> None:
    network = Network(backbone, TOP, 2 * WIDTH, 8)
    state = network.start([0])
    assert state.moving.average.shape == (2, 2 * WIDTH)
    x = np.ones((3, 2 * WIDTH), np.float32)
    assert network.logits(state, Features.of(x), np.zeros(1, np.float32)).shape == (1, 3, 8)
    np.testing.assert_array_equal(network.pooled(state, Features.of(x)), x)
