"""Reads annotation tables: CSV or parquet files with the columns file, label, split and, optionally, source."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hirise_imb.data.annotations import FILE, REQUIRED, SOURCE, Annotations, is_class_id
from hirise_imb.data.archive import is_safe
from hirise_imb.data.manifest import raise_mistakes
from hirise_imb.utils.errors import UserError, first_line
from hirise_imb.utils.files import check_regular_file, is_file
from hirise_imb.utils.parquet import parquet_errors
from hirise_imb.utils.strict_json import parse_json

LAYOUT = "annotation-table"
SUFFIXES = (".csv", ".parquet")
CLASS_FILE = "mapping.json"
"""Name of the optional file with the names of the classes by their ids."""


def read_table(path: Path, images: str = "") -> Annotations:
    """Reads an annotation table.

    Args:
        path: table.
        images: folder that the paths of the images start from; by default that of the table or, if the first image is
            not there, the only folder inside it that has this image.

    Raises:
        UserError: the table or the names of the classes can't be read.
    """
    table = read_strings(path, (*REQUIRED, SOURCE))
    folder = Path(images) if images else _image_folder(path.parent, table)
    if not folder.is_dir():
        raise UserError(f"The image folder {folder} does not exist: name the folder of the images with --images.")
    return Annotations(path, folder, table, LAYOUT, read_class_names(path.parent / CLASS_FILE))


def read_strings(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Reads those of the columns that a table has, as strings without blanks at either end; missing values are empty.

    Raises:
        UserError: the file can't be read.
    """
    import pyarrow.parquet as pq

    check_regular_file(path)
    try:
        if path.suffix.lower() == ".csv":
            return _read_csv(path, columns)
        names = read_columns(path)
        _check_once(path, names, columns)
        present = [column for column in columns if column in names]
        with pq.ParquetFile(path) as file:
            # Without the metadata of pandas, which would make a column the index.
            table = file.read(present).to_pandas(ignore_metadata=True)
    except parquet_errors(OSError, ValueError, csv.Error) as error:
        reason = first_line(error)
        raise UserError(f"{path} can't be read as a table ({reason}): fix the file.") from error
    return pd.DataFrame({column: _to_strings(table[column]) for column in present}, dtype=str)


def _read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    # Not by pandas, which takes the first field for an index where lines have more fields than the header.
    with path.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = [line for line in csv.reader(file) if line] or [[]]
    raise_mistakes(
        path,
        [
            f"row {row} has {len(fields)} fields, but the header has {len(header)}"
            for row, fields in enumerate(rows, 1)
            if len(fields) != len(header)
        ],
    )
    names = [name.strip() for name in header]
    _check_once(path, names, columns)
    places = {column: names.index(column) for column in columns if column in names}
    return pd.DataFrame(
        {column: [fields[place].strip() for fields in rows] for column, place in places.items()}, dtype=str
    )


def _check_once(path: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    if twice := [column for column in columns if names.count(column) > 1]:
        raise UserError(f"{path} has the column {twice[0]} twice: rename one of them.")


def read_columns(path: Path) -> list[str]:
    """Returns the names of the columns of a table; none if it can't be read."""
    check_regular_file(path)
    try:
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                return [name.strip() for name in next(csv.reader(file), [])]
        import pyarrow.parquet

        return list(pyarrow.parquet.read_schema(path).names)
    except parquet_errors(OSError, ValueError, csv.Error):
        return []


def read_class_names(path: Path) -> dict[int, str] | None:
    """Reads names of classes by their ids, or None if there is no such file.

    Three forms are accepted: `{"0": "crater"}`, `{"crater": 0}` and `["crater"]`.

    Raises:
        UserError: the file can't be read or has another form.
    """
    check_regular_file(path)
    if not path.is_file():
        return None
    try:
        content = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}): fix the file.") from error
    if isinstance(content, list):
        content = {str(number): name for number, name in enumerate(content)}
    if isinstance(content, dict) and content:
        if all(isinstance(value, int) and not isinstance(value, bool) for value in content.values()):
            by_id = {str(number): name for name, number in content.items()}
            content = by_id if len(by_id) == len(content) else {}
        if content and all(is_class_id(key) and isinstance(value, str) for key, value in content.items()):
            names = {int(key): value.strip() for key, value in content.items()}
            if len(names) == len(content):  # `00` is `0` again
                return names
    raise UserError(f'{path} must give the name of each class by its id, such as {{"0": "crater"}}: fix the file.')


def _to_strings(column: pd.Series) -> pd.Series:
    """Returns values as strings; numbers that are integers lose the decimal point that missing values give them."""
    values = column.dropna()
    # Larger floats are not exact, and may not fit an integer.
    if pd.api.types.is_float_dtype(column) and bool(((values % 1 == 0) & (values.abs() < 2**53)).all()):
        column = column.astype("Int64")
    return column.astype(object).where(column.notna(), "").map(str).str.strip()


def _image_folder(folder: Path, table: pd.DataFrame) -> Path:
    first = str(table[FILE].iloc[0]) if FILE in table and len(table) else ""
    if not first or not is_safe(first) or is_file(folder / first):
        return folder
    inside = [path for path in folder.iterdir() if path.is_dir() and is_file(path / first)]
    return inside[0] if len(inside) == 1 else folder
