"""Topic `trials`: the overhead of a trial over its training steps, and whether memory grows with trials."""

from __future__ import annotations

import time
from functools import partial

from benchmarks.report import Report, Table, Target, middle, spread, values
from benchmarks.runner import BenchmarkRun, Case, Figures, prepared

SIZE, WIDTH = 800 / 48_979, 256
OURS = "ours"
KERAS, KERAS_CLEARED = "Keras", "Keras, clear_session"


def run(bench: BenchmarkRun) -> Report:
    """Search class weights on a tiny task."""
    trials, models = bench.size(200, 24), bench.size(30, 8)
    first = bench.size(20, 8)  # what is imported and compiled late is in memory by then
    prepared(bench, draw)
    found = bench.by_turns({OURS: partial(search, trials=trials, marks=[first, trials // 2, trials])})
    # Of Keras only memory is shown, which varies little, and its trials take long.
    others: dict[str, Case] = {
        KERAS: partial(plain, trials=models, clear=False),
        KERAS_CLEARED: partial(plain, trials=models, clear=True),
    }
    found |= bench.by_turns(others, 1)
    ours = found[OURS]
    overhead = values(ours, "overhead")
    times = [
        ["a trial, all in all", spread(values(ours, "seconds"), 3)],
        ["its training alone", spread(values(ours, "training"), 3)],
        ["overhead over the training", spread(overhead, 3)],
    ]
    growth = {name: [_growth(one) for one in figures] for name, figures in found.items()}
    memory = [[name, _marks(found[name]), str(_last(found[name])), spread(growth[name])] for name in found]
    over = [one["marks"][-1][1] - one["before_mb"] for one in ours]
    return Report(
        title="Trials: overhead over training, and memory",
        text=f"{trials} trials of class_weights in one process, with an SQLite database, on 800 rows of {WIDTH} "
        "features; the training alone is the same epochs of the same recipes without Optuna. Memory is resident "
        "memory; growth a trial is that between the first and the last mark. Before the first trial ours used "
        f"{middle(values(ours, 'before_mb')):,.0f} MB, from where the target counts. Keras makes and fits a "
        "new model each trial; `clear_session` calls that and gc.collect after each.",
        tables=[
            Table("Time", ["", "s a trial"], times),
            Table("Memory", ["", "MB after trials", "trials", "MB a trial"], memory),
        ],
        targets=[
            Target("overhead of a trial over its training", middle(overhead), 0.2, " s", digits=3),
            Target(f"memory grows over {trials} trials by", middle(over), 50, " MB", digits=0),
        ],
        figures=found,
    )


def _last(figures: list[Figures]) -> int:
    return int(figures[0]["marks"][-1][0])


def _growth(figures: Figures) -> float:
    (start, before), (end, after) = figures["marks"][0], figures["marks"][-1]
    return float((after - before) / (end - start))


def _marks(figures: list[Figures]) -> str:
    """Such as `20: 700, 100: 702`, the median of the repeats."""
    columns = zip(*(one["marks"] for one in figures), strict=True)
    return ", ".join(f"{column[0][0]}: {middle([mb for _, mb in column]):,.0f}" for column in columns)


def draw(seed: int) -> Figures:  # noqa: ARG001
    """Draw the features."""
    from benchmarks.data import simulated

    return {"rows": len(simulated(SIZE, WIDTH).train.labels)}


def search(trials: int, marks: list[int], seed: int) -> Figures:
    """A search, then its training again without it."""
    import tempfile
    from pathlib import Path

    from benchmarks.child import resident_mb
    from benchmarks.data import simulated, trainer
    from benchmarks.searching import run_search
    from hirise_imb.recipe import Recipe
    from hirise_imb.strategies import STRATEGIES
    from hirise_imb.training import CrossValidation, OnEpoch

    data = simulated(SIZE, WIDTH)
    ours = trainer(data)
    ours.cross_validate(Recipe(max_epochs=1), [seed])
    recipes: list[Recipe] = []

    def fit(recipe: Recipe, on_epoch: OnEpoch) -> CrossValidation:
        recipes.append(recipe)
        return ours.cross_validate(recipe, [seed], on_epoch)

    noted: list[tuple[int, float]] = []

    def show(done: float) -> None:
        if done >= marks[len(noted)]:
            noted.append((int(done), resident_mb()))

    with tempfile.TemporaryDirectory() as folder:
        before = resident_mb()
        begin = time.perf_counter()
        run_search(Path(folder) / "study.db", STRATEGIES["class_weights"], trials, seed, fit, show)
        whole = time.perf_counter() - begin
    again = trainer(data)  # keeps none of the fits that are made again
    again.cross_validate(Recipe(max_epochs=1), [seed])
    begin = time.perf_counter()
    for recipe in recipes:
        again.cross_validate(recipe, [seed])
    training = time.perf_counter() - begin
    return {
        "seconds": whole / trials,
        "training": training / trials,
        "overhead": (whole - training) / trials,
        "before_mb": before,
        "marks": noted,
    }


def plain(trials: int, clear: bool, seed: int) -> Figures:
    """A new compiled model each trial, as most examples have it."""
    import gc

    import keras
    import numpy as np

    from benchmarks.child import resident_mb
    from benchmarks.data import in_memory, simulated
    from benchmarks.networks import one_hot, plain_head
    from hirise_imb.imbalance.class_weights import inverse_power

    task = simulated(SIZE, WIDTH)
    x, y = in_memory(task.train), one_hot(task.train.labels)
    x_val, y_val = in_memory(task.val), one_hot(task.val.labels)
    counts = np.bincount(task.train.labels)
    marks: list[tuple[int, float]] = []
    begin = time.perf_counter()
    for trial in range(1, trials + 1):
        keras.utils.set_random_seed(seed)
        model = plain_head(WIDTH)
        weights = dict(enumerate(inverse_power(counts, trial / trials)))
        model.fit(x, y, batch_size=32, epochs=3, class_weight=weights, validation_data=(x_val, y_val), verbose=0)
        model.predict(x_val, verbose=0)
        if clear:
            del model
            keras.backend.clear_session()
            gc.collect()
        if trial in (5, trials):
            marks.append((trial, resident_mb()))
    return {"seconds": (time.perf_counter() - begin) / trials, "marks": marks}
