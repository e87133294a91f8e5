"""Draws into a scene: kinds of ground, and the landmarks of each class."""

from math import cos, pi, sin

import numpy as np

from hirise_imb.data.synthetic.scene import SIZE, STEP, Field, Scene, X, Y, ramp


def _bowl(s: Scene, x: float, y: float, size: float, depth: float, wear: float) -> None:
    """Draws a pit with a raised rim; wear breaks the rim and fills the floor."""
    window, r = s.radius(x, y, 2.2 * size, 0.02 + 0.07 * wear)
    r /= size
    rim = np.exp(-np.square((r - 1) / (0.11 + 0.14 * wear)))
    if wear > 0.3:
        rim *= np.clip(0.6 + s.smooth(4)[window], 0, 1)
    floor = s.between(0.7, 1.2) - 0.3 * min(wear, 1)
    s.height[window] += depth * size * (np.clip(r * r - 1, -floor, 0) + 0.3 * rim)


def _mound(s: Scene, x: float, y: float, size: float, tall: float, tint: float) -> None:
    """Draws a knob, boulder or frosted dune, or a flat spot where `tall` is 0."""
    window, r = s.radius(x, y, 1.8 * size, 0.14)
    shape = np.exp(-np.square(np.square(r / size)))
    s.height[window] += tall * size * shape
    s.albedo[window] += tint * shape


def _wedge(s: Scene, x: float, y: float, angle: float, length: float, ends: tuple[float, float], fade: float) -> Field:
    """Returns a mask that runs from a point, `ends` wide at its start and end, weaker by `fade` at the end."""
    along, across = s.rotated_coordinates(angle, x, y)
    t = along / length
    half = ends[0] + (ends[1] - ends[0]) * np.clip(t, 0, 1)
    mask = ramp(half - np.abs(across + 0.02 * s.smooth(9)), 0.025) * ramp(t, 0.06) * ramp(1 - t, 0.12)
    return np.asarray(mask * (1 - fade * np.clip(t, 0, 1)))


def _waves(s: Scene, angle: float, length: float, tall: float) -> Field:
    """Draws parallel crests, slightly bent and broken, and returns their profile."""
    phase = s.rotated_coordinates(angle)[0] * (2 * pi / length) + 1.3 * s.smooth(6)
    crest: Field = np.square(np.sin(phase / 2)) * np.clip(0.7 + 0.5 * s.smooth(7), 0, 1)
    s.height += tall * length / 4 * crest
    return crest


def _plains(s: Scene) -> None:
    s.roughness *= s.between(0.6, 1.7)
    s.height += s.between(0.02, 0.12) * s.smooth(int(s.rng.integers(3, 9)))


def _ridges(s: Scene) -> None:
    s.height += s.between(0.05, 0.2) * np.square(1 - np.abs(s.rugged(3, 7)))


def _ripples(s: Scene) -> None:
    crest = _waves(s, s.angle(), s.between(0.1, 0.35), s.between(0.3, 1.1))
    s.albedo += s.between(-0.25, 0.2) * crest * ramp(s.smooth(3) + 0.5, 1.0)


def _boulders(s: Scene) -> None:
    """Draws a few large knobs or many small stones."""
    few, tint = s.chance(0.4), s.between(-0.2, 0.35)
    for x, y in s.places(*((1, 4) if few else (5, 30)), 0.3, 0.6):
        _mound(s, x, y, s.between(0.1, 0.3) if few else s.between(0.02, 0.08), s.between(0.4, 1.1), tint)


def _pocks(s: Scene) -> None:
    """Draws craters too small for the class."""
    for x, y in s.places(2, 12, 0.2, 0.7):
        _bowl(s, x, y, s.between(0.03, 0.15), s.between(0.2, 0.9), s.between(0, 1))


def _ghost(s: Scene) -> None:
    """Draws a crater cut by the border of the crop, or one too worn to count."""
    angle, cut = s.angle(), s.chance(0.5)
    far, size = (s.between(0.8, 1.3), s.between(0.4, 1.0)) if cut else (s.between(0, 0.3), s.between(0.15, 0.5))
    _bowl(s, far * cos(angle), far * sin(angle), size, s.between(0.1, 0.6 if cut else 0.3), s.between(0.6, 1.6))


def _scarp(s: Scene) -> None:
    """Draws a step in height, brightness or both, along a line or around islands."""
    line = s.rotated_coordinates(s.angle())[0] * (3 if s.chance(0.5) else 0)
    mask = ramp(line + s.rugged(2, 8), s.between(0.1, 1.2))
    s.height += s.between(0, 0.15) * mask
    s.albedo += s.between(-0.35, 0.3) * mask


def _cracks(s: Scene, deepest: float = 0.2) -> None:
    """Draws a net of narrow troughs, where smooth fields cross zero."""
    depth, width = deepest * s.between(0.1, 1), s.between(0.1, 0.25)
    for _ in range(2):
        s.height -= depth * width * np.exp(-np.square(s.rugged(3, 7) / width))


