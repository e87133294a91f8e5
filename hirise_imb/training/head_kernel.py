"""Compiled training of one linear head on features of a frozen backbone: an epoch is a single call.

A head is a dense layer behind batch normalisation and dropout, so a step is a few hundred microseconds of arithmetic.
Written out in loops and compiled (numba), it needs no graph, holds no lock of the interpreter, and depends on nothing
but its arguments: heads with their own rows, masks and seeds train in as many threads as the machine has processors,
and the numbers of each are the same in any company.

With x the normalised features and d the dropout mask, the logits of a linear head are ((x gamma + beta) d) W + c, and
those of a cosine head s cos(x d, W). `models.heads` computes the same in TensorFlow, above a trained backbone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hirise_imb.utils.compilation import compile_function

# All loops are in this module: the cache of compiled functions notices changes of a function's own file, but not of
# those that it calls in another.
#
# Sums may be reordered to use vector instructions. Infinities and NaN keep their meaning: a run that diverges must be
# noticed.
_compile = compile_function(error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})

_EPSILON = np.float32(1e-3)
_MOMENTUM = np.float32(0.99)
"""Keras' defaults of batch normalisation, which the reference run uses."""

_BETA_1, _BETA_2, _ADAM_EPSILON = 0.9, 0.999, np.float32(1e-7)
"""Keras' defaults of Adam (Kingma and Ba 2015)."""

_MIN_SQUARED_LENGTH = np.float32(1e-12)

_TILE = 256
"""Features that are worked on at once: those of a mini-batch of 32 fill the first-level cache."""

_ROWS = 32
"""Rows that are predicted at once."""

Float32s = NDArray[np.float32]
Ints = NDArray[np.int64]


def dropout_states(seed: int, first_step: int, steps: int, block: int) -> NDArray[np.uint64]:
    """Returns the state of the random generator (SFC64) at the start of each block of steps, shape (n_blocks, 4).

    A mask depends on the seed and on the number of steps before its block alone.

    Args:
        seed: seed of the run.
        first_step: number of steps before the first block.
        steps: number of steps.
        block: steps in a block.
    """
    generators = (
        np.random.SFC64(np.random.SeedSequence((seed, s))) for s in range(first_step, first_step + steps, block)
    )
    states: list[Any] = [generator.state["state"]["state"] for generator in generators]
    return np.array(states, np.uint64).reshape(-1, 4)


