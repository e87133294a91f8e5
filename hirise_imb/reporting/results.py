"""The results that a report is made from, and the numbers computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.data.dataset import ClassSet
from hirise_imb.forensics import METRICS, Statistic
from hirise_imb.metrics.classification import per_class_scores
from hirise_imb.metrics.operating_point import OperatingPoint
from hirise_imb.metrics.ranking import average_precision
from hirise_imb.metrics.registry import Evaluation, evaluate
from hirise_imb.reporting.inference import Inference
from hirise_imb.reporting.pairing import compare, describe
from hirise_imb.reporting.records import Arm, Omitted, Spread

BASELINE = "baseline"
"""The name of the reference run in its own study."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Origin:
    """A report that a comparison takes arms from."""

    name: str
    """Label of the report, which precedes the names of its arms."""
    study: str
    setting: str
    arms: tuple[str, ...]
    """Names of its arms in the comparison, in the order of its own tables."""
    chosen: str | None
    """Its best strategy on validation; None if it has no strategy."""


@dataclass(frozen=True)
class Results:
    """The results of a study, or of several studies whose arms are compared."""

    name: str
    setting: str
    """One or two sentences that say what was run."""
    study_toml: str
    classes: ClassSet
    test: pd.DataFrame
    """Landmarks of the test split in the order of all predictions; columns: image, landmark, source, label."""
    data: pd.DataFrame
    """Counts by split and class; columns: split, class, sources, landmarks, images, rows."""
    arms: tuple[Arm, ...]
    """All arms; the first is the reference, the baseline."""
    environment: dict[str, Any]
    omitted: tuple[Omitted, ...] = ()
    control_name: str | None = None
    """Name of the control: the baseline with its optimiser tuned like that of a strategy. None without a control."""
    appendix: Mapping[str, Any] = field(default_factory=lambda: {"strategies": [], "shared_parameters": []})
    """The strategies as they are declared; see `pipeline.appendix`."""
    origins: tuple[Origin, ...] = ()
    """The reports that are compared; empty for the report of one study."""

    @property
    def reference(self) -> str:
        """Name of the arm that all others are compared with."""
        return self.arms[0].name

    @cached_property
    def control(self) -> Arm | None:
        """The arm of the control; None without one."""
        return next((arm for arm in self.arms if arm.name == self.control_name), None)

    @cached_property
    def strategies(self) -> tuple[Arm, ...]:
        """The arms with a remedy, ordered by validation score, which is known before the test split is used.

        A comparison has all arms but the reference in their given order, since its reports may have different
        validation data.
        """
        remedies = [arm for arm in self.arms[1:] if arm is not self.control]
        if self.origins:
            return tuple(remedies)
        return tuple(sorted(remedies, key=lambda arm: -arm.val_macro_f1))

    @cached_property
    def chosen(self) -> Arm | None:
        """The strategy with the best validation score; None without a strategy.

        It is also None for a comparison, in which each report has its own.
        """
        return None if self.origins or not self.strategies else self.strategies[0]

    @cached_property
    def ordered(self) -> tuple[Arm, ...]:
        """All arms in the order of tables: the baseline, the control, the strategies."""
        return (self.arms[0], *([] if self.control is None else [self.control]), *self.strategies)

    @cached_property
    def preferred(self) -> frozenset[str]:
        """Names of the arms with the best validation score: one for a study, one for each report that is compared."""
        names = [self.chosen.name if self.chosen else None, *(origin.chosen for origin in self.origins)]
        return frozenset(name for name in names if name is not None)

    @cached_property
    def shown(self) -> tuple[Arm, ...]:
        """The few arms in figures with a line for each arm: the reference, the control and the preferred arms."""
        named = {self.reference, self.control_name, *self.preferred}
        return tuple(arm for arm in self.ordered if arm.name in named)

    @cached_property
    def references(self) -> dict[str, str | None]:
        """Names of the arms that others are compared with, by key; `vs_control` is None without a control."""
        return {"vs_baseline": self.reference, "vs_control": self.control.name if self.control else None}

    @cached_property
    def labels(self) -> Ints:
        """True classes of the test landmarks, shape (n,)."""
        return self.test["label"].to_numpy(np.int64)

    @cached_property
    def evaluations(self) -> dict[str, list[Evaluation]]:
        """Predictions and labels of the test split by arm, one evaluation for each seed."""
        return {
            arm.name: [
                Evaluation.of(predictions, self.test, self.classes.rare_ids, temperature)
                for predictions, temperature in zip(arm.predictions, arm.temperatures, strict=True)
            ]
            for arm in self.arms
        }

    @cached_property
    def support(self) -> Ints:
        """Number of test landmarks of each class, shape (n_classes,)."""
        return np.bincount(self.labels, minlength=len(self.classes))

    @cached_property
    def sources(self) -> Ints:
        """Number of test sources of each class, shape (n_classes,)."""
        pairs = self.test.drop_duplicates(["source", "label"])["label"]
        return np.bincount(pairs, minlength=len(self.classes))

    @cached_property
    def inference(self) -> Inference:
        """Confidence intervals and tests over sources."""
        predicted = {arm.name: np.stack([fit.labels() for fit in arm.predictions]) for arm in self.arms}
        return Inference(self.labels, self.test["source"], predicted, self.classes)

    @cached_property
    def pairings(self) -> dict[str, list[Statistic]]:
        """Comparison of test hits with shuffled pairings by arm, one for each seed."""
        return compare({name: [fit.confusion for fit in fits] for name, fits in self.evaluations.items()})

    def headline_scores(self, arm: str) -> dict[str, Spread]:
        """Returns the registered scores of an arm over seeds by name, without those that are undefined for a seed."""
        return self._headline_scores[arm]

    def macro(self, arm: str) -> Spread:
        """Returns the macro F1 of an arm on the test split over seeds."""
        return self.headline_scores(arm)["macro_f1"]

    def per_class(self, arm: str, metric: str) -> list[Spread]:
        """Returns the precision, recall or F1 of each class over seeds."""
        return self._per_class[arm][metric]

    def average_precision(self, arm: str) -> list[Spread | None]:
        """Returns the average precision of each class over seeds; None for a class without a test landmark."""
        return self._average_precision[arm]

    def gain(self, arm: str, name: str, other: str) -> float:
        """Returns the mean of a registered score over seeds, minus that of another arm."""
        return self.headline_scores(arm)[name].mean - self.headline_scores(other)[name].mean

    def gain_is_clear(self, arm: str, name: str, other: str) -> bool:
        """Checks whether the ranges of a score over seeds are disjoint; False if either arm has a single seed."""
        first, second = (self.headline_scores(which)[name] for which in (arm, other))
        return self._have_several_seeds(arm, other) and first.apart(second)

    def difference(self, arm: str, metric: str, other: str) -> Floats:
        """Returns the mean score of each class over seeds, minus that of another arm, shape (n_classes,)."""
        pairs = zip(self.per_class(arm, metric), self.per_class(other, metric), strict=True)
        return np.array([first.mean - second.mean for first, second in pairs])

    def clear(self, arm: str, metric: str, other: str) -> list[bool]:
        """Checks for each class whether the ranges over seeds are disjoint; False if either arm has a single seed."""
        pairs = zip(self.per_class(arm, metric), self.per_class(other, metric), strict=True)
        return [self._have_several_seeds(arm, other) and first.apart(second) for first, second in pairs]

    def confusion(self, arm: str) -> Floats:
        """Returns the mean confusion matrix over seeds, shape (n_classes, n_classes); rows are true classes."""
        return np.asarray(np.mean([fit.confusion for fit in self.evaluations[arm]], axis=0))

    def operating_point(self, arm: Arm) -> OperatingPoint:
        """Returns the mean counts over seeds at the operating point."""
        return OperatingPoint.mean([OperatingPoint.of(self.labels, fit.probabilities) for fit in arm.predictions])

    def pairing(self) -> str:
        """Returns sentences that say whether predictions and labels belong together."""
        return describe(self.pairings, len(self.test))

    def _have_several_seeds(self, *arms: str) -> bool:
        return all(len(self.evaluations[arm]) > 1 for arm in arms)

    @cached_property
    def _headline_scores(self) -> dict[str, dict[str, Spread]]:
        return {name: _spreads([evaluate(fit) for fit in fits]) for name, fits in self.evaluations.items()}

    @cached_property
    def _per_class(self) -> dict[str, dict[str, list[Spread]]]:
        spreads: dict[str, dict[str, list[Spread]]] = {}
        for name, fits in self.evaluations.items():
            tables = [per_class_scores(fit.confusion) for fit in fits]
            columns = {metric: np.array([table[metric] for table in tables]).T for metric in METRICS}
            spreads[name] = {m: [Spread.of(column.tolist()) for column in values] for m, values in columns.items()}
        return spreads

    @cached_property
    def _average_precision(self) -> dict[str, list[Spread | None]]:
        spreads = {}
        for arm in self.arms:
            fits = np.array([average_precision(self.labels, fit.probabilities) for fit in arm.predictions])
            pairs = zip(fits.T, self.support, strict=True)
            spreads[arm.name] = [Spread.of(scores.tolist()) if n else None for scores, n in pairs]
        return spreads


def _spreads(rows: Sequence[dict[str, float]]) -> dict[str, Spread]:
    """Returns the spread over seeds of each score that is defined for all of them."""
    defined = [name for name in rows[0] if all(name in row for row in rows)]
    return {name: Spread.of([row[name] for row in rows]) for name in defined}
