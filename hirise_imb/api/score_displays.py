"""Displays of scores: arms, all scores, scores of each class, confusion matrices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.api import drawing
from hirise_imb.api.displays import Display, ends, find_arm, to_html
from hirise_imb.api.drawing import ForestRow
from hirise_imb.config import check_known
from hirise_imb.metrics.registry import CLASS_METRICS, label_of
from hirise_imb.reporting import tables
from hirise_imb.reporting.figures.style import ROLE_COLOURS
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import CONTRASTS, Contrast, Results
from hirise_imb.utils.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CHOSEN_COLOUR = "#009E73"
"""Colour of the arms with the best validation score."""


class Arms(Display):
    """The arms of a report with their macro F1, and its difference from the control or the baseline.

    Iterating over it yields the names of the arms in the order of tables: the baselines, the controls, the strategies
    by validation score.
    """

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names of the arms."""
        return (arm.name for arm in self._results.ordered)

    def __len__(self) -> int:
        """Returns the number of arms."""
        return len(self._results.ordered)

    def __contains__(self, name: object) -> bool:
        """Checks whether there is an arm with this name."""
        return name in list(self)

    def frame(self, contrast: Contrast | None = None) -> pd.DataFrame:
        """Returns a row for each arm.

        Columns: arm, role, identical_to (an arm with the same predicted classes), validation (in the cross-validation
        that scores arms), the target metric by its key, such as macro_f1 (of the tested landmarks, mean over seeds)
        with its range over seeds (seeds_low, seeds_high) and its 95 % confidence interval over sources (low, high).
        Then, about the other arm of the contrast: other, difference with its interval (difference_low,
        difference_high), the p value of the swap test (p), the same after Holm over all tests of the contrast (p_holm),
        and min_detectable_difference.

        Args:
            contrast: `vs_control` or `vs_baseline`; None for the primary one, which is the control if there is one.

        Raises:
            UserError: there is no such contrast.
        """
        contrast = self._choose(contrast)
        return pd.DataFrame([self._row(arm, contrast) for arm in self._results.ordered])

    def plot(
        self, ax: Axes | None = None, contrast: Contrast | None = None, *, arms: Sequence[str] | None = None
    ) -> Axes:
        """Draws the difference in macro F1 of each arm from the other arm of the contrast, with 95 % intervals.

        Grey bands are smaller than the minimum detectable difference. Orange marks the control, green and bold the best
        strategy on validation. A report with a single arm shows its score.

        Args:
            ax: axes to draw on; None for those of a new figure.
            contrast: as in `frame`.
            arms: names of the arms; None for all arms.

        Raises:
            UserError: there is no such arm or contrast.
        """
        results = self._results
        rows = self.frame(contrast)
        if arms is not None:
            rows = rows[rows["arm"].isin([find_arm(results, name).name for name in arms])]
        if len(rows) == 1:
            [only] = rows.to_dict("records")
            points = [
                ForestRow(only["arm"], only[results.target.key], only["low"], only["high"], ROLE_COLOURS[only["role"]])
            ]
            return drawing.draw_forest(points, f"{results.target.label} {results.terms.where}", zero=False, ax=ax)
        points = []
        for row in rows[rows["difference"].notna()].to_dict("records"):
            chosen = row["arm"] in results.preferred
            points.append(
                ForestRow(
                    name=row["arm"],
                    value=row["difference"],
                    low=row["difference_low"],
                    high=row["difference_high"],
                    colour=_CHOSEN_COLOUR if chosen else ROLE_COLOURS[row["role"]],
                    bold=chosen,
                    band=row["min_detectable_difference"],
                )
            )
        other = results.reference
        if self._choose(contrast) == "vs_control":
            other = "the control" + (" that averages as many fits" if results.averaged_controls else "")
        return drawing.draw_forest(points, f"difference in {results.target.label} from {other}", zero=True, ax=ax)

    def _choose(self, contrast: Contrast | None) -> Contrast:
        contrast = contrast or self._results.contrasts[0]
        check_known("contrast", contrast, CONTRASTS)
        if contrast not in self._results.contrasts:
            raise UserError("The report has no single control: use the contrast vs_baseline.")
        return contrast

    def _row(self, arm: Arm, contrast: Contrast) -> dict[str, Any]:
        results = self._results
        main, interval = results.main_score(arm.name), results.inference.interval(arm.name)
        row: dict[str, Any] = {
            "arm": arm.name,
            "role": arm.role,
            "identical_to": results.identical.get(arm.name),
            "validation": arm.val_score,
            results.target.key: main.mean,
            "seeds_low": main.low,
            "seeds_high": main.high,
            **dict(zip(("low", "high"), ends(interval), strict=True)),
            "other": None,
            **dict.fromkeys(("difference", "difference_low", "difference_high"), np.nan),
            **dict.fromkeys(("p", "p_holm", "min_detectable_difference"), np.nan),
        }
        other = results.other_of(arm, contrast)
        if other is None or other == arm.name:
            return row
        row |= {"other": other, "difference": results.main_gain(arm.name, other)}
        row["difference_low"], row["difference_high"] = ends(results.inference.against(arm.name, other).interval)
        if (test := results.families[contrast].tests.get(arm.name)) is not None:
            size = test.swap.min_detectable_difference
            row |= {"p": test.swap.p, "p_holm": test.p_holm}
            row["min_detectable_difference"] = np.nan if size is None else size
        return row


