"""The Parquet file of predictions: its columns, its metadata, and how it is read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hirise_imb.data.dataset import ClassSet, check_image_shape
from hirise_imb.prediction.image_tables import read_footer
from hirise_imb.reporting.tables import probability_columns
from hirise_imb.utils.errors import UserError, first_line
from hirise_imb.utils.parquet import parquet_errors
from hirise_imb.utils.strict_json import parse_json

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from hirise_imb.prediction.model_file import SavedModel

FORMAT = 1
"""Version of the columns and the metadata."""
KEY = b"hirise_imb"
"""Key of the metadata in the file."""

_DICTIONARIES = ["source", "class", "error", "model"]
"""Columns whose values repeat."""


def calibrated_columns(classes: ClassSet) -> list[str]:
    """Returns the column names of the calibrated probabilities, in the order of the classes."""
    return [f"calibrated_{name.removeprefix('p_')}" for name in probability_columns(classes)]


@dataclass(frozen=True)
class PredictionFacts:
    """What the metadata of a file of predictions say: how the predictions were made, and of which images.

    Raises:
        ValueError: a value has another type, or is none of its kind.
    """

    model: str
    """Digest of the model."""
    model_name: str
    classes: tuple[str, ...]
    majority: str | None
    threshold: float
    """Lowest confidence at which a prediction is shown."""
    input: tuple[str, ...]
    """INPUT arguments."""
    split: str | None
    """Split of the data set that INPUT names, `all` of them, or None for images."""
    image_shape: tuple[int, ...]
    """Rows, columns and channels."""
    dataset: str
    """Name of the data set that the model was trained on."""
    fingerprint: str
    """SHA-256 of names, places, sizes and times of the images."""

    def __post_init__(self) -> None:
        """Checks types and values, since files from elsewhere may have any."""
        texts = [self.model, self.model_name, self.dataset, self.fingerprint]
        texts += [text for text in (self.majority, self.split) if text is not None]
        if not all(isinstance(names, tuple) for names in (self.classes, self.input, self.image_shape)):
            raise ValueError("classes, input and image_shape must be lists")
        if not all(isinstance(text, str) for text in (*texts, *self.classes, *self.input)):
            raise ValueError("names must be strings")
        if type(self.threshold) not in (int, float) or not 0 <= self.threshold <= 1:
            raise ValueError("threshold must be from 0 to 1")
        check_image_shape(self.image_shape)
        _ = self.class_set  # it checks the classes

    @property
    def class_set(self) -> ClassSet:
        """Classes in the order of their ids."""
        return ClassSet(self.classes, self.majority)

    @classmethod
    def of(
        cls, model: SavedModel, threshold: float, inputs: Sequence[str], split: str | None, fingerprint: str
    ) -> PredictionFacts:
        """Describes the predictions of a model."""
        return cls(
            model=model.digest,
            model_name=model.name,
            classes=model.classes.names,
            majority=model.classes.majority,
            threshold=threshold,
            input=tuple(inputs),
            split=split,
            image_shape=model.image_shape,
            dataset=model.dataset,
            fingerprint=fingerprint,
        )

    def to_json(self) -> str:
        """Returns the metadata as JSON."""
        return json.dumps({"format": FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, text: str | bytes) -> PredictionFacts:
        """Reads metadata.

        Raises:
            ValueError: they are not of this version.
        """
        content = parse_json(text)
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise ValueError("not metadata of this version")
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in content.items()
        }
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError("not metadata of this version") from error


def prediction_schema(facts: PredictionFacts) -> pa.Schema:
    """Returns the columns of a file of predictions, with its metadata."""
    import pyarrow as pa

    columns = [*probability_columns(facts.class_set), *calibrated_columns(facts.class_set)]
    fields = [
        *(("id", pa.string()), ("source", pa.string())),
        *((column, pa.float32()) for column in columns),
        *(("class", pa.string()), ("confidence", pa.float32()), ("shown", pa.bool_())),
        *(("error", pa.string()), ("model", pa.string())),
    ]
    return pa.schema(fields, {KEY: facts.to_json().encode()})


class PredictedImages(NamedTuple):
    """Predictions of some images, in the order of the images."""

    ids: Sequence[str]
    sources: Sequence[str | None]
    errors: Sequence[str | None]
    """A sentence for each image that can't be used, otherwise None."""
    probabilities: NDArray[np.floating]
    """Probabilities as trained of the images without an error, in their order, shape (n_usable, n_classes)."""
    calibrated: NDArray[np.floating]
    """Their calibrated probabilities, shape (n_usable, n_classes)."""


