"""Reads the stored predictions of an arm, and refuses what no study can have written."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hirise_imb.data.dataset import ClassSet
from hirise_imb.reporting.tables import probability_columns
from hirise_imb.utils.parquet import parquet_errors

IDENTITY = ["image", "landmark", "source", "true_class"]
"""Columns that identify a landmark, and its class; they are the same for all arms and seeds."""

_TOLERANCE = 1e-3
"""Largest difference between 1 and the sum of the probabilities of an image, which are stored in single precision."""


def read_predictions(content: bytes, classes: ClassSet, seeds: Sequence[int], n_landmarks: int) -> list[pd.DataFrame]:
    """Returns the predictions of an arm, one table of `n_landmarks` rows for each seed.

    Args:
        content: content of the Parquet file.
        classes: classes of the report.
        seeds: seeds of the arm.
        n_landmarks: number of tested landmarks.

    Raises:
        ValueError: the file can't be read, or its content is not the predictions of these seeds; the message continues
            a sentence about the file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = probability_columns(classes)
    expected = {
        **dict.fromkeys([*IDENTITY, "predicted_class"], (pa.types.is_string, pa.types.is_large_string)),
        **dict.fromkeys(columns, (pa.types.is_floating,)),
        "seed": (pa.types.is_integer,),
    }
    try:
        file = pq.ParquetFile(BytesIO(content))
        # The footer tells the number of rows: a small file may unpack to more than the memory.
        if file.metadata.num_rows != n_landmarks * len(seeds):
            raise ValueError(f"it has not {n_landmarks:,} rows for each of {len(seeds)} seeds")
        schema = file.schema_arrow
        if sorted(schema.names) != sorted(expected):
            raise ValueError("it has other columns")
        for name, types in expected.items():
            if not any(is_type(schema.field(name).type) for is_type in types):
                raise ValueError(f"its column {name} has the type {schema.field(name).type}")
        stored = file.read()
    except parquet_errors(OSError) as error:
        raise ValueError("it is not a Parquet file that can be read") from error
    if empty := [name for name in expected if stored[name].null_count]:
        raise ValueError(f"its column {empty[0]} has empty cells")
    # Metadata of pandas in the file could rename columns.
    table = stored.to_pandas(ignore_metadata=True)
    _check_classes(table, classes, columns)
    fits = [table[table["seed"] == seed] for seed in seeds]
    for fit in fits:
        if len(fit) != n_landmarks or not (fit["image"].is_unique and fit["landmark"].is_unique):
            raise ValueError("it does not have each landmark once for each seed")
    return fits


def _check_classes(table: pd.DataFrame, classes: ClassSet, columns: Sequence[str]) -> None:
    """Checks probabilities and classes.

    Raises:
        ValueError: a class is unknown, probabilities are none, or the predicted class is not the most probable one.
    """
    names = np.array(classes.names, object)
    if not table["true_class"].isin(classes.names).all():
        raise ValueError("it names a class that the report does not have")
    probabilities: NDArray[np.floating] = table[list(columns)].to_numpy(np.float32)
    # A comparison with NaN is false.
    valid = ((probabilities >= 0) & (probabilities <= 1)).all(axis=1)
    valid &= np.abs(probabilities.sum(axis=1, dtype=np.float64) - 1) <= _TOLERANCE
    if not valid.all():
        image = table["image"].iloc[int(np.argmin(valid))]
        raise ValueError(f"the probabilities of {image} are not from 0 to 1 with the sum 1")
    wrong = table["predicted_class"].to_numpy(object) != names[probabilities.argmax(axis=1)]
    if wrong.any():
        image = table["image"].iloc[int(np.argmax(wrong))]
        raise ValueError(f"the predicted class of {image} is not its most probable one")
