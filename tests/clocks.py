"""Time that passes when a test says so, and a clock that jumps."""

from __future__ import annotations

import datetime
import random
import sys
import time


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def let_clock_jump(seed: int) -> None:
    """Lets the time of day of this process jump by hours, forwards and backwards, every few times it is asked for.

    Dates jump in the modules of this project and of Optuna that are imported already; C extensions crash if the class
    itself is replaced.
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

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return true_datetime.fromtimestamp(jumping_time(), tz)

    time.time = jumping_time
    for name, module in list(sys.modules.items()):
        if name.startswith(("hirise_imb.", "optuna.")) and getattr(module, "datetime", None) is true_datetime:
            module.datetime = JumpingDatetime  # type: ignore[attr-defined]
