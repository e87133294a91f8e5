"""Topic `nested`: a nested cross-validation against a study of the given split with as many trials in all."""

from __future__ import annotations

import time
from functools import partial

from benchmarks.report import Report, Table, Target, middle, ratios, spread, values
from benchmarks.runner import BenchmarkRun, Case, Figures, prepared

FOLDS = 5
STRATEGIES = ("class_weights", "focal_loss", "logit_adjustment", "logistic", "prototypes")
GIVEN, NESTED = "given split", "nested cross-validation"


def run(bench: BenchmarkRun) -> Report:
    """Runs both designs on the embedded sample, from cached features to the report."""
    trials = bench.size(4, 1)
    prepared(bench, study, design="given-split", trials=1)  # extracts the features
    cases: dict[str, Case] = {
        GIVEN: partial(study, design="given-split", trials=FOLDS * trials),
        NESTED: partial(study, design="nested-cv", trials=trials),
    }
    found = bench.by_turns(cases)
    given, nested = (values(found[name], "seconds") for name in (GIVEN, NESTED))
    rows = [
        [GIVEN, str(FOLDS * trials), "1", spread(given), "1"],
        [NESTED, str(trials), str(FOLDS), spread(nested), spread(ratios(nested, given))],
    ]
    return Report(
        title="Nested cross-validation: time against the given split",
        text=f"The demo's data and the control with {len(STRATEGIES)} strategies, one seed a trial, two seeds a fit, "
        "from cached features to the written report.",
        tables=[Table("", ["design", "trials a search", "divisions", "s", "ratio"], rows)],
        targets=[
            Target("a nested study with as many trials in all takes", middle(ratios(nested, given)), 2.5, " x as long")
        ],
        figures=found,
    )


def study(design: str, trials: int, seed: int) -> Figures:
    """Runs a study of one design."""
    import tempfile
    from pathlib import Path

    from hirise_imb.config import StudyDefinition
    from hirise_imb.pipeline.runner import run_study

    definition = StudyDefinition(
        strategies=STRATEGIES,
        evaluation=(design,),
        outer_folds=FOLDS,
        trials=trials,
        trial_seeds=1,
        inner_seeds=1,
        refits=2,
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        results, _ = run_study(definition, Path(folder))
        seconds = time.perf_counter() - begin
    return {"seconds": seconds, "arms": len(results.arms)}
