"""The compiled epoch of a head against plain Keras, with the same mini-batches and the same dropout masks."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from builders import quick
from hypothesis import given
from hypothesis import strategies as st
from plain import ALL_KINDS, FURTHER, KINDS, SEED, Kind, PlainHead, agree, kept_in, weights_of
from worlds import SIZES, WIDTH, make_features, make_task

from hirise_imb.models.heads import HeadState, dropout_bits, dropout_mask, dropout_threshold, initial_state
from hirise_imb.training import head_kernel

BATCH = 20
DROPOUT = 0.3
EPOCHS = 29
"""Of 131 rows each: six whole mini-batches and one of 11 rows."""
BLOCKS = (1, 7, 2, 3, 16)
"""Steps of a block, which differ by epoch."""

Data = tuple[np.ndarray, np.ndarray]


class KernelHead:
    """A head and its optimiser, trained by the kernel."""

    def __init__(self, kind: Kind, width: int = WIDTH, n_classes: int = 8, dropout: float = DROPOUT) -> None:
        self.kind, self.dropout = kind, dropout
        self.state = initial_state(width, n_classes, kind.seed, kind.scale)
        self.moments = np.zeros((2, 2 + n_classes, width), np.float32)
        self.bias_moments = np.zeros((2, n_classes), np.float32)
        self.steps = 0

    def train(self, data: Data, rows: np.ndarray, batch: int = BATCH, block: int = 3) -> np.ndarray:
        """Trains for an epoch of these rows; returns the sums of cross-entropy and of hits."""
        kind, state, n_classes = self.kind, self.state, len(self.state.bias)
        ones, zeros = np.ones(n_classes), np.zeros(n_classes)
        weights: np.ndarray = np.prod([ones if part is None else part for part in (kind.weights, kind.alpha)], axis=0)
        steps = -(-len(rows) // batch)
        features, labels = data
        features.flags.writeable = False
        sums = head_kernel.train_epoch(
            features,
            rows,
            labels[rows],
            batch,
            state.stacked,
            state.bias,
            self.moments,
            self.bias_moments,
            state.average,
            head_kernel.dropout_states(SEED, self.steps, steps, block),
            block,
            dropout_threshold(self.dropout),
            weights.astype(np.float32),
            np.float32(kind.gamma),
            (zeros if kind.offsets is None else kind.offsets).astype(np.float32),
            (zeros if kind.margins is None else kind.margins).astype(np.float32),
            np.float32(kind.scale),
            np.float32(kind.rate),
            np.float32(kind.decay),
            self.steps,
        )
        self.steps += steps
        return np.array(sums)

    def logits(self, x: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        rows = np.arange(len(x)) if rows is None else rows
        return predict(self.state, x, rows)


def predict(state: HeadState, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    x.flags.writeable = False
    found = head_kernel.predict(x, rows, state.stacked, state.bias, state.average, np.float32(state.scale))
    return np.asarray(found)


def training_data(width: int = WIDTH, n_classes: int = 8) -> Data:
    """Features of other scales and means than batch normalisation gives."""
    rng = np.random.default_rng(0)
    task = make_task()
    narrow, labels = make_features(task).take(task.split.train), task.images.labels[task.split.train]
    wide = np.tile(narrow, -(-width // WIDTH))[:, :width] + 0.5 * rng.normal(size=(len(labels), width))
    x = 0.02 + rng.uniform(0.05, 2, width) * wide + rng.normal(size=width)
    return x.astype(np.float32), labels % n_classes


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.asarray(tf.nn.softmax(logits))


def compare(
    kind: Kind,
    epochs: int = EPOCHS,
    *,
    width: int = WIDTH,
    n_classes: int = 8,
    batch: int = BATCH,
    rows: int | None = None,
    dropout: float = DROPOUT,
) -> None:
    """Trains a head by the kernel and by Keras, and compares them after each epoch.

    Args:
        kind: options of the head.
        epochs: number of epochs.
        width: width of the features.
        n_classes: number of classes.
        batch: rows of a mini-batch.
        rows: rows of an epoch, drawn with replacement; all of them, each once, if None.
        dropout: dropout rate.
    """
    kind = kind.for_classes(n_classes)
    ours, theirs = KernelHead(kind, width, n_classes, dropout), kind.plain_head(dropout, width, n_classes)
    first = [values.copy() for values in weights_of(ours.state)]
    x, labels = data = training_data(width, n_classes)
    rng = np.random.default_rng(1)
    for epoch in range(epochs):
        order = rng.permutation(len(x)) if rows is None else rng.integers(0, len(x), rows)
        block, done = BLOCKS[epoch % len(BLOCKS)], ours.steps
        sums = ours.train(data, order, batch, block)
        parts = np.split(order, range(batch, len(order), batch))
        expected = np.zeros(2)
        for start in range(0, len(parts), block):
            masks = kept_in((min(block, len(parts) - start), batch, width), dropout, done + start)
            for mask, part in zip(masks, parts[start : start + block], strict=True):
                expected += theirs.step(x[part], labels[part], mask[: len(part)], kind.weights)
        np.testing.assert_allclose(sums, expected, rtol=2e-5)  # the loss curve
        agree(weights_of(ours.state), theirs.model.get_weights())
    moved = [np.abs(a - b).max() for a, b in zip(first, weights_of(ours.state), strict=True)]
    # Else anything would agree; the gamma of single rows, which are all 0, does not move.
    assert sorted(moved)[batch == 1] > 15 * 2e-5
    np.testing.assert_allclose(softmax(ours.logits(x)), theirs.probabilities(x), atol=5e-5)


# --- epochs ---


def test_a_head_is_trained_as_by_keras() -> None:
    compare(KINDS["class weights"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL_KINDS)
def test_every_kind_of_head_is_trained_as_by_keras(name: str) -> None:
    """AdamW that spares all but the kernel; logits shifted in the loss alone."""
    compare(ALL_KINDS[name], EPOCHS if name in KINDS else 8)


@pytest.mark.parametrize("name", ["all", "weak decay", "offsets", "cosine with all", "focal cosine"])
@pytest.mark.parametrize(("width", "n_classes"), [(13, 5), (16, 2), (258, 7), (515, 3)])
def test_any_width_and_number_of_classes_is_trained_as_by_keras(width: int, n_classes: int, name: str) -> None:
    """Neither needs to be a multiple of 4, nor the width of 256."""
    compare(ALL_KINDS[name], 4, width=width, n_classes=n_classes, batch=32)


@pytest.mark.parametrize("name", ["class weights", "cosine with margins"])
@pytest.mark.parametrize(("batch", "rows"), [(2, 31), (131, None), (1000, None), (32, 33), (32, 9)])
def test_any_size_of_the_mini_batch_is_trained_as_by_keras(batch: int, rows: int | None, name: str) -> None:
    """All rows at once; more than there are; a last mini-batch of one row."""
    compare(ALL_KINDS[name], 8, batch=batch, rows=rows)


def test_single_rows_are_trained_as_by_keras() -> None:
    """Their variances are 0. A cosine head sees nothing in a row that is its own mean, and does not move."""
    compare(KINDS["faster"], 3, batch=1, rows=40)
    cosine = KernelHead(FURTHER["cosine"])
    kernel = cosine.state.stacked.copy()
    cosine.train(training_data(), np.arange(40), batch=1)
    np.testing.assert_allclose(cosine.state.stacked, kernel, atol=1e-6)


@pytest.mark.parametrize("dropout", [0.0, 0.75])
def test_any_dropout_rate_is_trained_as_by_keras(dropout: float) -> None:
    compare(KINDS["faster"], 5, dropout=dropout)


def test_rows_are_taken_by_their_number() -> None:
    """Rows of a large array, some of them more than once."""
    x, labels = training_data()
    rows = np.random.default_rng(3).integers(0, len(x), 77)
    one, other = KernelHead(KINDS["all"]), KernelHead(KINDS["all"])
    sums = one.train((x, labels), rows), other.train((x[rows], labels[rows]), np.arange(len(rows)))
    np.testing.assert_array_equal(*sums)
    for mine, theirs in zip(weights_of(one.state), weights_of(other.state), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_features_are_not_changed() -> None:
    x, labels = training_data()
    before = x.copy()
    head = KernelHead(KINDS["all"])
    head.train((x, labels), np.arange(len(x)))
    head.logits(x)
    np.testing.assert_array_equal(x, before)


def test_a_loss_that_is_no_number_is_not_hidden() -> None:
    data = training_data()
    head = KernelHead(Kind(rate=1e30))
    for _ in range(3):
        sums = head.train(data, np.arange(131))
    assert not np.isfinite(sums[0])
    assert not np.isfinite(head.logits(data[0])).all()


# --- the initial state ---


def test_a_head_starts_as_keras_starts_it() -> None:
    for mine, theirs in zip(weights_of(initial_state(WIDTH, 8, 3)), PlainHead(3).model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    cosine = PlainHead(3, scale=7.0).model.get_weights()
    for mine, theirs in zip(weights_of(initial_state(WIDTH, 8, 3, 7.0)), cosine, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert np.abs(initial_state(WIDTH, 8, 4).stacked - initial_state(WIDTH, 8, 3).stacked).max() > 0.1


# --- dropout ---


@quick
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 1000),
    st.integers(1, 9),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.2, 0.5, 0.99]),
)
def test_masks_have_the_bits_of_the_head_in_tensorflow(
    seed: int, done: int, batch: int, width: int, rate: float
) -> None:
    """Draw by draw, whether or not a step needs a multiple of the four numbers of a draw."""
    steps = 5
    [state] = head_kernel.dropout_states(seed, done, steps, steps)
    expected = dropout_bits((steps, batch, width), (seed, done)) >= dropout_threshold(rate)
    lane, bits = 4, np.uint64(0)
    for step in range(steps):
        mask = np.full(batch * width, 7, np.uint8)
        lane, bits = head_kernel._draw_mask(state, lane, np.uint64(bits), dropout_threshold(rate), mask, batch * width)
        np.testing.assert_array_equal(mask.reshape(batch, width), expected[step])


def test_each_block_has_a_state_of_its_own() -> None:
    states = head_kernel.dropout_states(3, 100, 40, 16)
    assert states.shape == (3, 4)
    for place, state in enumerate(states):
        np.testing.assert_array_equal(state, head_kernel.dropout_states(3, 100 + 16 * place, 1, 16)[0])
    assert len({state.tobytes() for state in (*states, *head_kernel.dropout_states(4, 100, 40, 16))}) == 6


def draw_mask(shape: tuple[int, ...], rate: float, seed: tuple[int, int]) -> np.ndarray:
    return np.asarray(dropout_mask(dropout_bits(shape, seed), np.float32(rate)))


def test_the_mask_has_the_values_of_keras_dropout() -> None:
    shape = (5, 400, WIDTH)
    mask = draw_mask(shape, 0.3, (0, 0))
    theirs = np.asarray(keras.layers.Dropout(0.3, seed=0)(np.ones(shape, np.float32), training=True))
    np.testing.assert_allclose(np.unique(mask), np.unique(theirs), rtol=1e-5)
    spread = (0.3 * 0.7 / mask.size) ** 0.5
    assert (mask == 0).mean() == pytest.approx(0.3, abs=5 * spread)
    assert mask.mean() == pytest.approx(1, abs=5 * spread / 0.7)
    np.testing.assert_array_equal(draw_mask(shape, 0.0, (0, 0)), np.ones(shape))


def test_each_seed_and_each_block_has_a_mask_of_its_own() -> None:
    masks = [draw_mask((1, 20, WIDTH), 0.5, seed) for seed in ((0, 0), (0, 7), (1, 0))]
    assert len({mask.tobytes() for mask in masks}) == 3


# --- predictions ---


@pytest.mark.parametrize("name", ["faster", "class weights", "cosine"])
@pytest.mark.parametrize(("width", "n_classes"), [(WIDTH, 8), (258, 7)])
def test_logits_are_those_of_keras_in_order(width: int, n_classes: int, name: str) -> None:
    kind = ALL_KINDS[name].for_classes(n_classes)
    head, data = KernelHead(kind, width, n_classes), training_data(width, n_classes)
    for _ in range(6):
        head.train(data, np.arange(131))
    x = np.random.default_rng(1).normal(size=(517, width)).astype(np.float32)
    plain = PlainHead(0, scale=kind.scale, width=width, n_classes=n_classes)
    plain.model.set_weights(weights_of(head.state))
    np.testing.assert_allclose(softmax(head.logits(x)), plain.probabilities(x), atol=1e-6)
    np.testing.assert_allclose(head.logits(x), head.state.classifier().logits(x), rtol=1e-4, atol=1e-4)
    chosen = np.array([5, 2, 2, 516])
    np.testing.assert_array_equal(head.logits(x, chosen), head.logits(x)[chosen])


def test_a_cosine_head_gives_scaled_cosines() -> None:
    x = 3 * np.random.default_rng(1).normal(size=(20, WIDTH)).astype(np.float32)
    for name in ("cosine", "cosine with margins"):
        head = KernelHead(FURTHER[name])
        for _ in range(2):
            head.train(training_data(), np.arange(131))
        mean, variance, kernel = weights_of(head.state)
        rows = (x - mean) / np.sqrt(variance + 1e-3)
        lengths = np.linalg.norm(rows, axis=1)[:, None] * np.linalg.norm(kernel, axis=0)
        expected = FURTHER[name].scale * (rows @ kernel) / lengths
        np.testing.assert_allclose(head.logits(x), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(head.state.stacked[0], np.ones(WIDTH))
        assert not head.state.stacked[1].any()
        assert not head.state.bias.any()


def test_a_classifier_is_the_head_by_hand() -> None:
    """Batch normalisation in inference and a dense layer, in float64."""
    head = KernelHead(Kind(rate=1e-2))
    for _ in range(3):
        head.train(training_data(), np.arange(131))
    gamma, beta, mean, variance, kernel, bias = (np.float64(part) for part in weights_of(head.state))
    x = make_features(make_task()).stored.astype(np.float64)
    expected = ((x - mean) / np.sqrt(variance + 1e-3) * gamma + beta) @ kernel + bias
    np.testing.assert_allclose(head.state.classifier().logits(x), expected, rtol=1e-9, atol=1e-9)
    assert np.abs(bias).max() > 1e-3
    assert np.abs(beta).max() > 1e-3
    copy = head.state.copy()
    head.train(training_data(), np.arange(131))
    np.testing.assert_allclose(copy.classifier().logits(x), expected, rtol=1e-9, atol=1e-9)


def test_classes_have_the_sizes_that_weights_assume() -> None:
    np.testing.assert_array_equal(np.bincount(training_data()[1]), SIZES)