class Scores(Display):
    """All registered scores of the arms, such as accuracy, balanced accuracy, kappa and log loss."""

    def frame(self, arm: str | None = None) -> pd.DataFrame:
        """Returns a row for each arm and score: arm, score, mean over seeds, and the range over seeds (low, high).

        Args:
            arm: name of an arm; None for all arms.

        Raises:
            UserError: there is no such arm.
        """
        rows = [
            {"arm": one, "score": name, "mean": spread.mean, "low": spread.low, "high": spread.high}
            for one in self._select_arms(arm)
            for name, spread in self._results.headline_scores(one).items()
        ]
        return pd.DataFrame(rows)

    def plot(self, ax: Axes | None = None, score: str = "macro_f1") -> Axes:
        """Draws one score of all arms with its range over seeds.

        Args:
            ax: axes to draw on; None for those of a new figure.
            score: name of the score, such as `accuracy`.

        Raises:
            UserError: no arm has such a score.
        """
        rows = self.frame()
        check_known("score", score, rows["score"].unique().tolist())
        roles = {arm.name: arm.role for arm in self._results.ordered}
        points = [
            ForestRow(row["arm"], row["mean"], row["low"], row["high"], ROLE_COLOURS[roles[row["arm"]]])
            for row in rows[rows["score"] == score].to_dict("records")
        ]
        label = label_of(score)
        return drawing.draw_forest(points, f"{label} {self._results.terms.where}, range over seeds", zero=False, ax=ax)

    def __repr__(self) -> str:
        """Returns the means as text, with a row for each arm."""
        return repr(self._pivot())

    def _repr_html_(self) -> str:
        """Returns the means for notebooks, with a row for each arm."""
        return to_html(self._pivot(), index=True)

    def _pivot(self) -> pd.DataFrame:
        rows = self.frame()
        order = rows["score"].unique().tolist()
        return rows.pivot_table("mean", "arm", "score").loc[self._select_arms(None), order]


class PerClass(Display):
    """Precision, recall and F1 of each class."""

    def frame(self, arm: str | None = None) -> pd.DataFrame:
        """Returns a row for each arm and class, as in the file `per_class.csv` of the report.

        Columns: arm, class, support (tested landmarks), sources; then for each of precision, recall and f1 the mean
        over seeds, its range over seeds (`_low`, `_high`) and its difference from the control and the baseline
        (`_vs_control`, `_vs_baseline`); last the 95 % confidence intervals over sources of the differences in F1
        (`f1_vs_control_low` and so on), NaN for a class with too few sources.

        Args:
            arm: name of an arm; None for all arms.

        Raises:
            UserError: there is no such arm.
        """
        table = tables.per_class(self._results)
        return table[table["arm"].isin(self._select_arms(arm))].reset_index(drop=True)

    def plot(self, ax: Axes | None = None, *, arms: Sequence[str] | None = None, score: str = "f1") -> Axes:
        """Draws one score of each class for some arms, with ranges over seeds.

        Args:
            ax: axes to draw on; None for those of a new figure.
            arms: names of the arms; None for the baseline, the control and the best strategy on validation.
            score: `precision`, `recall` or `f1`.

        Raises:
            UserError: there is no such arm or score.
        """
        check_known("score of a class", score, CLASS_METRICS)
        names = [arm.name for arm in self._results.shown] if arms is None else arms
        rows = pd.concat([self.frame(name) for name in names], ignore_index=True)
        return drawing.draw_class_bars(rows, score, f"{CLASS_METRICS[score]} {self._results.terms.where}", ax)

    def __repr__(self) -> str:
        """Returns the F1 of each class as text, with a row for each arm."""
        return repr(self._pivot())

    def _repr_html_(self) -> str:
        """Returns the F1 of each class for notebooks, with a row for each arm."""
        return to_html(self._pivot(), index=True)

    def _pivot(self) -> pd.DataFrame:
        rows = self.frame()
        classes = list(self._results.classes)
        return rows.pivot_table("f1", "arm", "class").loc[self._select_arms(None), classes]


class Confusion(Display):
    """The confusion matrix of an arm, mean over seeds."""

    def __init__(self, results: Results, arm: str) -> None:
        """Finds the arm.

        Raises:
            UserError: there is no such arm.
        """
        super().__init__(results)
        self.arm = find_arm(results, arm).name

    @property
    def counts(self) -> NDArray[np.float64]:
        """Mean counts over seeds, shape (n_classes, n_classes); rows are true classes, columns predicted classes."""
        return self._results.confusion(self.arm)

    def frame(self) -> pd.DataFrame:
        """Returns a row for each pair of classes: true_class, predicted_class, count, share_of_true."""
        return tables.confusion(self._results, self.arm)

    def matrix(self) -> pd.DataFrame:
        """Returns the counts with a row for each true class and a column for each predicted class."""
        names = self._results.classes.names
        return pd.DataFrame(
            self.counts, pd.Index(names, name="true_class"), pd.Index(names, name="predicted_class"), copy=True
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draws the matrix: colours are shares of the true class, the text is the count."""
        title = f"{self.arm}: landmarks, mean over seeds"
        return drawing.draw_matrix(self.counts, self._results.classes.names, title, ax)

    def __repr__(self) -> str:
        """Returns the matrix as text."""
        return repr(self.matrix())

    def _repr_html_(self) -> str:
        """Returns the matrix for notebooks."""
        return to_html(self.matrix(), index=True)
