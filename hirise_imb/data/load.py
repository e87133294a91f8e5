"""Loads the data that a study names, in any of the layouts: the layout is recognised from the files present."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hirise_imb.data import mars_bench, shards, tables
from hirise_imb.data.annotations import FILE, REQUIRED, build_manifest
from hirise_imb.data.dataset import DataCard
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.manifest import Manifest, read_manifest
from hirise_imb.data.resolve import (
    ARCHIVE,
    SYNTHETIC,
    data_cache,
    expand_variable,
    find_data_folder,
    import_folder,
    resolve_data,
)
from hirise_imb.utils.errors import UserError

_LEVELS = 3
"""Levels of folders in which a data set is looked for."""


@dataclass(frozen=True)
class _DataSet:
    """A data set that was found, and how to read it."""

    path: Path
    layout: str
    """Description of its layout."""
    read: Callable[[], Manifest]


def load_data(data: str, card: DataCard, images: str = "") -> Manifest:
    """Finds and reads the data that a study names.

    Args:
        data: `synthetic`, `hirise`, or the path of a zip, folder or annotation table, which may be `$VARIABLE`.
        card: data card of data in the official layout; data in other layouts brings its own facts.
        images: folder that the paths in an annotation table start from; empty for the default.

    Raises:
        UserError: there is no such data, its layout is not recognised, or it contains mistakes.
    """
    if data in (SYNTHETIC, ARCHIVE):
        found = _DataSet(Path(data), _OFFICIAL, lambda: read_manifest(resolve_data(data, card), card))
    else:
        found = _find(expand_variable(data), card, images)
    if found.layout != _OFFICIAL and card.name != HIRISE.name:
        raise UserError(
            f"{found.path} is {found.layout}, which brings its own classes, but the data set {card.name} is in the "
            "official layout: leave out --dataset or name other data."
        )
    if images and found.layout != _TABLE:
        raise UserError(
            f"{found.path} is not an annotation table, which alone has a folder of images: leave out --images."
        )
    return found.read()


_OFFICIAL, _TABLE = "a folder in the official layout", "an annotation table"
_MARS_BENCH, _SHARDS = "a Mars-Bench folder", "a folder of parquet shards"


def _find(path: Path, card: DataCard, images: str) -> _DataSet:
    """Returns the data set at a path, or inside the folder or zip at this path.

    Raises:
        UserError: there is none, or there are several.
    """
    if path.is_file() and path.suffix.lower() in tables.SUFFIXES:
        if shards.IMAGE in tables.read_columns(path) and FILE not in tables.read_columns(path):
            raise UserError(f"{path} is one of several parquet shards: name their folder, {path.parent}.")
        return _table(path, images)
    folder = import_folder(path, data_cache(), card.layout)
    try:
        for level in range(_LEVELS):
            found = [data_set for inside in _folders(folder, level) for data_set in _data_sets(inside, card, images)]
            if len(found) > 1:
                names = ", ".join(f"{data_set.path} ({data_set.layout.split(' ', 1)[1]})" for data_set in found)
                raise UserError(f"{path} contains several data sets: name one of {names}.")
            if found:
                return found[0]
        # In a hidden folder there is at most the official layout; where there is none, this says what was looked for.
        official = find_data_folder(folder, card.layout)
    except OSError as error:
        raise UserError(f"{folder} can't be read ({error.strerror or error}): fix that and try again.") from error
    return _DataSet(official, _OFFICIAL, partial(read_manifest, official, card))


def _folders(folder: Path, level: int) -> Iterator[Path]:
    """Yields the folders at a level below `folder`, without hidden ones."""
    if level == 0:
        yield folder
        return
    with os.scandir(folder) as entries:
        inside = sorted(entry.path for entry in entries if entry.is_dir() and entry.name[0] not in "._")
    for path in inside:
        yield from _folders(Path(path), level - 1)


def _data_sets(folder: Path, card: DataCard, images: str) -> Iterator[_DataSet]:
    """Yields the data sets whose files are in this folder."""
    if (folder / card.layout.split_file).is_file():
        yield _DataSet(folder, _OFFICIAL, partial(read_manifest, folder, card))
    if mars_bench.is_mars_bench(folder):
        yield _DataSet(folder, _MARS_BENCH, lambda: build_manifest(mars_bench.read_mars_bench(folder)))
        return
    if paths := shards.list_shards(folder):
        yield _DataSet(folder, _SHARDS, partial(_read_shards, paths))
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in tables.SUFFIXES and not path.name.startswith(".") and path not in paths:
            columns = tables.read_columns(path)
            # One missing column is a mistake to report; `file_id` is in tables of Mars-Bench that list its shards.
            if len({*REQUIRED} & {*columns}) >= 2 and mars_bench.FILE_COLUMNS[0] not in columns:
                yield _table(path, images)


def _table(path: Path, images: str) -> _DataSet:
    return _DataSet(path, _TABLE, lambda: build_manifest(tables.read_table(path, images)))


def _read_shards(paths: list[Path]) -> Manifest:
    table = shards.unpack_shards(paths, data_cache())
    return build_manifest(replace(tables.read_table(table), path=paths[0].parent, layout=shards.LAYOUT))
