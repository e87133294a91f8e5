"""What a report is made from, and the numbers that it compares."""

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
from hirise_imb.reporting.pairing import compare, sentence
from hirise_imb.reporting.records import Arm, Omitted, Spread

BASELINE = "baseline"
"""The name of the reference run in its own study."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Origin:
    """A report that a comparison takes arms from."""

    name: str
    """As it stands before the names of its arms."""
    study: str
    setting: str
    arms: tuple[str, ...]
    """Names in the comparison, in the order of the report's own tables."""
    chosen: str | None
    """The best strategy on its validation; None where it has none."""


@dataclass(frozen=True)
class Results:
    """All that a study found, or several studies whose arms are compared."""

    name: str
    setting: str
    """What was run, in a sentence or two."""
    study_toml: str
    classes: ClassSet
    test: pd.DataFrame
    """Landmarks that predictions are scored on, in their order: image, landmark, source, label."""
    data: pd.DataFrame
    """Class by split: split, class, sources, landmarks, images, rows."""
    arms: tuple[Arm, ...]
    """The reference first, the baseline."""
    environment: dict[str, Any]
    omitted: tuple[Omitted, ...] = ()
    control_name: str | None = None
    """The baseline with its optimiser tuned as a strategy's, where it is among the arms."""
    appendix: Mapping[str, Any] = field(default_factory=lambda: {"strategies": [], "shared_parameters": []})
    """The strategies as they are declared; see `pipeline.appendix`."""
    origins: tuple[Origin, ...] = ()
    """The reports that are compared; none for the report of one study."""

    @property
    def reference(self) -> str:
        """The arm that all are compared with."""
        return self.arms[0].name

    @cached_property
    def control(self) -> Arm | None:
        """The arm of that name; None where it is missing."""
        return next((arm for arm in self.arms if arm.name == self.control_name), None)

    @cached_property
    def strategies(self) -> tuple[Arm, ...]:
        """The arms with a remedy, the best on validation first, as they were before the test split was looked at.

        In a comparison of several reports, whose validations may differ, all arms but the reference, as they come.
        """
        remedies = [arm for arm in self.arms[1:] if arm is not self.control]
        if self.origins:
            return tuple(remedies)
        return tuple(sorted(remedies, key=lambda arm: -arm.val_macro_f1))

    @cached_property
    def chosen(self) -> Arm | None:
        """The strategy that validation prefers; None without one.

        A comparison has none either: each of its reports has its own.
        """
        return None if self.origins or not self.strategies else self.strategies[0]

    @cached_property
    def ordered(self) -> tuple[Arm, ...]:
        """All arms as tables show them: the baseline, the control, the strategies."""
        return (self.arms[0], *([] if self.control is None else [self.control]), *self.strategies)

    @cached_property
    def preferred(self) -> frozenset[str]:
        """Names of the arms that a validation prefers: one of a study, one of each report that is compared."""
        found = [self.chosen.name if self.chosen else None, *(origin.chosen for origin in self.origins)]
        return frozenset(name for name in found if name is not None)

    @cached_property
    def shown(self) -> tuple[Arm, ...]:
        """The few arms that figures with a line an arm show: the reference, the control, and what was chosen."""
        named = {self.reference, self.control_name, *self.preferred}
        return tuple(arm for arm in self.ordered if arm.name in named)

    @cached_property
    def references(self) -> dict[str, str | None]:
        """The arms that others are set against: `vs_baseline` and `vs_control`; None for a control that is missing."""
        return {"vs_baseline": self.reference, "vs_control": self.control.name if self.control else None}

    @cached_property
    def labels(self) -> Ints:
        """True classes of the test landmarks, shape (n,)."""
        return self.test["label"].to_numpy(np.int64)

    @cached_property
    def evaluations(self) -> dict[str, list[Evaluation]]:
        """Predictions and labels of the test split, by arm, one evaluation per seed."""
        return {
            arm.name: [
                Evaluation.of(predictions, self.test, self.classes.rare_ids, temperature)
                for predictions, temperature in zip(arm.predictions, arm.temperatures, strict=True)
            ]
            for arm in self.arms
        }

    @cached_property
    def support(self) -> Ints:
        """Test landmarks of each class, shape (n_classes,)."""
        return np.bincount(self.labels, minlength=len(self.classes))

    @cached_property
    def sources(self) -> Ints:
        """Test sources of each class, shape (n_classes,)."""
        pairs = self.test.drop_duplicates(["source", "label"])["label"]
        return np.bincount(pairs, minlength=len(self.classes))

    @cached_property
    def inference(self) -> Inference:
        """What can be said of other sources."""
        chosen = {arm.name: np.stack([fit.labels() for fit in arm.predictions]) for arm in self.arms}
        return Inference(self.labels, self.test["source"], chosen, self.classes)

    @cached_property
    def pairings(self) -> dict[str, list[Statistic]]:
        """The hits of each fit on the test split against shuffled pairings, by arm, one a seed."""
        return compare({name: [fit.confusion for fit in fits] for name, fits in self.evaluations.items()})

    def headline_scores(self, arm: str) -> dict[str, Spread]:
        """The registered scores of an arm over seeds, by name; without those that are undefined for a seed."""
        return self._headline_scores[arm]

    def macro(self, arm: str) -> Spread:
        """Macro F1 on the test split, over seeds."""
        return self.headline_scores(arm)["macro_f1"]

    def per_class(self, arm: str, metric: str) -> list[Spread]:
        """Precision, recall or F1 of each class, over seeds."""
        return self._per_class[arm][metric]

    def average_precision(self, arm: str) -> list[Spread | None]:
        """Of each class, over seeds; None of a class without a test landmark."""
        return self._average_precision[arm]

    def gain(self, arm: str, name: str, other: str) -> float:
        """Mean over seeds of a score of one number, minus that of another arm."""
        return self.headline_scores(arm)[name].mean - self.headline_scores(other)[name].mean

    def gain_is_clear(self, arm: str, name: str, other: str) -> bool:
        """Whether the range of a score over seeds lies apart from another arm's; never where one has a single seed."""
        mine, theirs = (self.headline_scores(which)[name] for which in (arm, other))
        return self._several(arm, other) and mine.apart(theirs)

    def difference(self, arm: str, metric: str, other: str) -> Floats:
        """Mean over seeds, minus another arm's, of each class, shape (n_classes,)."""
        mine, base = self.per_class(arm, metric), self.per_class(other, metric)
        return np.array([a.mean - b.mean for a, b in zip(mine, base, strict=True)])

    def clear(self, arm: str, metric: str, other: str) -> list[bool]:
        """Whether a class's range over seeds lies apart from another arm's; never where one has a single seed."""
        pairs = zip(self.per_class(arm, metric), self.per_class(other, metric), strict=True)
        return [self._several(arm, other) and mine.apart(base) for mine, base in pairs]

    def confusion(self, arm: str) -> Floats:
        """Counts on the test split, mean over seeds, shape (n_classes, n_classes); rows are true classes."""
        return np.asarray(np.mean([fit.confusion for fit in self.evaluations[arm]], axis=0))

    def decided(self, arm: Arm) -> OperatingPoint:
        """What is left at the operating point, means over seeds."""
        return OperatingPoint.mean([OperatingPoint.of(self.labels, fit.probabilities) for fit in arm.predictions])

    def pairing(self) -> str:
        """Whether predictions and labels belong together, in a sentence or two."""
        return sentence(self.pairings, len(self.test))

    def _several(self, *arms: str) -> bool:
        return all(len(self.evaluations[arm]) > 1 for arm in arms)

    @cached_property
    def _headline_scores(self) -> dict[str, dict[str, Spread]]:
        return {name: _spreads([evaluate(fit) for fit in fits]) for name, fits in self.evaluations.items()}

    @cached_property
    def _per_class(self) -> dict[str, dict[str, list[Spread]]]:
        found: dict[str, dict[str, list[Spread]]] = {}
        for name, fits in self.evaluations.items():
            tables = [per_class_scores(fit.confusion) for fit in fits]
            columns = {metric: np.array([table[metric] for table in tables]).T for metric in METRICS}
            found[name] = {m: [Spread.of(column.tolist()) for column in values] for m, values in columns.items()}
        return found

    @cached_property
    def _average_precision(self) -> dict[str, list[Spread | None]]:
        found = {}
        for arm in self.arms:
            fits = np.array([average_precision(self.labels, fit.probabilities) for fit in arm.predictions])
            found[arm.name] = [Spread.of(f.tolist()) if n else None for f, n in zip(fits.T, self.support, strict=True)]
        return found


def _spreads(rows: Sequence[dict[str, float]]) -> dict[str, Spread]:
    defined = [name for name in rows[0] if all(name in row for row in rows)]
    return {name: Spread.of([row[name] for row in rows]) for name in defined}
