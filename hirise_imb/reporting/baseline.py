"""Compares the reference run with the published table, with its labels as they are and shuffled.

Shuffling does not change how often each class occurs and how often it is predicted. So the hits of a class are
hypergeometric, and its precision, recall and F1, which are multiples of the hits, have exact distributions. For several
seeds, the distribution is the mixture of those of the seeds with equal weights.
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
"""Name used instead of a class for scores of the complete table."""

DECIMALS = 3
"""Number of decimals of the published figures."""

RANGE = (0.025, 0.975)
"""Quantiles of the shuffled pairings at which the 95 % range ends."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class NullDistribution:
    """The distribution of a score over shuffled pairings."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Floats, weights: Floats) -> NullDistribution:
        """Returns the mean and the 95 % range of weighted values.

        Each end of the range is the smallest value whose cumulative probability reaches the quantile.

        Args:
            values: possible values of the score, shape (n,).
            weights: probabilities of the values, which sum to 1, shape (n,).
        """
        order = np.argsort(values, kind="stable")
        # The margin absorbs rounding errors of the sums, which must not move a quantile to the next value.
        cumulative = np.cumsum(weights[order]) + 1e-12
        low, high = values[order][np.searchsorted(cumulative, RANGE)]
        return cls(float(values @ weights), float(low), float(high))


@dataclass(frozen=True)
class ComparisonEntry:
    """One score in the comparison with the published table."""

    name: str
    """Name of the class, or `all`."""
    metric: str
    published: float | None
    """Published score; None for a score of the complete table."""
    aligned: float | None
    """Mean score over seeds with predictions and labels paired by image; None for a class without a test landmark."""
    shuffled: NullDistribution | None
    """Distribution of the score over shuffled pairings; None for a class without a test landmark."""

    @property
    def published_in_range(self) -> bool | None:
        """Whether a score that prints as the published one lies in the shuffled range; None if either is missing."""
        if self.published is None or self.shuffled is None:
            return None
        return Rounded.read(f"{self.published:.{DECIMALS}f}").holds(self.shuffled.low, self.shuffled.high)

    @property
    def aligned_in_range(self) -> bool:
        """Whether the aligned score lies in the shuffled range too, so that the published score decides nothing."""
        null = self.shuffled
        return null is not None and self.aligned is not None and null.low <= self.aligned <= null.high

    def to_dict(self) -> FigureRecord:
        """Returns the entry as a row of the table."""
        null = self.shuffled
        return {
            "class": self.name,
            "metric": self.metric,
            "published": self.published,
            "aligned": self.aligned,
            "shuffled": null.mean if null else None,
            "shuffled_low": null.low if null else None,
            "shuffled_high": null.high if null else None,
            "published_in_range": self.published_in_range,
        }


def check_comparable(classes: ClassSet, published: PublishedTable | None = None) -> None:
    """Checks that a data set has the classes of the published table.

    Args:
        classes: classes of the data set.
        published: the published table, by default that of the HiRISE reference run.

    Raises:
        UserError: the classes differ, so that no figure can be compared.
    """
    table = read_published() if published is None else published
    if classes.names != table.classes:
        raise UserError(
            f"The published table has the classes {', '.join(table.classes)}, and this data set has "
            f"{', '.join(classes)}: use data with the published classes."
        )


@dataclass(frozen=True)
class Baseline:
    """The results of the reference run, which is their only arm, and the published table.

    Raises:
        UserError: the data set has other classes than the published table.
    """

    results: Results
    published: PublishedTable = field(default_factory=read_published)

    def __post_init__(self) -> None:
        """Checks the classes."""
        check_comparable(self.results.classes, self.published)

    @property
    def arm(self) -> Arm:
        """The reference run."""
        return self.results.arms[0]

    @cached_property
    def nulls(self) -> list[PermutationNull]:
        """Shuffled pairings of the predictions of each seed."""
        return [permutation_null(fit.confusion) for fit in self.results.evaluations[BASELINE]]

    @cached_property
    def entries(self) -> list[ComparisonEntry]:
        """Precision, recall and F1 of each class, then the scores of the complete table."""
        nulls = [_class_distributions(self.nulls, k) for k in range(len(self.published.classes))]
        aligned = {metric: self.results.per_class(BASELINE, metric) for metric in METRICS}
        entries = []
        for k, name in enumerate(self.published.classes):
            has_landmarks = self.results.support[k] > 0
            for metric in METRICS:
                printed = self.published.figures[metric][k]
                published = None if printed is None else printed.value
                score = aligned[metric][k].mean if has_landmarks else None
                null = nulls[k][metric] if has_landmarks else None
                entries.append(ComparisonEntry(name, metric, published, score, null))
        overall = self.results.headline_scores(BASELINE)
        shuffled = _overall_distributions(self.nulls)
        return entries + [ComparisonEntry(ALL, name, None, overall[name].mean, shuffled[name]) for name in WHOLE_TABLE]

    def of(self, metric: str) -> list[ComparisonEntry]:
        """Returns the entries of one metric for classes that have test landmarks."""
        return [entry for entry in self.entries if entry.metric == metric and entry.shuffled]

    def table(self) -> pd.DataFrame:
        """Returns a table with a row for each class and metric, and for each score of the complete table."""
        return pd.DataFrame([entry.to_dict() for entry in self.entries])

    def headline(self) -> str:
        """Returns the result of the comparison in sentences."""
        undecided = sum(entry.aligned_in_range for entry in self.entries if entry.published_in_range)
        aside = ""
        if undecided:
            aside = f" For {undecided} of them, the aligned score lies in this range too, so they decide nothing."
        macro = next(entry for entry in self.entries if entry.metric == "macro_f1")
        null = macro.shuffled
        assert null is not None
        ranges = self.counted.joint_ranges
        kappa = " to ".join(f"{value:z.3f}" for value in ranges.kappa) if ranges else "none"
        return (
            f"With predictions and labels aligned, the model reaches macro F1 {macro.aligned:.3f}; with shuffled "
            f"labels it reaches {null.mean:.3f} ({null.low:.3f} to {null.high:.3f}). Judged by its own figures and the "
            f"official supports, the published table is {self.counted.verdict} (kappa {kappa}). {self.verdict()}{aside}"
        )

    @cached_property
    def counted(self) -> Finding:
        """Examination of the published figures by themselves."""
        return examine(self.published)

    def verdict(self) -> str:
        """Returns a sentence that says how many published figures lie in the range of shuffled pairings."""
        inside = [entry.published_in_range for entry in self.entries if entry.published_in_range is not None]
        return (
            f"{sum(inside)} of {len(inside)} published figures lie in the 95 % range of this model's predictions "
            "paired with shuffled labels."
        )

    def reading(self) -> str:
        """Returns sentences that say what the published table is, and what may be compared with it."""
        here, official = (self._composition(support) for support in (self.results.support, self.published.support))
        return (
            f"The published table is that of the ResNet50V2 reference run on the official test split ({official}). "
            f"This test split has {here}. Shuffled figures depend on how often each class occurs and is predicted, so "
            "they should agree with the published ones in detail only on the official split; on others, only roughly."
        )

    def _composition(self, support: Sequence[int] | Ints) -> str:
        """Returns the number of landmarks, and the share of the majority class if there is one."""
        total, classes = sum(support), self.results.classes
        if classes.majority_id is None:
            return f"{total:,} landmarks"
        return f"{total:,} landmarks, {100 * support[classes.majority_id] / total:.1f} % {classes.majority}"

    def caution(self) -> str:
        """Returns sentences that state the limits of the numbers."""
        return f"{_seeds(len(self.arm.seeds))} {narrative.describe_limits(self.results)}"

    def to_dict(self) -> BaselineContent:
        """Returns the content of the page as plain values, without times, so that equal results give equal files."""
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


def _class_distributions(nulls: Sequence[PermutationNull], label: int) -> dict[str, NullDistribution]:
    """Returns the exact null distributions of the precision, recall and F1 of a class."""
    values: dict[str, list[Floats]] = {metric: [] for metric in METRICS}
    weights = []
    for null in nulls:
        hits, probabilities = null.hit_distribution(label)
        weights.append(probabilities / len(nulls))
        for metric, scores in precision_recall_f1(hits, null.support[label], null.predicted[label]).items():
            values[metric].append(scores)
    return {
        metric: NullDistribution.of(np.concatenate(parts), np.concatenate(weights)) for metric, parts in values.items()
    }


def _overall_distributions(nulls: Sequence[PermutationNull]) -> dict[str, NullDistribution]:
    """Returns the null distributions of the scores of the complete table, from random pairings."""
    parts = [_random_scores(null, seed) for seed, null in enumerate(nulls)]
    distributions = {}
    for name in WHOLE_TABLE:
        values = np.concatenate([part[name] for part in parts])
        distributions[name] = NullDistribution.of(values, np.full(len(values), 1 / len(values)))
    return distributions


def _random_scores(null: PermutationNull, seed: int) -> dict[str, Floats]:
    """Returns each score in each random pairing, shape (draws,)."""
    class_hits = null.draw(seed=seed)
    hits = class_hits.sum(axis=1)
    f1 = precision_recall_f1(class_hits, null.support, null.predicted)["f1"]
    return {
        "accuracy": hits / null.total,
        "macro_f1": f1.mean(axis=1),
        "weighted_f1": f1 @ null.support / null.total,
        "kappa": np.array([null.kappa(count) for count in hits.tolist()]),
    }
