"""Files of predictions that are damaged or hostile, finished or not."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from review_files import image_names, write_images, write_predictions
from saved_models import write_toy_model

from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.load import load_data
from hirise_imb.prediction.evaluate import evaluate_predictions
from hirise_imb.prediction.inputs import list_inputs
from hirise_imb.prediction.model_file import read_model
from hirise_imb.prediction.parts import Parts, count_rows
from hirise_imb.prediction.run import PredictionRequest, Progress, run_prediction
from hirise_imb.prediction.shards import RowRange, Shard
from hirise_imb.prediction.table import KEY, PredictedImages, prediction_table, read_predictions
from hirise_imb.review import build_review
from hirise_imb.testing.toy import TOY
from torture import small_study
from torture.attacks import Area, Attempt, Outcome, attack
from torture.damage import damage
from torture.data_files import change_file, change_parquet
from torture.refusals import read_or_refuse

_VALUES: Final[tuple[object, ...]] = (
    None,
    -1,
    0,
    1e300,
    float("nan"),
    "",
    "all",
    "\x1b[2J",
    [],
    ["a"],
    ["a", "a"],
    [1, 2],
    [227, 227, 2],
    {},
    True,
)
"""Values that facts have by no mistake."""


def _change_facts(path: Path, rng: random.Random) -> None:
    """Changes what the metadata say; NaN included, which is no JSON."""
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[KEY])
    key = rng.choice([*facts, "other"])
    if rng.random() < 0.1:
        del facts[next(iter(facts)) if key == "other" else key]
    else:
        facts[key] = rng.choice(_VALUES)
    pq.write_table(table.replace_schema_metadata({KEY: json.dumps(facts).encode()}), path)


def _change_values(path: Path, rng: random.Random) -> None:
    """Changes a value to one that `predict` does not write, or repeats a row in place of another."""
    table = pq.read_table(path)
    frame, row = table.to_pandas(), rng.randrange(len(table))
    column = rng.choice([name for name in frame.columns if name not in ("error", "source", "model", "shown")])
    if rng.random() < 0.2:
        frame.iloc[row] = frame.iloc[(row + 1) % len(frame)]
    elif frame[column].dtype == np.float32:
        frame.loc[row, column] = rng.choice([np.nan, np.inf, -np.inf, -0.01, 1.01, 3e38])
    else:
        frame.loc[row, column] = rng.choice([None, "", "other class", "../x.jpg"])
    pq.write_table(pa.Table.from_pandas(frame, table.schema, preserve_index=False), path)


@attack(
    Area.DATA,
    "File of predictions with other bytes, columns, types, facts or values: read, scored against labels, reviewed",
    tries=200,
)
def predictions_changed(attempt: Attempt) -> Outcome:
    rng = attempt.random
    manifest = load_data(str(small_study.data(attempt)), HIRISE)
    ids = list(manifest.split("test")["image"])[:12]
    path = write_predictions(attempt.folder / "p.parquet", ids)
    before = read_predictions(path)[1]
    change = rng.choice(["bytes", "structure", "facts", "values", "values"])
    match change:
        case "bytes":
            path.write_bytes(change_file(path.read_bytes(), rng))
        case "structure":
            change_parquet(path, rng)
        case "facts":
            _change_facts(path, rng)
        case "values":
            _change_values(path, rng)

    read = read_or_refuse(lambda: read_predictions(path))
    totals = read_or_refuse(lambda: count_rows(path))
    evaluation = read_or_refuse(lambda: evaluate_predictions(path, manifest))
    backbone = TOY.load("random", HIRISE.image_shape)
    read_or_refuse(lambda: build_review(path, [str(manifest.folder)], backbone, None, 2, 2))
    if read is None:  # the others read fewer columns
        return Outcome.REFUSED
    facts, table = read
    if change == "bytes":
        pd.testing.assert_frame_equal(table, before)
    probabilities = table.filter(regex="^(p|calibrated)_").to_numpy()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert set(table["class"]) <= set(facts.classes)
    assert totals is not None
    assert totals.images == len(table)
    if evaluation is None:
        return Outcome.REFUSED
    assert evaluation.confusion.sum() == len(set(table["id"]))
    return Outcome.CORRECT


def _make_inputs(folder: Path) -> None:
    write_toy_model(folder / "model", TOY.load("random", HIRISE.image_shape))
    write_images(folder / "images", image_names())


@attack(Area.DISK, "A finished shard of an interrupted `predict` is damaged, then the same command", tries=100)
def damage_shard(attempt: Attempt) -> Outcome:
    inputs = attempt.prepare("prediction-inputs", _make_inputs)
    model = read_model(inputs / "model")
    listing = list_inputs([str(inputs / "images")], None, HIRISE)
    predicted: list[Shard] = []

    def predict(request: PredictionRequest, shards: Iterator[Shard], parts: Parts, progress: Progress) -> None:
        for shard in shards:
            predicted.append(shard)
            p = np.random.default_rng(shard.number).dirichlet(np.ones(len(model.classes)), len(shard))
            assert not isinstance(shard.images, RowRange)
            names, nothing = [image.id for image in shard.images], [None] * len(shard)
            parts.write(shard, prediction_table(PredictedImages(names, nothing, nothing, p, p), parts.facts))

    def run(out: Path) -> bytes:
        run_prediction(PredictionRequest(model, listing, out, 0.9, ("images",)), predict)
        return out.read_bytes()

    expected = run(attempt.folder / "undisturbed.parquet")
    out = attempt.folder / "out.parquet"
    with mock.patch.object(Parts, "join", side_effect=KeyboardInterrupt), suppress(KeyboardInterrupt):
        run(out)
    (part,) = (attempt.folder / "out.parquet.parts").glob("*.parquet")
    part.write_bytes(damage(attempt.random, part.read_bytes()))
    predicted.clear()
    assert run(out) == expected
    return Outcome.REPAIRED if predicted else Outcome.CORRECT
