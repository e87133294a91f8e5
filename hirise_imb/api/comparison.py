"""The comparison of two arms on the same landmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from hirise_imb.api import drawing
from hirise_imb.api.displays import Display, ends, find_arm
from hirise_imb.api.drawing import ForestRow
from hirise_imb.metrics.permutation import ALPHA
from hirise_imb.reporting.figures.style import ROLE_COLOURS, SOFT
from hirise_imb.reporting.formatting import p_value, plural, signed
from hirise_imb.reporting.results import Results
from hirise_imb.utils.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Comparison(Display):
    """The difference in macro F1 between two arms, with its uncertainty over sources, and those of each class.

    The swap test exchanges the predictions of the two arms source by source (approximate randomisation, Yeh 2000). Its
    p value is that of ONE test: whoever compares several pairs has to adjust them, as `metrics.holm` does. The p values
    in `Report.arms.frame()` are adjusted. Both arms are resampled with the same sources for the intervals.
    """

    def __init__(self, results: Results, arm: str, other: str) -> None:
        """Tests two arms.

        Args:
            results: results with both arms.
            arm: name of the first arm.
            other: name of the arm that it is compared with.

        Raises:
            UserError: there is no such arm, or both names are the same.
        """
        super().__init__(results)
        self.arm, self.other = (find_arm(results, name).name for name in (arm, other))
        if self.arm == self.other:
            raise UserError(f"{arm} can't be compared with itself: name another arm.")
        self._test = results.inference.family({self.arm: self.other}).tests[self.arm].swap
        self._against = results.inference.against(self.arm, self.other)

    @property
    def difference(self) -> float:
        """Macro F1 of the first arm minus that of the other, each the mean over seeds."""
        return self._test.difference

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % confidence interval of the difference over sources; None if none can be given."""
        interval = self._against.interval
        return None if interval is None else (interval.low, interval.high)

    @property
    def p(self) -> float:
        """Two-sided p value of this one swap test over sources, not adjusted for any other test."""
        return self._test.p

    @property
    def min_detectable_difference(self) -> float | None:
        """Smallest difference that would have p <= 0.05 here; None if no difference reaches it."""
        return self._test.min_detectable_difference

    @property
    def is_significant(self) -> bool:
        """Whether p is at most 0.05, if this is the only test."""
        return self.p <= ALPHA

    @property
    def share_above(self) -> float:
        """Share of the bootstrap resamples in which the first arm has the higher macro F1."""
        return self._against.share_above

    @property
    def informative_sources(self) -> int:
        """Number of sources in which hits or predictions of the two arms differ; no other affects the test."""
        return self._test.informative_sources

    def frame(self) -> pd.DataFrame:
        """Returns a row for macro F1, and one for the F1 of each class.

        Columns: score (`macro_f1` or `f1`), class (`all` for macro F1), landmarks, sources, difference, its 95 %
        confidence interval over sources (low, high), p and min_detectable_difference (macro F1 alone). No interval is
        adjusted for the number of classes.
        """
        results = self._results
        size = self.min_detectable_difference
        test = {"p": self.p, "min_detectable_difference": np.nan if size is None else size}
        rows = [
            ("macro_f1", "all", len(results.test), results.inference.total, self.difference, self._against.interval)
        ]
        columns = zip(
            results.classes,
            results.support.tolist(),
            results.sources.tolist(),
            results.difference(self.arm, "f1", self.other).tolist(),
            results.inference.class_differences(self.arm, self.other),
            strict=True,
        )
        rows += [("f1", *column) for column in columns]
        table = pd.DataFrame(
            [(*row[:-1], *ends(row[-1])) for row in rows],
            columns=["score", "class", "landmarks", "sources", "difference", "low", "high"],
        )
        for name, value in test.items():
            table[name] = [value, *[np.nan] * (len(table) - 1)]
        return table

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draws the differences of macro F1 and of the F1 of each class with their 95 % confidence intervals.

        The grey band is smaller than the minimum detectable difference of macro F1. Blue and orange intervals are
        above and below 0.
        """
        points = []
        for row in self.frame().to_dict("records"):
            colour = (
                ROLE_COLOURS["strategy"] if row["low"] > 0 else ROLE_COLOURS["control"] if row["high"] < 0 else SOFT
            )
            is_macro = row["score"] == "macro_f1"
            name = "macro F1" if is_macro else f"{row['class']} ({row['landmarks']})"
            band = row["min_detectable_difference"]
            points.append(ForestRow(name, row["difference"], row["low"], row["high"], colour, is_macro, band))
        return drawing.draw_forest(points, f"difference in F1, {self.arm} minus {self.other}", zero=True, ax=ax)

    def __repr__(self) -> str:
        """Returns the result in a sentence."""
        interval = "no interval can be given"
        if self.interval is not None:
            interval = f"95 % interval {signed(self.interval[0])} to {signed(self.interval[1])}"
        size = self.min_detectable_difference
        detectable = "no difference is detectable" if size is None else f"minimum detectable difference {size:.3f}"
        return (
            f"{self.arm} minus {self.other}: macro F1 {signed(self.difference)} ({interval}), {p_value(self.p)} in one "
            f"swap test over {plural(self._results.inference.total, 'source')}, not adjusted; {detectable}."
        )

    def _repr_html_(self) -> str:
        """Returns the result and the table for notebooks."""
        from html import escape

        return f"<p>{escape(repr(self))}</p>{super()._repr_html_()}"
