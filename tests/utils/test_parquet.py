"""A Parquet file with a column whose name is not UTF-8 is refused by every reader of tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hirise_imb.data.shards import unpack_shards
from hirise_imb.data.tables import read_columns, read_strings
from hirise_imb.features.table import read_feature_table
from hirise_imb.prediction.image_tables import check_table
from hirise_imb.utils.errors import UserError

NAME = "wrong_name"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with such a column."""
    path = tmp_path / "train.parquet"
    # Without Arrow's own schema, which names the columns a second time.
    pq.write_table(pa.table({NAME: ["a"]}), path, store_schema=False)
    content = path.read_bytes()
    assert NAME.encode() in content
    path.write_bytes(content.replace(NAME.encode(), b"\xaerong_name"))
    return path


@pytest.mark.parametrize(
    "read",
    [
        check_table,
        lambda path: read_strings(path, ["file"]),
        lambda path: read_feature_table(path, ["a"], ["0" * 64]),
        lambda path: unpack_shards([path], path.parent / "cache"),
    ],
    ids=["images", "annotations", "features", "shards"],
)
def test_it_is_refused(path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(UserError, match=r"train\.parquet"):
        read(path)


def test_it_has_no_columns_that_can_be_read(path: Path) -> None:
    assert read_columns(path) == []
