"""Criteria and rules by which a search could choose settings, and how good their choices are.

Rows of results have a column for the `division` of the sources into halves, the `strategy`, what criteria are computed
from on the development half, and macro F1 on the evaluation half. The settings of a strategy come in the order of
proposals, its defaults first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

N_CV_FITS, N_FINAL_FITS = 5, 2
REPEATED, SAME_FOLDS = [0, 1, 2], [0, 3, 4]
"""Numbers of the cross-validations with three seeds, each on an assignment of its own, and on the same folds."""


def repeated_f1(rows: pd.DataFrame) -> pd.Series[float]:
    """Returns the mean macro F1 of three seeds, each on an assignment of its own."""
    return rows[[f"f1_fit{i}" for i in REPEATED]].mean(axis=1)


def choose_simplest(scores: Sequence[float], errors: Sequence[float]) -> int:
    """Returns the position of the first score that is within its error of the best (Breiman et al. 1984).

    Args:
        scores: scores in the order of proposals, the simplest setting first.
        errors: standard error that each score is compared with.
    """
    return next(i for i, score in enumerate(scores) if score >= max(scores) - errors[i])


def _choose_within_error(rows: pd.DataFrame) -> int:
    scores = repeated_f1(rows).tolist()
    return choose_simplest(scores, [rows["error"].iloc[int(np.argmax(scores))]] * len(scores))


def _choose_within_error_of_gap(rows: pd.DataFrame) -> int:
    return choose_simplest(repeated_f1(rows).tolist(), rows["error_of_gap"].tolist())


REFERENCE = "macro F1, 3 seeds on 3 assignments"
CRITERIA: dict[str, Callable[[pd.DataFrame], pd.Series[float]]] = {
    REFERENCE: repeated_f1,
    "macro F1, 1 seed": lambda rows: rows["f1_fit0"],
    "macro F1, 3 seeds on the same folds": lambda rows: rows[[f"f1_fit{i}" for i in SAME_FOLDS]].mean(axis=1),
    "mean average precision": lambda rows: rows["average_precision"],
    "mean of macro F1 and average precision": lambda rows: (repeated_f1(rows) + rows["average_precision"]) / 2,
    "macro F1, classes with 3 sources or more": lambda rows: rows["f1_sources3"],
    "macro F1, classes with 6 sources or more": lambda rows: rows["f1_sources6"],
    "10 % bound over sources": lambda rows: rows["bound"],
    "10 % bound over sources, own F1": lambda rows: rows["bound_own_f1"],
    "log loss": lambda rows: -rows["log_loss"],
    "log loss, mean over classes": lambda rows: -rows["balanced_log_loss"],
}
"""Criteria by name: the greater, the better. All but two use three seeds on three assignments."""

RULES: dict[str, Callable[[pd.DataFrame], int]] = {
    "the defaults": lambda _: 0,
    "simplest within one standard error": _choose_within_error,
    "simplest within one standard error of the difference": _choose_within_error_of_gap,
}
"""Rules that return the position of a strategy's setting; strategies are then compared by the reference."""


@dataclass(frozen=True)
class Choices:
    """What a criterion chose in one division."""

    within: float
    """Gain of the chosen setting over the defaults of its strategy in macro F1 on evaluation, mean over strategies."""
    across: float
    """Macro F1 on evaluation of the best setting of all strategies, by the criterion."""
    regret_within: float
    """How far the chosen settings are behind the best of their strategy on evaluation, mean over strategies."""
    regret_across: float
    correlation_within: float
    """Spearman's correlation of criterion and evaluation over the settings of a strategy, mean over strategies."""
    correlation_across: float


def judge(rows: pd.DataFrame, name: str) -> Choices:
    """Applies a criterion or rule to the rows of one division."""
    evaluation = evaluate(rows)
    values = CRITERIA.get(name, repeated_f1)(rows)
    chosen, gains, regrets, correlations = [], [], [], []
    for _, group in rows.groupby("strategy", sort=False):
        scores = evaluation[group.index].tolist()
        position = RULES[name](group) if name in RULES else int(np.argmax(values[group.index]))
        chosen.append(group.index[position])
        gains.append(scores[position] - scores[0])
        regrets.append(max(scores) - scores[position])
        correlations.append(values[group.index].corr(evaluation[group.index], method="spearman"))
    best = max(chosen, key=lambda i: values[i])
    return Choices(
        within=float(np.mean(gains)),
        across=float(evaluation[best]),
        regret_within=float(np.mean(regrets)),
        regret_across=float(evaluation.max() - evaluation[best]),
        correlation_within=float(np.nanmean(correlations)),
        correlation_across=float(values.corr(evaluation, method="spearman")),
    )


