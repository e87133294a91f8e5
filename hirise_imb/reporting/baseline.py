"""The reference run next to the published table: its scores as they are, and paired with shuffled labels.

Shuffling leaves how often each class occurs and how often it is predicted as they are, so that the hits of a class are
hypergeometric and its precision, recall and F1, which are multiples of them, have an exact distribution. Over several
seeds it is the mixture of the seeds' distributions in equal parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.data.dataset import ClassSet
from hirise_imb.forensics import METRICS, Finding, PermutationNull, PublishedTable, Rounded, examine, read_published
from hirise_imb.metrics.classification import precision_recall_f1
from hirise_imb.reporting import narrative
from hirise_imb.reporting.pairing import permutation_null
from hirise_imb.reporting.records import Arm
from hirise_imb.reporting.results import BASELINE, Results
from hirise_imb.reporting.summary.content import facts
from hirise_imb.reporting.summary.records import WHOLE_TABLE, BaselineContent, FigureRecord
from hirise_imb.utils.errors import UserError

ALL = "all"
"""Stands in the place of a class where a score is of the whole table."""

DECIMALS = 3
"""Of the published figures."""

RANGE = (0.025, 0.975)
"""Ends of the range of shuffled pairings, as shares of them."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Law:
    """The distribution of a score over shuffled pairings."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Floats, weights: Floats) -> Law:
        """Mean and 95 % range of weighted values, shape (n,) each: the least value that reaches a share ends it.

        Args:
            values: that the score takes.
            weights: their probabilities, which sum to 1.
        """
        order = np.argsort(values, kind="stable")
        # The sums are a few units of rounding off; a quantile must not slip to the next value for that.
        reached = np.cumsum(weights[order]) + 1e-12
        low, high = values[order][np.searchsorted(reached, RANGE)]
        return cls(float(values @ weights), float(low), float(high))


@dataclass(frozen=True)
class Entry:
    """One figure of the comparison."""

    name: str
    """The class, or `all`."""
    metric: str
    published: float | None
    """None for a score of the whole table."""
    aligned: float | None
    """Mean over seeds, predictions and labels paired by image; None for a class without a test landmark."""
    shuffled: Law | None
    """None for a class without a test landmark."""

    @property
    def published_in_range(self) -> bool | None:
        """Whether a figure that prints as the published one lies in the range; None where one of them is missing."""
        if self.published is None or self.shuffled is None:
            return None
        return Rounded.read(f"{self.published:.{DECIMALS}f}").holds(self.shuffled.low, self.shuffled.high)

    @property
    def aligned_in_range(self) -> bool:
        """Whether the aligned score lies in the range, so that the published figure can't tell which of them it is."""
        law = self.shuffled
        return law is not None and self.aligned is not None and law.low <= self.aligned <= law.high

    def to_dict(self) -> FigureRecord:
        """Returns a row of the table."""
        law = self.shuffled
        return {
            "class": self.name,
            "metric": self.metric,
            "published": self.published,
            "aligned": self.aligned,
            "shuffled": law.mean if law else None,
            "shuffled_low": law.low if law else None,
            "shuffled_high": law.high if law else None,
            "published_in_range": self.published_in_range,
        }


def check_comparable(classes: ClassSet, published: PublishedTable | None = None) -> None:
    """Checks that a data set has the classes of the published table.

    Args:
        classes: of the data set.
        published: that of the HiRISE reference run by default.

    Raises:
        UserError: the classes differ, so that no figure can be compared.
    """
    table = read_published() if published is None else published
    if classes.names != table.classes:
        raise UserError(
            f"The published table is of the classes {', '.join(table.classes)}, and this data set has "
            f"{', '.join(classes)}: run the reference run on data with the published classes."
        )