def _hillside(s: Scene) -> None:
    """Draws a slope with gullies along it, and sometimes a dark band that is no streak."""
    angle = s.angle()
    s.height += s.between(-0.3, 0.3) * s.rotated_coordinates(angle)[0]
    _waves(s, angle + pi / 2, s.between(0.15, 0.6), s.between(0.1, 0.5))
    if s.chance(0.3):
        ((x, y),) = s.places(1, 1, 0.3)
        s.albedo -= s.between(0.1, 0.3) * _wedge(s, x, y, angle, s.between(0.6, 2), (0.2, 0.3), 0.8)


def _crater(s: Scene) -> None:
    (_plains, _plains, _plains, _pocks, _pocks, _ridges)[s.rng.integers(6)](s)
    ((x, y),) = s.places(1, 1)
    wear = s.between(0, 1) ** 2
    _bowl(s, x, y, s.between(0.22, 0.6), s.between(0.6, 1.4) * (1 - 0.75 * wear), wear)


def _sand_sea(s: Scene) -> None:
    cells = int(s.rng.integers(2, 8))
    field = s.smooth(cells) + 0.12 * s.smooth(3 * cells)
    sand = ramp(field + s.between(0.2, 1.6), s.between(0.2, 0.8))
    s.height += s.between(0.4, 0.9) / cells * sand * (1.2 - np.sqrt(np.square(field - 0.4) + 0.003))
    s.albedo -= s.between(0.25, 0.5) * sand
    if s.chance(0.3):
        _waves(s, s.angle(), s.between(0.05, 0.1), s.between(0.1, 0.4))


def _barchans(s: Scene) -> None:
    wind, tint = s.angle(), s.between(0.3, 0.6)
    for x, y in s.places(2, 9, 0.2):
        size = s.between(0.12, 0.4)
        along, across = s.rotated_coordinates(wind + s.rng.normal(0, 0.15), x, y)
        body = np.hypot(along * s.between(0.8, 1.3), across) * (1 + 0.12 * s.smooth(5))
        hollow = np.hypot(along - size * s.between(0.8, 1.1), across * 0.8)
        sand = ramp(size - body, 0.5 * size) * ramp(hollow - 0.7 * size, 0.15 * size)
        s.height += 0.35 * size * sand
        s.albedo = np.minimum(s.albedo, -tint * ramp(sand, 0.4))


def _slope_streaks(s: Scene) -> None:
    down, tint = s.angle(), s.between(0.1, 0.25) if s.chance(0.12) else -s.between(0.12, 0.42)
    s.height += s.between(-0.25, 0.25) * s.rotated_coordinates(down)[0] + s.between(0.02, 0.12) * s.rugged(2, 5)
    if s.chance(0.5):
        _waves(s, down + s.between(-0.6, 0.6), s.between(0.06, 0.4), s.between(0.1, 0.4))
    for x, y in s.places(1, 7, 0.15, 0.35):
        length, ends = s.between(0.4, 1.6), (s.between(0.005, 0.02), s.between(0.03, 0.14))
        start = (x - 0.5 * length * cos(down), y - 0.5 * length * sin(down))
        streak = _wedge(s, *start, down + s.rng.normal(0, 0.06), length, ends, s.between(0, 0.4))
        s.albedo += 0.9 * (tint - s.albedo) * streak


def _bright_dunes(s: Scene) -> None:
    s.height += s.between(0.005, 0.015) * np.abs(s.smooth(20)) + 0.006 * s.smooth(40)
    few = s.chance(0.5)
    for x, y in s.places(*((1, 3) if few else (3, 12)), others=0.6):
        size = s.between(0.13, 0.3) if few else s.between(0.07, 0.14)
        _mound(s, x, y, size, s.between(0.4, 1.0), s.between(0.12, 0.4))
        for turn in s.rng.uniform(0, 2 * pi, s.rng.integers(0, 9)).tolist():  # where the frost has gone
            far, spot = size * s.between(0.6, 1.35), size * s.between(0.12, 0.3)
            _mound(s, x + far * cos(turn), y + far * sin(turn), spot, 0, -s.between(0.4, 0.9))


def _ejecta(s: Scene) -> None:
    _plains(s)
    tint = s.between(0.15, 0.35) if s.chance(0.25) else -s.between(0.2, 0.5)
    cluster = s.chance(0.4)
    for x, y in s.places(*((2, 5) if cluster else (1, 1))):
        size = s.between(0.25, 0.6) if cluster else s.between(0.4, 1.0)
        _jets(s, x, y, size, tint)
        _bowl(s, x, y, size * s.between(0.05, 0.14), s.between(0.5, 1.3), 0.1)


