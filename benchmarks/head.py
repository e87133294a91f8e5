"""Topic `head`: an epoch of the reference run's head, against Keras, scikit-learn and one pass over the features."""

from __future__ import annotations

import time
from functools import partial
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from benchmarks.report import Report, Table, Target, middle, ratios, spread, values
from benchmarks.runner import BenchmarkRun, Case, Figures, prepared

if TYPE_CHECKING:
    from hirise_imb.recipe import Recipe

OURS, EIGHT = "ours", "ours, 8 heads"
KERAS, KERAS_64 = "Keras", "Keras, 64 steps"
LOGISTIC, FLOOR = "scikit-learn", "one pass"


def run(bench: BenchmarkRun) -> Report:
    """Time epochs and compare what is learnt."""
    size, epochs = (0.1, 3) if bench.quick else (1.0, 4)
    prepared(bench, draw, size=size)
    cases: dict[str, Case] = {
        OURS: partial(ours, size=size, epochs=epochs),
        EIGHT: partial(eight, size=size, epochs=epochs),
        KERAS: partial(plain, size=size, epochs=epochs),
        KERAS_64: partial(plain, size=size, epochs=epochs, steps_per_execution=64),
        LOGISTIC: partial(logistic, size=size),
        FLOOR: partial(floor, size=size, epochs=epochs),
    }
    found = bench.by_turns(cases)
    seconds = {name: values(figures, "seconds") for name, figures in found.items()}
    rows = [
        [
            name,
            spread(seconds[name]),
            spread(ratios(seconds[name], seconds[OURS])) if name != OURS else "1",
            spread(values(found[name], "first")) if "first" in found[name][0] else "",
            f"{middle(values(found[name], 'peak_mb')):,.0f}",
            f"{middle(values(found[name], 'macro_f1')):.3f}" if "macro_f1" in found[name][0] else "",
        ]
        for name in cases
    ]
    columns = ["", "s an epoch", "ratio to ours", "first, with compilation, s", "peak MB", "macro F1"]
    several: dict[str, Any] = {"size": 0.1, "epochs": bench.size(15, 3), "seeds": bench.size(10, 3)}
    agreement: dict[str, Case] = {OURS: partial(ours_seeds, **several), KERAS: partial(plain_seeds, **several)}
    agree = {name: figures[0]["macro_f1"] for name, figures in bench.by_turns(agreement, 1).items()}
    return Report(
        title="Head: an epoch at the official size",
        text=f"{found[OURS][0]['rows']:,} rows of 2,048 simulated features, batches of 32, validation after each "
        f"epoch; macro F1 on validation after {epochs} epochs. `8 heads` go through the rows in one pass; `64 steps` "
        "is Keras' steps_per_execution; the time of scikit-learn is a whole fit of LogisticRegression; `one pass` "
        "only reads the rows and multiplies them by a matrix of 8 columns.",
        tables=[Table("", columns, rows), _agreement(agree, several)],
        targets=[
            Target("Keras fit takes", middle(ratios(seconds[KERAS], seconds[OURS])), 10, " x ours", least=True),
            Target("8 heads take", middle(ratios(seconds[EIGHT], seconds[OURS])), 2.5, " x one head"),
            Target(
                "difference of mean macro F1, ours and Keras', in standard deviations between seeds",
                abs(mean(agree[OURS]) - mean(agree[KERAS])) / _pooled(agree),
                1,
            ),
        ],
        figures=found | {"agreement": agree},
    )


def _agreement(agree: dict[str, list[float]], several: dict[str, Any]) -> Table:
    rows = [[name, f"{mean(f1):.4f}", f"{stdev(f1):.4f}", str(len(f1))] for name, f1 in agree.items()]
    title = f"Macro F1 on validation after {several['epochs']} epochs on {several['size']:.0%} of the rows"
    return Table(title, ["", "mean", "standard deviation", "seeds"], rows)


def _pooled(agree: dict[str, list[float]]) -> float:
    return float(mean([stdev(f1) ** 2 for f1 in agree.values()]) ** 0.5)


def draw(size: float, seed: int) -> Figures:  # noqa: ARG001
    """Draw the features, so that no measurement holds the drawing of them."""
    from benchmarks.data import simulated

    return {"rows": int(simulated(size).train.pool.copies.sum())}


def _recipe(epochs: int) -> Recipe:
    """The reference run on the repeated rows, without an early end."""
    from hirise_imb.imbalance.sampling import SplitFileRows
    from hirise_imb.recipe import Recipe

    return Recipe(sampling=SplitFileRows(), max_epochs=epochs, patience=epochs)


def ours(size: float, epochs: int, seed: int) -> Figures:
    """`Trainer.select` with one recipe."""
    from benchmarks.data import simulated, trainer
    from hirise_imb.training.epoch_loop import Job

    task = simulated(size)
    select = trainer(task).select
    begin = time.perf_counter()
    select([Job(_recipe(1), seed)], "val")
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    history = select([Job(_recipe(epochs), seed)], "val")[0].get().history
    return {
        "first": first,
        "seconds": (time.perf_counter() - begin) / epochs,
        "macro_f1": float(history["val_macro_f1"].iloc[-1]),
        "rows": int(task.train.pool.copies.sum()),
    }


