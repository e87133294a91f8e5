"""Topic `sample`: four ways to a classifier of real landmarks, with the embedded backbone."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.report import Report, Table, Target, middle, ratios, spread, values
from benchmarks.runner import BenchmarkRun, Case, Figures, has_sample, prepared
from hirise_imb.data.hirise import HIRISE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from benchmarks.data import Data

NAME = "efficientnet-lite0"
PIXELS, EXTRACT = "Keras on pixels, 1 epoch", "our extraction"
KERAS, OURS, LOGISTIC = "Keras on features", "ours on features", "scikit-learn on features"


def run(bench: BenchmarkRun) -> Report | None:
    """The same head on the same landmarks; None without a sample."""
    if not has_sample():
        return None
    limit = 256 if bench.quick else None
    extraction = bench.once(partial(extract_all, limit=limit))
    prepared(bench, cached_rows)
    pixels = bench.once(partial(on_pixels, limit=limit))
    cases: dict[str, Case] = {OURS: partial(ours), KERAS: partial(on_features), LOGISTIC: partial(logistic)}
    found = bench.by_turns(cases)
    found = {PIXELS: [pixels], EXTRACT: [extraction]} | found
    seconds = {name: values(figures, "seconds") for name, figures in found.items()}
    rows = [
        [
            name,
            spread(seconds[name]),
            spread(ratios(seconds[name], seconds[OURS])) if name in (KERAS, LOGISTIC) else "",
            _median(found[name], "epochs", 0),
            _median(found[name], "peak_mb", 0),
            spread(values(found[name], "macro_f1"), 3) if "macro_f1" in found[name][0] else "",
        ]
        for name in found
    ]
    ours_epochs = middle(values(found[OURS], "epochs"))
    end_to_end = ours_epochs * pixels["seconds"] / (extraction["seconds"] + middle(seconds[OURS]))
    f1 = {name: values(found[name], "macro_f1") for name in (OURS, KERAS)}
    apart = abs(middle(f1[OURS]) - middle(f1[KERAS]))
    return Report(
        title="Sample: real landmarks, from files to a classifier",
        text=f"{extraction['images']:,.0f} images, {NAME}, frozen. On features: up to 30 epochs with early stopping as "
        "in the reference run, compilation included; the seeds are 0, 1, ... On pixels: tf.data, the backbone inside "
        "the model, one epoch and validation.",
        tables=[Table("", ["", "s", "ratio to ours", "epochs", "peak MB", "macro F1, test"], rows)],
        targets=[
            Target(
                f"Keras on pixels for {ours_epochs:.0f} epochs (one was timed) in our extraction and fit",
                end_to_end,
                10,
                " x",
                least=True,
                digits=1,
            ),
            Target("macro F1 on test, ours and Keras' on features, apart", apart, 0.05, digits=3),
        ],
        figures=found,
    )


def _median(figures: list[Figures], key: str, digits: int) -> str:
    return f"{middle(values(figures, key)):,.{digits}f}" if key in figures[0] else ""


def extract_all(limit: int | None, seed: int) -> Figures:  # noqa: ARG001
    """Features of all images, from an empty cache."""
    import tempfile
    from pathlib import Path

    from benchmarks.data import images
    from hirise_imb.backbones import BACKBONES
    from hirise_imb.features.extraction import extract_features
    from hirise_imb.features.inputs import TOP_MEAN

    found = images()
    paths = [found.path(image) for image in found.table["image"][:limit]]
    backbone = BACKBONES[NAME].load("imagenet", HIRISE.image_shape)
    with tempfile.TemporaryDirectory() as cache:
        begin = time.perf_counter()
        extract_features(backbone, [TOP_MEAN], paths, Path(cache))
        return {"seconds": time.perf_counter() - begin, "images": len(paths)}


def cached_rows(seed: int) -> Figures:  # noqa: ARG001
    """Put the features into the cache, where the measurements find them."""
    return {"rows": len(_cached()[1].train.labels)}


def _cached() -> tuple[Any, Data]:
    """The backbone, and the task on its cached features."""
    from benchmarks.data import Data, images
    from hirise_imb.backbones import BACKBONES
    from hirise_imb.data.splits import make_splits
    from hirise_imb.features.extraction import extract_features
    from hirise_imb.features.inputs import TOP_MEAN
    from hirise_imb.utils.files import cache_root

    found = images()
    backbone = BACKBONES[NAME].load("imagenet", HIRISE.image_shape)
    paths = [found.path(image) for image in found.table["image"]]
    return backbone, Data(make_splits(found, 1), extract_features(backbone, [TOP_MEAN], paths, cache_root())[TOP_MEAN])


def ours(seed: int) -> Figures:
    """The reference run."""
    from hirise_imb.features.inputs import TOP_MEAN
    from hirise_imb.recipe import Recipe
    from hirise_imb.training.trainer import Trainer

    backbone, task = _cached()
    trainer = Trainer(backbone, task.task, {TOP_MEAN: task.features})
    begin = time.perf_counter()
    run = trainer.fit_reference(Recipe(), seed)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "epochs": len(run.history), "macro_f1": _macro_f1(task, run.test.labels())}


def on_features(seed: int) -> Figures:
    """`model.fit` on the same features."""
    import keras

    from benchmarks.data import in_memory
    from benchmarks.networks import one_hot, plain_head

    keras.utils.set_random_seed(seed)
    _, task = _cached()
    x, x_val, x_test = (in_memory(part) for part in (task.train, task.val, task.test))
    stop = keras.callbacks.EarlyStopping(monitor="val_loss", patience=4, restore_best_weights=True)
    begin = time.perf_counter()
    model = plain_head(x.shape[1])
    history = model.fit(
        x,
        one_hot(task.train.labels),
        batch_size=32,
        epochs=30,
        validation_data=(x_val, one_hot(task.val.labels)),
        callbacks=[stop],
        verbose=0,
    )
    predicted = model.predict(x_test, verbose=0).argmax(axis=1)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "epochs": len(history.epoch), "macro_f1": _macro_f1(task, predicted)}


def logistic(seed: int) -> Figures:  # noqa: ARG001
    """Logistic regression with balanced class weights."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from benchmarks.data import in_memory

    _, task = _cached()
    x, x_test = in_memory(task.train), in_memory(task.test)
    begin = time.perf_counter()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced"))
    model.fit(x, task.train.labels)
    predicted = model.predict(x_test)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "macro_f1": _macro_f1(task, predicted)}