def _jets(s: Scene, x: float, y: float, size: float, tint: float) -> None:
    """Draws straight rays of many lengths, often longer to one side, on a blurred inner blanket."""
    window, r = s.radius(x, y, 1.7 * size, 0.0)
    turn = np.arctan2(Y[window] - y, X[window] - x) / (2 * pi) % 1
    around, rays = np.arange(120) / 120, s.rng.gamma(0.6, 0.55, 120) + 0.2
    rays = (rays + np.roll(rays, 1)) * (1 + s.between(0, 0.8) * np.cos(2 * pi * around + s.angle()))
    reach = np.interp(turn, np.append(around, 1), np.append(rays, rays[0]))
    r /= size
    fade = np.clip(1 - r / np.clip(reach, 0.15, 1.6), 0, 1) + 0.5 * np.exp(-np.square(r / 0.25))
    s.albedo[window] += tint * fade * np.clip(1 + 0.25 * s.smooth(24)[window], 0, 2)


def _swiss_cheese(s: Scene) -> None:
    large, edge = s.chance(0.45), s.between(0.025, 0.06)
    outside = _outside_pits(s, large) + 0.02 * s.rugged(8, 10)
    pit = ramp(-outside, edge)
    if large:  # ice that remains in the middle
        pit -= s.between(0.3, 1) * ramp(-outside - s.between(0.12, 0.4), edge)
    s.height -= s.between(0.4, 1.1) * edge * pit
    s.albedo += s.between(-0.2, 0.15) * pit + s.between(-0.2, 0.1) * np.exp(-np.square(outside / edge))


def _outside_pits(s: Scene, large: bool) -> Field:
    """Returns the distance to the nearest of many round pits, negative within them; small pits merge into chains."""
    outside = np.full((SIZE, SIZE), 9, np.float32)
    x, y = s.rng.normal(0, 0.25, 2).tolist()
    for _ in range(s.rng.integers(1, 5) if large else s.rng.integers(8, 30)):
        size = s.between(0.3, 0.75) if large else s.between(0.04, 0.2)
        window, r = s.radius(x, y, size + 0.3, 0.08)
        outside[window] = np.minimum(outside[window], r - size)
        chained = not large and s.chance(0.7)
        x, y = (s.rng.normal((x, y), size) if chained else s.rng.uniform(-1, 1, 2)).tolist()
    return outside


def _spiders(s: Scene) -> None:
    _cracks(s, 0.06)
    tint = s.between(0.15, 0.6)
    for x, y in s.places(1, 3):
        net = _troughs(s, x, y, int(s.rng.integers(25, 75)))
        s.height -= s.between(0.01, 0.025) * net
        s.albedo -= s.between(0.1, 0.7) * tint * net
        _mound(s, x, y, s.between(0.04, 0.15), 0, -tint)


def _troughs(s: Scene, x: float, y: float, steps: int) -> Field:
    """Returns branching walks away from a centre, 1.5 pixels a step, shallower outwards."""
    net = np.zeros((SIZE, SIZE), np.float32)
    heading = s.angle() + np.linspace(0, 2 * pi, int(s.rng.integers(4, 9)), endpoint=False)
    place = np.array([[x], [y]]) + np.zeros(heading.size)
    for step in range(steps):
        heading = heading + s.rng.normal(0, 0.2, heading.size)
        place = place + 1.5 * STEP * np.stack((np.cos(heading), np.sin(heading)))
        column, row = np.clip(((place + 1) / STEP).astype(int) + 1, 1, SIZE - 2)
        net[row, column] = np.maximum(net[row, column], 1 - 0.7 * step / steps)
        split = (s.rng.random(heading.size) < 0.05) & (heading.size < 50)
        heading = np.append(heading, heading[split] + s.rng.choice((-0.7, 0.7), int(split.sum())))
        place = np.concatenate((place, place[:, split]), axis=1)
    for view in (net, net.T):  # a trough is a few pixels wide
        view[1:-1] = view[:-2] + view[1:-1] + view[2:]
    return np.minimum(net / 3, 1)


def _fans(s: Scene) -> None:
    """Draws dust blown to one side of its vents, which the spider class also contains."""
    _cracks(s, 0.06)
    wind, tint, many = s.angle(), s.between(0.3, 0.7), s.chance(0.4)
    for x, y in s.places(*((6, 15) if many else (1, 3))):
        length = s.between(0.15, 0.4) if many else s.between(0.4, 0.9)
        ends = (length * s.between(0.02, 0.06), length * s.between(0.1, 0.35))
        s.albedo -= tint * _wedge(s, x, y, wind + s.rng.normal(0, 0.12), length, ends, 1.0)
        _mound(s, x, y, 0.1 * length + 0.02, 0, -tint)


# Kinds of ground without a landmark of the rare classes; common ones are listed twice.
TERRAINS = (
    *(_plains, _plains, _ridges, _ripples, _boulders, _pocks),
    *(_ghost, _ghost, _scarp, _scarp, _cracks, _hillside),
)
# The kinds of landmark in each class, by class id.
KINDS = (
    *(TERRAINS, (_crater,), (_sand_sea, _sand_sea, _barchans), (_slope_streaks,), (_bright_dunes,)),
    *((_ejecta,), (_swiss_cheese,), (_spiders, _spiders, _fans)),
)