def eight(size: float, epochs: int, seed: int) -> Figures:
    """`Trainer.select` with recipes of different learning rates, class weights and losses."""
    from dataclasses import replace

    from benchmarks.data import simulated, trainer
    from hirise_imb.imbalance.class_weights import EffectiveNumber, InversePower
    from hirise_imb.imbalance.losses import Focal
    from hirise_imb.training.epoch_loop import Job

    select = trainer(simulated(size)).select

    def jobs(epochs: int) -> list[Job]:
        base = _recipe(epochs)
        recipes = [
            base,
            replace(base, learning_rate=3e-4),
            replace(base, class_weights=InversePower(0.5)),
            replace(base, class_weights=InversePower(1.0)),
            replace(base, class_weights=EffectiveNumber(0.999)),
            replace(base, loss=Focal(2.0)),
            replace(base, loss=Focal(1.0, 0.5)),
            replace(base, loss=Focal(2.0, 1.0), learning_rate=3e-5),
        ]
        return [Job(recipe, seed) for recipe in recipes]

    begin = time.perf_counter()
    select(jobs(1), "val")
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    runs = [outcome.get() for outcome in select(jobs(epochs), "val")]
    seconds = (time.perf_counter() - begin) / epochs
    return {"first": first, "seconds": seconds, "macro_f1": float(runs[0].history["val_macro_f1"].iloc[-1])}


def plain(size: float, epochs: int, seed: int, steps_per_execution: int = 1) -> Figures:
    """`model.fit` on arrays in memory; the first epoch is timed by itself."""
    import keras

    from benchmarks.data import in_memory, simulated
    from benchmarks.networks import one_hot, plain_head
    from hirise_imb.imbalance.sampling import SplitFileRows
    from hirise_imb.metrics.classification import confusion_matrix, macro_f1

    keras.utils.set_random_seed(seed)
    task = simulated(size)
    rows = SplitFileRows().rows(task.train.pool, seed, 1, 0.0)
    x, y = task.train.features.take(rows), one_hot(task.train.labels[rows])
    x_val, y_val = in_memory(task.val), one_hot(task.val.labels)
    begin = time.perf_counter()
    model = plain_head(x.shape[1], steps_per_execution)
    model.fit(x, y, batch_size=32, epochs=1, validation_data=(x_val, y_val), verbose=0)
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    model.fit(x, y, batch_size=32, epochs=epochs - 1, validation_data=(x_val, y_val), verbose=0)
    seconds = (time.perf_counter() - begin) / (epochs - 1)
    found = confusion_matrix(task.val.labels, model.predict(x_val, verbose=0).argmax(axis=1), 8)
    return {"first": first, "seconds": seconds, "macro_f1": macro_f1(found)}


def logistic(size: float, seed: int) -> Figures:
    """Multinomial logistic regression on standardised features, with L-BFGS."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from benchmarks.data import in_memory, simulated
    from hirise_imb.imbalance.sampling import SplitFileRows
    from hirise_imb.metrics.classification import confusion_matrix, macro_f1

    task = simulated(size)
    rows = SplitFileRows().rows(task.train.pool, seed, 1, 0.0)
    x, y = task.train.features.take(rows), task.train.labels[rows]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=100))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        begin = time.perf_counter()
        model.fit(x, y)
        seconds = time.perf_counter() - begin
    found = confusion_matrix(task.val.labels, model.predict(in_memory(task.val)), 8)
    return {"seconds": seconds, "macro_f1": macro_f1(found)}


def floor(size: float, epochs: int, seed: int) -> Figures:
    """Read all rows in a random order, batch by batch, and multiply each with a (width, 8) matrix."""
    import numpy as np
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    from benchmarks.data import simulated
    from hirise_imb.imbalance.sampling import SplitFileRows

    threadpool_limits(1)  # products this small gain nothing from a second thread, and lose where the machine is busy
    task = simulated(size)
    rows = SplitFileRows().rows(task.train.pool, seed, 1, 0.0)
    x = task.train.features.take(rows)
    rng = np.random.default_rng(seed)
    kernel = rng.standard_normal((x.shape[1], 8), dtype=np.float32)
    begin = time.perf_counter()
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x), 32):
            x[order[start : start + 32]] @ kernel
    return {"seconds": (time.perf_counter() - begin) / epochs}


def ours_seeds(size: float, epochs: int, seeds: int, seed: int) -> Figures:
    """Macro F1 on validation of several seeds."""
    from benchmarks.data import simulated, trainer
    from hirise_imb.training.epoch_loop import Job

    select = trainer(simulated(size)).select
    runs = [select([Job(_recipe(epochs), seed + number)], "val")[0].get() for number in range(seeds)]
    return {"macro_f1": [float(run.history["val_macro_f1"].iloc[-1]) for run in runs]}


def plain_seeds(size: float, epochs: int, seeds: int, seed: int) -> Figures:
    """The same with `model.fit`."""
    return {"macro_f1": [plain(size, epochs, seed + number)["macro_f1"] for number in range(seeds)]}