@_compile
def train_epoch(
    features: Float32s,
    rows: Ints,
    labels: Ints,
    batch_size: int,
    stacked: Float32s,
    bias: Float32s,
    moments: Float32s,
    bias_moments: Float32s,
    average: Float32s,
    states: NDArray[np.uint64],
    block: int,
    threshold: int,
    class_weights: Float32s,
    focus: np.float32,
    offsets: Float32s,
    margins: Float32s,
    scale: np.float32,
    learning_rate: np.float32,
    weight_decay: np.float32,
    steps_before: int,
) -> tuple[float, int]:
    """Trains a head for one epoch, in place; returns the sums of cross-entropy and of hits over its rows.

    Args:
        features: features of all images, shape (n_images, width).
        rows: image of each training row, in the order of training, shape (n,).
        labels: class id of each training row, shape (n,).
        batch_size: rows of a mini-batch; the last one of the epoch may be smaller.
        stacked: gamma, beta and the kernel's rows, shape (2 + n_classes, width); changed.
        bias: bias of each class, shape (n_classes,); changed.
        moments: Adam's moving means of the gradient and of its square, shape (2, 2 + n_classes, width); changed.
        bias_moments: the same of the bias, shape (2, n_classes); changed.
        average: moving mean and variance of the features, shape (2, width); changed.
        states: states of the random generator from `dropout_states`.
        block: steps in a block of `states`.
        threshold: a mask is 0 where 16 random bits are below it.
        class_weights: weight of each class in the loss, shape (n_classes,).
        focus: focusing exponent of the loss (see `imbalance.losses.LossTerms`).
        offsets: offset of each class's logit in the loss, shape (n_classes,).
        margins: margin of each class in the loss, in units of logits, shape (n_classes,).
        scale: scale of a cosine head, 0 for a linear one.
        learning_rate: Adam's learning rate.
        weight_decay: weight decay of the kernel, decoupled from the loss.
        steps_before: number of steps before this epoch.
    """
    n_classes, width = len(bias), stacked.shape[1]
    keep = np.float32(1 / (1 - threshold / 65536))
    is_cosine = scale > 0
    x = np.empty((batch_size, width), np.float32)
    mask = np.empty(batch_size * width, np.uint8)
    kernel = np.empty((n_classes, width), np.float32)
    lengths = np.empty(n_classes, np.float32)
    hidden = np.empty((batch_size, _TILE), np.float32)
    back = np.empty(_TILE, np.float32)
    gain = np.empty(_TILE, np.float32)
    logits = np.empty((batch_size, n_classes), np.float32)
    slopes = np.empty((batch_size, n_classes), np.float32)
    row_lengths = np.empty(batch_size, np.float32)
    gradient = np.empty((2 + n_classes, width), np.float32)
    bias_gradient = np.empty(n_classes, np.float32)
    state = np.empty(4, np.uint64)
    loss, hits = 0.0, 0
    for step in range((len(rows) + batch_size - 1) // batch_size):
        start = step * batch_size
        n = min(batch_size, len(rows) - start)
        share = np.float32(1 / n)
        if step % block == 0:
            state[:] = states[step // block]
            lane, bits = 4, np.uint64(0)
        lane, bits = _draw_mask(state, lane, bits, threshold, mask, n * width)
        if is_cosine:
            for k in range(n_classes):
                squared = np.float32(0)
                for j in range(width):
                    squared += stacked[2 + k, j] * stacked[2 + k, j]
                lengths[k] = np.sqrt(max(squared, _MIN_SQUARED_LENGTH))
                inverse = np.float32(1) / lengths[k]
                for j in range(width):
                    kernel[k, j] = stacked[2 + k, j] * inverse
        else:
            kernel[:] = stacked[2:]
        for i in range(n):
            row_lengths[i] = 0
            for k in range(n_classes):
                logits[i, k] = np.float32(0)

        # Forward, one tile of features after the other.
        for first in range(0, width, _TILE):
            size = min(_TILE, width - first)
            _normalise_tile(features, rows, start, n, first, size, x, average, gain)
            for i in range(n):
                _mask_tile(x, mask, stacked, keep, i, width, first, size, hidden)
                if is_cosine:
                    squared = np.float32(0)
                    for j in range(size):
                        squared += hidden[i, j] * hidden[i, j]
                    row_lengths[i] += squared
            _add_products(hidden, kernel, n, first, size, logits)

        # Logits, the loss, and its slope at each logit (`imbalance.losses.LossTerms` has the formula).
        for i in range(n):
            row_scale = np.float32(1)
            if is_cosine:
                # A row of which dropout left nothing has length 0, hence the lower bound.
                row_scale = scale / np.sqrt(max(row_lengths[i], _MIN_SQUARED_LENGTH))
                for k in range(n_classes):
                    logits[i, k] *= row_scale
            else:
                for k in range(n_classes):
                    logits[i, k] += bias[k]
            label = labels[start + i]
            entropy, is_hit = _entropy(logits[i], label)
            loss += entropy
            hits += is_hit
            _loss_slopes(logits[i], label, class_weights[label] * share, focus, offsets, margins, slopes[i])
            for k in range(n_classes):
                slopes[i, k] *= row_scale

        # Backward.
        for k in range(n_classes):
            total = np.float32(0)
            if not is_cosine:
                for i in range(n):
                    total += slopes[i, k]
            bias_gradient[k] = total
        for first in range(0, width, _TILE):
            size = min(_TILE, width - first)
            for i in range(n):
                _mask_tile(x, mask, stacked, keep, i, width, first, size, hidden)
            _add_outer_products(slopes, hidden, n, first, size, gradient)
            by_gamma, by_beta = gradient[0][first : first + size], gradient[1][first : first + size]
            for j in range(size):
                by_gamma[j] = 0
                by_beta[j] = 0
            if not is_cosine:
                for i in range(n):
                    _backpropagate(slopes, kernel, i, first, size, back)
                    row, drawn = x[i][first : first + size], mask[i * width + first : i * width + first + size]
                    for j in range(size):
                        slope = back[j] * (keep * np.float32(drawn[j]))
                        by_gamma[j] += slope * row[j]
                        by_beta[j] += slope
        if is_cosine:
            for k in range(n_classes):  # of the weights before they were scaled to unit length
                along = np.float32(0)
                for j in range(width):
                    along += kernel[k, j] * gradient[2 + k, j]
                inverse = np.float32(1) / lengths[k]
                for j in range(width):
                    gradient[2 + k, j] = (gradient[2 + k, j] - along * kernel[k, j]) * inverse

        number = steps_before + step + 1
        rate = np.float32(learning_rate * np.sqrt(1 - _BETA_2**number) / (1 - _BETA_1**number))
        # Decay comes before the Adam step, as in Keras' AdamW.
        shrink = np.float32(1 - learning_rate * weight_decay)
        for k in range(2 + n_classes):
            _adam(stacked[k], gradient[k], moments[0, k], moments[1, k], rate, np.float32(1) if k < 2 else shrink)
        _adam(bias, bias_gradient, bias_moments[0], bias_moments[1], rate, np.float32(1))
    return loss, hits


@_compile
def predict(
    features: Float32s, rows: Ints, stacked: Float32s, bias: Float32s, average: Float32s, scale: np.float32
) -> Float32s:
    """Computes the logits of a head in inference mode, shape (n, n_classes); arguments as in `train_epoch`."""
    n_classes, width = len(bias), stacked.shape[1]
    kernel = np.empty((n_classes, width), np.float32)
    shift = np.empty(n_classes, np.float32)
    gain = np.empty(width, np.float32)
    for j in range(width):
        gain[j] = np.float32(1) / np.sqrt(average[1, j] + _EPSILON)
    for k in range(n_classes):
        squared, by_beta = np.float32(0), np.float32(0)
        for j in range(width):
            squared += stacked[2 + k, j] * stacked[2 + k, j]
            by_beta += stacked[2 + k, j] * stacked[1, j]
        inverse = np.float32(1) / np.sqrt(max(squared, _MIN_SQUARED_LENGTH))
        shift[k] = np.float32(0) if scale > 0 else bias[k] + by_beta
        for j in range(width):
            kernel[k, j] = stacked[2 + k, j] * (inverse if scale > 0 else stacked[0, j])
    logits = np.zeros((len(rows), n_classes), np.float32)
    x = np.empty((_ROWS, _TILE), np.float32)
    squares = np.empty(_ROWS, np.float32)
    for start in range(0, len(rows), _ROWS):
        n = min(_ROWS, len(rows) - start)
        squares[:] = 0
        for first in range(0, width, _TILE):
            size = min(_TILE, width - first)
            mean, factor = average[0][first : first + size], gain[first : first + size]
            for i in range(n):
                source, row = features[rows[start + i]][first : first + size], x[i]
                squared = np.float32(0)
                for j in range(size):
                    row[j] = (source[j] - mean[j]) * factor[j]
                    squared += row[j] * row[j]
                squares[i] += squared
            _add_products(x, kernel, n, first, size, logits[start : start + n])
        for i in range(n):
            row_scale = scale / np.sqrt(max(squares[i], _MIN_SQUARED_LENGTH)) if scale > 0 else np.float32(1)
            for k in range(n_classes):
                logits[start + i, k] = logits[start + i, k] * row_scale + shift[k]
    return logits


@_compile
def _draw_mask(
    state: NDArray[np.uint64], lane: int, bits: np.uint64, threshold: int, mask: NDArray[np.uint8], count: int
) -> tuple[int, np.uint64]:
    """Draws `count` entries of the mask, 0 or 1; returns which of the four numbers of the last draw are left.

    The generator is numpy's SFC64; each of its 64-bit draws gives four numbers of 16 bits, the lowest first.
    """
    a, b, c, counter = state[0], state[1], state[2], state[3]
    limit = np.uint64(threshold)
    low = np.uint64(0xFFFF)
    left = min(count, 4 - lane)
    for i in range(left):
        mask[i] = ((bits >> np.uint64(16 * (lane + i))) & low) >= limit
    lane += left
    fours = (count - left) // 4
    quads = mask[left : left + 4 * fours].reshape(fours, 4)
    rest = mask[left + 4 * fours : count]
    for i in range(fours + (len(rest) > 0)):
        bits = a + b + counter
        counter += np.uint64(1)
        a = b ^ (b >> np.uint64(11))
        b = c + (c << np.uint64(3))
        c = ((c << np.uint64(24)) | (c >> np.uint64(40))) + bits
        if i < fours:
            for q in range(4):
                quads[i, q] = ((bits >> np.uint64(16 * q)) & low) >= limit
        else:
            lane = len(rest)
            for q in range(lane):
                rest[q] = ((bits >> np.uint64(16 * q)) & low) >= limit
    state[0], state[1], state[2], state[3] = a, b, c, counter
    return lane, bits


@_compile
def _normalise_tile(
    features: Float32s,
    rows: Ints,
    start: int,
    n: int,
    first: int,
    size: int,
    x: Float32s,
    average: Float32s,
    gain: Float32s,
) -> None:
    """Normalises a tile of a mini-batch into `x` by its own moments, and moves the average towards them."""
    share = np.float32(1 / n)
    mean = np.zeros(size, np.float32)
    spread = gain[:size]
    mean_average, variance_average = average[0][first : first + size], average[1][first : first + size]
    for i in range(n):
        source, row = features[rows[start + i]][first : first + size], x[i][first : first + size]
        for j in range(size):
            row[j] = source[j]
            mean[j] += source[j]
    for j in range(size):
        mean[j] *= share
        spread[j] = 0
    for i in range(n):
        row = x[i][first : first + size]
        for j in range(size):
            row[j] -= mean[j]
            spread[j] += row[j] * row[j]
    for j in range(size):
        variance = spread[j] * share
        mean_average[j] = _MOMENTUM * mean_average[j] + (1 - _MOMENTUM) * mean[j]
        variance_average[j] = _MOMENTUM * variance_average[j] + (1 - _MOMENTUM) * variance
        spread[j] = np.float32(1) / np.sqrt(variance + _EPSILON)
    for i in range(n):
        row = x[i][first : first + size]
        for j in range(size):
            row[j] *= spread[j]


@_compile
def _mask_tile(
    x: Float32s,
    mask: NDArray[np.uint8],
    stacked: Float32s,
    keep: np.float32,
    i: int,
    width: int,
    first: int,
    size: int,
    hidden: Float32s,
) -> None:
    """Computes (x gamma + beta) d of a row in a tile; gamma is 1 and beta 0 in a cosine head."""
    row, result = x[i][first : first + size], hidden[i]
    gamma, beta = stacked[0][first : first + size], stacked[1][first : first + size]
    drawn = mask[i * width + first : i * width + first + size]
    for j in range(size):
        result[j] = (row[j] * gamma[j] + beta[j]) * (keep * np.float32(drawn[j]))


@_compile
def _add_products(hidden: Float32s, kernel: Float32s, n: int, first: int, size: int, logits: Float32s) -> None:
    """Adds the products of a tile with the kernel to the logits; four classes share each reading of a row."""
    n_classes = len(kernel)
    last = first + size
    for fours in range(n_classes // 4):
        k = 4 * fours
        w0, w1, w2, w3 = (
            kernel[k][first:last],
            kernel[k + 1][first:last],
            kernel[k + 2][first:last],
            kernel[k + 3][first:last],
        )
        for i in range(n):
            row = hidden[i]
            s0, s1, s2, s3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for j in range(size):
                s0 += row[j] * w0[j]
                s1 += row[j] * w1[j]
                s2 += row[j] * w2[j]
                s3 += row[j] * w3[j]
            logits[i, k] += s0
            logits[i, k + 1] += s1
            logits[i, k + 2] += s2
            logits[i, k + 3] += s3
    for k in range(n_classes // 4 * 4, n_classes):
        w0 = kernel[k][first:last]
        for i in range(n):
            row = hidden[i]
            s0 = np.float32(0)
            for j in range(size):
                s0 += row[j] * w0[j]
            logits[i, k] += s0


@_compile
def _add_outer_products(slopes: Float32s, hidden: Float32s, n: int, first: int, size: int, gradient: Float32s) -> None:
    """Writes the kernel's gradient in a tile; four rows share each writing."""
    for k in range(slopes.shape[1]):
        total = gradient[2 + k][first : first + size]
        for j in range(size):
            total[j] = 0
        for fours in range(n // 4):
            i = 4 * fours
            h0, h1, h2, h3 = hidden[i], hidden[i + 1], hidden[i + 2], hidden[i + 3]
            s0, s1, s2, s3 = slopes[i, k], slopes[i + 1, k], slopes[i + 2, k], slopes[i + 3, k]
            for j in range(size):
                total[j] += s0 * h0[j] + s1 * h1[j] + s2 * h2[j] + s3 * h3[j]
        for i in range(n // 4 * 4, n):
            h0, s0 = hidden[i], slopes[i, k]
            for j in range(size):
                total[j] += s0 * h0[j]


@_compile
def _backpropagate(slopes: Float32s, kernel: Float32s, i: int, first: int, size: int, back: Float32s) -> None:
    """Computes the slope of the loss at a row's hidden features in a tile."""
    n_classes, last = len(kernel), first + size
    for j in range(size):
        back[j] = 0
    for fours in range(n_classes // 4):
        k = 4 * fours
        w0, w1, w2, w3 = (
            kernel[k][first:last],
            kernel[k + 1][first:last],
            kernel[k + 2][first:last],
            kernel[k + 3][first:last],
        )
        s0, s1, s2, s3 = slopes[i, k], slopes[i, k + 1], slopes[i, k + 2], slopes[i, k + 3]
        for j in range(size):
            back[j] += s0 * w0[j] + s1 * w1[j] + s2 * w2[j] + s3 * w3[j]
    for k in range(n_classes // 4 * 4, n_classes):
        w0, s0 = kernel[k][first:last], slopes[i, k]
        for j in range(size):
            back[j] += s0 * w0[j]


@_compile
def _entropy(logits: Float32s, label: int) -> tuple[float, bool]:
    """Returns a row's cross-entropy, and whether the true class has the highest logit."""
    best = 0
    for k in range(1, len(logits)):
        if logits[k] > logits[best]:
            best = k
    total = np.float32(0)
    for k in range(len(logits)):
        total += np.exp(logits[k] - logits[best])
    return float(np.log(total) + logits[best] - logits[label]), best == label


@_compile
def _loss_slopes(
    logits: Float32s,
    label: int,
    weight: np.float32,
    focus: np.float32,
    offsets: Float32s,
    margins: Float32s,
    slopes: Float32s,
) -> None:
    """Computes the slope of a row's loss at each logit."""
    n_classes = len(logits)
    highest = -np.float32(np.inf)
    for k in range(n_classes):
        slopes[k] = logits[k] + offsets[k] - (margins[k] if k == label else np.float32(0))
        highest = max(highest, slopes[k])
    total, others, highest_other = np.float32(0), np.float32(0), -np.float32(np.inf)
    for k in range(n_classes):
        total += np.exp(slopes[k] - highest)
        if k != label:
            highest_other = max(highest_other, slopes[k])
    factor = weight
    if focus > 0:
        # log(1 - p_y) from the logits of the other classes: 1 - p_y itself underflows to 0 where p_y is near 1.
        for k in range(n_classes):
            if k != label:
                others += np.exp(slopes[k] - highest_other)
        log_sum = np.log(total) + highest
        log_rest = np.log(others) + highest_other - log_sum
        entropy = log_sum - slopes[label]
        by_probability = focus * np.exp((focus - 1) * log_rest) * np.exp(-entropy) * entropy
        factor *= np.exp(focus * log_rest) + by_probability
    for k in range(n_classes):
        slopes[k] = np.exp(slopes[k] - highest) / total * factor
    slopes[label] -= factor


@_compile
def _adam(
    values: Float32s,
    gradient: Float32s,
    first_moment: Float32s,
    second_moment: Float32s,
    rate: np.float32,
    shrink: np.float32,
) -> None:
    """Takes one step of Adam; `rate` contains the correction of the moments' bias."""
    for j in range(len(values)):
        slope = gradient[j]
        first = first_moment[j] + (slope - first_moment[j]) * np.float32(1 - _BETA_1)
        second = second_moment[j] + (slope * slope - second_moment[j]) * np.float32(1 - _BETA_2)
        first_moment[j], second_moment[j] = first, second
        values[j] = values[j] * shrink - rate * first / (np.sqrt(second) + _ADAM_EPSILON)
