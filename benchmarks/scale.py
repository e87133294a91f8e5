"""Topic `scale`: time and memory of training as the data grow, and memory of a whole study at the official size."""

from __future__ import annotations

import time
from functools import partial

from benchmarks.report import Report, Table, Target, middle, ratios, spread, values
from benchmarks.runner import BenchmarkRun, Case, Figures, prepared

STUDY = "official-size study"


def run(bench: BenchmarkRun) -> Report:
    """Train at 1, 2 and 4 times the size, then as a study does."""
    unit = 0.05 if bench.quick else 1.0
    sizes = {f"{factor} x the rows": unit * factor for factor in (1, 2, 4)}
    for size in sizes.values():
        prepared(bench, draw, size=size)
    cases: dict[str, Case] = {name: partial(epochs, size=size) for name, size in sizes.items()}
    found = bench.by_turns(cases, min(2, bench.repeats))
    study = bench.once(partial(whole, size=unit))
    base = values(next(iter(found.values())), "seconds")
    rows = [
        [
            name,
            f"{found[name][0]['rows']:,}",
            f"{found[name][0]['features_mb']:,.0f}",
            spread(seconds := values(found[name], "seconds")),
            spread(ratios(seconds, base)) if seconds != base else "1",
            f"{middle(values(found[name], 'peak_mb')):,.0f}",
            f"{middle(values(found[name], 'private_mb')):,.0f}",
        ]
        for name in cases
    ]
    rows.append(
        [
            STUDY,
            f"{study['rows']:,}",
            f"{study['features_mb']:,.0f}",
            "",
            "",
            f"{study['peak_mb']:,.0f}",
            f"{study['private_mb']:,.0f}",
        ]
    )
    columns = ["", "rows", "features, MB", "s an epoch", "ratio", "peak MB", "private MB"]
    return Report(
        title="Scale: training on memory-mapped features",
        text="Peak memory counts the mapped features that were read, which the system can drop at any time; private "
        "memory leaves them out. The study is the training of one: a baseline fit, a round of 8 trials of "
        f"class_weights, and a fit of the best with predictions; it took {study['seconds']:,.0f} s.",
        tables=[Table("", columns, rows)],
        targets=[Target(f"peak memory of the {STUDY}", study["peak_mb"], 3000, " MB", digits=0)],
        figures=found | {STUDY: [study]},
    )


def draw(size: float, seed: int) -> Figures:  # noqa: ARG001
    """Draw the features."""
    from benchmarks.data import simulated

    return {"rows": int(simulated(size).train.pool.copies.sum())}


def epochs(size: float, seed: int) -> Figures:
    """Three epochs of the reference run, after one that compiles."""
    from benchmarks.data import simulated, train_heads
    from hirise_imb.recipe import Recipe

    task = simulated(size)
    train_heads(task, [Recipe(max_epochs=1)], [seed])
    begin = time.perf_counter()
    train_heads(task, [Recipe(max_epochs=3)], [seed])
    seconds = (time.perf_counter() - begin) / 3
    stored = task.features.stored
    return {"seconds": seconds, "rows": len(task.train.labels), "features_mb": stored.nbytes / 2**20}


def whole(size: float, seed: int) -> Figures:
    """What a study trains."""
    import tempfile
    from pathlib import Path

    from benchmarks.data import simulated, trainer
    from benchmarks.searching import run_search
    from hirise_imb.recipe import Recipe
    from hirise_imb.strategies import STRATEGIES

    task = simulated(size)
    ours, strategy = trainer(task), STRATEGIES["class_weights"]
    begin = time.perf_counter()
    ours.fit_reference(Recipe(), seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.db"
        chosen = run_search(
            path, strategy, 8, seed, lambda recipe, _: ours.cross_validate(recipe, [seed]), lambda _: None
        )
    ours.fit_final(chosen.recipe, seed, ours.cross_validate(chosen.recipe, [seed]))
    stored = task.features.stored
    return {
        "seconds": time.perf_counter() - begin,
        "rows": len(task.train.labels),
        "features_mb": stored.nbytes / 2**20,
    }
