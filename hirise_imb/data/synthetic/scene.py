"""The look of a source, and the scene of a landmark: a height field and an albedo, lit by the sun of its source."""

from functools import lru_cache
from math import cos, log, pi, sin
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hirise_imb.data.hirise import HIRISE

# The look of a source, by its home class. Latitudes are in tenths of what ends the name of a source: 90 gives 0900, the
# south pole; the equator is 1800.
_LATITUDES = ((130, 240), (140, 220), (185, 230), (185, 215), (252, 258), (175, 225), (92, 94), (90, 107))
_BRIGHTNESS = (0.50, 0.50, 0.34, 0.56, 0.55, 0.50, 0.46, 0.62)
_ROUGHNESS = (0.26, 0.20, 0.10, 0.12, 0.12, 0.14, 0.08, 0.09)

Field = NDArray[np.floating[Any]]
Pixels = NDArray[np.uint8]

SIZE = HIRISE.image_size + 2  # one pixel more at each side, which the central differences of the shading use up
STEP = 2 / (HIRISE.image_size - 1)
_AXIS = (np.arange(-1, HIRISE.image_size + 1) * STEP - 1).astype(np.float32)
X, Y = np.meshgrid(_AXIS, _AXIS)
_FFT = 256  # the power of two above SIZE: 229 is prime
_FX, _FY = np.meshgrid(np.fft.rfftfreq(_FFT), np.fft.fftfreq(_FFT))


class Source:
    """One observation: its name, and the look of everything in it."""

    def __init__(self, rng: Generator, orbit: int, home: int, terrains: int) -> None:
        """Draws the look of a source whose home class is `home`; it shows five of the `terrains` kinds of `other`."""
        low, high = _LATITUDES[home]
        light = rng.normal(0, 0.7)  # mostly eastwards, since the orbiter passes in the afternoon
        self.name = f"{'PSP' if orbit < 11000 else 'ESP'}_{orbit:06d}_{5 * rng.integers(2 * low, 2 * high + 1):04d}"
        self.brightness = min(max(rng.normal(_BRIGHTNESS[home], 0.1), 0.15), 0.8)
        self.contrast = rng.uniform(0.3, 0.7)
        self.light = (cos(light), sin(light))
        self.noise = rng.uniform(0.004, 0.03)
        self.roughness = _ROUGHNESS[home] * rng.lognormal(0, 0.3)
        self.spectrum = _spectrum(rng)
        self.edge, self.bordered = rng.choice((0, pi / 2)) + rng.normal(0.12, 0.05), rng.beta(1, 6)
        self.terrains = rng.choice(terrains, 5, replace=False)  # the few kinds of `other` that the place shows


def _spectrum(rng: Generator) -> NDArray[np.complex64]:
    """Returns the amplitudes of a source's texture: a power law, longer along one direction, scaled to unit slope."""
    angle, stretch = rng.uniform(0, pi), rng.lognormal(0.2, 0.4)
    u, v = _FX * cos(angle) + _FY * sin(angle), _FY * cos(angle) - _FX * sin(angle)
    wave = np.hypot(u * stretch, v / stretch) + rng.uniform(0.004, 0.03)
    amplitude = wave ** -rng.uniform(1.5, 2.2) * np.exp(-np.square(wave / rng.uniform(0.12, 0.35)))
    slope = np.sqrt(2 * np.sum(np.square(amplitude * 2 * pi * np.hypot(_FX, _FY)))) / _FFT**2 / STEP
    return np.asarray(amplitude / slope, np.complex64)


