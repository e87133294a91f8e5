"""The results that a report is made from, and the numbers computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.data.dataset import ClassSet
from hirise_imb.forensics import METRICS, Statistic
from hirise_imb.metrics.classification import per_class_scores
from hirise_imb.metrics.operating_point import OperatingPoint
from hirise_imb.metrics.ranking import average_precision
from hirise_imb.metrics.registry import Evaluation, evaluate
from hirise_imb.metrics.targets import MACRO_F1, Target
from hirise_imb.reporting.inference import Family, Inference, RankCorrelation, rank_correlation
from hirise_imb.reporting.pairing import compare, describe
from hirise_imb.reporting.records import Arm, Omitted, Origin, Spread
from hirise_imb.reporting.terms import Terms, choose_terms

BASELINE = "baseline"
"""The name of the reference run in its own study."""

BASELINE_TO_THE_END = "baseline_to_the_end"
"""The name of the reference run without a limit on its epochs, in its own study."""

GIVEN_SPLIT_FOLDER: Literal["given-split"] = "given-split"
"""Folder, inside the report of a nested cross-validation, of the report of the given split of the same study."""

Contrast = Literal["vs_control", "vs_baseline"]
CONTRASTS: tuple[Contrast, ...] = get_args(Contrast)
"""What arms are compared with: the control, which is the primary contrast, and the reference."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Results:
    """The results of a study, or of several studies whose arms are compared."""

    name: str
    setting: str
    """One or two sentences that say what was run."""
    study_toml: str
    classes: ClassSet
    test: pd.DataFrame
    """Tested landmarks in the order of all predictions; columns: image, landmark, source, label. They are those of the
    test split, or of all splits in a nested cross-validation."""
    data: pd.DataFrame
    """Counts by split and class; columns: split, class, sources, landmarks, images, rows."""
    arms: tuple[Arm, ...]
    """All arms; the first is the reference, the baseline."""
    environment: dict[str, Any]
    omitted: tuple[Omitted, ...] = ()
    trial_seeds: int | None = None
    """Number of seeds in the cross-validation that scores a recipe; None if it is unknown."""
    appendix: Mapping[str, Any] = field(default_factory=lambda: {"strategies": [], "shared_parameters": []})
    """The strategies as they are declared; see `pipeline.appendix`."""
    origins: tuple[Origin, ...] = ()
    """The reports that are compared; empty for the report of one study."""
    outer_folds: pd.DataFrame | None = None
    """Outer fold of each source; columns: repeat and fold (from 1), source. None for the given split."""
    given_split: Results | None = None
    """The results of the given split, which the report of a nested cross-validation also shows; None without them."""
    target: Target = MACRO_F1
    """The metric that the searches maximised, and that intervals and tests are of."""
    costs: tuple[str, ...] = ()
    """Costs of mistakes as the definition lists them, if the target depends on them."""

    @property
    def terms(self) -> Terms:
        """The words for the landmarks, sources and scores of the design."""
        return choose_terms(nested=self.outer_folds is not None)

    @property
    def repeats(self) -> int:
        """Number of times that each landmark was tested by each seed: 1 for the given split."""
        return 1 if self.outer_folds is None else int(self.outer_folds["repeat"].max())

    @cached_property
    def fold_of_landmark(self) -> Ints:
        """Outer fold of each landmark, from 0, shape (repeats, n); 0 for the given split."""
        if self.outer_folds is None:
            return np.zeros((1, len(self.test)), np.int64)
        by_repeat = self.outer_folds.set_index(["repeat", "source"])["fold"]
        sources = self.test["source"]
        return np.stack([by_repeat[repeat][sources].to_numpy(np.int64) - 1 for repeat in range(1, self.repeats + 1)])

    def landmark_temperatures(self, arm: Arm) -> list[Floats]:
        """Returns the temperature that applies to each landmark, one array of shape (n,) for each seed."""
        seeds_per_repeat = len(arm.seeds) // self.repeats
        return [
            np.array(values)[self.fold_of_landmark[fit // seeds_per_repeat]]
            for fit, values in enumerate(arm.temperatures)
        ]

    @property
    def has_sources(self) -> bool:
        """Whether the data set names sources; otherwise each landmark is its own."""
        return bool((self.test["source"] != self.test["landmark"]).any())

    @property
    def reference(self) -> str:
        """Name of the arm that all others are compared with."""
        return self.arms[0].name

    @cached_property
    def control(self) -> Arm | None:
        """The control that averages nothing; None without one, as in a comparison, whose reports have one each."""
        return self._find_control((1,) * len(self.arms[0].selections))

    @cached_property
    def to_the_end(self) -> Arm | None:
        """The recipe of the baseline without a limit on the epochs that binds; None without it, or in a comparison."""
        if self.origins:
            return None
        return next((arm for arm in self.arms if arm.role == "baseline_to_the_end"), None)

    @cached_property
    def averaged_controls(self) -> tuple[Arm, ...]:
        """The controls that average several fits, by their number; empty in a comparison."""
        controls = [arm for arm in self.arms if arm.role == "control" and arm.averages]
        return () if self.origins else tuple(sorted(controls, key=lambda arm: arm.members))

    def control_for(self, arm: Arm) -> Arm | None:
        """Returns the control that an arm is compared with; None without one.

        For a strategy, it is the control that averages as many fits; for all other arms, the one that averages nothing.
        """
        return self._find_control(arm.members) if arm.role == "strategy" else self.control

    def _find_control(self, members: tuple[int, ...]) -> Arm | None:
        controls = (arm for arm in self.arms if arm.role == "control" and arm.members == members)
        return None if self.origins else next(controls, None)

    @cached_property
    def strategies(self) -> tuple[Arm, ...]:
        """The arms with a remedy, ordered by validation score, which is known before the test split is used.

        A comparison has all arms but the reference in their given order, since its reports may have different
        validation data.
        """
        if self.origins:
            return self.arms[1:]
        remedies = [arm for arm in self.arms[1:] if arm.role == "strategy"]
        return tuple(sorted(remedies, key=lambda arm: -arm.val_score))

    @cached_property
    def chosen(self) -> Arm | None:
        """The strategy with the best validation score; None without a strategy.

        It is also None for a comparison, in which each report has its own.
        """
        return None if self.origins or not self.strategies else self.strategies[0]

    @cached_property
    def ordered(self) -> tuple[Arm, ...]:
        """All arms in the order of tables: the baselines, the controls, the strategies."""
        first = (self.arms[0], self.to_the_end, self.control, *self.averaged_controls)
        return (*(arm for arm in first if arm is not None), *self.strategies)

    @cached_property
    def preferred(self) -> frozenset[str]:
        """Names of the arms with the best validation score: one for a study, one for each report that is compared."""
        names = [self.chosen.name if self.chosen else None, *(origin.chosen for origin in self.origins)]
        return frozenset(name for name in names if name is not None)

    @cached_property
    def shown(self) -> tuple[Arm, ...]:
        """The few arms in figures with a line for each arm: the reference, the control and the preferred arms."""
        named = {self.reference, *self.preferred, *([self.control.name] if self.control else [])}
        return tuple(arm for arm in self.ordered if arm.name in named)

    @cached_property
    def contrasts(self) -> tuple[Contrast, ...]:
        """The comparisons of all arms, the primary one first: that with the control only if there is one."""
        return CONTRASTS if self.control is not None else ("vs_baseline",)

    def other_of(self, arm: Arm, contrast: Contrast) -> str | None:
        """Returns the name of the arm that an arm is compared with; None without a control for it."""
        if contrast == "vs_baseline":
            return self.reference
        control = self.control_for(arm)
        return control.name if control else None

    @cached_property
    def identical(self) -> dict[str, str]:
        """Names of arms that predict the same classes as the arm they are compared with, with the name of that arm.

        They agree on every test landmark for every seed. An arm that is identical to its control and to the baseline is
        listed with its control.
        """
        twins: dict[str, str] = {}
        for arm in self.ordered[1:]:
            for contrast in CONTRASTS:
                other = self.other_of(arm, contrast)
                if other not in (None, arm.name) and np.array_equal(self._predicted[arm.name], self._predicted[other]):
                    twins.setdefault(arm.name, other)
        return twins

    @cached_property
    def families(self) -> dict[Contrast, Family]:
        """The families of swap tests: the primary one against the control, and the one against the reference.

        Strategies are in both, and the control is in the second. Identical arms are in none, because a test of an arm
        against itself would only make the correction of the others stricter. A comparison tests the arms of all its
        reports against the reference, except longer baselines and controls that average.
        """
        tested = [
            arm
            for arm in (*([self.control] if self.control else []), *self.strategies)
            if arm.name not in self.identical
            and arm.role != "baseline_to_the_end"
            and not (arm.role == "control" and arm.averages)
        ]
        pairs: dict[Contrast, dict[str, str]] = {contrast: {} for contrast in CONTRASTS}
        for arm in tested:
            for contrast in CONTRASTS:
                other = self.other_of(arm, contrast)
                if other is not None and other != arm.name:
                    pairs[contrast][arm.name] = other
        return {contrast: self.inference.family(members) for contrast, members in pairs.items()}

    @cached_property
    def rank_correlation(self) -> RankCorrelation | None:
        """Rank correlation between validation score and test macro F1 over the distinct arms.

        None for a comparison, whose reports may have different validation data.
        """
        if self.origins:
            return None
        arms = [arm for arm in self.ordered if arm.name not in self.identical]
        return rank_correlation([arm.val_score for arm in arms], [self.main_score(arm.name).mean for arm in arms])

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
                for predictions, temperature in zip(arm.predictions, self.landmark_temperatures(arm), strict=True)
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
        # Macro F1 needs no more than the predicted classes.
        arms = () if self.target is MACRO_F1 else self.arms
        probabilities = {arm.name: np.stack([fit.probabilities for fit in arm.predictions]) for arm in arms}
        return Inference(self.labels, self.test["source"], self._predicted, self.classes, self.target, probabilities)

    @cached_property
    def pairings(self) -> dict[str, list[Statistic]]:
        """Comparison of test hits with shuffled pairings by arm, one for each seed."""
        return compare({name: [fit.confusion for fit in fits] for name, fits in self.evaluations.items()})

    def headline_scores(self, arm: str) -> dict[str, Spread]:
        """Returns the registered scores of an arm over seeds by name, without those that are undefined for a seed."""
        return self._headline_scores[arm]

    def main_score(self, arm: str) -> Spread:
        """Returns the target metric of an arm on the tested landmarks over seeds."""
        return self.headline_scores(arm)[self.target.key]

    def main_gain(self, arm: str, other: str) -> float:
        """Returns the mean of the target metric over seeds, minus that of another arm."""
        return self.gain(arm, self.target.key, other)

    def per_class(self, arm: str, metric: str) -> list[Spread]:
        """Returns the precision, recall or F1 of each class over seeds."""
        return self._per_class[arm][metric]

    def average_precision(self, arm: str) -> list[Spread | None]:
        """Returns the average precision of each class over seeds; None for a class without a test landmark."""
        return self._average_precision[arm]

    def gain(self, arm: str, name: str, other: str) -> float:
        """Returns the mean of a registered score over seeds, minus that of another arm."""
        return self.headline_scores(arm)[name].mean - self.headline_scores(other)[name].mean

    def difference(self, arm: str, metric: str, other: str) -> Floats:
        """Returns the mean score of each class over seeds, minus that of another arm, shape (n_classes,)."""
        pairs = zip(self.per_class(arm, metric), self.per_class(other, metric), strict=True)
        return np.array([first.mean - second.mean for first, second in pairs])

    def confusion(self, arm: str) -> Floats:
        """Returns the mean confusion matrix over seeds, shape (n_classes, n_classes); rows are true classes."""
        return np.asarray(np.mean([fit.confusion for fit in self.evaluations[arm]], axis=0))

    def operating_point(self, arm: Arm) -> OperatingPoint:
        """Returns the mean counts over seeds at the operating point."""
        return OperatingPoint.mean([OperatingPoint.of(self.labels, fit.probabilities) for fit in arm.predictions])

    def pairing(self) -> str:
        """Returns sentences that say whether predictions and labels belong together."""
        return describe(self.pairings, len(self.test), self.terms)

    @cached_property
    def _predicted(self) -> dict[str, Ints]:
        """Predicted classes of each fit by arm, shape (n_fits, n)."""
        return {arm.name: np.stack([fit.labels() for fit in arm.predictions]) for arm in self.arms}

    @cached_property
    def _headline_scores(self) -> dict[str, dict[str, Spread]]:
        return {
            name: _spreads([self._main_first(fit) | evaluate(fit) for fit in fits])
            for name, fits in self.evaluations.items()
        }

    def _main_first(self, fit: Evaluation) -> dict[str, float]:
        """Returns the target metric by its key, so that tables list it first."""
        score = self.target.score(fit.labels, fit.probabilities)
        return {} if np.isnan(score) else {self.target.key: score}

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
