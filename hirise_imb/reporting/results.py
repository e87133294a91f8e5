"""What a report is made from, and the numbers that it compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.catalogue import Catalogue
from hirise_imb.evaluation import Scores, score
from hirise_imb.forensics import METRICS, Statistic
from hirise_imb.landmarks import CLASSES
from hirise_imb.reporting.arms import Arm, Omitted, Spread
from hirise_imb.reporting.pairing import compare, sentence

BASELINE = "baseline"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Results:
    """All that a study found."""

    name: str
    setting: str
    """What was run, in a sentence or two."""
    study_toml: str
    catalogue: Catalogue
    arms: tuple[Arm, ...]
    """The baseline first."""
    environment: dict[str, Any]
    omitted: tuple[Omitted, ...] = ()

    @cached_property
    def control(self) -> Arm | None:
        """The baseline with its optimiser tuned as a strategy's; None where it is not among the arms."""
        from hirise_imb.strategies import CONTROL  # brings Optuna, which a report of the baseline alone does without

        return next((arm for arm in self.arms if arm.name == CONTROL), None)

    @cached_property
    def strategies(self) -> tuple[Arm, ...]:
        """The arms with a remedy, the best on validation first, as they were before the test split was looked at."""
        remedies = [arm for arm in self.arms if arm.name != BASELINE and arm is not self.control]
        return tuple(sorted(remedies, key=lambda arm: -arm.val_macro_f1))

    @cached_property
    def ordered(self) -> tuple[Arm, ...]:
        """All arms as tables show them: the baseline, the control, the strategies."""
        return (self.arms[0], *([] if self.control is None else [self.control]), *self.strategies)

    @cached_property
    def references(self) -> dict[str, str | None]:
        """The arms that others are set against: `vs_baseline` and `vs_control`; None for a control that is missing."""
        return {"vs_baseline": BASELINE, "vs_control": self.control.name if self.control else None}

    @cached_property
    def test(self) -> pd.DataFrame:
        """The catalogue rows of the test split that predictions are scored on."""
        return self.catalogue.one_per_landmark("test")

    @cached_property
    def scores(self) -> dict[str, list[Scores]]:
        """Scores on the test split, by arm, one a seed."""
        return {arm.name: [score(predictions, self.test) for predictions in arm.predictions] for arm in self.arms}

    @cached_property
    def support(self) -> NDArray[np.int64]:
        """Test landmarks of each class, shape (8,)."""
        return self.catalogue.landmark_counts("test")

    @cached_property
    def sources(self) -> NDArray[np.int64]:
        """Test sources of each class, shape (8,)."""
        pairs = self.test.drop_duplicates(["source", "label"])["label"]
        return np.bincount(pairs, minlength=len(CLASSES))

    @cached_property
    def pairings(self) -> dict[str, list[Statistic]]:
        """The hits of each fit on the test split against shuffled pairings, by arm, one a seed."""
        return compare({name: [scores.confusion for scores in fits] for name, fits in self.scores.items()})

    def headline_scores(self, arm: str) -> dict[str, Spread]:
        """The scores that are one number each, over seeds."""
        return self._headline_scores[arm]

    def macro(self, arm: str) -> Spread:
        """Macro F1 on the test split, over seeds."""
        return self.headline_scores(arm)["macro_f1"]

    def per_class(self, arm: str, metric: str) -> list[Spread]:
        """Precision, recall or F1 of each class, over seeds."""
        return self._per_class[arm][metric]

    def gain(self, arm: str, name: str, other: str) -> float:
        """Mean over seeds of a score of one number, minus that of another arm."""
        return self.headline_scores(arm)[name].mean - self.headline_scores(other)[name].mean

    def gain_is_clear(self, arm: str, name: str, other: str) -> bool:
        """Whether the range of a score over seeds lies apart from another arm's; never with a single seed."""
        mine, theirs = (self.headline_scores(which)[name] for which in (arm, other))
        return self._several(arm) and mine.apart(theirs)

    def difference(self, arm: str, metric: str, other: str = BASELINE) -> Floats:
        """Mean over seeds, minus another arm's, of each class, shape (8,)."""
        mine, base = self.per_class(arm, metric), self.per_class(other, metric)
        return np.array([a.mean - b.mean for a, b in zip(mine, base, strict=True)])

    def clear(self, arm: str, metric: str, other: str = BASELINE) -> list[bool]:
        """Whether a class's range over seeds lies apart from another arm's; never with a single seed."""
        pairs = zip(self.per_class(arm, metric), self.per_class(other, metric), strict=True)
        return [self._several(arm) and mine.apart(base) for mine, base in pairs]

    def confusion(self, arm: str) -> Floats:
        """Counts on the test split, mean over seeds, shape (8, 8); rows are true classes."""
        return np.asarray(np.mean([scores.confusion for scores in self.scores[arm]], axis=0))

    def pairing(self) -> str:
        """Whether predictions and labels belong together, in a sentence or two."""
        return sentence(self.pairings, len(self.test))

    def _several(self, arm: str) -> bool:
        return len(self.scores[arm]) > 1

    @cached_property
    def _headline_scores(self) -> dict[str, dict[str, Spread]]:
        return {name: _spreads([scores.summary() for scores in fits]) for name, fits in self.scores.items()}

    @cached_property
    def _per_class(self) -> dict[str, dict[str, list[Spread]]]:
        found: dict[str, dict[str, list[Spread]]] = {}
        for name, fits in self.scores.items():
            tables = [scores.per_class() for scores in fits]
            columns = {metric: np.array([table[metric] for table in tables]).T for metric in METRICS}
            found[name] = {m: [Spread.of(column.tolist()) for column in values] for m, values in columns.items()}
        return found


def _spreads(rows: Sequence[dict[str, float]]) -> dict[str, Spread]:
    return {name: Spread.of([row[name] for row in rows]) for name in rows[0]}
