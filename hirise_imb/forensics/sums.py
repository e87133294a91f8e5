"""One number from each class so that they add up to a total: which totals can be reached, and the best way to one.

Both go class by class (dynamic programming), so the cost grows with sums and not with the product of the choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Choices:
    """What each number `first`, `first` + 1, ... of one class is worth; minus infinity where it can't be chosen."""

    first: int
    values: Floats
    """Shape (n,), finite at its first and last place."""

    def where(self, flags: Flags) -> Choices:
        """The choices at the places where `flags`, shape (n,), is true, and no others."""
        places = np.flatnonzero(flags)
        kept = slice(places[0], places[-1] + 1)
        return Choices(self.first + int(places[0]), np.where(flags, self.values, -np.inf)[kept])


def reachable(chosen: Sequence[Ints], total: int) -> list[Flags]:
    """For each class, which of all totals the other classes reach with it left out, shape (total + 1,) each.

    Args:
        chosen: the numbers each class allows.
        total: the largest sum of interest.
    """
    flags = [_flags(numbers, total) for numbers in chosen]
    before, after = _running(flags, total), _running(flags[::-1], total)[::-1]
    return [_add(before[k], after[k + 1], total) for k in range(len(flags))]


def best(choices: Sequence[Choices], total: int) -> tuple[float, list[int]]:
    """The largest sum of values where the numbers add up to `total`, and these numbers.

    Lagrangian relaxation (Geoffrion 1974): if every unit of the total costs a price, each class can choose its number
    by itself, and the sum of what they gain plus the price of the total is an upper bound of the answer. At the price
    with the lowest bound, the answer is close to the best choice of every class, so numbers far from it are left out
    before the exact search. The bound then proves that nothing was lost; if it does not, more numbers are let in.

    Args:
        choices: numbers and their values, one entry for each class.
        total: sum of the chosen numbers.

    Raises:
        ValueError: no numbers add up to the total.
    """
    price = _price(choices, total)
    # What a class gains with each number, after the price; the loss is what it forgoes against its own best number.
    gains = [entry.values - price * (entry.first + np.arange(len(entry.values))) for entry in choices]
    losses = [gain.max() - gain for gain in gains]
    # No choice can reach more: each class has its best gain, and together they pay the price of exactly `total`.
    bound = float(sum(gain.max() for gain in gains)) + price * total
    most = max(float(loss[np.isfinite(loss)].max()) for loss in losses)
    # Values are sums of floats, so that bound and answer may differ in the last digits where they are equal.
    rounding = 1e-12 * (1 + sum(float(np.abs(e.values[np.isfinite(e.values)]).max()) for e in choices))
    allowed = 0.01 * max(_step(entry) for entry in choices) + rounding
    while True:
        value, numbers = _exact([e.where(loss <= allowed) for e, loss in zip(choices, losses, strict=True)], total)
        # A choice with a class that loses more than `allowed` has at most `bound - allowed`. So an answer within
        # `allowed` of the bound can't be beaten by what was left out, and beyond `most` nothing was left out.
        if bound - value <= allowed + rounding or allowed > most:
            if numbers is None:
                raise ValueError(f"no numbers add up to {total}")
            return value, numbers
        # An answer that was found tells how far to look; without one, the window has to grow.
        allowed = bound - value if numbers is not None else 8 * allowed


def _price(choices: Sequence[Choices], total: int) -> float:
    """Returns the price at which classes that choose by themselves come nearest to the total.

    At a higher price every class chooses a smaller or equal number, so that bisection finds it. Sixty halvings are as
    far as floats go.
    """
    ranges = [entry.first + np.arange(len(entry.values)) for entry in choices]
    steepest = 1 + max(_step(entry) for entry in choices)
    low, high = -steepest, steepest
    for _ in range(60):
        price = (low + high) / 2
        wanted = sum(int(r[np.argmax(e.values - price * r)]) for e, r in zip(choices, ranges, strict=True))
        low, high = (price, high) if wanted > total else (low, price)
    return (low + high) / 2


def _step(choices: Choices) -> float:
    """The largest change of value from one possible number to the next."""
    values = choices.values[np.isfinite(choices.values)]
    return float(np.abs(np.diff(values)).max()) if len(values) > 1 else 0.0


def _exact(choices: Sequence[Choices], total: int) -> tuple[float, list[int] | None]:
    """The answer of `best` among all that is there; minus infinity and None where nothing adds up."""
    # Concave values first: they are merged by sorting their steps, where others need a loop over the shorter list.
    # The merge of concave values is concave again, so that the loops come as late and as rarely as possible.
    order = sorted(range(len(choices)), key=lambda k: (not _concave(choices[k].values), len(choices[k].values)))
    left = total - sum(entry.first for entry in choices)
    if left < 0:
        return -np.inf, None
    sums: list[Floats] = [np.zeros(1)]
    for k in order[:-1]:
        sums.append(_merge(sums[-1], choices[k].values)[: left + 1])
    # Backwards: of the last class, the number that leaves the best sum to the classes before it, and so on.
    value = None
    numbers = [0] * len(choices)
    for k, prefix in zip(reversed(order), reversed(sums), strict=True):
        values = choices[k].values
        low, high = max(0, left - len(prefix) + 1), min(left, len(values) - 1)
        if low > high:
            return -np.inf, None
        ways = values[low : high + 1] + prefix[left - np.arange(low, high + 1)]
        extra = low + int(np.argmax(ways))
        value = float(ways.max()) if value is None else value
        if value == -np.inf:
            return value, None
        numbers[k], left = choices[k].first + extra, left - extra
    assert value is not None
    return value, numbers


def _merge(one: Floats, other: Floats) -> Floats:
    """The best of one[i] + other[j] for each i + j."""
    if _concave(one) and _concave(other):
        # Concave values have falling steps, so that the best way to i + j units takes the i + j largest steps of both.
        steps = np.sort(np.concatenate([np.diff(one), np.diff(other)]))[::-1]
        return np.concatenate([[0.0], np.cumsum(steps)]) + float(one[0] + other[0])
    short, long = sorted((one, other), key=lambda values: np.count_nonzero(np.isfinite(values)))
    sums = np.full(len(one) + len(other) - 1, -np.inf)
    for place in np.flatnonzero(np.isfinite(short)):
        part = sums[place : place + len(long)]
        np.maximum(part, long + short[place], out=part)
    return sums


def _concave(values: Floats) -> bool:
    if not np.isfinite(values).all():
        return False
    return bool((np.diff(values, 2) <= 1e-9 * (1 + np.abs(values).max())).all())


def _flags(numbers: Ints, total: int) -> Flags:
    flags = np.zeros(total + 1, bool)
    flags[numbers] = True
    return flags


def _running(flags: Sequence[Flags], total: int) -> list[Flags]:
    """Sums that the first 0, 1, ... classes reach."""
    sums = [_flags(np.array([0]), total)]
    for entry in flags:
        sums.append(_add(sums[-1], entry, total))
    return sums


def _add(one: Flags, other: Flags, total: int) -> Flags:
    """All sums of a reached number of each, up to the total."""
    from scipy.signal import fftconvolve

    # The convolution counts the ways to a sum, whole numbers up to `total`, far above its rounding errors.
    ways = fftconvolve(one.astype(float), other.astype(float))[: total + 1]
    return np.asarray(ways > 0.5)