def on_pixels(limit: int | None, seed: int) -> Figures:
    """One epoch of `model.fit` with the frozen backbone inside the model, images decoded by tf.data."""
    import keras
    import tensorflow as tf

    from benchmarks.data import images
    from benchmarks.networks import one_hot
    from hirise_imb.backbones import BACKBONES
    from hirise_imb.metrics.classification import confusion_matrix, macro_f1

    keras.utils.set_random_seed(seed)
    found = images()

    def dataset(table: Any, *, shuffle: bool = False) -> Any:  # noqa: ANN401
        table = table[:limit]
        names = [str(found.path(image)) for image in table["image"]]
        rows = tf.data.Dataset.from_tensor_slices((names, one_hot(table["label"].to_numpy())))
        rows = rows.shuffle(len(names), seed=seed) if shuffle else rows

        def read(name: Any, label: Any) -> Any:  # noqa: ANN401
            return tf.cast(tf.io.decode_jpeg(tf.io.read_file(name), channels=1), tf.float32), label

        return rows.map(read, num_parallel_calls=tf.data.AUTOTUNE).batch(32).prefetch(tf.data.AUTOTUNE)

    backbone = BACKBONES[NAME].load("imagenet", HIRISE.image_shape).network
    layers = keras.layers
    x = layers.GlobalAveragePooling2D()(backbone.output)
    x = layers.Dropout(0.2)(layers.BatchNormalization()(x))
    model = keras.Model(backbone.input, layers.Dense(len(HIRISE.classes), activation="softmax")(x))
    model.compile(optimizer=keras.optimizers.Adam(1e-4), loss="categorical_crossentropy", metrics=["accuracy"])
    train, val = dataset(found.split("train"), shuffle=True), dataset(found.canonical_images("val"))
    begin = time.perf_counter()
    model.fit(train, epochs=1, validation_data=val, verbose=0)
    seconds = time.perf_counter() - begin
    table = found.canonical_images("test")[:limit]
    predicted = model.predict(dataset(table), verbose=0).argmax(axis=1)
    return {
        "seconds": seconds,
        "epochs": 1,
        "macro_f1": macro_f1(confusion_matrix(table["label"].to_numpy(), predicted, len(HIRISE.classes))),
    }


def _macro_f1(task: Data, predicted: NDArray[np.int64]) -> float:
    from hirise_imb.metrics.classification import confusion_matrix, macro_f1

    return macro_f1(confusion_matrix(task.test.labels, predicted, len(HIRISE.classes)))
