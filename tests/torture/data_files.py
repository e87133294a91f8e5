"""Text files and tables of data sets that are hostile or damaged, and data sets that repeat an image."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from builders import valid_lines, write_data
from layouts import ROCKS, Picture, rocks, table_of, write_csv, write_mars_bench, write_parquet, write_shards

from hirise_imb.data.additions import plan_additions, read_labels, write_additions
from hirise_imb.data.duplicates import find_duplicates
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.images import check_images
from hirise_imb.data.load import load_data
from hirise_imb.data.manifest import Manifest, find_invisible
from hirise_imb.features.table import read_feature_table
from hirise_imb.prediction.inputs import list_inputs
from hirise_imb.prediction.reading import ShardReader, decode
from hirise_imb.prediction.shards import plan_shards
from torture import small_study
from torture.attacks import Area, Attempt, Outcome, attack
from torture.commands import call
from torture.damage import change_bytes
from torture.refusals import list_files, read_or_refuse

HOSTILE = (
    *("", " ", "a b", "..", "../x.jpg", "/etc/passwd", "C:\\x.jpg", "a/../../x.jpg", "con.jpg", "x.jpg.", "~", "."),
    *(
        "\x00",
        "a\x1b[2J.jpg",
        "a\nb.jpg",
        "a\rb.jpg",
        "\u202egpj.exe",
        "\ufeffa.jpg",
        "\u2028",
        "\x85",
        "\ud7ff",
        "\x0c",
    ),
    *("=cmd|' /C calc'!A0", "@SUM(1)", "+1", "-1", "<script>alert(1)</script>", "[red]x[/red]", "[/]", "%s", "{0}"),
    *("nan", "None", "1e5", "1.0", "01", "+1", "٣", "9" * 30, "9" * 5000, "a" * 300, "a/" * 3000, "all", "e\u0301.jpg"),
    *('"', "'", ",", ";", "\\", "#", "train", "test"),
)
"""Names, labels, splits and sources that nobody gives by mistake."""


def change_text(text: str, rng: random.Random) -> str:
    """Returns a text with some lines or fields repeated, removed, exchanged or replaced by hostile ones."""
    lines = text.splitlines(keepends=True)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(lines))
        fields = lines[place].rstrip("\n").replace(",", " ").split(" ")
        match rng.randrange(8):
            case 0:
                del lines[place]
            case 1:
                lines.insert(rng.randrange(len(lines)), lines[place])
            case 2:
                other = rng.randrange(len(lines))
                lines[place], lines[other] = lines[other], lines[place]
            case 3 | 4:
                separator = "," if "," in lines[place] else " "
                fields[rng.randrange(len(fields))] = rng.choice(HOSTILE)
                lines[place] = f"{separator.join(fields)}\n"
            case 5:
                lines[place] = lines[place].rstrip("\n") + rng.choice(
                    ["\r\n", "\r", "", "\x0c", "\x1c", "\u2028", "\0\n"]
                )
            case 6:
                lines[place] = rng.choice(HOSTILE) * rng.choice([1, 1, 1, 1000]) + "\n"
            case 7:
                lines[0] = "\ufeff" + lines[0]
        lines = lines or ["\n"]
    return "".join(lines)


def change_file(content: bytes, rng: random.Random) -> bytes:
    """Returns bytes of which some are changed, removed or repeated; or the beginning of them."""
    if rng.random() < 0.1:
        return content[: rng.randrange(len(content))]
    # Parquet keeps its description at the end.
    return change_bytes(rng, content, slice(-3000, None))


def _check(attempt: Attempt, read: Callable[[], Manifest]) -> Outcome:
    """Reads a data set; it is refused, or its images are files in its folder, and no source is in two splits."""
    before = list_files(attempt.folder)
    manifest = read_or_refuse(read)
    assert list_files(attempt.folder) == before
    if manifest is None:
        return Outcome.REFUSED
    table = manifest.table
    assert all(manifest.path(image).resolve().is_relative_to(manifest.folder.resolve()) for image in table["image"])
    assert all(manifest.path(image).is_file() for image in table["image"])
    assert table.groupby("source")["split"].nunique().max() == 1
    assert table.groupby("landmark")["label"].nunique().max() == 1
    assert table["label"].between(0, len(manifest.spec.classes) - 1).all()
    assert not any(find_invisible(name) for name in (*manifest.spec.classes, *table["image"], *table["source"]))
    return Outcome.CORRECT


@attack(
    Area.DATA,
    "Label, split or class file with lines, fields or bytes changed, repeated, removed; hostile names",
    tries=400,
)
def official_text_changed(attempt: Attempt) -> Outcome:
    rng = attempt.random
    data = write_data(attempt.folder / "data", valid_lines())
    path = data / rng.choice(HIRISE.layout.files)
    text = path.read_text(encoding="utf-8")
    if rng.random() < 0.7:
        path.write_text(change_text(text, rng), encoding="utf-8", newline="")
    else:
        path.write_bytes(change_file(text.encode(), rng))
    return _check(attempt, lambda: load_data(str(data), HIRISE))


@cache
def _pictures() -> tuple[Picture, ...]:
    """Returns some images of three classes, of which each split has all."""
    return tuple(picture for picture in rocks() if picture.number % 4 == 0)


@attack(
    Area.DATA,
    "Annotation table, `mapping.json`, Mars-Bench layout: fields, types or bytes changed; hostile names",
    tries=300,
)
def annotations_changed(attempt: Attempt) -> Outcome:
    rng, pictures = attempt.random, _pictures()
    folder = attempt.folder / "data"
    write: Callable[[Path, Sequence[Picture], Sequence[str]], Path] = rng.choice(
        [write_csv, write_parquet, write_mars_bench]
    )
    write(folder, pictures, ROCKS)
    victims = [path for path in folder.iterdir() if path.is_file()]
    if rng.random() < 0.3:
        (folder / "mapping.json").write_text(json.dumps({str(number): name for number, name in enumerate(ROCKS)}))
        victims = [folder / "mapping.json"]
    path = rng.choice(victims)
    if path.suffix == ".json" and rng.random() < 0.5:
        path.write_text(
            rng.choice(
                [
                    '{"0": ' * 5000,
                    "[" * 100_000,
                    '{"0": NaN}',
                    '["a", "a"]',
                    '{"٣": "x", "1": "y"}',
                    "9" * 5000,
                    '{"' + "9" * 5000 + '": "x"}',
                    '{"0": "\\ud800", "1": "b", "2": "c"}',
                    '{"a": 1, "a": 2}',
                    '{"a": true}',
                    '{"a": 1e400}',
                    '"x"',
                    '{"a": 0, "b": 0}',
                    '["a\\u001b", "b", "c"]',
                ]
            )
        )
    elif path.suffix == ".parquet":
        change_parquet(path, rng)
    elif rng.random() < 0.8:
        path.write_text(change_text(path.read_text(encoding="utf-8"), rng), encoding="utf-8", newline="")
    else:
        path.write_bytes(change_file(path.read_bytes(), rng))
    return _check(attempt, lambda: load_data(str(folder), HIRISE))


def _odd_column(length: int, rng: random.Random) -> pa.Array:
    """Returns a column of another type, or with values that are missing or hostile."""
    columns: list[Callable[[], pa.Array]] = [
        lambda: pa.array([rng.choice(HOSTILE) for _ in range(length)]),
        lambda: pa.array([rng.choice([None, "train", "x"]) for _ in range(length)]),
        lambda: pa.array([rng.choice([0.0, 1.5, float("nan"), float("inf"), None]) for _ in range(length)]),
        lambda: pa.array([1e300, -1e19, 2.0**63] * length).slice(0, length),
        lambda: pa.array([rng.getrandbits(63) for _ in range(length)]),
        lambda: pa.array([{"bytes": rng.randbytes(9), "path": rng.choice(HOSTILE)} for _ in range(length)]),
        lambda: pa.array([[1.0] * rng.randrange(3) for _ in range(length)]),
        lambda: pa.array([None] * length),
        lambda: pa.array([rng.randbytes(4) for _ in range(length)]),
        lambda: pa.array([rng.random() < 0.5 for _ in range(length)]),
        lambda: pa.array([0] * length, pa.timestamp("ns")),
        lambda: pa.array(["a"] * length).dictionary_encode(),
    ]
    return rng.choice(columns)()


def change_parquet(path: Path, rng: random.Random) -> None:
    """Changes bytes of a table, the type or the name of a column, or its number of columns or rows."""
    table = pq.read_table(path)
    column = rng.choice(table.column_names)
    match rng.randrange(6):
        case 0 | 1:
            path.write_bytes(change_file(path.read_bytes(), rng))
            return
        case 2:
            table = table.set_column(table.column_names.index(column), column, _odd_column(len(table), rng))
        case 3:
            table = table.append_column(rng.choice([column, *HOSTILE[:5], "image"]), _odd_column(len(table), rng))
        case 4:
            table = pa.concat_tables([table, table.slice(0, rng.randint(1, 3))])
        case 5:
            table = rng.choice(
                [
                    table.slice(0, 0),
                    table.drop_columns(column),
                    table.replace_schema_metadata({b"huggingface": b"[" * 5000, b"\xff": b"\xff", b"pandas": b"{"}),
                ]
            )
    pq.write_table(table, path)


@attack(
    Area.DATA,
    "Parquet shards of images, read as a data set and predicted: bytes, types, rows or names changed",
    tries=200,
)
def shards_changed(attempt: Attempt) -> Outcome:
    rng, folder = attempt.random, attempt.folder / "data"
    write_shards(folder, _pictures(), ROCKS if rng.random() < 0.7 else None, n_train=1)
    path = rng.choice(sorted((folder / "data").iterdir()))
    if rng.random() < 0.2:
        path.rename(path.with_name(rng.choice(["train.parquet", "x.parquet", "test-1-of-2.parquet", "..parquet"])))
    else:
        change_parquet(path, rng)
    outcome = _check(attempt, lambda: load_data(str(folder), HIRISE))

    def decode_all() -> int:
        with ShardReader() as reader:
            shards = plan_shards(list_inputs([str(path) if path.exists() else str(folder)], None, HIRISE))
            images = [decode(image, (64, 64, 3)) for shard in shards for image in reader.read(shard)]
        assert all((image.pixels is None) == bool(image.error) for image in images)
        return len(images)

    read_or_refuse(decode_all)
    return outcome


@attack(
    Area.DATA,
    "Table of features: bytes, types, widths, rows, digests changed; NaN, infinity; 10,000 columns",
    tries=200,
)
def feature_table_changed(attempt: Attempt) -> Outcome:
    rng, names = attempt.random, [f"{number}.jpg" for number in range(20)]
    vectors = np.random.default_rng(rng.getrandbits(32)).normal(size=(20, 8)).astype(np.float32)
    digests = [f"{number:064x}" for number in range(20)]
    columns: dict[str, Any] = {"image": names, "vector": pa.array(list(vectors)), "digest": digests}
    path = attempt.folder / "features.parquet"
    kind = rng.randrange(5)
    if kind == 0:
        vectors[rng.randrange(20), rng.randrange(8)] = rng.choice([np.nan, np.inf, -np.inf])
        columns["vector"] = pa.array(list(vectors))
    elif kind == 1:
        columns["vector"] = pa.array([[1.0] * rng.choice([8, 8, 8, 0, 7, 10**5]) for _ in names])
    elif kind == 2 and rng.random() < 0.2:
        columns |= {f"column {number}": [0] * 20 for number in range(10_000)}
    pq.write_table(pa.table(columns), path)
    if kind > 2:
        change_parquet(path, rng)
    table = read_or_refuse(lambda: read_feature_table(path, names, digests))
    if table is None:
        return Outcome.REFUSED
    assert np.isfinite(table.vectors).all()
    assert len(table.vectors) == len(names)
    return Outcome.CORRECT


@attack(
    Area.DATA,
    "`data add`: labels with lines, fields or bytes changed, hostile names, contents that are no images",
    tries=100,
)
def additions_changed(attempt: Attempt) -> Outcome:
    rng = attempt.random
    base = load_data(str(small_study.data(attempt)), HIRISE)
    images = rng.sample(list(base.table["image"]), 6)
    rows = [
        (f"new/ESP_999999_{number}000_RED-000{number}.jpg", f"ESP_999999_{number}000", "crater")
        for number in range(1, 5)
    ]
    with io.StringIO() as text:
        csv.writer(text).writerows([("id", "source", "label"), *rows, *((image, "", "other") for image in images[:1])])
        content = text.getvalue()
    path = attempt.folder / "LABELS.csv"
    if rng.random() < 0.8:
        path.write_text(change_text(content, rng), encoding="utf-8", newline="")
    else:
        path.write_bytes(change_file(content.encode(), rng))
    good = base.path(images[0]).read_bytes()
    out = attempt.folder / "out"

    def add() -> Manifest:
        additions = plan_additions(base, read_labels([path], base.spec.classes))
        contents = {image.id: rng.choice([good, good, good, good, good, b""]) for image in additions.images}
        return write_additions(base, additions, contents, out)

    manifest = read_or_refuse(add)
    assert {file.name for file in attempt.folder.iterdir()} == {
        "LABELS.csv",
        *(["out"] if manifest is not None else []),
    }
    if manifest is None:
        return Outcome.REFUSED
    assert len(manifest.table) >= len(base.table)
    check_images([manifest.path(image) for image in manifest.table["image"]], manifest.spec.image_shape)
    shutil.rmtree(out)
    return Outcome.CORRECT


@attack(Area.DATA, "The pixels of a landmark under another name, in another split, source or class", tries=30)
def same_pixels_twice(attempt: Attempt) -> Outcome:
    rng, pictures = attempt.random, _pictures()
    table = table_of(pictures, ROCKS)
    one, other = rng.sample(range(len(pictures)), 2)
    path = write_csv(attempt.folder, pictures, ROCKS)
    first, second = (attempt.folder / table["file"][row] for row in (one, other))
    # The same pixels in another file: comments differ.
    content = first.read_bytes()
    second.write_bytes(content[:2] + b"\xff\xfe\x00\x06copy" + content[2:] if rng.random() < 0.5 else content)
    manifest = load_data(str(path), HIRISE)
    digests = check_images([manifest.path(image) for image in manifest.table["image"]], manifest.spec.image_shape)
    (group,) = find_duplicates(manifest, digests).groups
    assert {*group["image"]} == {table["file"][one], table["file"][other]}
    across = {
        name: table[column][one] != table[column][other]
        for name, column in (("splits", "split"), ("sources", "source"), ("classes", "label"))
    }
    if attempt.seed % 10 == 0:  # the rest of the command takes seconds
        finished = call("data", "check", path).expect_success()
        assert "1 group of landmarks has identical images" in finished.out
        assert all(f"{int(differ)} across {name}" in finished.out for name, differ in across.items()), finished.out
        assert f"{table['file'][one]} (" in finished.out
    return Outcome.CORRECT
