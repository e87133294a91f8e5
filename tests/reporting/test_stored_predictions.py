"""Stored predictions: what a study writes is read, and what none can have written is refused with the reason."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from hirise_imb.data.dataset import ClassSet
from hirise_imb.reporting.stored_predictions import read_predictions

CLASSES = ClassSet(("hill", "dark lake"), "hill")
SEEDS = (3, 4)
N_LANDMARKS = 2

Change = Callable[[pd.DataFrame], pd.DataFrame]


def make_table() -> pd.DataFrame:
    """Two landmarks with two seeds; the first seed takes the second landmark for a hill."""
    return pd.DataFrame(
        {
            "image": ["a.jpg", "b.jpg", "a.jpg", "b.jpg"],
            "landmark": ["a", "b", "a", "b"],
            "source": ["north", "south", "north", "south"],
            "true_class": ["hill", "dark lake", "hill", "dark lake"],
            "p_hill": [0.75, 0.5, 1.0, 0.25],
            "p_dark_lake": [0.25, 0.5, 0.0, 0.75],
            "predicted_class": ["hill", "hill", "hill", "dark lake"],
            "seed": [3, 3, 4, 4],
        }
    )


def encode(table: pd.DataFrame) -> bytes:
    with io.BytesIO() as file:
        table.to_parquet(file, index=False)
        return file.getvalue()


def read(content: bytes) -> list[pd.DataFrame]:
    return read_predictions(content, CLASSES, SEEDS, N_LANDMARKS)


def put(column: str, values: Any) -> Change:  # noqa: ANN401
    """Replaces a column by one value, or by a list of values."""
    return lambda table: table.assign(**{column: values})


def test_each_seed_has_a_table_whatever_the_order_of_columns_and_rows() -> None:
    table = make_table()
    first, second = read(encode(table.iloc[[2, 0, 3, 1], ::-1]))
    assert first["seed"].tolist() == [3, 3]
    assert first["p_hill"].tolist() == [0.75, 0.5]
    assert second["seed"].tolist() == [4, 4]
    assert second["predicted_class"].tolist() == ["hill", "dark lake"]


def test_probabilities_may_be_rounded() -> None:
    assert len(read(encode(make_table().assign(p_hill=[0.7509, 0.5, 1.0, 0.25])))) == 2


REFUSED: dict[str, tuple[Change, str]] = {
    "a row less": (lambda table: table.iloc[:-1], "it has not 2 rows for each of 2 seeds"),
    "a row more": (lambda table: table.iloc[[0, 1, 2, 3, 3]], "it has not 2 rows for each of 2 seeds"),
    "a column less": (lambda table: table.drop(columns="source"), "it has other columns"),
    "a column more": (put("note", "x"), "it has other columns"),
    "another name": (lambda table: table.rename(columns={"p_dark_lake": "p_lake"}), "it has other columns"),
    "seeds as fractions": (put("seed", [3.0, 3.0, 4.0, 4.0]), "its column seed has the type double"),
    "numbers as images": (put("image", [1, 2, 1, 2]), "its column image has the type int64"),
    "whole probabilities": (put("p_hill", 1), "its column p_hill has the type int64"),
    "an empty cell": (put("landmark", ["a", None, "a", "b"]), "its column landmark has empty cells"),
    "an empty probability": (put("p_hill", pd.array([None, 0.5, 1, 0.25], "Float64")), "its column p_hill has empty"),
    "an unknown class": (put("true_class", ["hill", "lake", "hill", "dark lake"]), "it names a class that the report"),
    "a sum of 1.5": (put("p_hill", [1.0, 0.75, 1.0, 0.25]), "the probabilities of a.jpg are not from 0 to 1 with"),
    "a rounding too large": (put("p_hill", [0.75, 0.5011, 1, 0.25]), "the probabilities of b.jpg are not from 0 to 1"),
    "a negative share": (put("p_dark_lake", [0.25, 0.5, -0.0005, 0.75]), "the probabilities of a.jpg are not from 0"),
    "a share over 1": (put("p_hill", [0.75, 0.5, 1.0005, 0.25]), "the probabilities of a.jpg are not from 0 to 1 with"),
    "an infinite share": (put("p_hill", [0.75, float("inf"), 1.0, 0.25]), "the probabilities of b.jpg are not from"),
    "a less probable class": (
        put("predicted_class", ["hill", "hill", "hill", "hill"]),
        "the predicted class of b.jpg is not its most probable one",
    ),
    "the later of equal ones": (
        put("predicted_class", ["hill", "dark lake", "hill", "dark lake"]),
        "the predicted class of b.jpg is not its most probable one",
    ),
    "an unknown predicted class": (
        put("predicted_class", ["lake", "hill", "hill", "dark lake"]),
        "the predicted class of a.jpg is not its most probable one",
    ),
    "one seed alone": (put("seed", 3), "it does not have each landmark once for each seed"),
    "another seed": (put("seed", [3, 3, 5, 5]), "it does not have each landmark once for each seed"),
    "an image twice": (put("image", ["a.jpg", "a.jpg", "a.jpg", "b.jpg"]), "it does not have each landmark once"),
    "a landmark twice": (put("landmark", ["a", "b", "a", "a"]), "it does not have each landmark once for each seed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_predictions_that_no_study_writes_are_refused(case: str) -> None:
    change, reason = REFUSED[case]
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}"):
        read(encode(change(make_table())))


@pytest.mark.parametrize("damage", [lambda _: b"", lambda _: b"image\na.jpg\n", lambda content: content[:-9]])
def test_what_is_no_parquet_file_is_refused(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ValueError, match="it is not a Parquet file that can be read"):
        read(damage(encode(make_table())))


def test_a_page_that_can_not_be_unpacked_is_refused() -> None:
    """The footer, which is read first, is as it was."""
    content = bytearray(encode(make_table()))
    content[4:200] = bytes(196)
    with pytest.raises(ValueError, match="it is not a Parquet file that can be read"):
        read(bytes(content))


def test_metadata_of_pandas_renames_no_column() -> None:
    content = encode(make_table())
    assert content.count(b'"name": "source"') > 0
    [first, _] = read(content.replace(b'"name": "source"', b'"name": "saucer"'))
    assert first["source"].tolist() == ["north", "south"]