@dataclass(frozen=True)
class Baseline:
    """The reference run, its only arm, next to the published table.

    Raises:
        UserError: the data set has other classes than the published table.
    """

    results: Results
    published: PublishedTable = field(default_factory=read_published)

    def __post_init__(self) -> None:
        """Check the classes."""
        check_comparable(self.results.classes, self.published)

    @property
    def arm(self) -> Arm:
        """The reference run."""
        return self.results.arms[0]

    @cached_property
    def nulls(self) -> list[PermutationNull]:
        """The shuffled pairings of each seed."""
        return [permutation_null(fit.confusion) for fit in self.results.evaluations[BASELINE]]

    @cached_property
    def entries(self) -> list[Entry]:
        """Precision, recall and F1 of each class, then the scores of the whole table."""
        laws = [_class_laws(self.nulls, k) for k in range(len(self.published.classes))]
        aligned = {metric: self.results.per_class(BASELINE, metric) for metric in METRICS}
        entries = []
        for k, name in enumerate(self.published.classes):
            there = self.results.support[k] > 0
            for metric in METRICS:
                printed = self.published.figures[metric][k]
                published = None if printed is None else printed.value
                score = aligned[metric][k].mean if there else None
                entries.append(Entry(name, metric, published, score, laws[k][metric] if there else None))
        whole = self.results.headline_scores(BASELINE)
        shuffled = _whole_laws(self.nulls)
        return entries + [Entry(ALL, name, None, whole[name].mean, shuffled[name]) for name in WHOLE_TABLE]

    def of(self, metric: str) -> list[Entry]:
        """The entries of one metric that have something to compare."""
        return [entry for entry in self.entries if entry.metric == metric and entry.shuffled]

    def table(self) -> pd.DataFrame:
        """One row for each class and metric, and for each score of the whole table."""
        return pd.DataFrame([entry.to_dict() for entry in self.entries])

    def headline(self) -> str:
        """What the comparison shows."""
        idle = sum(entry.aligned_in_range for entry in self.entries if entry.published_in_range)
        aside = f" At {idle} of them the aligned score lies there too, so that they tell nothing." if idle else ""
        macro = next(entry for entry in self.entries if entry.metric == "macro_f1")
        law = macro.shuffled
        assert law is not None
        kappa = (
            " to ".join(f"{value:.3f}" for value in self.counted.joint_ranges.kappa)
            if self.counted.joint_ranges
            else "none"
        )
        return (
            f"With predictions and labels aligned the model reaches macro F1 {macro.aligned:.3f}, paired with shuffled "
            f"labels {law.mean:.3f} ({law.low:.3f} to {law.high:.3f}). The published table, from its own figures and "
            f"the official supports, is {self.counted.verdict} (kappa {kappa}). {self.verdict()}{aside}"
        )

    @cached_property
    def counted(self) -> Finding:
        """What the published figures imply by themselves."""
        return examine(self.published)

    def verdict(self) -> str:
        """How many published figures lie in the range of shuffled pairings."""
        inside = [entry.published_in_range for entry in self.entries if entry.published_in_range is not None]
        return (
            f"{sum(inside)} of {len(inside)} published figures lie in the 95 % range of this model's predictions "
            "paired with shuffled labels."
        )

    def reading(self) -> str:
        """What the published table is, and what may be compared with it."""
        here, there = (self._composition(support) for support in (self.results.support, self.published.support))
        return (
            f"The published table is that of the ResNet50V2 reference run on the official test split ({there}). This "
            f"test split has {here}. Shuffled figures follow how often each class occurs and is predicted, so only on "
            "the official split should they agree with the published ones in detail; elsewhere, in kind."
        )

    def _composition(self, support: Sequence[int] | Ints) -> str:
        """Number of landmarks, and the share of the majority class if there is one."""
        total, classes = sum(support), self.results.classes
        if classes.majority_id is None:
            return f"{total:,} landmarks"
        return f"{total:,} landmarks, {100 * support[classes.majority_id] / total:.1f} % {classes.majority}"

    def caution(self) -> str:
        """What the numbers can't tell."""
        return f"{_seeds(len(self.arm.seeds))} {narrative.limits(self.results)}"

    def to_dict(self) -> BaselineContent:
        """Returns everything the page shows, as plain values; without times, so that equal results are equal files."""
        return {
            "kind": "baseline",
            **facts(self.results),
            "headline": self.headline(),
            "reading": self.reading(),
            "caution": self.caution(),
            "comparison": [entry.to_dict() for entry in self.entries],
        }


def _seeds(count: int) -> str:
    return f"Aligned scores are means over {count} seeds." if count > 1 else "Fitted with one seed."


def _class_laws(nulls: Sequence[PermutationNull], label: int) -> dict[str, Law]:
    """The exact distributions of a class's precision, recall and F1."""
    values: dict[str, list[Floats]] = {metric: [] for metric in METRICS}
    weights = []
    for null in nulls:
        hits, chances = null.hit_distribution(label)
        weights.append(chances / len(nulls))
        for metric, reached in precision_recall_f1(hits, null.support[label], null.predicted[label]).items():
            values[metric].append(reached)
    return {metric: Law.of(np.concatenate(parts), np.concatenate(weights)) for metric, parts in values.items()}


def _whole_laws(nulls: Sequence[PermutationNull]) -> dict[str, Law]:
    """The distributions of the scores of the whole table, from random pairings."""
    parts = [_whole_scores(null, seed) for seed, null in enumerate(nulls)]
    laws = {}
    for name in WHOLE_TABLE:
        values = np.concatenate([part[name] for part in parts])
        laws[name] = Law.of(values, np.full(len(values), 1 / len(values)))
    return laws


def _whole_scores(null: PermutationNull, seed: int) -> dict[str, Floats]:
    """Each score in each random pairing, shape (draws,)."""
    drawn = null.draw(seed=seed)
    hits = drawn.sum(axis=1)
    f1 = precision_recall_f1(drawn, null.support, null.predicted)["f1"]
    return {
        "accuracy": hits / null.total,
        "macro_f1": f1.mean(axis=1),
        "weighted_f1": f1 @ null.support / null.total,
        "kappa": np.array([null.kappa(count) for count in hits.tolist()]),
    }
