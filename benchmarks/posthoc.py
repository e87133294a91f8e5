"""Topic `posthoc`: a search over class offsets on stored logits, where the metric is what takes the time."""

from __future__ import annotations

import time
from functools import partial

from benchmarks.report import Report, Table, Target, middle, ratios, spread, values
from benchmarks.runner import BenchmarkRun, Case, Figures

OURS, SKLEARN, BARE = "our macro_f1", "scikit-learn f1_score", "none, Optuna alone"


def run(bench: BenchmarkRun) -> Report:
    """Time the search with two metrics and without one."""
    trials, rows = bench.size(200, 40), 15_000
    cases: dict[str, Case] = {
        name: partial(search, metric=name, trials=trials, rows=rows) for name in (OURS, SKLEARN, BARE)
    }
    found = bench.by_turns(cases)
    seconds = {name: values(figures, "seconds") for name, figures in found.items()}
    table = [
        [
            name,
            spread(seconds[name]),
            spread(ratios(seconds[name], seconds[OURS])) if name != OURS else "1",
            f"{middle(values(found[name], 'best')):.4f}" if name != BARE else "",
        ]
        for name in cases
    ]
    return Report(
        title="Post hoc: class offsets on stored logits",
        text=f"{trials} trials of Optuna's default sampler (TPE, in memory) over 8 class offsets, macro F1 of {rows:,} "
        "rows as the value.",
        tables=[Table("", ["metric", "s a search", "ratio to ours", "best macro F1"], table)],
        targets=[Target(f"a search of {trials} trials takes", middle(seconds[OURS]), 10 * trials / 200, " s")],
        figures=found,
    )


def search(metric: str, trials: int, rows: int, seed: int) -> Figures:
    """Search offsets that raise macro F1 of noisy logits."""
    import numpy as np
    import optuna
    from sklearn.metrics import f1_score

    from benchmarks.data import TRAIN
    from hirise_imb.metrics.classification import confusion_matrix, macro_f1

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rng = np.random.default_rng(0)
    share = np.array(TRAIN) / sum(TRAIN)
    labels = rng.choice(len(TRAIN), size=rows, p=share)
    logits = 2 * np.eye(len(TRAIN))[labels] + np.log(share) + rng.standard_normal((rows, len(TRAIN)))
    names = [f"offset {label}" for label in range(len(TRAIN))]

    def objective(trial: optuna.Trial) -> float:
        offsets = np.array([trial.suggest_float(name, -3.0, 3.0) for name in names])
        if metric == BARE:
            return -float(np.square(offsets).sum())
        predicted = (logits + offsets).argmax(axis=1)
        if metric == SKLEARN:
            return float(f1_score(labels, predicted, average="macro", zero_division=0.0))
        return macro_f1(confusion_matrix(labels, predicted, 8))

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    begin = time.perf_counter()
    study.optimize(objective, n_trials=trials)
    return {"seconds": time.perf_counter() - begin, "best": study.best_value}
