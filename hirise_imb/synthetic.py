"""The embedded sample: landmarks drawn from scratch in the layout of the official archive.

A landmark is a height field, shaded by the sun of its source, and an albedo. Sources differ in brightness, contrast,
texture, sun and noise, and a rare class lives in few of them, as in the real data. No real pixel is used.
"""

from collections.abc import Iterator
from functools import lru_cache
from math import cos, log, pi, sin
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from PIL import Image

from hirise_imb.landmarks import CLASSES, IMAGE_SIZE, SPLITS, VARIANTS

VERSION: int = 1
"""Goes up whenever the same seed gives other bytes."""

# How many landmarks and home sources a class has, by class id. Other is 81 % of every split, and occurs everywhere;
# craters occur in the homes of other too; the remaining classes in their homes alone.
_LANDMARKS = {
    "train": (503, 40, 14, 22, 14, 7, 13, 8),
    "val": (166, 12, 4, 7, 4, 4, 4, 4),
    "test": (405, 30, 12, 16, 9, 7, 11, 10),
}
_HOMES = {"train": (12, 6, 3, 4, 2, 3, 2, 2), "val": (4, 1, 1, 2, 1, 1, 1, 1), "test": (9, 5, 2, 3, 1, 2, 1, 1)}
# The numbers of variants that a landmark may get, and the mean number of repeated rows of a train or val image.
_VARIANTS = {"train": (0, 1, 1, 2), "val": (0, 1), "test": (0,)}
_COPIES = (0.0, 0.2, 0.3, 0.15, 0.2, 0.6, 0.5, 0.7)
# How a source looks, by its home class. A latitude of 90 stands for the 0900 that ends the name of a source at the
# south pole; the equator is 1800.
_LATITUDES = ((130, 240), (140, 220), (185, 230), (185, 215), (252, 258), (175, 225), (92, 94), (90, 107))
_BRIGHTNESS = (0.50, 0.50, 0.34, 0.56, 0.55, 0.50, 0.46, 0.62)
_ROUGHNESS = (0.26, 0.20, 0.10, 0.12, 0.12, 0.14, 0.08, 0.09)

Field = NDArray[np.floating[Any]]
Pixels = NDArray[np.uint8]

_SIZE = IMAGE_SIZE + 2  # one pixel more at each side, which the central differences of the shading use up
_STEP = 2 / (IMAGE_SIZE - 1)
_AXIS = (np.arange(-1, IMAGE_SIZE + 1) * _STEP - 1).astype(np.float32)
_X, _Y = np.meshgrid(_AXIS, _AXIS)
_FFT = 256  # the power of two above _SIZE: 229 is prime
_FX, _FY = np.meshgrid(np.fft.rfftfreq(_FFT), np.fft.fftfreq(_FFT))


class _Source:
    """One observation: its name, and how everything in it looks."""

    def __init__(self, rng: Generator, orbit: int, home: int) -> None:
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
        self.terrains = rng.choice(len(_DRAW[0]), 5, replace=False)  # the few kinds of `other` that the place shows


def _spectrum(rng: Generator) -> NDArray[np.complex64]:
    """Amplitudes of a source's texture: a power law, longer along one direction, scaled to unit slope."""
    angle, stretch = rng.uniform(0, pi), rng.lognormal(0.2, 0.4)
    u, v = _FX * cos(angle) + _FY * sin(angle), _FY * cos(angle) - _FX * sin(angle)
    wave = np.hypot(u * stretch, v / stretch) + rng.uniform(0.004, 0.03)
    amplitude = wave ** -rng.uniform(1.5, 2.2) * np.exp(-np.square(wave / rng.uniform(0.12, 0.35)))
    slope = np.sqrt(2 * np.sum(np.square(amplitude * 2 * pi * np.hypot(_FX, _FY)))) / _FFT**2 / _STEP
    return np.asarray(amplitude / slope, np.complex64)


