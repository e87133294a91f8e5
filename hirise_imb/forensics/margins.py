"""The counts that one row of a published table allows: pairs (hits, predictions) of a class that print as the row does.

Brown and Heathers (2017) ask this of a mean (GRIM); here it is asked of precision, recall and F1 at once. For a number
of predictions m, the possible hits t form a range, since each printed figure bounds t from both sides: t / m for
precision, t / n for recall and 2 t / (n + m) for F1, where n is the support. All arithmetic uses integers, so no
solution is lost to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hirise_imb.forensics.sums import Flags, Ints
from hirise_imb.forensics.table import METRICS, PublishedTable, Rounded


@dataclass(frozen=True)
class ClassMargins:
    """All pairs (hits, predictions) that one class allows, as a range of hits for each number of predictions."""

    support: int
    predicted: Ints
    """Possible numbers of predictions in ascending order, shape (n,); empty if the row is impossible."""
    fewest: Ints
    """Fewest hits for each number of predictions, shape (n,)."""
    most: Ints
    """Most hits for each number of predictions, shape (n,)."""

    def keep(self, flags: Flags) -> ClassMargins:
        """Returns the margins with only those numbers of predictions for which `flags`, shape (n,), is true."""
        return ClassMargins(self.support, self.predicted[flags], self.fewest[flags], self.most[flags])

    def __contains__(self, pair: tuple[int, int]) -> bool:
        """Checks whether the class allows a pair of hits and predictions."""
        hits, predicted = pair
        place = int(np.searchsorted(self.predicted, predicted))
        if place == len(self.predicted) or self.predicted[place] != predicted:
            return False
        return bool(self.fewest[place] <= hits <= self.most[place])

    @property
    def hits(self) -> tuple[int, int]:
        """Fewest and most hits of any pair."""
        return int(self.fewest.min()), int(self.most.max())

    @property
    def predictions(self) -> tuple[int, int]:
        """Fewest and most predictions of any pair."""
        return int(self.predicted[0]), int(self.predicted[-1])


def class_margins(table: PublishedTable, label: int) -> ClassMargins:
    """Returns all pairs (hits, predictions) of class `label` that print as its row does.

    Precision without a prediction and recall without a label print as 0.
    """
    support, total = table.support[label], table.total
    predicted = np.arange(total + 1)
    # Wrong predictions need labels of other classes, so many predictions force some hits.
    fewest = np.maximum(0, predicted - (total - support))
    most = np.minimum(predicted, support)
    denominators: dict[str, Ints | int] = {"precision": predicted, "recall": support, "f1": support + predicted}
    possible = np.ones(total + 1, bool)
    for metric in METRICS:
        figure = table.figures[metric][label]
        if figure is not None:
            low, high, defined = _bounds(figure, denominators[metric], 2 if metric == "f1" else 1)
            fewest, most, possible = np.maximum(fewest, low), np.minimum(most, high), possible & defined
    return ClassMargins(support, predicted, fewest, most).keep(possible & (fewest <= most))


def _bounds(figure: Rounded, denominator: Ints | int, times: int) -> tuple[Ints | int, Ints | int, Flags | bool]:
    """Returns the fewest and most hits t for which times * t / denominator prints as `figure`, and where any t does."""
    scale = times * figure.scale
    # Negating twice turns the floor of integer division into a ceiling.
    low = -((-figure.low * denominator) // scale)
    high = (figure.high * denominator) // scale
    return low, high, (denominator > 0) | (figure.low <= 0)
