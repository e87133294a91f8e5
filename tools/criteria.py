"""Criteria by which a search could choose settings: what they are computed from, and what they choose.

Rows of results have one row for each setting inside one outer fold: its `strategy` and `place` in the order of
proposals, the place of the control's setting whose logits it adjusts (`base`, otherwise -1), the rule for its epochs
(`epochs_by`, empty for a closed-form head), and the columns of `measure`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.metrics.bootstrap import SourceCounts, bootstrap_sources, macro_f1_bound
from hirise_imb.metrics.classification import confusion_matrix, macro_f1, macro_f1_with_sources
from hirise_imb.metrics.ranking import mean_average_precision
from tools.candidate_fits import JOINT, LOSS, NO_EPOCHS, ONE_SEED, POOLED, SMOOTHED

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

RESAMPLES = 500
BOUND = 0.1
"""Quantile of macro F1 over resamples of the sources that serves as a lower bound."""


def measure(
    out_of_fold: NDArray[np.floating], labels: Ints, sources: Ints, n_classes: int
) -> tuple[dict[str, float], Floats]:
    """Computes what criteria need from the out-of-fold predictions of one setting.

    Args:
        out_of_fold: log probabilities, shape (n_seeds, n, n_classes).
        labels: class id of each landmark, shape (n,).
        sources: number of the source of each landmark, from 0, shape (n,).
        n_classes: number of classes.

    Returns:
        Columns of results, and the macro F1 in each resample of the sources, shape (RESAMPLES,).
    """
    logs = out_of_fold.astype(np.float64)
    predicted = logs.argmax(axis=2)
    counts = SourceCounts.of(labels, predicted, sources, n_classes)
    confusions = [confusion_matrix(labels, one, n_classes) for one in predicted]
    losses = -np.take_along_axis(logs, labels[None, :, None], axis=2)[..., 0].mean(axis=0)
    n_of_class = np.bincount(labels, minlength=n_classes)
    resamples = bootstrap_sources(counts, RESAMPLES).macro_f1()
    columns = {f"f1_seed{i}": macro_f1(one) for i, one in enumerate(confusions)}
    columns |= {
        "f1": float(np.mean([macro_f1(one) for one in confusions])),
        "average_precision": float(np.mean([mean_average_precision(labels, np.exp(one)) for one in logs])),
        "log_loss": float(losses.mean()),
        "balanced_log_loss": float((np.bincount(labels, losses, n_classes) / np.maximum(n_of_class, 1)).mean()),
        "bound": macro_f1_bound(counts, BOUND, RESAMPLES),
        "error": float(resamples.std()),
    }
    for minimum in (3, 6):
        scores = [macro_f1_with_sources(one, counts.sources, minimum) for one in confusions]
        columns[f"f1_sources{minimum}"] = float(np.mean(scores))
    return columns, resamples


Rule = Literal["best", "defaults", "within_error", "within_error_of_gap"]


@dataclass(frozen=True)
class Criterion:
    """A way to choose among the settings of a strategy, and then among strategies."""

    values: Callable[[pd.DataFrame], pd.Series[float]]
    """Values of rows: the greater, the better."""
    epochs_by: str = JOINT
    """Rule for the number of epochs."""
    rule: Rule = "best"
    """The setting of greatest value, the defaults, or the first within one standard error of the greatest."""
    inner: str = "f1"
    """Column of the inner score that a report would show for what was chosen."""

    def select(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Returns the rows with this criterion's epochs."""
        return rows[(rows["epochs_by"] == self.epochs_by) | (rows["epochs_by"] == NO_EPOCHS)]

    def choose(self, rows: pd.DataFrame) -> int:
        """Returns the index label of the row that is chosen among the settings of one strategy in one outer fold."""
        ordered = rows.sort_values("place", kind="stable")
        values = self.values(ordered).tolist()
        errors = [0.0] * len(values)
        if self.rule == "defaults":
            errors = [np.inf] * len(values)
        elif self.rule == "within_error":
            errors = [ordered["error"].iloc[int(np.argmax(values))]] * len(values)
        elif self.rule == "within_error_of_gap":
            errors = ordered["error_of_gap"].tolist()
        return int(ordered.index[choose_simplest(values, errors)])


def _column(name: str) -> Callable[[pd.DataFrame], pd.Series[float]]:
    return lambda rows: rows[name]


REFERENCE = "macro F1, 3 seeds on 3 assignments"
DEFAULTS = "the defaults"
CRITERIA: dict[str, Criterion] = {
    REFERENCE: Criterion(_column("f1")),
    "macro F1, 1 seed": Criterion(_column("f1_seed0"), ONE_SEED, inner="f1_seed0"),
    "mean average precision": Criterion(_column("average_precision")),
    "mean of macro F1 and average precision": Criterion(lambda rows: (rows["f1"] + rows["average_precision"]) / 2),
    "macro F1, classes with 3 sources or more": Criterion(_column("f1_sources3")),
    "macro F1, classes with 6 sources or more": Criterion(_column("f1_sources6")),
    "10 % bound over sources": Criterion(_column("bound")),
    "log loss": Criterion(lambda rows: -rows["log_loss"]),
    "log loss, mean over classes": Criterion(lambda rows: -rows["balanced_log_loss"]),
    DEFAULTS: Criterion(_column("f1"), rule="defaults"),
    "simplest within one standard error": Criterion(_column("f1"), rule="within_error"),
    "simplest within one standard error of the difference": Criterion(_column("f1"), rule="within_error_of_gap"),
    "epochs by a moving mean of macro F1": Criterion(_column("f1"), SMOOTHED),
    "epochs by log loss": Criterion(_column("f1"), LOSS),
    "epochs and settings on the same pooled folds": Criterion(_column("f1"), POOLED),
}
"""Criteria by name; all but one use three seeds on three assignments."""


def choose_simplest(scores: Sequence[float], errors: Sequence[float]) -> int:
    """Returns the position of the first score that is within its error of the best (Breiman et al. 1984).

    Args:
        scores: scores in the order of proposals, the simplest setting first.
        errors: standard error that each score is compared with.
    """
    return next(i for i, score in enumerate(scores) if score >= max(scores) - errors[i])


GROUP = ["repeat", "fold", "strategy", "base", "epochs_by"]
"""Columns that settings have in common if a criterion chooses among them."""


def add_error_of_gap(rows: pd.DataFrame, resamples: Floats) -> pd.DataFrame:
    """Adds the standard error of the difference to the best setting of the strategy.

    It is smaller than that of the score, because settings share most mistakes.

    Args:
        rows: results, numbered from 0.
        resamples: macro F1 of each row in resamples of the sources, shape (n_rows, RESAMPLES).
    """
    best = rows.groupby(GROUP)["f1"].transform("idxmax").to_numpy(int)
    return rows.assign(error_of_gap=(resamples - resamples[best]).std(axis=1))
