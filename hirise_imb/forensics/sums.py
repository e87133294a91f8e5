"""Chooses one number for each class so that they add up to a total: which totals can be reached, and how best.

Both questions are answered class by class (dynamic programming), so the cost grows with the sums instead of with the
product of the numbers of choices.
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
    """Values of the numbers `first`, `first` + 1, ... of one class; minus infinity for numbers that can't be chosen."""

    first: int
    values: Floats
    """Value of each number, shape (n,); the first and the last are finite."""

    def where(self, flags: Flags) -> Choices:
        """Returns only the choices for which `flags`, shape (n,), is true."""
        places = np.flatnonzero(flags)
        span = slice(places[0], places[-1] + 1)
        return Choices(self.first + int(places[0]), np.where(flags, self.values, -np.inf)[span])


def find_reachable(allowed: Sequence[Ints], total: int) -> list[Flags]:
    """Returns for each class which sums the other classes can reach, shape (total + 1,) each.

    Args:
        allowed: the numbers that each class allows.
        total: the largest sum of interest.
    """
    # Sums of the classes before and after each class, so that no class needs a pass over all the others.
    flags = [_flags(numbers, total) for numbers in allowed]
    before, after = _running(flags, total), _running(flags[::-1], total)[::-1]
    return [_add(before[k], after[k + 1], total) for k in range(len(flags))]


def maximise_sum(choices: Sequence[Choices], total: int) -> tuple[float, list[int]]:
    """Returns the largest sum of values among numbers that add up to `total`, and these numbers.

    The method is Lagrangian relaxation (Geoffrion 1974). If every unit of the total costs a price, each class can
    choose its number by itself; the sum of their gains plus the price of the total is an upper bound of the answer. At
    the price with the lowest bound, the answer is close to the best choice of every class, so the exact search leaves
    out numbers far from it. The bound then proves that nothing was lost; if it does not, the search is widened.

    Args:
        choices: numbers and their values, one entry for each class.
        total: sum of the chosen numbers.

    Raises:
        ValueError: no numbers add up to the total.
    """
    price = _price(choices, total)
    # The gain of a number is its value after the price; its loss is how far the gain lies below the best of the class.
    gains = [entry.values - price * (entry.first + np.arange(len(entry.values))) for entry in choices]
    losses = [gain.max() - gain for gain in gains]
    # No choice can exceed this: each class has its best gain, and together they pay the price of exactly `total`.
    bound = float(sum(gain.max() for gain in gains)) + price * total
    largest_loss = max(float(loss[np.isfinite(loss)].max()) for loss in losses)
    # Values are sums of floats, so that a bound and an answer that are equal may differ in the last digits.
    rounding = 1e-12 * (1 + sum(float(np.abs(e.values[np.isfinite(e.values)]).max()) for e in choices))
    # A narrow window is tried first; a window that proves too narrow costs one more search.
    allowed = 0.01 * max(_step(entry) for entry in choices) + rounding
    while True:
        value, numbers = _exact([e.where(loss <= allowed) for e, loss in zip(choices, losses, strict=True)], total)
        # A choice in which a class loses more than `allowed` reaches at most `bound - allowed`. So an answer within
        # `allowed` of the bound can't be beaten by what was left out, and beyond `largest_loss` nothing was left out.
        if bound - value <= allowed + rounding or allowed > largest_loss:
            if numbers is None:
                raise ValueError(f"no numbers add up to {total}")
            return value, numbers
        # An answer shows how wide the window has to be; without one, it has to grow.
        allowed = bound - value if numbers is not None else 8 * allowed


def _price(choices: Sequence[Choices], total: int) -> float:
    """Returns the price at which classes that choose by themselves come closest to the total.

    At a higher price every class chooses a smaller or equal number, so bisection finds the price. Sixty halvings
    exhaust the precision of floats.
    """
    ranges = [entry.first + np.arange(len(entry.values)) for entry in choices]
    steepest = 1 + max(_step(entry) for entry in choices)
    low, high = -steepest, steepest
    for _ in range(60):
        price = (low + high) / 2
        demand = sum(int(r[np.argmax(e.values - price * r)]) for e, r in zip(choices, ranges, strict=True))
        low, high = (price, high) if demand > total else (low, price)
    return (low + high) / 2