def prediction_table(predicted: PredictedImages, facts: PredictionFacts) -> pa.Table:
    """Returns predictions as a table with the columns of `prediction_schema`."""
    import pyarrow as pa

    usable = np.array([error is None for error in predicted.errors], bool)

    def spread(values: Any, dtype: Any) -> pa.Array:  # noqa: ANN401
        """Returns a column with the values of the usable images, and null for the others."""
        column = np.zeros(len(usable), dtype)
        column[usable] = values
        return pa.array(column, mask=~usable)

    probabilities = np.asarray(predicted.probabilities, np.float32)
    calibrated = np.asarray(predicted.calibrated, np.float32)
    labels = probabilities.argmax(axis=1)
    confidence = calibrated[np.arange(len(labels)), labels]
    schema = prediction_schema(facts)
    columns = [
        pa.array(predicted.ids, pa.string()),
        pa.array(predicted.sources, pa.string()),
        *(spread(column, np.float32) for column in (*probabilities.T, *calibrated.T)),
        spread(np.array(facts.classes, object)[labels], object),
        spread(confidence, np.float32),
        # In the precision of the column, so that the comparison can be repeated from the file.
        spread(confidence >= np.float32(facts.threshold), bool),
        pa.array(predicted.errors, pa.string()),
        pa.array([facts.model] * len(usable), pa.string()),
    ]
    return pa.Table.from_arrays(
        [column.cast(field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


def open_writer(path: Path, facts: PredictionFacts) -> Any:  # noqa: ANN401  (a pyarrow.parquet.ParquetWriter)
    """Returns a writer of a file of predictions."""
    import pyarrow.parquet as pq

    columns = [*probability_columns(facts.class_set), *calibrated_columns(facts.class_set), "confidence"]
    # Probabilities hardly compress as they are; split into streams of their bytes, the file is a third smaller.
    return pq.ParquetWriter(
        path,
        prediction_schema(facts),
        compression="zstd",
        use_dictionary=_DICTIONARIES,
        column_encoding=dict.fromkeys(columns, "BYTE_STREAM_SPLIT"),
        write_page_checksum=True,
    )


def read_facts(path: Path) -> PredictionFacts:
    """Reads the metadata of a file of predictions.

    Raises:
        UserError: it can't be read, or is not a file of predictions of this version.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist: name a file that `hirise-imb predict` has written.")
    schema, _ = read_footer(path)
    try:
        facts = PredictionFacts.from_json((schema.metadata or {})[KEY])
        if not schema.equals(prediction_schema(facts)):
            raise ValueError("other columns")
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{path} is not a file of predictions of this version: make one with `hirise-imb predict`."
        ) from error
    return facts


def read_predictions(path: Path, columns: Sequence[str] | None = None) -> tuple[PredictionFacts, pd.DataFrame]:
    """Reads a file of predictions, or some of its columns.

    Raises:
        UserError: it can't be read, is damaged, or is not a file of predictions of this version.
    """
    import pandas as pd

    facts = read_facts(path)
    return facts, pd.concat(read_batches(path, facts, columns), ignore_index=True)


def read_batches(path: Path, facts: PredictionFacts, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
    """Yields the rows of a file of predictions in tables of some ten thousand, or some of their columns.

    Args:
        path: file of predictions.
        facts: its metadata.
        columns: names of columns; None for all.

    Raises:
        UserError: it can't be read, or has values that `predict` does not write.
    """
    import pyarrow.parquet as pq

    names = prediction_schema(facts).names if columns is None else list(columns)
    try:
        # Buffered, all row groups would stay in memory.
        with pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True) as file:
            if not file.metadata.num_rows:
                raise _damaged(path, "it has no rows")
            for batch in file.iter_batches(columns=list({*names, "error"}), use_threads=False):
                # Metadata of pandas in the file could make an index of a column.
                table = batch.to_pandas(ignore_metadata=True)
                if (fault := _find_fault(table, facts)) is not None:
                    raise _damaged(path, fault)
                yield table[names]
    except parquet_errors(OSError) as error:
        raise _damaged(path, first_line(error)) from error


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is damaged ({reason}): delete it, and make it again with `hirise-imb predict`.")


def _find_fault(table: pd.DataFrame, facts: PredictionFacts) -> str | None:
    """Returns what `predict` would not have written in some rows, or None."""
    used = table[table["error"].isna()]
    for name in table.columns.drop("error"):
        # Images without a prediction still have an id; images without a source have none.
        if name != "source" and (table if name == "id" else used)[name].isna().any():
            return f"its column {name} has empty cells"
    if "class" in table and not used["class"].isin(facts.classes).all():
        return "it has classes that the model does not predict"
    for column in used.select_dtypes("float32"):
        if not used[column].between(0, 1).all():
            return f"its column {column} has values that are no probabilities"
    return None
