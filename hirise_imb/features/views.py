"""Views: transformations of an image's pixels before the backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
ViewedPixels = Pixels | NDArray[np.float32]
View = Callable[[Pixels], ViewedPixels]
"""Maps pixels of shape (size, size, channels) to pixels of the same shape and scale, 0 to 255."""

Values = NDArray[np.float64]

MEAN = 127.5
DEVIATION = 40.0
"""Mean and standard deviation of the pixels in a photometric view, without black ones. The range from 0 to 255 covers
more than three deviations on each side."""


def photometric(pixels: Pixels) -> NDArray[np.float32]:
    """Normalises pixels to the mean `MEAN` and the standard deviation `DEVIATION`, whatever their contrast was.

    Black pixels (0 in every channel) are the border of a map-projected image: they are left out of the statistics and
    stay 0. Channels share one mean and one deviation, so that colours keep their balance. Values outside 0 to 255 are
    clipped, after which mean and deviation are met as far as clipping allows. An image whose other pixels all have one
    value has no contrast: they become `MEAN`. An all-black image stays black.
    """

    def normalise(values: Values) -> Values:
        deviation = values.std()
        gain = DEVIATION / deviation if deviation > 0 else 0.0
        return np.asarray(MEAN + gain * (values - values.mean()))

    return _change_ground(pixels, normalise)


def _change_brightness(factor: float) -> View:
    """Returns a view in which all pixels are multiplied by a factor."""
    return lambda pixels: _change_ground(pixels, lambda values: factor * values)


def _change_contrast(factor: float) -> View:
    """Returns a view in which the distance of pixels to their mean is multiplied by a factor."""
    return lambda pixels: _change_ground(pixels, lambda values: values.mean() + factor * (values - values.mean()))


def _change_ground(pixels: Pixels, change: Callable[[Values], Values]) -> NDArray[np.float32]:
    """Changes the values of all pixels except black ones, and clips them to 0 to 255."""
    is_ground = pixels.any(axis=-1)
    view = np.zeros(pixels.shape, np.float32)
    if is_ground.any():
        view[is_ground] = np.clip(change(pixels[is_ground].astype(np.float64)), 0, 255)
    return view


def _identity(pixels: Pixels) -> Pixels:
    return pixels


def _transpose(pixels: Pixels) -> Pixels:
    return pixels.swapaxes(0, 1)


_SYMMETRIES: Mapping[str, Callable[[Pixels], Pixels]] = {
    "plain": _identity,
    "r90": lambda pixels: np.rot90(pixels, -1),
    "r180": lambda pixels: np.rot90(pixels, 2),
    "r270": np.rot90,
    "fh": np.fliplr,
    "fv": np.flipud,
    "t": _transpose,
    "at": lambda pixels: _transpose(np.rot90(pixels, 2)),
}

DIHEDRAL = tuple(_SYMMETRIES)
"""The eight symmetries of a square: identity, clockwise rotations, horizontal and vertical flip, and the reflections in
the main diagonal and the antidiagonal."""

_JITTERED: Mapping[str, View] = {
    "brighter": _change_brightness(1.25),
    "darker": _change_brightness(0.8),
    "more_contrast": _change_contrast(1.4),
    "less_contrast": _change_contrast(0.7),
}

JITTERED = tuple(_JITTERED)
"""Photometric jitter for augmentation: brightness times 1.25 and 0.8, contrast around the mean times 1.4 and 0.7. Black
pixels, the border of a map-projected image, are left out of the mean and stay 0; values are clipped to 0 to 255."""

VIEWS: Mapping[str, View] = MappingProxyType({**_SYMMETRIES, **_JITTERED, "photometric": photometric})
"""All views by name."""
