"""Reads Mars-Bench data sets as published on Zenodo: `data/<split>/<class>/<file>`, `annotation.csv`, `mapping.json`.

Mars-Bench: Purohit et al. 2025, arXiv 2510.24010.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hirise_imb.data.annotations import FILE, LABEL, SOURCE, SPLIT, SPLIT_NAMES, Annotations, is_class_id
from hirise_imb.data.archive import is_safe
from hirise_imb.data.images import SUFFIXES
from hirise_imb.data.tables import CLASS_FILE, read_class_names, read_columns, read_strings
from hirise_imb.utils.files import is_file

LAYOUT = "mars-bench"
TABLE = "annotation.csv"
IMAGE_FOLDER = "data"
FILE_COLUMNS = ("file_id", FILE, "file_name", "filename", "image")
"""Names of the column with the file of an image; `file_id` is that of Mars-Bench."""
FOLDER_COLUMN = "feature_name"
"""Column with the name of the class folder of an image."""


def is_mars_bench(folder: Path) -> bool:
    """Returns whether a folder has this layout."""
    has_list = any((folder / name).is_file() for name in (TABLE, CLASS_FILE))
    return has_list and any((folder / IMAGE_FOLDER / split).is_dir() for split in SPLIT_NAMES)


def read_mars_bench(folder: Path) -> Annotations:
    """Reads the rows of `annotation.csv`; without it, or if it does not name files, the images in the class folders.

    Raises:
        UserError: a file can't be read.
    """
    names = read_class_names(folder / CLASS_FILE)
    path = folder / TABLE
    columns = [name for name in FILE_COLUMNS if name in read_columns(path)] if path.is_file() else []
    if not columns:
        return Annotations(folder / IMAGE_FOLDER, folder, _list_images(folder), LAYOUT, names)
    table = read_strings(path, (columns[0], FOLDER_COLUMN, LABEL, SPLIT, SOURCE)).rename(columns={columns[0]: FILE})
    if FOLDER_COLUMN in table and (names is None or LABEL not in table):
        table[LABEL] = table[FOLDER_COLUMN]
    if LABEL in table and SPLIT in table:
        folders = table[FOLDER_COLUMN] if FOLDER_COLUMN in table else [_name(label, names) for label in table[LABEL]]
        rows = zip(table[SPLIT], folders, table[FILE], strict=True)
        table[FILE] = [_find_image(folder, *row) for row in rows]
    return Annotations(path, folder, table.drop(columns=FOLDER_COLUMN, errors="ignore"), LAYOUT, names)


def _name(label: str, names: dict[int, str] | None) -> str:
    """Returns the name of a class that is given by its id or name."""
    return names.get(int(label), label) if names is not None and is_class_id(label) else label


def _find_image(folder: Path, split: str, class_folder: str, file: str) -> str:
    """Returns the path of an image below the folder of the data set.

    In Mars-Bench, `file` is a name in the class folder; its suffix may be left out, or it may be the whole path. What
    is empty, missing or unsafe is returned to be reported.
    """
    path = f"{IMAGE_FOLDER}/{split}/{class_folder}/{file}"
    if not file or not is_safe(file) or not is_safe(path):
        return path if file and is_safe(file) else file
    candidates = (path, *(path + suffix for suffix in SUFFIXES), file)
    return next((candidate for candidate in candidates if is_file(folder / candidate)), path)


def _list_images(folder: Path) -> pd.DataFrame:
    """Returns the images in the class folders of all splits; the name of a folder is the label."""
    rows = [
        (path.relative_to(folder).as_posix(), path.parent.name, split)
        for split in SPLIT_NAMES
        for path in sorted((folder / IMAGE_FOLDER / split).glob("*/*"))
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    ]
    return pd.DataFrame(rows, columns=[FILE, LABEL, SPLIT], dtype=str)
