"""What one row of a published table allows: every (hits, predictions) of a class that prints as the row does.

Brown and Heathers (2017) ask this of a mean (GRIM); here precision, recall and F1 ask it at once. For a number of
predictions m the hits t that fit are a range, since each printed figure bounds t from both sides:
t / m for precision, t / n for recall, 2 t / (n + m) for F1. All arithmetic is in integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hirise_imb.forensics.sums import Flags, Ints
from hirise_imb.forensics.table import METRICS, PublishedTable, Rounded


@dataclass(frozen=True)
class ClassMargins:
    """All (hits, predictions) that one class allows, as a range of hits for each number of predictions."""

    support: int
    predicted: Ints
    """Numbers of predictions, rising; shape (n,), empty where the row is impossible."""
    fewest: Ints
    """The fewest hits with so many predictions, shape (n,)."""
    most: Ints
    """The most hits with so many predictions, shape (n,)."""

    def keep(self, flags: Flags) -> ClassMargins:
        """Those numbers of predictions where `flags`, shape (n,), is true."""
        return ClassMargins(self.support, self.predicted[flags], self.fewest[flags], self.most[flags])

    def __contains__(self, pair: tuple[int, int]) -> bool:
        """Whether the class allows this pair of hits and predictions."""
        hits, predicted = pair
        place = int(np.searchsorted(self.predicted, predicted))
        if place == len(self.predicted) or self.predicted[place] != predicted:
            return False
        return bool(self.fewest[place] <= hits <= self.most[place])

    @property
    def hits(self) -> tuple[int, int]:
        """Fewest and most hits."""
        return int(self.fewest.min()), int(self.most.max())

    @property
    def predictions(self) -> tuple[int, int]:
        """Fewest and most predictions."""
        return int(self.predicted[0]), int(self.predicted[-1])


def class_margins(table: PublishedTable, label: int) -> ClassMargins:
    """All (hits, predictions) of class `label` that print as its row does.

    A precision of no prediction and a recall of no label print as 0.
    """
    support, total = table.support[label], table.total
    predicted = np.arange(total + 1, dtype=np.int64)
    # Wrong predictions fall on labels of other classes.
    fewest = np.maximum(0, predicted - (total - support))
    most = np.minimum(predicted, support)
    wholes = {"precision": predicted, "recall": np.full_like(predicted, support), "f1": support + predicted}
    possible = np.ones(total + 1, bool)
    for metric in METRICS:
        figure = table.figures[metric][label]
        if figure is not None:
            low, high, defined = _bounds(figure, wholes[metric], 2 if metric == "f1" else 1)
            fewest, most, possible = np.maximum(fewest, low), np.minimum(most, high), possible & defined
    return ClassMargins(support, predicted, fewest, most).keep(possible & (fewest <= most))


def _bounds(figure: Rounded, whole: Ints, times: int) -> tuple[Ints, Ints, Flags]:
    """Fewest and most hits t for which times * t / whole prints as `figure`, and where that can be at all."""
    scale = times * figure.scale
    low = -((-figure.low * whole) // scale)
    high = (figure.high * whole) // scale
    return low, high, (whole > 0) | (figure.low <= 0)