class Scene:
    """The landmark being drawn; coordinates run from -1 to 1 over the image, y downwards."""

    def __init__(self, source: Source, rng: Generator) -> None:
        """Starts with flat ground of even brightness."""
        self.source, self.rng = source, rng
        self.height, self.albedo = np.zeros((2, SIZE, SIZE), np.float32)
        self.roughness = source.roughness * rng.lognormal(0, 0.25)

    def between(self, low: float, high: float) -> float:
        """Draws a number between two."""
        return self.rng.uniform(low, high)

    def angle(self) -> float:
        """Draws a direction, in radians."""
        return self.rng.uniform(0, 2 * pi)

    def chance(self, probability: float) -> bool:
        """Returns True with this probability."""
        return self.rng.random() < probability

    def places(self, low: int, high: int, first: float = 0.12, others: float = 0.5) -> list[tuple[float, float]]:
        """Draws `low` to `high` places, the first near the centre, since a crop is made around something."""
        far = [first] + [others] * int(self.rng.integers(low - 1, high))
        return [(self.rng.normal(0, d), self.rng.normal(0, d)) for d in far]

    def smooth(self, cells: int) -> Field:
        """Draws a smooth random field with a standard deviation of about 1 and features 1/cells of the image wide."""
        start, weights = _spline(cells)
        field = 2 * self.rng.standard_normal((cells + 3, cells + 3), np.float32)
        for _ in range(2):  # not a matrix product: its threads would fight over a busy machine
            field = np.sum([w[:, None] * field.T.take(start + k, axis=0) for k, w in enumerate(weights)], axis=0)
        return field

    def rugged(self, low: int, high: int) -> Field:
        """Draws a smooth field of `low` to `high` cells with finer ones on top."""
        cells = int(self.rng.integers(low, high + 1))
        return np.asarray(self.smooth(cells) + 0.3 * self.smooth(3 * cells) + 0.1 * self.smooth(9 * cells))

    def radius(self, x: float, y: float, reach: float, ragged: float) -> tuple[tuple[slice, slice], Field]:
        """Returns the window within `reach` of a point, and in it the distance to the point, distorted by `ragged`."""
        rows, columns = (slice(*np.searchsorted(_AXIS, (c - reach, c + reach)).tolist()) for c in (y, x))
        right, down = X[rows, columns] - x, Y[rows, columns] - y
        turn = np.arctan2(down, right)
        bend = sum(np.sin(k * turn + self.angle()) / k for k in (2, 3, 5))
        return (rows, columns), np.asarray(np.hypot(right, down) * (1 + ragged * bend), np.float32)

    def rotated_coordinates(self, angle: float, x: float = 0.0, y: float = 0.0) -> tuple[Field, Field]:
        """Returns coordinates along and across a direction, measured from a point."""
        right, down = X - x, Y - y
        return right * cos(angle) + down * sin(angle), down * cos(angle) - right * sin(angle)

    def pixels(self) -> Pixels:
        """Shades the height field, and applies albedo, haze, noise and border."""
        source, rng = self.source, self.rng
        waves = rng.standard_normal((_FFT, _FFT // 2 + 1, 2), np.float32).view(np.complex64)[..., 0]
        texture = np.fft.irfft2(waves * source.spectrum, s=(_FFT, _FFT))[:SIZE, :SIZE]
        height = self.height + self.roughness * texture
        east, south = height[1:-1, 2:] - height[1:-1, :-2], height[2:, 1:-1] - height[:-2, 1:-1]
        shade = np.tanh((east * source.light[0] + south * source.light[1]) / (2 * STEP))  # what rises away is lit
        ground = rng.lognormal(log(source.brightness), 0.08) * (1 + self.albedo + 0.07 * self.smooth(3))
        light = ground[1:-1, 1:-1] * (1 + source.contrast * shade)
        light += source.noise * rng.standard_normal(shade.shape, np.float32)
        grey = np.clip(255 * light, 9, 255)  # pure black is left to the border
        if self.chance(source.bordered):
            along, _ = self.rotated_coordinates(source.edge + rng.choice((0, pi)))
            grey[along[1:-1, 1:-1] > self.between(0.3, 1.0)] = 0
        return grey.astype(np.uint8)


@lru_cache
def _spline(cells: int) -> tuple[NDArray[np.int64], Field]:
    """Returns, for each pixel, the first of its four grid values (of cells + 3) and their cubic B-spline weights."""
    position = np.linspace(0, cells - 1e-3, SIZE)  # the last pixel stays inside the last cell
    start = position.astype(np.int64)
    t = position - start
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    return start, (np.stack(weights) / 6).astype(np.float32)


def ramp(value: Field, width: float) -> Field:
    """Returns 0 below zero, 1 above `width`, and a smooth transition in between."""
    t = np.clip(value / width, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))
