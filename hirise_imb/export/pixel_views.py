"""Views of the pixels as operations of Keras, equal to those of `features.views`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hirise_imb.features.views import DEVIATION, MEAN
from hirise_imb.utils.errors import UserError

if TYPE_CHECKING:
    from keras import KerasTensor

_ROWS, _COLUMNS = 1, 2
"""Axes of pixels (n, rows, columns, channels)."""


def transform_pixels(pixels: KerasTensor, view: str) -> KerasTensor:
    """Returns a view of pixels (n, rows, columns, channels).

    Raises:
        UserError: predictions do not use this view.
    """
    from keras import ops

    transposed = ops.transpose(pixels, (0, _COLUMNS, _ROWS, 3))
    match view:
        case "plain":
            return pixels
        case "r90":
            return ops.flip(transposed, _COLUMNS)
        case "r180":
            return _rotate(pixels)
        case "r270":
            return ops.flip(transposed, _ROWS)
        case "fh":
            return ops.flip(pixels, _COLUMNS)
        case "fv":
            return ops.flip(pixels, _ROWS)
        case "t":
            return transposed
        case "at":
            return _rotate(transposed)
        case "photometric":
            return _normalise(pixels)
    raise UserError(f"A model with the view {view} can't be exported: train one with another strategy.")


def _rotate(pixels: KerasTensor) -> KerasTensor:
    """Returns pixels rotated by 180 degrees."""
    from keras import ops

    # One axis at a time: OpenVINO can't convert the reversal of two.
    return ops.flip(ops.flip(pixels, _ROWS), _COLUMNS)


def _normalise(pixels: KerasTensor) -> KerasTensor:
    """Returns the photometric view; black pixels are left out of mean and deviation."""
    from keras import ops

    axes = (_ROWS, _COLUMNS, 3)
    is_ground = ops.max(pixels, axis=3, keepdims=True) > 0
    ground = ops.cast(is_ground, "float32") * ops.ones_like(pixels)
    count = ops.maximum(ops.sum(ground, axis=axes, keepdims=True), 1)
    mean = ops.sum(pixels, axis=axes, keepdims=True) / count
    centred = (pixels - mean) * ground
    deviation = ops.sqrt(ops.sum(centred * centred, axis=axes, keepdims=True) / count)
    # Compared exactly: the deviation of equal pixels is a rounding error, by which nothing must be divided.
    highest = ops.max(pixels, axis=axes, keepdims=True)
    lowest = ops.min(ops.where(is_ground, pixels, 255), axis=axes, keepdims=True)
    varies = ops.cast(highest > lowest, "float32")
    gain = varies * DEVIATION / ops.maximum(deviation, 1e-6)
    return ops.clip(MEAN + gain * centred, 0, 255) * ground
