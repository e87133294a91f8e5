"""What is done to the pixels of an image before the backbone sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Seen = Pixels | NDArray[np.float32]
View = Callable[[Pixels], Seen]
"""Grey values, shape (n, n), to grey values of the same scale, 0 to 255, and shape; it may return what it was given."""

MEAN = 127.5
DEVIATION = 40.0
"""Of the pixels that are not black in a photometric view; more than three deviations fit between 0 and 255."""


def photometric(pixels: Pixels) -> NDArray[np.float32]:
    """Grey values with the mean `MEAN` and the standard deviation `DEVIATION`, whatever brightness and contrast were.

    Black pixels (0) are the border of a map-projected image: they count for nothing and stay 0. What would lie outside
    0 to 255 is clipped to it, after which mean and deviation are met as far as clipping lets them. An image whose other
    pixels are all of one grey value has no contrast: they become `MEAN`. An image that is all black stays black.
    """
    there = pixels > 0
    values = pixels[there].astype(np.float64)
    out = np.zeros(pixels.shape, np.float32)
    if values.size:
        deviation = values.std()
        gain = DEVIATION / deviation if deviation > 0 else 0.0
        out[there] = np.clip(MEAN + gain * (values - values.mean()), 0, 255)
    return out


def _same(pixels: Pixels) -> Pixels:
    return pixels


_SYMMETRIES: Mapping[str, Callable[[Pixels], Pixels]] = {
    "plain": _same,
    "r90": lambda pixels: np.rot90(pixels, -1),
    "r180": lambda pixels: np.rot90(pixels, 2),
    "r270": np.rot90,
    "fh": np.fliplr,
    "fv": np.flipud,
    "t": np.transpose,
    "at": lambda pixels: np.rot90(pixels, 2).T,
}

DIHEDRAL = tuple(_SYMMETRIES)
"""The eight symmetries of a square: as it is, clockwise rotations, mirror (left and right change places), flip (top and
bottom do), and the reflections in the main diagonal and in the other one."""

VIEWS: Mapping[str, View] = MappingProxyType({**_SYMMETRIES, "photometric": photometric})
"""Every view, by name."""
