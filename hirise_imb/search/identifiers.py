"""Three integers that name a trial and are easily mixed up, as distinct types."""

from __future__ import annotations

from typing import NewType

TrialId = NewType("TrialId", int)
"""Key of a trial in the database, unique over all its studies."""

TrialNumber = NewType("TrialNumber", int)
"""Optuna's number of a trial in its study, from 0 in the order in which trials were started; users see this one."""

SearchPlace = NewType("SearchPlace", int)
"""Position, from 0, in the sequence of settings that a search tries.

A trial that was interrupted is run again: as another trial, with another id and number, at the same place.
"""


def place_range(start: int, end: int) -> list[SearchPlace]:
    """Returns the places from `start` up to, but not including, `end`."""
    return [SearchPlace(place) for place in range(start, end)]
