"""What a report is made from, and the numbers it shows. All arithmetic of a report is here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.catalogue import Catalogue
from hirise_imb.evaluation import Predictions, Scores, score
from hirise_imb.forensics import METRICS, Statistic
from hirise_imb.landmarks import CLASSES
from hirise_imb.recipe import Recipe
from hirise_imb.reporting.pairing import compare, sentence

SCHEMA_VERSION = 1
BASELINE = "baseline"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Arm:
    """The baseline or the chosen recipe of a strategy, fitted with several seeds."""

    name: str
    summary: str
    recipe: Recipe
    settings: dict[str, str | float | int]
    """What the search chose; empty for the baseline."""
    val_macro_f1: float
    """Of the chosen trial, or of the baseline with the study's seed."""
    trials: list[dict[str, str | float | None]]
    """State and value of each finished trial, in order; empty for the baseline."""
    seeds: tuple[int, ...]
    predictions: tuple[Predictions, ...]
    """Of the test split, one a seed."""
    histories: tuple[pd.DataFrame, ...]
    """One row an epoch, one table a seed."""
    best_epochs: tuple[int, ...]
    seconds: float
    """Wall time of its trials and fits, whenever they were made."""

    @property
    def at_last_epoch(self) -> int:
        """Seeds whose kept epoch is the last one allowed: more epochs might have scored higher."""
        return sum(epoch == self.recipe.max_epochs for epoch in self.best_epochs)