def evaluate(rows: pd.DataFrame) -> pd.Series[float]:
    """Returns macro F1 on the evaluation half, mean over the final fits; a closed form has one."""
    return rows[[f"evaluation{i}" for i in range(N_FINAL_FITS)]].mean(axis=1)


def print_tables(results: pd.DataFrame) -> None:
    """Prints the tables of docs/selection.md."""
    divisions = [group for _, group in results.groupby("division")]
    judged = {name: pd.DataFrame([judge(rows, name) for rows in divisions]) for name in [*CRITERIA, *RULES]}
    for kind, what in (("within", "gain over the defaults"), ("across", "score of the choice")):
        print(f"| criterion | {what} | difference to the first | behind the best | rank correlation | its difference |")
        print("|---|---:|---:|---:|---:|---:|")
        for name, choices in judged.items():
            columns = (kind, f"correlation_{kind}")
            (value, correlation), (difference, difference_of_correlation) = (
                [_mean_and_error(one[column], digits) for column, digits in zip(columns, (3, 2), strict=True)]
                for one in (choices, choices - judged[REFERENCE])
            )
            cells = [value, difference, f"{choices[f'regret_{kind}'].mean():.3f}", correlation]
            cells.append(difference_of_correlation)
            if name == REFERENCE:
                cells[1] = cells[4] = "–"
            if name in RULES:  # they give no values
                cells[3:] = ["–", "–"]
            print(f"| {name} | {' | '.join(cells)} |")
        print()


def print_noise(results: pd.DataFrame) -> None:
    """Prints standard deviations of the macro F1 of one candidate, and between candidates."""
    is_trained = results["epochs"].notna()
    trained, closed_form = results[is_trained], results[~is_trained]
    f1 = [f"f1_fit{i}" for i in range(N_CV_FITS)]
    within = results.assign(evaluation=evaluate(results), score=repeated_f1(results)).groupby("division")
    pairs = trained[["evaluation0", "evaluation1"]].std(axis=1)
    for what, value in {
        "between seeds on the same folds": _pool(trained[[f1[i] for i in SAME_FOLDS]].std(axis=1)),
        "between seeds, each on its assignment": _pool(trained[[f1[i] for i in REPEATED]].std(axis=1)),
        "between assignments, closed-form heads": _pool(closed_form[[f1[i] for i in REPEATED]].std(axis=1)),
        "over sources, bootstrap": _pool(results["error"]),
        "over sources, difference to the best setting": _pool(results["error_of_gap"][results["error_of_gap"] > 0]),
        "between candidates, validation score": float(within["score"].std().mean()),
        "between candidates, evaluation": float(within["evaluation"].std().mean()),
        "between seeds, evaluation": _pool(pairs),
    }.items():
        print(f"| {what} | {value:.3f} |")
    # The other seeds on the same folds took no part in the choice, so their mean is free of its luck.
    best = trained.loc[trained.groupby("division")["f1_fit0"].idxmax()]
    luck = best["f1_fit0"] - best[[f1[i] for i in SAME_FOLDS[1:]]].mean(axis=1)
    print(f"one seed: score of the best setting above the mean of its other two seeds: {_mean_and_error(luck)}")


def _pool(deviations: pd.Series[float]) -> float:
    """Returns the root mean square of standard deviations."""
    return float(np.sqrt((deviations**2).mean()))


def _mean_and_error(values: pd.Series[float], digits: int = 3) -> str:
    """Returns the mean over divisions with its standard error, as if divisions were independent."""
    numbers = values.to_numpy(float)
    error = numbers.std(ddof=1) / np.sqrt(len(numbers))
    return f"{numbers.mean():.{digits}f} ± {error:.{digits}f}".replace("-", "−")
