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

OURS, FIVE, EIGHT = "ours", "ours, 5 seeds", "ours, 8 recipes"
KERAS, KERAS_64 = "Keras", "Keras, 64 steps"
LOGISTIC, FLOOR = "scikit-learn", "one pass"


def run(bench: BenchmarkRun) -> Report:
    """Time epochs and compare what is learnt."""
    size, epochs = (0.1, 3) if bench.quick else (1.0, 4)
    prepared(bench, draw, size=size)
    cases: dict[str, Case] = {
        OURS: partial(ours, size=size, epochs=epochs),
        FIVE: partial(five, size=size, epochs=epochs),
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
        f"epoch; macro F1 on validation after {epochs} epochs. `5 seeds` of the recipe and `8 recipes` train side by "
        "side, each with its own order of rows and dropout masks; `64 steps` is Keras' steps_per_execution; the time "
        "of scikit-learn is a whole fit of LogisticRegression; `one pass` only reads the rows and multiplies them by "
        "a matrix of 8 columns.",
        tables=[Table("", columns, rows), _agreement(agree, several)],
        targets=[
            Target("Keras fit takes", middle(ratios(seconds[KERAS], seconds[OURS])), 5, " x ours", least=True),
            Target("8 Keras fits take", 8 * middle(ratios(seconds[KERAS], seconds[EIGHT])), 20, " x ours", least=True),
            Target("5 seeds take", middle(ratios(seconds[FIVE], seconds[OURS])), 2, " x one"),
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
    """One head by itself."""
    return _time_heads(size, epochs, [_recipe(epochs)], [seed])


def five(size: float, epochs: int, seed: int) -> Figures:
    """Five seeds of one recipe."""
    return _time_heads(size, epochs, [_recipe(epochs)] * 5, [seed + number for number in range(5)])


def eight(size: float, epochs: int, seed: int) -> Figures:
    """Recipes of different learning rates, class weights and losses, each with rows of its own."""
    from dataclasses import replace

    from hirise_imb.imbalance.class_weights import EffectiveNumber, InversePower
    from hirise_imb.imbalance.losses import Focal

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
    return _time_heads(size, epochs, recipes, [seed + number for number in range(8)])


def _time_heads(size: float, epochs: int, recipes: list[Recipe], seeds: list[int]) -> Figures:
    from dataclasses import replace

    from benchmarks.data import simulated, train_heads

    data = simulated(size)
    begin = time.perf_counter()
    train_heads(data, [replace(recipe, max_epochs=1) for recipe in recipes], seeds)
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    score = train_heads(data, recipes, seeds)
    seconds = (time.perf_counter() - begin) / epochs
    return {
        "first": first,
        "seconds": seconds,
        "macro_f1": score,
        "rows": int(data.train.pool.copies.sum()),
    }


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
    from threadpoolctl import threadpool_limits

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
    from benchmarks.data import simulated, train_heads

    data, recipe = simulated(size), _recipe(epochs)
    return {"macro_f1": [train_heads(data, [recipe], [seed + number]) for number in range(seeds)]}


def plain_seeds(size: float, epochs: int, seeds: int, seed: int) -> Figures:
    """The same with `model.fit`."""
    return {"macro_f1": [plain(size, epochs, seed + number)["macro_f1"] for number in range(seeds)]}