@dataclass(frozen=True)
class Spread:
    """A score over seeds."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Mean, smallest and largest."""
        return cls(float(np.mean(values)), float(np.min(values)), float(np.max(values)))


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
        rows = pd.DataFrame([scores.summary() for scores in self.scores[arm]])
        return {str(name): Spread.of(rows[name].tolist()) for name in rows}

    def per_class(self, arm: str, metric: str) -> list[Spread]:
        """Precision, recall or F1 of each class, over seeds."""
        values = np.array([scores.per_class()[metric] for scores in self.scores[arm]])
        return [Spread.of(column.tolist()) for column in values.T]

    def difference(self, arm: str, metric: str) -> Floats:
        """Mean over seeds, minus the baseline's, of each class, shape (8,)."""
        mine, base = self.per_class(arm, metric), self.per_class(BASELINE, metric)
        return np.array([a.mean - b.mean for a, b in zip(mine, base, strict=True)])

    def clear(self, arm: str, metric: str) -> list[bool]:
        """Whether a class's range over seeds lies apart from the baseline's; never with a single seed."""
        pairs = zip(self.per_class(arm, metric), self.per_class(BASELINE, metric), strict=True)
        several = len(self.scores[arm]) > 1
        return [several and (mine.low > base.high or mine.high < base.low) for mine, base in pairs]

    def confusion(self, arm: str) -> Floats:
        """Counts on the test split, mean over seeds, shape (8, 8); rows are true classes."""
        return np.asarray(np.mean([scores.confusion for scores in self.scores[arm]], axis=0))

    def per_class_table(self) -> pd.DataFrame:
        """One row for each arm and class: scores, their range over seeds, and differences to the baseline."""
        rows = []
        for arm in self.arms:
            for k, name in enumerate(CLASSES):
                row: dict[str, Any] = {
                    "arm": arm.name,
                    "class": name,
                    "support": int(self.support[k]),
                    "sources": int(self.sources[k]),
                }
                for metric in METRICS:
                    spread = self.per_class(arm.name, metric)[k]
                    row |= {metric: spread.mean, f"{metric}_low": spread.low, f"{metric}_high": spread.high}
                    row[f"{metric}_vs_baseline"] = float(self.difference(arm.name, metric)[k])
                rows.append(row)
        return pd.DataFrame(rows)

    def confusion_table(self, arm: str) -> pd.DataFrame:
        """One row for each pair of classes: mean count, and its share of the true class (0 where it has no image)."""
        counts = self.confusion(arm)
        totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        true, predicted = np.meshgrid(CLASSES, CLASSES, indexing="ij")
        return pd.DataFrame(
            {
                "true_class": true.ravel(),
                "predicted_class": predicted.ravel(),
                "count": counts.ravel(),
                "share_of_true": (counts / totals).ravel(),
            }
        )

    def predictions_table(self, arm: Arm) -> pd.DataFrame:
        """One row for each test image and seed: who it is, what it is, what was predicted and how surely."""
        names = np.array(CLASSES)
        parts = []
        for seed, predictions in zip(arm.seeds, arm.predictions, strict=True):
            part = self.test[["image", "landmark", "source"]].reset_index(drop=True)
            part["true_class"] = names[self.test["label"]]
            part["predicted_class"] = names[predictions.labels()]
            for k, name in enumerate(CLASSES):
                part[f"p_{name.replace(' ', '_')}"] = predictions.probabilities[:, k]
            part["seed"] = seed
            parts.append(part)
        return pd.concat(parts, ignore_index=True)

    def curves_table(self, arm: Arm) -> pd.DataFrame:
        """One row for each seed and epoch: loss (cross-entropy, nats) and accuracy of each split."""
        parts = [history.assign(seed=seed) for seed, history in zip(arm.seeds, arm.histories, strict=True)]
        return pd.concat(parts, ignore_index=True)

    def headline(self) -> str:
        """The answer in a sentence or two; the strategy it names was chosen on validation."""
        base = self.headline_scores(BASELINE)["macro_f1"].mean
        strategies = [arm for arm in self.arms if arm.name != BASELINE]
        reached = {arm.name: self.headline_scores(arm.name)["macro_f1"].mean for arm in strategies}
        best = max(strategies, key=lambda arm: arm.val_macro_f1)
        better = sum(value > base for value in reached.values())
        begin = f"The strategy with the best validation score, {best.name},"
        if best.val_macro_f1 <= self.arms[0].val_macro_f1:
            begin = f"On validation no strategy beats the baseline; the nearest, {best.name},"
        return (
            f"{begin} reaches macro F1 {reached[best.name]:.3f} on the test split, against {base:.3f} of the baseline "
            f"({reached[best.name] - base:+.3f}). {better} of {len(reached)} strategies score above the baseline there."
        )

    def pairing(self) -> str:
        """Whether predictions and labels belong together, in a sentence or two."""
        return sentence(self.pairings, len(self.test))

    def caution(self) -> str:
        """What the numbers can't tell."""
        seeds = len(self.arms[0].seeds)
        ranges = "Ranges are over seeds only." if seeds > 1 else "Fitted with one seed, so without ranges."
        return f"{ranges} {self.limits()}"

    def limits(self) -> str:
        """What no number of any report on this test split can tell."""
        few = [f"{CLASSES[k]} ({n})" for k, n in enumerate(self.sources) if 0 < n < 6]
        absent = [CLASSES[k] for k, n in enumerate(self.support) if n == 0]
        capped = [f"{arm.name} ({arm.at_last_epoch} of {len(arm.seeds)})" for arm in self.arms if arm.at_last_epoch]
        text = (
            "Images of one source observation are not independent, so the uncertainty of a class is that of its few "
            "sources, which no range here shows."
        )
        if few:
            text += f" Classes with fewer than six test sources: {', '.join(few)}."
        if absent:
            text += f" Classes without a test landmark, which count as F1 0 in macro F1: {', '.join(absent)}."
        if capped:
            text += f" Fits that kept the last epoch allowed, and might gain from more: {', '.join(capped)}."
        return text

    def to_dict(self) -> dict[str, Any]:
        """Everything the page shows, as plain values; without times, so that equal results are equal files."""
        return self.facts() | {"headline": self.headline(), "caution": self.caution()}

    def facts(self) -> dict[str, Any]:
        """What every page shows, whatever it compares."""
        return {
            "schema_version": SCHEMA_VERSION,
            "study": self.name,
            "setting": self.setting,
            "pairing": self.pairing(),
            "classes": list(CLASSES),
            "support": self.support.tolist(),
            "sources": self.sources.tolist(),
            "data": self.catalogue.summary().drop(columns="label").to_dict("records"),
            "arms": [self._arm(arm) for arm in self.arms],
        }

    def _arm(self, arm: Arm) -> dict[str, Any]:
        return {
            "name": arm.name,
            "summary": arm.summary,
            "settings": arm.settings,
            "recipe": arm.recipe.to_dict(),
            "seeds": list(arm.seeds),
            "best_epochs": list(arm.best_epochs),
            "val_macro_f1": arm.val_macro_f1,
            "trials": arm.trials,
            "scores": {name: vars(spread) for name, spread in self.headline_scores(arm.name).items()},
            "per_class": {m: [vars(spread) for spread in self.per_class(arm.name, m)] for m in METRICS},
            "vs_baseline": {m: self.difference(arm.name, m).tolist() for m in METRICS},
            "clear_of_baseline": {m: self.clear(arm.name, m) for m in METRICS},
            "at_last_epoch": arm.at_last_epoch,
            "pairing": [vars(found) for found in self.pairings[arm.name]],
            "confusion": self.confusion(arm.name).tolist(),
        }
