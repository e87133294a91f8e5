"""Time that passes when a test says so, and a clock that jumps."""

from __future__ import annotations

import datetime
import random
import time


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def let_clock_jump(seed: int) -> None:
    """Lets the time of day of this process jump by hours, forwards and backwards, every few times it is asked for.

    To be called before other modules are imported, since they may import the functions by their names.
    """
    chance, true_time, true_datetime = random.Random(seed), time.time, datetime.datetime
    offset = 0.0

    def jumping_time() -> float:
        nonlocal offset
        if chance.random() < 0.2:
            offset = chance.uniform(-36, 36) * 3600
        return true_time() + offset

    class JumpingDatetime(true_datetime):  # type: ignore[valid-type, misc]
        """A date and time whose present jumps."""

        __slots__ = ()  # C extensions rely on the size of an instance

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return true_datetime.fromtimestamp(jumping_time(), tz)

    time.time = jumping_time
    datetime.datetime = JumpingDatetime  # type: ignore[misc]
