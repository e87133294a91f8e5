"""shim"""

from dataclasses import dataclass


@dataclass(frozen=True)
class WeightScaling:
    power: float
    strength: float
