"""Unpacks parquet shards as published on Hugging Face, with the columns `image` and `label`, to images and a table.

The layout is that of the `datasets` library: a column `image` with structs of `bytes` and `path`, integers or names in
`label`, names of the classes in the metadata of the file, and the split in its name, as in
`train-00000-of-00002.parquet`. Features are cached by the digest of a file and images are decoded from files, so that
everything after this module works on files.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from hirise_imb.data.annotations import FILE, LABEL, SOURCE, SPLIT, SPLIT_NAMES
from hirise_imb.data.archive import MAX_MEMBER
from hirise_imb.data.tables import CLASS_FILE, read_columns
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import digest_of, ensure_folder, exclusive_lock, write_text
from hirise_imb.utils.parquet import parquet_errors
from hirise_imb.utils.progress import say, track
from hirise_imb.utils.strict_json import parse_json

if TYPE_CHECKING:
    import pyarrow as pa

LAYOUT = "parquet-shards"
IMAGE = "image"
_VECTOR = "vector"
"""Column of tables of features, which name their images in the column `image`."""
TABLE = "annotations.csv"
"""Name of the table in the unpacked folder."""

_SHARD = re.compile(r"(?P<split>.+?)(?:-[0-9]+-of-[0-9]+(?:-[0-9a-f]{16})?)?\.parquet")
_BATCH = 64
"""Rows that are read at a time."""
_MAGIC = {b"\xff\xd8\xff": ".jpg", b"\x89PNG\r\n\x1a\n": ".png"}
"""Suffix of an image by the first bytes of its file."""


def list_shards(folder: Path) -> list[Path]:
    """Returns the parquet files in a folder that have a column of images, and are not tables of features."""
    columns = {path: read_columns(path) for path in sorted(folder.glob("*.parquet"))}
    return [path for path, names in columns.items() if IMAGE in names and _VECTOR not in names]


def unpack_shards(shards: Sequence[Path], cache: Path) -> Path:
    """Unpacks shards once into a folder below `cache`; returns the annotation table in it.

    Splits other than training, validation and test, such as `few_shot_train_5_shot`, are left out.

    Raises:
        UserError: a shard can't be read or has other columns, or the disk can't be written to.
    """
    splits = {path: SPLIT_NAMES.get(_split_name(path), "") for path in shards}
    used = [path for path in shards if splits[path]]
    if not used:
        raise UserError(
            f"{shards[0].parent} contains no parquet file of a split: they must be named "
            f"{', '.join(SPLIT_NAMES)}, alone or with a number, as in train-00000-of-00001.parquet."
        )
    if others := sorted({_split_name(path) for path in shards if not splits[path]}):
        say(f"Left out: the splits {', '.join(others)} of {shards[0].parent}.")
    try:
        digests = [f"{path.name} {digest_of(path, 'sha256')}" for path in used]
        digest = hashlib.sha256("\n".join(digests).encode()).hexdigest()
        folder = cache / f"{shards[0].parent.resolve().name or 'shards'}-{digest[:12]}"
        if not folder.exists():
            ensure_folder(cache)
            with exclusive_lock(folder):
                if not folder.exists():  # another process may have unpacked them meanwhile
                    _unpack_new({path: splits[path] for path in used}, folder)
    except OSError as error:
        raise UserError(
            f"The images in {shards[0].parent} can't be unpacked into {cache} ({error.strerror or error}): fix that "
            "and try again."
        ) from error
    return folder / TABLE


def _unpack_new(splits: Mapping[Path, str], folder: Path) -> None:
    # Written to a temporary folder and renamed: a folder of that name is always complete.
    work = Path(tempfile.mkdtemp(prefix=".shards-", dir=folder.parent))
    try:
        _write_images(splits, work)
        work.replace(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _split_name(path: Path) -> str:
    match = _SHARD.fullmatch(path.name)
    return match["split"] if match else path.stem


def _write_images(splits: Mapping[Path, str], folder: Path) -> None:
    import pyarrow.parquet as pq

    rows: list[tuple[str, str, str, str]] = []
    names: dict[str, str] | None = None
    for number, (path, split) in enumerate(splits.items()):
        try:
            with pq.ParquetFile(path) as shard:
                _check_columns(path, shard.schema_arrow)
                shard_names = _class_names(shard.schema_arrow)
                if number and shard_names != names:
                    raise UserError(f"{path} names other classes than {next(iter(splits))}: fetch the data set again.")
                names = shard_names
                with track(f"unpacking {path.name}", shard.metadata.num_rows, "images") as show:
                    for done, row in enumerate(_read_rows(shard), 1):
                        rows.append(_write_image(path, row, split, len(rows), folder))
                        show(done)
        except parquet_errors() as error:
            raise UserError(f"{path} is damaged or not a parquet file ({error}): fetch it again.") from error
    table = pd.DataFrame(rows, columns=[FILE, LABEL, SPLIT, SOURCE])
    table.to_csv(folder / TABLE, index=False, lineterminator="\n")
    if names is not None:
        write_text(folder / CLASS_FILE, json.dumps(names))


def _check_columns(path: Path, schema: pa.Schema) -> None:
    import pyarrow as pa

    if twice := [name for name in (IMAGE, LABEL, SOURCE) if schema.names.count(name) > 1]:
        raise UserError(f"{path} has the column {twice[0]} twice: leave one of them out.")
    if LABEL not in schema.names:
        raise UserError(f"{path} lacks the column {LABEL}: shards must have {IMAGE} and {LABEL}.")
    image, label = schema.field(IMAGE).type, schema.field(LABEL).type
    if not pa.types.is_struct(image) or "bytes" not in [field.name for field in image]:
        raise UserError(
            f"The column {IMAGE} of {path} contains no structs with `bytes`: embed the files of the images."
        )
    if not (pa.types.is_integer(label) or pa.types.is_string(label) or pa.types.is_large_string(label)):
        raise UserError(f"The column {LABEL} of {path} has type {label}: each image must have one integer or name.")


def _class_names(schema: pa.Schema) -> dict[str, str] | None:
    """Returns the names of the classes by their ids from the metadata of a shard, or None if it has none."""
    try:
        content = parse_json((schema.metadata or {})[b"huggingface"])
        names = content["info"]["features"][LABEL]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return {str(number): name for number, name in enumerate(names)}
    return None


def _read_rows(shard: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    columns = [name for name in (IMAGE, LABEL, SOURCE) if name in shard.schema_arrow.names]
    for batch in shard.iter_batches(_BATCH, columns=columns):
        yield from batch.to_pylist()


def _write_image(path: Path, row: dict[str, Any], split: str, number: int, folder: Path) -> tuple[str, str, str, str]:
    """Writes the file of one image; returns its row of the annotation table."""
    image = row[IMAGE] or {}
    content = image.get("bytes") or b""
    suffix = next((suffix for magic, suffix in _MAGIC.items() if content.startswith(magic)), None)
    if suffix is None or len(content) > MAX_MEMBER:
        problem = f"has over {MAX_MEMBER:,} bytes" if suffix else "is neither a JPEG nor a PNG"
        raise UserError(f"Image {number + 1} of the shards ({path}) {problem}: fix the data set.")
    # The name that the shard gives is kept, since it may contain the source; a number tells equal names apart.
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(str(image.get("path") or "")).stem).strip("-")[:80] or f"{number:06}"
    file = f"{split}/{name}{suffix}"
    (folder / split).mkdir(exist_ok=True)
    if (folder / file).exists():
        file = f"{split}/{name}-{number:06}{suffix}"
    (folder / file).write_bytes(content)
    label, source = row[LABEL], row.get(SOURCE)
    return file, "" if label is None else str(label), split, "" if source is None else str(source)
