"""The displays of a report: each is a table (`frame`) and a figure (`plot`) of one part of the results.

Tables are in long format: one row for each thing that was measured, such as an arm, or a class of an arm. Missing
values are NaN. Figures are drawn on the `ax` that is given, otherwise on a new figure of pyplot.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hirise_imb.config import check_known
from hirise_imb.metrics.bootstrap import Interval
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def find_arm(results: Results, name: str) -> Arm:
    """Returns an arm by its name.

    Raises:
        UserError: there is no such arm; the message suggests the nearest name.
    """
    names = [arm.name for arm in results.ordered]
    return results.ordered[names.index(check_known("arm", name, names))]


def ends(interval: Interval | None) -> tuple[float, float]:
    """Returns the ends of a confidence interval; NaN without one."""
    return (np.nan, np.nan) if interval is None else (interval.low, interval.high)


def to_html(table: pd.DataFrame, *, index: bool = False) -> str:
    """Returns a table for notebooks: at most 60 rows, three decimals, and all text escaped."""
    return str(table.to_html(index=index, na_rep="", max_rows=60, border=0, float_format="{:.3f}".format))


class Display(ABC):
    """A table and a figure of one part of a report."""

    def __init__(self, results: Results) -> None:
        """Stores the results that are shown."""
        self._results = results

    def _select_arms(self, arm: str | None) -> list[str]:
        """Returns the name of an arm, or those of all arms in the order of tables.

        Raises:
            UserError: there is no such arm.
        """
        return [one.name for one in self._results.ordered] if arm is None else [find_arm(self._results, arm).name]

    @abstractmethod
    def frame(self) -> pd.DataFrame:
        """Returns the table in long format."""

    @abstractmethod
    def plot(self, ax: Axes | None = None) -> Axes:
        """Draws the figure on `ax`, or on a new figure; returns the axes."""

    def __repr__(self) -> str:
        """Returns the table as text."""
        return repr(self.frame())

    def _repr_html_(self) -> str:
        """Returns the table for notebooks."""
        return to_html(self.frame())