class _Scene:
    """The landmark being drawn; coordinates run from -1 to 1 over the image, y downwards."""

    def __init__(self, source: _Source, rng: Generator) -> None:
        self.source, self.rng = source, rng
        self.height, self.albedo = np.zeros((2, _SIZE, _SIZE), np.float32)
        self.roughness = source.roughness * rng.lognormal(0, 0.25)

    def between(self, low: float, high: float) -> float:
        return self.rng.uniform(low, high)

    def angle(self) -> float:
        return self.rng.uniform(0, 2 * pi)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def places(self, low: int, high: int, first: float = 0.12, others: float = 0.5) -> list[tuple[float, float]]:
        """`low` to `high` places, the first near the centre, since a crop is made around something."""
        far = [first] + [others] * int(self.rng.integers(low - 1, high))
        return [(self.rng.normal(0, d), self.rng.normal(0, d)) for d in far]

    def smooth(self, cells: int) -> Field:
        """A soft random field of about unit deviation whose features are 1/cells of the image wide."""
        start, weights = _spline(cells)
        field = 2 * self.rng.standard_normal((cells + 3, cells + 3), np.float32)
        for _ in range(2):  # not a matrix product: its threads would fight over a busy machine
            field = np.sum([w[:, None] * field.T.take(start + k, axis=0) for k, w in enumerate(weights)], axis=0)
        return field

    def rugged(self, low: int, high: int) -> Field:
        """A soft field of `low` to `high` cells with finer ones on it."""
        cells = int(self.rng.integers(low, high + 1))
        return np.asarray(self.smooth(cells) + 0.3 * self.smooth(3 * cells) + 0.1 * self.smooth(9 * cells))

    def radius(self, x: float, y: float, reach: float, ragged: float) -> tuple[tuple[slice, slice], Field]:
        """Distance to a point, its circles bent by `ragged`, in the window that lies within `reach` of it."""
        rows, columns = (slice(*np.searchsorted(_AXIS, (c - reach, c + reach)).tolist()) for c in (y, x))
        right, down = _X[rows, columns] - x, _Y[rows, columns] - y
        turn = np.arctan2(down, right)
        bend = sum(np.sin(k * turn + self.angle()) / k for k in (2, 3, 5))
        return (rows, columns), np.asarray(np.hypot(right, down) * (1 + ragged * bend), np.float32)

    def turned(self, angle: float, x: float = 0.0, y: float = 0.0) -> tuple[Field, Field]:
        """Coordinates along and across a direction, from a point."""
        right, down = _X - x, _Y - y
        return right * cos(angle) + down * sin(angle), down * cos(angle) - right * sin(angle)

    def pixels(self) -> Pixels:
        """Shade the height field, apply albedo, haze, noise and border."""
        source, rng = self.source, self.rng
        waves = rng.standard_normal((_FFT, _FFT // 2 + 1, 2), np.float32).view(np.complex64)[..., 0]
        texture = np.fft.irfft2(waves * source.spectrum, s=(_FFT, _FFT))[:_SIZE, :_SIZE]
        height = self.height + self.roughness * texture
        east, south = height[1:-1, 2:] - height[1:-1, :-2], height[2:, 1:-1] - height[:-2, 1:-1]
        shade = np.tanh((east * source.light[0] + south * source.light[1]) / (2 * _STEP))  # what rises away is lit
        ground = rng.lognormal(log(source.brightness), 0.08) * (1 + self.albedo + 0.07 * self.smooth(3))
        light = ground[1:-1, 1:-1] * (1 + source.contrast * shade)
        light += source.noise * rng.standard_normal(shade.shape, np.float32)
        grey = np.clip(255 * light, 9, 255)  # pure black is left to the border
        if self.chance(source.bordered):
            along, _ = self.turned(source.edge + rng.choice((0, pi)))
            grey[along[1:-1, 1:-1] > self.between(0.3, 1.0)] = 0
        return grey.astype(np.uint8)


@lru_cache
def _spline(cells: int) -> tuple[NDArray[np.int64], Field]:
    """Where the four cubic B-spline weights of each pixel start in a grid of cells + 3 values, and the weights."""
    at = np.linspace(0, cells - 1e-3, _SIZE)
    start = at.astype(np.int64)
    t = at - start
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    return start, (np.stack(weights) / 6).astype(np.float32)


def _ramp(value: Field, width: float) -> Field:
    """0 below zero, 1 above `width`, smooth between."""
    t = np.clip(value / width, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _bowl(s: _Scene, x: float, y: float, size: float, depth: float, wear: float) -> None:
    """A pit with a raised rim; wear breaks the rim and fills the floor."""
    window, r = s.radius(x, y, 2.2 * size, 0.02 + 0.07 * wear)
    r /= size
    rim = np.exp(-np.square((r - 1) / (0.11 + 0.14 * wear)))
    if wear > 0.3:
        rim *= np.clip(0.6 + s.smooth(4)[window], 0, 1)
    floor = s.between(0.7, 1.2) - 0.3 * min(wear, 1)
    s.height[window] += depth * size * (np.clip(r * r - 1, -floor, 0) + 0.3 * rim)


def _mound(s: _Scene, x: float, y: float, size: float, tall: float, tint: float) -> None:
    """A knob, boulder or frosted dune; a spot where it is not tall."""
    window, r = s.radius(x, y, 1.8 * size, 0.14)
    shape = np.exp(-np.square(np.square(r / size)))
    s.height[window] += tall * size * shape
    s.albedo[window] += tint * shape


def _wedge(s: _Scene, x: float, y: float, angle: float, length: float, ends: tuple[float, float], fade: float) -> Field:
    """A mask that runs from a point, `ends` wide at its start and end, weaker by `fade` at the end."""
    along, across = s.turned(angle, x, y)
    t = along / length
    half = ends[0] + (ends[1] - ends[0]) * np.clip(t, 0, 1)
    mask = _ramp(half - np.abs(across + 0.02 * s.smooth(9)), 0.025) * _ramp(t, 0.06) * _ramp(1 - t, 0.12)
    return np.asarray(mask * (1 - fade * np.clip(t, 0, 1)))


def _waves(s: _Scene, angle: float, length: float, tall: float) -> Field:
    """Parallel crests, bent and broken a little; returns their profile and adds them to the height."""
    phase = s.turned(angle)[0] * (2 * pi / length) + 1.3 * s.smooth(6)
    crest: Field = np.square(np.sin(phase / 2)) * np.clip(0.7 + 0.5 * s.smooth(7), 0, 1)
    s.height += tall * length / 4 * crest
    return crest


def _plains(s: _Scene) -> None:
    s.roughness *= s.between(0.6, 1.7)
    s.height += s.between(0.02, 0.12) * s.smooth(int(s.rng.integers(3, 9)))


def _ridges(s: _Scene) -> None:
    s.height += s.between(0.05, 0.2) * np.square(1 - np.abs(s.rugged(3, 7)))


def _ripples(s: _Scene) -> None:
    crest = _waves(s, s.angle(), s.between(0.1, 0.35), s.between(0.3, 1.1))
    s.albedo += s.between(-0.25, 0.2) * crest * _ramp(s.smooth(3) + 0.5, 1.0)


def _boulders(s: _Scene) -> None:
    """Few large knobs or many small stones."""
    few, tint = s.chance(0.4), s.between(-0.2, 0.35)
    for x, y in s.places(*((1, 4) if few else (5, 30)), 0.3, 0.6):
        _mound(s, x, y, s.between(0.1, 0.3) if few else s.between(0.02, 0.08), s.between(0.4, 1.1), tint)


def _pocks(s: _Scene) -> None:
    """Craters too small for the class."""
    for x, y in s.places(2, 12, 0.2, 0.7):
        _bowl(s, x, y, s.between(0.03, 0.15), s.between(0.2, 0.9), s.between(0, 1))


def _ghost(s: _Scene) -> None:
    """A crater cut by the border of the crop, or one too worn to count."""
    angle, cut = s.angle(), s.chance(0.5)
    far, size = (s.between(0.8, 1.3), s.between(0.4, 1.0)) if cut else (s.between(0, 0.3), s.between(0.15, 0.5))
    _bowl(s, far * cos(angle), far * sin(angle), size, s.between(0.1, 0.6 if cut else 0.3), s.between(0.6, 1.6))


def _scarp(s: _Scene) -> None:
    """A step in height, brightness or both, along a line or around islands."""
    line = s.turned(s.angle())[0] * (3 if s.chance(0.5) else 0)
    mask = _ramp(line + s.rugged(2, 8), s.between(0.1, 1.2))
    s.height += s.between(0, 0.15) * mask
    s.albedo += s.between(-0.35, 0.3) * mask


def _cracks(s: _Scene, deepest: float = 0.2) -> None:
    """A net of narrow troughs: where soft fields cross zero."""
    depth, width = deepest * s.between(0.1, 1), s.between(0.1, 0.25)
    for _ in range(2):
        s.height -= depth * width * np.exp(-np.square(s.rugged(3, 7) / width))


def _hillside(s: _Scene) -> None:
    """A slope with gullies along it, and at times a dark band that is no streak."""
    angle = s.angle()
    s.height += s.between(-0.3, 0.3) * s.turned(angle)[0]
    _waves(s, angle + pi / 2, s.between(0.15, 0.6), s.between(0.1, 0.5))
    if s.chance(0.3):
        ((x, y),) = s.places(1, 1, 0.3)
        s.albedo -= s.between(0.1, 0.3) * _wedge(s, x, y, angle, s.between(0.6, 2), (0.2, 0.3), 0.8)


def _crater(s: _Scene) -> None:
    (_plains, _plains, _plains, _pocks, _pocks, _ridges)[s.rng.integers(6)](s)
    ((x, y),) = s.places(1, 1)
    wear = s.between(0, 1) ** 2
    _bowl(s, x, y, s.between(0.22, 0.6), s.between(0.6, 1.4) * (1 - 0.75 * wear), wear)


def _sand_sea(s: _Scene) -> None:
    cells = int(s.rng.integers(2, 8))
    field = s.smooth(cells) + 0.12 * s.smooth(3 * cells)
    sand = _ramp(field + s.between(0.2, 1.6), s.between(0.2, 0.8))
    s.height += s.between(0.4, 0.9) / cells * sand * (1.2 - np.sqrt(np.square(field - 0.4) + 0.003))
    s.albedo -= s.between(0.25, 0.5) * sand
    if s.chance(0.3):
        _waves(s, s.angle(), s.between(0.05, 0.1), s.between(0.1, 0.4))


def _barchans(s: _Scene) -> None:
    wind, tint = s.angle(), s.between(0.3, 0.6)
    for x, y in s.places(2, 9, 0.2):
        size = s.between(0.12, 0.4)
        along, across = s.turned(wind + s.rng.normal(0, 0.15), x, y)
        body = np.hypot(along * s.between(0.8, 1.3), across) * (1 + 0.12 * s.smooth(5))
        hollow = np.hypot(along - size * s.between(0.8, 1.1), across * 0.8)
        sand = _ramp(size - body, 0.5 * size) * _ramp(hollow - 0.7 * size, 0.15 * size)
        s.height += 0.35 * size * sand
        s.albedo = np.minimum(s.albedo, -tint * _ramp(sand, 0.4))


def _slope_streaks(s: _Scene) -> None:
    down, tint = s.angle(), s.between(0.1, 0.25) if s.chance(0.12) else -s.between(0.12, 0.42)
    s.height += s.between(-0.25, 0.25) * s.turned(down)[0] + s.between(0.02, 0.12) * s.rugged(2, 5)
    if s.chance(0.5):
        _waves(s, down + s.between(-0.6, 0.6), s.between(0.06, 0.4), s.between(0.1, 0.4))
    for x, y in s.places(1, 7, 0.15, 0.35):
        length, ends = s.between(0.4, 1.6), (s.between(0.005, 0.02), s.between(0.03, 0.14))
        start = (x - 0.5 * length * cos(down), y - 0.5 * length * sin(down))
        streak = _wedge(s, *start, down + s.rng.normal(0, 0.06), length, ends, s.between(0, 0.4))
        s.albedo += 0.9 * (tint - s.albedo) * streak


def _bright_dunes(s: _Scene) -> None:
    s.height += s.between(0.005, 0.015) * np.abs(s.smooth(20)) + 0.006 * s.smooth(40)
    few = s.chance(0.5)
    for x, y in s.places(*((1, 3) if few else (3, 12)), others=0.6):
        size = s.between(0.13, 0.3) if few else s.between(0.07, 0.14)
        _mound(s, x, y, size, s.between(0.4, 1.0), s.between(0.12, 0.4))
        for turn in s.rng.uniform(0, 2 * pi, s.rng.integers(0, 9)).tolist():  # where the frost has gone
            far, spot = size * s.between(0.6, 1.35), size * s.between(0.12, 0.3)
            _mound(s, x + far * cos(turn), y + far * sin(turn), spot, 0, -s.between(0.4, 0.9))


def _ejecta(s: _Scene) -> None:
    _plains(s)
    tint = s.between(0.15, 0.35) if s.chance(0.25) else -s.between(0.2, 0.5)
    cluster = s.chance(0.4)
    for x, y in s.places(*((2, 5) if cluster else (1, 1))):
        size = s.between(0.25, 0.6) if cluster else s.between(0.4, 1.0)
        _jets(s, x, y, size, tint)
        _bowl(s, x, y, size * s.between(0.05, 0.14), s.between(0.5, 1.3), 0.1)


def _jets(s: _Scene, x: float, y: float, size: float, tint: float) -> None:
    """Straight rays of many lengths, often longer to one side, on a blurred inner blanket."""
    window, r = s.radius(x, y, 1.7 * size, 0.0)
    turn = np.arctan2(_Y[window] - y, _X[window] - x) / (2 * pi) % 1
    around, rays = np.arange(120) / 120, s.rng.gamma(0.6, 0.55, 120) + 0.2
    rays = (rays + np.roll(rays, 1)) * (1 + s.between(0, 0.8) * np.cos(2 * pi * around + s.angle()))
    reach = np.interp(turn, np.append(around, 1), np.append(rays, rays[0]))
    r /= size
    fade = np.clip(1 - r / np.clip(reach, 0.15, 1.6), 0, 1) + 0.5 * np.exp(-np.square(r / 0.25))
    s.albedo[window] += tint * fade * np.clip(1 + 0.25 * s.smooth(24)[window], 0, 2)


def _swiss_cheese(s: _Scene) -> None:
    large, edge = s.chance(0.45), s.between(0.025, 0.06)
    outside = _outside_pits(s, large) + 0.02 * s.rugged(8, 10)
    pit = _ramp(-outside, edge)
    if large:  # ice left standing in the middle
        pit -= s.between(0.3, 1) * _ramp(-outside - s.between(0.12, 0.4), edge)
    s.height -= s.between(0.4, 1.1) * edge * pit
    s.albedo += s.between(-0.2, 0.15) * pit + s.between(-0.2, 0.1) * np.exp(-np.square(outside / edge))


def _outside_pits(s: _Scene, large: bool) -> Field:
    """Distance to the nearest of many round pits, negative within; small pits merge into chains."""
    outside = np.full((_SIZE, _SIZE), 9, np.float32)
    x, y = s.rng.normal(0, 0.25, 2).tolist()
    for _ in range(s.rng.integers(1, 5) if large else s.rng.integers(8, 30)):
        size = s.between(0.3, 0.75) if large else s.between(0.04, 0.2)
        window, r = s.radius(x, y, size + 0.3, 0.08)
        outside[window] = np.minimum(outside[window], r - size)
        chained = not large and s.chance(0.7)
        x, y = (s.rng.normal((x, y), size) if chained else s.rng.uniform(-1, 1, 2)).tolist()
    return outside


def _spiders(s: _Scene) -> None:
    _cracks(s, 0.06)
    tint = s.between(0.15, 0.6)
    for x, y in s.places(1, 3):
        net = _troughs(s, x, y, int(s.rng.integers(25, 75)))
        s.height -= s.between(0.01, 0.025) * net
        s.albedo -= s.between(0.1, 0.7) * tint * net
        _mound(s, x, y, s.between(0.04, 0.15), 0, -tint)


def _troughs(s: _Scene, x: float, y: float, steps: int) -> Field:
    """Branching walks away from a centre, a pixel and a half a step, shallower outwards."""
    net = np.zeros((_SIZE, _SIZE), np.float32)
    heading = s.angle() + np.linspace(0, 2 * pi, int(s.rng.integers(4, 9)), endpoint=False)
    place = np.array([[x], [y]]) + np.zeros(heading.size)
    for step in range(steps):
        heading = heading + s.rng.normal(0, 0.2, heading.size)
        place = place + 1.5 * _STEP * np.stack((np.cos(heading), np.sin(heading)))
        column, row = np.clip(((place + 1) / _STEP).astype(int) + 1, 1, _SIZE - 2)
        net[row, column] = np.maximum(net[row, column], 1 - 0.7 * step / steps)
        split = (s.rng.random(heading.size) < 0.05) & (heading.size < 50)
        heading = np.append(heading, heading[split] + s.rng.choice((-0.7, 0.7), int(split.sum())))
        place = np.concatenate((place, place[:, split]), axis=1)
    for view in (net, net.T):  # a trough is a few pixels wide
        view[1:-1] = view[:-2] + view[1:-1] + view[2:]
    return np.minimum(net / 3, 1)


def _fans(s: _Scene) -> None:
    """The spider class also holds dust blown to one side of its vents."""
    _cracks(s, 0.06)
    wind, tint, many = s.angle(), s.between(0.3, 0.7), s.chance(0.4)
    for x, y in s.places(*((6, 15) if many else (1, 3))):
        length = s.between(0.15, 0.4) if many else s.between(0.4, 0.9)
        ends = (length * s.between(0.02, 0.06), length * s.between(0.1, 0.35))
        s.albedo -= tint * _wedge(s, x, y, wind + s.rng.normal(0, 0.12), length, ends, 1.0)
        _mound(s, x, y, 0.1 * length + 0.02, 0, -tint)


# Kinds of ground without a landmark of the rare classes; the common ones stand twice.
_TERRAINS = (
    *(_plains, _plains, _ridges, _ripples, _boulders, _pocks),
    *(_ghost, _ghost, _scarp, _scarp, _cracks, _hillside),
)
# By class id: the kinds of landmark that the class holds.
_DRAW = (
    *(_TERRAINS, (_crater,), (_sand_sea, _sand_sea, _barchans), (_slope_streaks,), (_bright_dunes,)),
    *((_ejecta,), (_swiss_cheese,), (_spiders, _spiders, _fans)),
)


def _plan(seed: int) -> Iterator[tuple[str, _Source, int, str]]:
    """Name, source, class and split of every landmark, source by source."""
    rng = default_rng(seed)
    orbits = iter(rng.choice(np.arange(1900, 60000), sum(map(sum, _HOMES.values())), replace=False).tolist())
    for split in SPLITS:
        homes = [label for label, count in enumerate(_HOMES[split]) for _ in range(count)]
        for home, counts in zip(homes, _counts(rng, split, homes), strict=True):
            source = _Source(rng, next(orbits), home)
            labels = rng.permutation(np.repeat(np.arange(len(CLASSES)), counts)).tolist()
            numbers = np.sort(rng.choice(2 * len(labels) + 20, len(labels), replace=False)).tolist()
            for label, number in zip(labels, numbers, strict=True):
                yield f"{source.name}_RED-{number:04d}", source, label, split


def _counts(rng: Generator, split: str, homes: list[int]) -> NDArray[np.int64]:
    """Landmarks of each source (row) and class (column), unevenly divided, one each first where they suffice."""
    counts = np.zeros((len(homes), len(CLASSES)), np.int64)
    for label, count in enumerate(_LANDMARKS[split]):
        hosts = [i for i, home in enumerate(homes) if label in (0, home) or (label == 1 and home == 0)]
        each = int(count >= len(hosts))
        counts[hosts, label] = each + rng.multinomial(count - each * len(hosts), rng.dirichlet([1.3] * len(hosts)))
    return counts


def _draw(source: _Source, label: int, rng: Generator) -> Pixels:
    """One original; the ground of `other` is one or two of the kinds that its source shows, seldom another."""
    scene, kinds = _Scene(source, rng), rng.integers(len(_DRAW[label]), size=1)
    if label == 0 and not scene.chance(0.08):
        kinds = rng.choice(source.terrains, rng.integers(1, 3), replace=False)
    for kind in kinds.tolist():
        _DRAW[label][kind](scene)
    return scene.pixels()


def _vary(pixels: Pixels, variant: str, rng: Generator) -> Pixels:
    """The official variants; rotations are clockwise."""
    if variant == "brt":
        return np.asarray(np.clip(pixels * rng.uniform(0.5, 1.5), 0, 255), np.uint8)
    if variant in ("fh", "fv"):
        return np.flip(pixels, 1 if variant == "fh" else 0)
    return np.asarray(np.rot90(pixels, -(int(variant[1:]) // 90)))


def _images(name: str, original: Pixels, split: str, rng: Generator) -> Iterator[tuple[str, Pixels]]:
    """A landmark's files: the original and, except in the test split, some of its variants."""
    yield f"{name}.jpg", original
    for variant in rng.choice(VARIANTS, rng.choice(_VARIANTS[split]), replace=False).tolist():
        yield f"{name}-{variant}.jpg", _vary(original, variant, rng)


def write(folder: Path, seed: int = 0) -> Path:
    """Write the sample under `folder` as folder/hirise-map-proj-v3_2/... and return that inner folder."""
    root = folder / "hirise-map-proj-v3_2"
    images = root / "map-proj-v3_2"
    images.mkdir(parents=True, exist_ok=True)
    labels, rows = [], []
    for name, source, label, split in _plan(seed):
        rng = default_rng((seed, crc32(name.encode())))  # its own, so that a landmark does not depend on the others
        for file, pixels in _images(name, _draw(source, label, rng), split, rng):
            Image.fromarray(pixels).save(images / file, "JPEG", quality=92)
            labels.append(f"{file} {label}\n")
            rows += [f"{file} {label} {split}\n"] * (1 + rng.poisson(_COPIES[label] if split != "test" else 0))
    for table, lines in (
        ("labels-map-proj_v3_2.txt", sorted(labels)),
        ("labels-map-proj_v3_2_train_val_test.txt", rows),
        ("landmarks_map-proj-v3_2_classmap.csv", [f"{label},{name}\n" for label, name in enumerate(CLASSES)]),
    ):
        (root / table).write_text("".join(lines), encoding="utf-8", newline="\n")
    return root
