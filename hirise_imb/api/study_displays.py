"""Displays of how a study went: trials, selection, sources, data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from hirise_imb.api import drawing
from hirise_imb.api.displays import Display
from hirise_imb.reporting import search_summary, selection
from hirise_imb.reporting.figures import sources

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Trials(Display):
    """The finished trials of all searches."""

    def frame(self, arm: str | None = None) -> pd.DataFrame:
        """Returns a row for each finished trial.

        Columns: arm, division (the given split, or an outer fold), trial (from 1), state (complete or failed), value
        (validation score, NaN if it failed) and best_so_far.

        Args:
            arm: name of an arm; None for all arms with a search.

        Raises:
            UserError: there is no such arm.
        """
        table = search_summary.table(self._results)
        return table[table["arm"].isin(self._select_arms(arm))].reset_index(drop=True)

    def plot(self, ax: Axes | None = None, *, arms: Sequence[str] | None = None) -> Axes:
        """Draws the best validation score so far against the number of finished trials.

        Args:
            ax: axes to draw on; None for those of a new figure.
            arms: names of the arms; None for the control and the best strategy on validation.

        Raises:
            UserError: there is no such arm.
        """
        names = [arm.name for arm in self._results.shown] if arms is None else arms
        parts = [self.frame(name) for name in names]
        label = f"best {self._results.terms.inner} macro F1 so far"
        return drawing.draw_steps(pd.concat(parts, ignore_index=True), label, ax)


class Selection(Display):
    """What selection gained and lost: scores by which recipes were chosen, next to those on other sources."""

    def frame(self) -> pd.DataFrame:
        """Returns a row for each arm, as in the file `selection.csv` of the report; all scores are macro F1.

        Columns: arm, role, best_trial (score of the chosen trial), inner (score of its recipe with other seeds and
        folds), outer (score of the tested landmarks), luck (best_trial - inner), gap (inner - outer), tuning_gain,
        control_gain_inner, control_gain_outer, divisions, distinct_settings, divisions_as_control, settings.
        """
        return selection.table(self._results)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draws outer against inner scores; below the line of equal scores, selection promised more than it kept."""
        terms = self._results.terms
        return drawing.draw_inner_outer(self.frame(), (f"{terms.inner} macro F1", f"{terms.outer} macro F1"), ax)


class Sources(Display):
    """The recall in each tested source of each class."""

    def frame(self, arm: str | None = None) -> pd.DataFrame:
        """Returns a row for each arm, source and class in it.

        Columns: arm, source, class, landmarks, hits (mean over seeds), recall; and f1 of the class over all sources
        with its 95 % confidence interval (f1_low, f1_high), NaN for a class with too few sources.

        Args:
            arm: name of an arm; None for all arms.

        Raises:
            UserError: there is no such arm.
        """
        names = self._select_arms(arm)
        table = sources.table(self._results)
        return table[table["arm"].isin(names)].reset_index(drop=True)

    def plot(self, ax: Axes | None = None, arm: str | None = None) -> Axes:
        """Draws the recall in each source, one row for each class.

        Args:
            ax: axes to draw on; None for those of a new figure.
            arm: name of an arm; None for the best strategy on validation, or the baseline without one.

        Raises:
            UserError: there is no such arm.
        """
        chosen = self._results.chosen
        name = arm or (chosen.name if chosen else self._results.reference)
        return drawing.draw_sources(self.frame(name), self._results.classes.names, name, ax)


class Data(Display):
    """The data set of the study: counts by split and class."""

    def frame(self) -> pd.DataFrame:
        """Returns a row for each split and class: split, class, sources, landmarks, images, rows."""
        return self._results.data.copy()

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draws the landmarks of each class and split, on a logarithmic axis."""
        return drawing.draw_data(self._results.data, ax)
