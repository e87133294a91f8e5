"""Tables of features made elsewhere: what is read, and the sentence about each mistake."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hirise_imb.features.table import FeatureTable, read_feature_table
from hirise_imb.utils.errors import UserError

IMAGES = tuple(f"{letter}.jpg" for letter in "abcdefg")
DIGESTS = [hashlib.sha256(image.encode()).hexdigest() for image in IMAGES]
VECTORS = np.random.default_rng(0).normal(size=(len(IMAGES), 3)).astype(np.float32)

Write = Callable[..., Path]


@pytest.fixture
def write_table(tmp_path: Path) -> Write:
    """Writes a table; columns that are given replace those of a valid one, and None leaves a column out."""

    def call(metadata: dict[str, str] | None = None, **columns: Any) -> Path:  # noqa: ANN401
        content = {"image": list(IMAGES), "vector": VECTORS.tolist()} | columns
        table = pa.table({name: column for name, column in content.items() if column is not None})
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "table.parquet")
        return tmp_path / "table.parquet"

    return call


def read(path: Path) -> FeatureTable:
    return read_feature_table(path, IMAGES, DIGESTS)


def vectors_with(row: int, value: Sequence[float | None] | None) -> list[Any]:
    vectors: list[Any] = VECTORS.astype(float).tolist()
    vectors[row] = value
    return vectors


# --- what is read ---


def test_vectors_come_in_the_order_of_the_images(write_table: Write) -> None:
    order = np.random.default_rng(1).permutation(len(IMAGES))
    path = write_table({"made_by": "a\n network"}, image=[IMAGES[k] for k in order], vector=VECTORS[order].tolist())
    table = read(path)
    np.testing.assert_array_equal(table.vectors, VECTORS)
    assert table.vectors.dtype == np.float32
    assert (table.width, table.made_by, table.path) == (3, "a network", path)


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 3), pa.list_(pa.float16())],
    ids=str,
)
def test_any_list_of_floats_will_do(kind: Any, write_table: Write) -> None:  # noqa: ANN401
    values = VECTORS.astype(np.float16) if kind.value_type == pa.float16() else VECTORS
    table = read(write_table(vector=pa.array([list(row) for row in values], kind)))
    np.testing.assert_array_equal(table.vectors, values.astype(np.float32))


def test_tables_of_pandas_with_categories_are_read(tmp_path: Path) -> None:
    frame = pd.DataFrame({"image": pd.Categorical(IMAGES), "vector": list(VECTORS), "other": 1})
    frame.to_parquet(tmp_path / "table.parquet")
    table = read(tmp_path / "table.parquet")
    np.testing.assert_array_equal(table.vectors, VECTORS)
    assert table.metadata == {}
    assert table.made_by == ""


def test_many_row_groups_and_batches_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hirise_imb.features.table._BATCH_NUMBERS", 6)
    table = pa.table({"image": ["z.jpg", *IMAGES], "vector": [[0.0] * 3, *VECTORS.tolist()]})
    pq.write_table(table, tmp_path / "table.parquet", row_group_size=3)
    np.testing.assert_array_equal(read(tmp_path / "table.parquet").vectors, VECTORS)


def test_the_digest_is_that_of_the_vectors_alone(write_table: Write) -> None:
    base = read(write_table({"made_by": "one"})).digest
    same = write_table({"made_by": "two"}, image=list(IMAGES[::-1]), vector=VECTORS[::-1].tolist())
    assert read(same).digest == base
    assert read(write_table(vector=vectors_with(2, [0.0, 0.0, 1.0]))).digest != base
    assert len(base) == 64


def test_it_describes_how_it_was_made(write_table: Write) -> None:
    table = read(write_table({"made_by": "net", "layer": "last"}))
    assert table.describe() == {
        "file": str(table.path),
        "digest": table.digest,
        "width": 3,
        "metadata": {"made_by": "net", "layer": "last"},
    }


def test_other_images_are_ignored_with_a_line(write_table: Write, caplog: pytest.LogCaptureFixture) -> None:
    vectors = [[np.nan] * 3, *VECTORS.tolist(), [1.0]]
    with caplog.at_level(logging.INFO, "hirise_imb"):
        table = read(write_table(image=["y.jpg", *IMAGES, "z.jpg"], vector=vectors))
    np.testing.assert_array_equal(table.vectors, VECTORS)
    assert "has 2 images that the data set lacks (y.jpg, z.jpg): they are ignored" in caplog.text


def test_digests_are_compared_where_they_are_given(write_table: Write) -> None:
    read(write_table(digest=[None, *(digest.upper() for digest in DIGESTS[1:])]))
    read(write_table(digest=pa.nulls(len(IMAGES))))
    with pytest.raises(UserError, match=r"The digest of c\.jpg .* is that of another file: compute"):
        read(write_table(digest=[*DIGESTS[:2], DIGESTS[0], *DIGESTS[3:]]))
    with pytest.raises(UserError, match=r"The digest of a\.jpg .* is not a SHA-256: write 64"):
        read(write_table(digest=["abc", *DIGESTS[1:]]))


# --- mistakes ---


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": None}, "has no column image: a table of features has the columns image"),
        ({"image": None, "vector": None, "x": [1]}, "has no column image and no column vector"),
        ({"image": IMAGES[:1], "vector": [[1.0]]}, r"lacks 6 of the 7 images .* \(b.jpg, c.jpg, d.jpg, e.jpg, f.jpg, "),
        ({"image": IMAGES[1:], "vector": VECTORS[1:].tolist()}, r"lacks 1 of the 7 images of the data set \(a\.jpg\)"),
        (
            {"image": pa.array([], pa.string()), "vector": pa.array([], pa.list_(pa.float32()))},
            "lacks 7 of the 7 images",
        ),
        ({"image": [*IMAGES, "c.jpg"], "vector": [*VECTORS.tolist(), [0.0] * 3]}, r"several rows for c\.jpg"),
        ({"image": [None, *IMAGES[1:]]}, "Row 1 of .* names no image"),
        ({"image": list(range(7))}, "column image of .* has the type int64: write strings"),
        ({"digest": list(range(7))}, "column digest of .* has the type int64: write strings"),
        ({"vector": [1.0] * 7}, "column vector of .* has the type double: write lists of floats"),
        ({"vector": [[1]] * 7}, "has the type list<.*int64>: write lists of floats"),
        ({"vector": [[[1.0]]] * 7}, "has the type list<.*list<.*>>: write lists of floats"),
        ({"vector": [{"x": 1.0}] * 7}, "has the type struct<.*>: write lists of floats"),
        ({"vector": vectors_with(3, [1.0, np.nan, 0.0])}, r"vector of d\.jpg .* missing, NaN, infinite"),
        ({"vector": vectors_with(3, [1.0, -np.inf, 0.0])}, r"vector of d\.jpg .* missing, NaN, infinite"),
        ({"vector": vectors_with(3, [1.0, 1e39, 0.0])}, r"vector of d\.jpg .* too large for float32"),
        ({"vector": vectors_with(3, [1.0, None, 0.0])}, r"vector of d\.jpg .* missing, NaN, infinite"),
        ({"vector": vectors_with(3, [1.0, 0.0])}, r"unequal widths: 3 for a\.jpg, but 2 for d\.jpg"),
        ({"vector": vectors_with(3, [])}, r"vector of d\.jpg .* is empty"),
        ({"vector": vectors_with(3, None)}, r"vector of d\.jpg .* is empty"),
        ({"vector": [[]] * 7}, "column vector of .* has the type"),
        ({"vector": pa.array([[]] * 7, pa.list_(pa.float32()))}, r"vector of a\.jpg .* is empty"),
    ],
)
def test_mistakes_are_named(columns: dict[str, Any], message: str, write_table: Write) -> None:
    path = write_table(**columns)
    with pytest.raises(UserError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_tables_are_refused(tmp_path: Path, write_table: Write) -> None:
    with pytest.raises(UserError, match="does not exist: name a Parquet file"):
        read(tmp_path / "nowhere.parquet")
    with pytest.raises(UserError, match="is not a file: name a Parquet file"):
        read(tmp_path)
    whole = write_table().read_bytes()
    for content in (b"", b"image,vector\n", whole[: len(whole) // 2], b"PAR1" + bytes(200) + whole[-100:]):
        (tmp_path / "broken.parquet").write_bytes(content)
        with pytest.raises(UserError, match=r"broken\.parquet can't be read as a Parquet file \(.*\): write"):
            read(tmp_path / "broken.parquet")


def test_damaged_pages_are_refused(tmp_path: Path, write_table: Write) -> None:
    content = bytearray(write_table().read_bytes())
    content[4:200] = bytes(196)  # the first page, of the names
    (tmp_path / "broken.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.parquet can't be read as a Parquet file"):
        read(tmp_path / "broken.parquet")


def test_a_column_must_be_there_once(tmp_path: Path) -> None:
    names, vectors = pa.array(IMAGES), pa.array(VECTORS.tolist())
    table = pa.Table.from_arrays([names, names, vectors], names=["image", "image", "vector"])
    pq.write_table(table, tmp_path / "table.parquet")
    with pytest.raises(UserError, match="has the column image twice"):
        read(tmp_path / "table.parquet")


def test_vectors_that_do_not_fit_into_memory_are_refused_before_they_are_read(
    write_table: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_table()
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4, "SC_PHYS_PAGES": len(IMAGES) * 3 - 1}.__getitem__)
    with pytest.raises(UserError, match=r"vectors in .* need 0 GB of memory, and this machine has 0"):
        read(path)
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4, "SC_PHYS_PAGES": len(IMAGES) * 3}.__getitem__)
    read(path)


def test_mistakes_end_a_run_before_tensorflow_is_loaded(small_data: Path, write_table: Write, tmp_path: Path) -> None:
    program = (
        "import sys; from hirise_imb.cli.main import main; code = main(sys.argv[1:]); "
        "assert not {'tensorflow', 'keras'} & {*sys.modules}; sys.exit(code)"
    )
    options = ["run", "--data", str(small_data), "--features", str(write_table()), "--strategies", "focal_loss"]
    options += ["--out", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", program, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert "images of the data set (" in done.stderr