def _step(choices: Choices) -> float:
    """Returns the largest change of value from one possible number to the next."""
    values = choices.values[np.isfinite(choices.values)]
    return float(np.abs(np.diff(values)).max()) if len(values) > 1 else 0.0


def _exact(choices: Sequence[Choices], total: int) -> tuple[float, list[int] | None]:
    """Returns the best sum and its numbers among all choices; minus infinity and None if no numbers add up."""
    # Concave values come first: they can be merged by sorting their steps, and the result is concave again. Others need
    # a loop over the shorter list, so loops come as late and as rarely as possible.
    order = sorted(range(len(choices)), key=lambda k: (not _concave(choices[k].values), len(choices[k].values)))
    rest = total - sum(entry.first for entry in choices)
    if rest < 0:
        return -np.inf, None
    sums: list[Floats] = [np.zeros(1)]
    for k in order[:-1]:
        sums.append(_merge(sums[-1], choices[k].values)[: rest + 1])
    # Backtracking: the last class takes the number that leaves the best sum to the classes before it, and so on.
    value = None
    numbers = [0] * len(choices)
    for k, prefix in zip(reversed(order), reversed(sums), strict=True):
        values = choices[k].values
        low, high = max(0, rest - len(prefix) + 1), min(rest, len(values) - 1)
        if low > high:
            return -np.inf, None
        sums_here = values[low : high + 1] + prefix[rest - np.arange(low, high + 1)]
        extra = low + int(np.argmax(sums_here))
        value = float(sums_here.max()) if value is None else value
        if value == -np.inf:
            return value, None
        numbers[k], rest = choices[k].first + extra, rest - extra
    assert value is not None
    return value, numbers


def _merge(one: Floats, other: Floats) -> Floats:
    """Returns the largest one[i] + other[j] for each i + j (a max-plus convolution)."""
    if _concave(one) and _concave(other):
        # Concave values have falling steps, so the best way to reach i + j takes the i + j largest steps of both.
        steps = np.sort(np.concatenate([np.diff(one), np.diff(other)]))[::-1]
        return np.concatenate([[0.0], np.cumsum(steps)]) + float(one[0] + other[0])
    short, long = sorted((one, other), key=lambda values: np.count_nonzero(np.isfinite(values)))
    sums = np.full(len(one) + len(other) - 1, -np.inf)
    for place in np.flatnonzero(np.isfinite(short)):
        part = sums[place : place + len(long)]
        np.maximum(part, long + short[place], out=part)
    return sums


def _concave(values: Floats) -> bool:
    """Checks whether values are finite and concave, up to rounding."""
    if not np.isfinite(values).all():
        return False
    return bool((np.diff(values, 2) <= 1e-9 * (1 + np.abs(values).max())).all())


def _flags(numbers: Ints, total: int) -> Flags:
    flags = np.zeros(total + 1, bool)
    flags[numbers] = True
    return flags


def _running(flags: Sequence[Flags], total: int) -> list[Flags]:
    """Returns the sums that the first 0, 1, ... classes can reach."""
    sums = [_flags(np.array([0]), total)]
    for entry in flags:
        sums.append(_add(sums[-1], entry, total))
    return sums


def _add(one: Flags, other: Flags, total: int) -> Flags:
    """Returns the sums up to the total of a number from each of two sets."""
    from scipy.signal import fftconvolve

    # The convolution counts the ways to reach each sum. Counts are integers, so its rounding errors are far below 0.5.
    ways = fftconvolve(one.astype(float), other.astype(float))[: total + 1]
    return np.asarray(ways > 0.5)
