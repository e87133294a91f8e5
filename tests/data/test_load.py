"""Data in each of the layouts: what is recognised, derived and refused."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import valid_lines, write_data
from layouts import (
    LETTERS,
    ROCKS,
    Picture,
    blank,
    letters,
    rocks,
    table_of,
    write_csv,
    write_images,
    write_mars_bench,
    write_parquet,
    write_shards,
    zipped,
)

from hirise_imb.data.dataset import SPLITS, NoSources, SourceColumn
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.images import decode_image
from hirise_imb.data.load import load_data
from hirise_imb.data.manifest import Manifest
from hirise_imb.utils.errors import UserError

Write = Callable[[Path, Sequence[Picture], Sequence[str]], Path]


@pytest.fixture(scope="module")
def colour() -> list[Picture]:
    return rocks()


@pytest.fixture(scope="module")
def grey() -> list[Picture]:
    return letters()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "rocks"


def load(path: Path, images: str = "") -> Manifest:
    return load_data(str(path), HIRISE, images)


def refusal(path: Path, images: str = "") -> str:
    with pytest.raises(UserError) as caught:
        load(path, images)
    return str(caught.value)


def pixels(manifest: Manifest) -> dict[tuple[str, int], list[int]]:
    """Sums of the pixels of the images, by split and class."""
    sums: dict[tuple[str, int], list[int]] = {}
    for image, split, label in manifest.table[["image", "split", "label"]].itertuples(index=False):
        decoded = decode_image(manifest.path(image), manifest.spec.image_shape)
        sums.setdefault((split, label), []).append(int(decoded.sum(dtype=np.int64)))
    return {key: sorted(values) for key, values in sums.items()}


LAYOUTS: dict[str, Write] = {
    "csv": write_csv,
    "parquet": write_parquet,
    "mars-bench": write_mars_bench,
    "shards": write_shards,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("packed", [False, True])
def test_every_layout_gives_the_same_data(layout: str, packed: bool, colour: list[Picture], folder: Path) -> None:
    path = LAYOUTS[layout](folder, colour, ROCKS)
    manifest = load(zipped(folder) if packed else path)
    spec = manifest.spec
    assert (spec.classes.names, spec.classes.majority) == (ROCKS, "dust")
    assert spec.image_shape == (64, 64, 3)
    expected = load(write_csv(folder.parent / "expected", colour, ROCKS))
    assert pixels(manifest) == pixels(expected)
    assert manifest.landmark_counts("train").tolist() == [8, 24, 8]
    assert set(manifest.table["copies"]) == {1}
    if layout in ("csv", "parquet"):
        assert isinstance(spec.identity, SourceColumn)
        assert manifest.has_sources
        assert set(manifest.split("val")["source"]) == {f"val-{number}" for number in range(4)}
    else:
        assert isinstance(spec.identity, NoSources)
        assert not manifest.has_sources
        assert (manifest.table["source"] == manifest.table["image"]).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fifteen_classes_in_grey(layout: str, grey: list[Picture], folder: Path) -> None:
    spec = load(LAYOUTS[layout](folder, grey, LETTERS)).spec
    assert spec.classes.names == LETTERS
    assert spec.classes.majority is None
    assert spec.classes.rare_ids == tuple(range(15))
    assert spec.image_shape == (64, 64, 1)


def test_the_official_layout_is_recognised(tmp_path: Path) -> None:
    manifest = load(write_data(tmp_path, valid_lines()))
    assert manifest.spec is HIRISE
    assert manifest.has_sources


def test_integers_are_labels_too(colour: list[Picture], folder: Path) -> None:
    path = write_csv(folder, colour, ("2", "10", "7"))
    assert load(path).spec.classes.names == ("class 2", "class 7", "class 10")
    assert load(path).spec.classes.majority == "class 10"
    (folder / "mapping.json").write_text(json.dumps({"2": "bedrock", "7": "float rock", "10": "dust"}))
    assert load(path).spec.classes.names == ("bedrock", "float rock", "dust")
    change(path, 2, label="-1")
    (folder / "mapping.json").unlink()
    assert "row 2: unknown class '-1'" in refusal(path)
    # Parquet files have numbers instead of strings, and floats where one is missing.
    table_of(colour, ROCKS).assign(label=[float(picture.label) for picture in colour]).to_parquet(
        folder / "labels.parquet"
    )
    assert load(folder / "labels.parquet").spec.classes.names == ("class 0", "class 1", "class 2")


def test_a_split_may_be_called_validation(colour: list[Picture], folder: Path) -> None:
    path = write_csv(folder, colour, ROCKS)
    expected = load(path)
    for name in ("valid", "validation"):
        path.write_text(path.read_text().replace(",val,", f",{name},"))
        assert load(path).table.equals(expected.table)
        path.write_text(path.read_text().replace(f",{name},", ",val,"))


def test_the_digest_depends_on_classes_splits_and_sources(colour: list[Picture], folder: Path) -> None:
    path = write_csv(folder, colour, ROCKS)
    text = path.read_text()
    digests = {load(path).digest}
    for old, new in (("dust", "sand"), (",train-0", ",train-9"), (",source", ",else")):
        path.write_text(text.replace(old, new))
        digests.add(load(path).digest)
    assert len(digests) == 4


def test_the_images_may_be_elsewhere(colour: list[Picture], folder: Path, tmp_path: Path) -> None:
    path = write_csv(folder, colour, ROCKS)
    elsewhere = write_images(tmp_path / "elsewhere", colour)
    path.write_text(path.read_text().replace("images/", ""))
    assert load(path).folder == folder / "images"  # the only folder inside that has the first image
    write_images(folder / "copies", colour)
    assert "is missing from" in refusal(path)
    assert load(path, str(elsewhere)).folder == elsewhere
    assert "nowhere does not exist: name the folder of the images with --images" in refusal(path, "nowhere")


def test_images_belong_to_a_table_alone(colour: list[Picture], folder: Path, tmp_path: Path) -> None:
    mars = write_mars_bench(folder, colour, ROCKS)
    assert "is not an annotation table, which alone has a folder of images: leave out --images" in refusal(mars, "x")


def hirise_name(picture: Picture, variant: str = "") -> str:
    """A name of the HiRISE grammar; each class of a split has two sources."""
    source = 10 * SPLITS.index(picture.split) + 2 * picture.label + picture.number % 2
    return f"ESP_{source:06}_1000_RED-{picture.number:04}{variant}{picture.suffix}"


def test_names_of_a_data_card_give_sources_and_variants(
    colour: list[Picture], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Picture, "name", property(hirise_name))
    for write in (write_mars_bench, write_shards):
        manifest = load(write(folder / write.__name__, colour, ROCKS))
        assert manifest.spec.identity is HIRISE.identity
        assert manifest.table["source"].nunique() == 18
    path = write_csv(folder, colour, ROCKS, sources=False)
    copy = hirise_name(colour[0], "-r90")
    (folder / "images" / copy).write_bytes(colour[0].content)
    path.write_text(path.read_text() + f"images/{copy},bedrock,train\n")
    manifest = load(path)
    assert manifest.has_sources
    assert len(manifest.table) == 121
    assert manifest.table["landmark"].nunique() == 120
    assert len(manifest.canonical_images("train")) == 40
    change(path, 121, label="dust", split="test")
    source, landmark = copy[:15], copy.removesuffix("-r90.jpg")
    assert f"row 121: source {source} is in split test, but in split train earlier" in refusal(path)
    assert f"row 121: landmark {landmark} has label 'dust', but 'bedrock' earlier" in refusal(path)
    path = write_csv(folder, colour, ROCKS)
    assert isinstance(load(path).spec.identity, SourceColumn)  # the column has precedence


# --- annotation tables: mistakes ---


def change(path: Path, row: int, **values: str) -> None:
    """Changes values in a row of a CSV table, counted from 1 below the header."""
    table = pd.read_csv(path, dtype=str)
    for column, value in values.items():
        table.loc[row - 1, column] = value
    table.to_csv(path, index=False)


@pytest.mark.parametrize("column", ["file", "label", "split"])
def test_a_missing_column_is_named(column: str, colour: list[Picture], folder: Path) -> None:
    path = write_csv(folder, colour, ROCKS)
    table_of(colour, ROCKS).drop(columns=column).to_csv(path, index=False)
    for place in (path, folder):  # even without one column, the table in a folder is recognised
        assert refusal(place) == (
            f"{path} lacks the column {column}: it must have file, label, split and may have source."
        )


def test_an_empty_table(colour: list[Picture], folder: Path) -> None:
    path = write_csv(folder, colour, ROCKS)
    path.write_text("file,label,split,source\n")
    assert refusal(path) == f"{path} lists no images: add a row for each image."
    path.write_text("")
    assert "lacks the columns file, label, split" in refusal(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"split": "trial"}, "row 2: unknown split 'trial', expected one of train, val, test, valid, validation"),
        ({"split": ""}, "row 2: unknown split ''"),
        ({"label": ""}, "row 2: the label is empty"),
        ({"file": ""}, "row 2: the file is empty"),
        ({"source": ""}, "row 2: the source is empty, but other rows have one"),
        ({"file": "images/none.jpg"}, "row 2: images/none.jpg is missing from "),
        ({"file": "images/train-000.jpg"}, "row 2: images/train-000.jpg occurs already in row 1"),
        ({"file": "./images//train-000.jpg"}, "row 2: images/train-000.jpg occurs already in row 1"),
        ({"file": "/etc/passwd"}, "row 2: the path '/etc/passwd' leads outside the folder"),
        ({"file": "images/../../x.jpg"}, "row 2: the path 'images/../../x.jpg' leads outside the folder"),
        ({"file": "C:\\x.jpg"}, "row 2: the path 'C:\\\\x.jpg' leads outside the folder"),
        ({"source": "test-1"}, "row 82: source test-1 is in split test, but in split train earlier"),
    ],
)
def test_a_mistake_in_a_row_is_located(
    values: dict[str, str], message: str, colour: list[Picture], folder: Path
) -> None:
    path = write_csv(folder, colour, ROCKS)
    change(path, 2, **values)
    refused = refusal(path)
    assert f"\n  {message}" in refused
    assert refused.startswith(f"{path} contains ")


def test_all_mistakes_are_listed(colour: list[Picture], folder: Path) -> None:
    path = write_csv(folder, colour, ROCKS)
    change(path, 2, split="trial", label="")
    change(path, 5, file="none")
    refused = refusal(path)
    assert f"{path} contains 3 mistakes; fix the file" in refused
    assert all(text in refused for text in ("row 2: the label", "row 2: unknown split", "row 5: none is missing"))


def test_a_row_of_another_length_is_located(colour: list[Picture], folder: Path) -> None:
    path = write_csv(folder, colour, ROCKS)
    path.write_text(path.read_text() + "a,b\n")
    assert "row 121 has 2 fields, but the header has 4" in refusal(path)


def test_a_class_without_training_landmark_is_named(colour: list[Picture], folder: Path) -> None:
    path = write_csv(folder, [picture for picture in colour if (picture.split, picture.label) != ("train", 2)], ROCKS)
    assert "class 'float rock' has no training landmark" in refusal(path)
    path = write_csv(folder, [picture for picture in colour if picture.split != "val"], ROCKS)
    assert "set 'val' is empty" in refusal(path)


def test_classes_that_can_not_be_used(colour: list[Picture], folder: Path) -> None:
    path = write_csv(folder, colour, ("dust", "dust", "dust"))
    assert "has a single class, 'dust': a classifier needs two or more" in refusal(path)
    path = write_csv(folder, colour, ("dust", "sand", "all"))
    assert "has a class 'all'" in refusal(path)
    path = write_csv(folder, colour, ("0", "1", "9"))
    (folder / "mapping.json").write_text('{"0": "dust", "1": "sand"}')
    assert "row 33: unknown class '9'" in refusal(path)
    (folder / "mapping.json").write_text('{"0": "dust", "1": "dust", "9": "sand"}')
    assert "gives the name 'dust' to two classes" in refusal(path)
    for text in ("{", "{}", "3", '{"0": 1, "a": "b"}', '{"a": "b"}'):
        (folder / "mapping.json").write_text(text)
        assert "mapping.json" in refusal(path)


def test_images_must_have_one_size_and_mode(colour: list[Picture], folder: Path) -> None:
    path = write_csv(folder, colour, ROCKS)
    image = folder / "images" / colour[3].name
    for content, what in (
        (blank((64, 48)), "64 x 48 pixels of mode RGB"),
        (blank(mode="L"), "64 x 64 pixels of mode L"),
        (blank(mode="RGBA"), "64 x 64 pixels of mode RGBA"),
    ):
        image.write_bytes(content)
        message = f"images/{colour[3].name} has {what}, but most images have 64 x 64 pixels of mode RGB"
        assert message in refusal(path)
    image.write_bytes(b"GIF89a")
    assert f"images/{colour[3].name} is not a JPEG or PNG image" in refusal(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (blank((64, 48)), "have 64 x 48 pixels: crop or pad them to squares"),
        (blank(mode="P"), "have Pillow's mode P: convert them to L (8-bit grey) or RGB"),
        (blank(mode="I;16"), "have Pillow's mode I;16: convert them"),
    ],
)
def test_images_that_can_not_be_used(content: bytes, message: str, colour: list[Picture], folder: Path) -> None:
    path = write_csv(folder, colour, ROCKS)
    for picture in colour:
        (folder / "images" / picture.name).write_bytes(content)
    assert message in refusal(path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'file,label\n"a,b', b"file,label,split\na\0,b,c"])
def test_a_file_that_is_no_table(content: bytes, folder: Path) -> None:
    folder.mkdir()
    (folder / "labels.csv").write_bytes(content)
    assert str(folder / "labels.csv") in refusal(folder / "labels.csv")
    (folder / "labels.parquet").write_bytes(content)
    assert "can't be read as a table" in refusal(folder / "labels.parquet")


# --- Mars-Bench on Zenodo ---


def test_mars_bench_gives_class_folders_names(colour: list[Picture], folder: Path) -> None:
    mars = write_mars_bench(folder, colour, ("bed", "dst", "flo"))
    (mars / "mapping.json").write_text(json.dumps({"0": "Bedrock", "1": "Dust", "2": "Float rock"}))
    assert load(mars).spec.classes.names == ("Bedrock", "Dust", "Float rock")
    (mars / "mapping.json").write_text(json.dumps({"Bedrock": 0, "Dust": 1, "Float rock": 2}))
    assert load(mars).spec.classes.names == ("Bedrock", "Dust", "Float rock")
    (mars / "mapping.json").unlink()
    assert load(mars).spec.classes.names == ("bed", "dst", "flo")


def test_mars_bench_without_some_columns(colour: list[Picture], folder: Path) -> None:
    mars = write_mars_bench(folder, colour, ROCKS)
    expected = load(mars).table
    table = pd.read_csv(mars / "annotation.csv")
    stems = table["file_id"].str.removesuffix(".jpg")
    paths = "data/" + table["split"] + "/" + table["feature_name"] + "/" + table["file_id"]
    for other in (
        table.drop(columns="feature_name"),
        table.drop(columns="label"),
        table.drop(columns="feature_name").assign(label=table["feature_name"]),
        table.assign(file_id=stems),
        table.assign(file_id=paths),
        table.rename(columns={"file_id": "filename"}),
        table.drop(columns="file_id"),  # the files in the class folders
    ):
        other.to_csv(mars / "annotation.csv", index=False)
        assert load(mars).table.equals(expected)
    (mars / "annotation.csv").unlink()
    assert load(mars).table.equals(expected)


def test_mars_bench_with_mistakes(colour: list[Picture], folder: Path) -> None:
    mars = write_mars_bench(folder, colour, ROCKS)
    path = mars / "annotation.csv"
    for values, message in (
        ({"file_id": "none.jpg"}, "row 2: data/train/bedrock/none.jpg is missing from"),
        ({"file_id": "../../x.jpg"}, "row 2: the path '../../x.jpg' leads outside"),
        ({"feature_name": ".."}, "row 2: the path 'data/train/../train-001.jpg' leads outside"),
        ({"label": "7"}, "row 2: unknown class '7'"),
        ({"split": "all"}, "row 2: unknown split 'all'"),
        ({"file_id": "train-000.jpg"}, "row 2: data/train/bedrock/train-000.jpg occurs already in row 1"),
    ):
        before = path.read_text()
        change(path, 2, **values)
        assert message in refusal(mars)
        path.write_text(before)


# --- Mars-Bench on Hugging Face ---


def test_shards_are_unpacked_once(colour: list[Picture], folder: Path, cache: Path) -> None:
    shards = write_shards(folder, colour, ROCKS)
    first = load(shards)
    assert cache in first.folder.parents
    stamps = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
    assert load(shards / "data").folder == first.folder
    assert {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")} == stamps
    assert len(stamps) == 120 + 3 + 2  # images, their folders, the table and the names of the classes
    assert any("train-000" in image for image in first.table["image"])  # names as in the shards


def test_shards_without_names_of_classes(colour: list[Picture], folder: Path) -> None:
    assert load(write_shards(folder, colour, None)).spec.classes.names == ("class 0", "class 1", "class 2")


def test_a_table_of_features_in_the_folder_is_no_shard(colour: list[Picture], folder: Path) -> None:
    shards = write_shards(folder, colour, ROCKS)
    features = pa.table({"image": [picture.name for picture in colour], "vector": [[0.5]] * len(colour)})
    for place in (shards, shards / "data"):
        pq.write_table(features, place / "features.parquet")
    assert len(load(shards).table) == 120


def test_shards_may_have_a_digest_in_their_names(colour: list[Picture], folder: Path) -> None:
    shards = write_shards(folder, colour, ROCKS)
    for path in (shards / "data").iterdir():
        path.rename(path.with_stem(f"{path.stem}-0a1b2c3d4e5f6789"))
    assert len(load(shards).table) == 120


def test_other_splits_are_left_out(colour: list[Picture], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = write_shards(folder, colour, ROCKS)
    few = shards / "data" / "few_shot_train_5_shot-00000-of-00001.parquet"
    few.write_bytes((shards / "data" / "test-00000-of-00001.parquet").read_bytes())
    assert len(load(shards).table) == 120
    few.rename(shards / "data" / "few-00000-of-00001.parquet")
    for path in (shards / "data").glob("[tv]*"):
        path.unlink()
    assert "contains no parquet file of a split: they must be named train, val, test" in refusal(shards)


def write_shard(path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


def test_shards_with_mistakes(colour: list[Picture], folder: Path, cache: Path) -> None:
    shards = write_shards(folder, colour, ROCKS)
    path = shards / "data" / "test-00000-of-00001.parquet"
    image = {"bytes": colour[0].content, "path": "a.jpg"}
    mistakes: tuple[tuple[list[dict[str, Any]], str], ...] = (
        ([{"image": image}], "lacks the column label"),
        ([{"image": "a.jpg", "label": 0}], "contains no structs with `bytes`"),
        ([{"image": {"path": "a.jpg"}, "label": 0}], "contains no structs with `bytes`"),
        ([{"image": image, "label": [0, 1]}], "each image must have one integer or name"),
        ([{"image": image, "label": 0}], "names other classes than"),
    )
    for rows, message in mistakes:
        write_shard(path, rows)
        assert message in refusal(shards)
    for content in (b"GIF89a", None):
        table = pq.read_table(shards / "data" / "validation-00000-of-00001.parquet")
        rows = [{"image": {"bytes": content, "path": "a"}, "label": 0}]
        pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
        assert "is neither a JPEG nor a PNG" in refusal(shards)
    pq.write_table(pa.Table.from_pylist([{"image": image, "label": -1}], table.schema), path)
    assert "unknown class '-1'" in refusal(shards)
    assert not list((cache / "data").glob(".shards-*"))
    assert f"name their folder, {path.parent}" in refusal(path)


def test_equal_names_in_shards_are_told_apart(colour: list[Picture], folder: Path) -> None:
    same = [replace(picture, number=0) for picture in colour]
    assert pixels(load(write_shards(folder, same, ROCKS))) == pixels(load(write_csv(folder / "csv", colour, ROCKS)))


def test_names_in_shards_lead_nowhere_else(colour: list[Picture], folder: Path, cache: Path) -> None:
    shards = write_shards(folder, colour, ROCKS)
    path = shards / "data" / "test-00000-of-00001.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    for row in rows:
        row["image"]["path"] = "../../../evil.jpg"
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
    manifest = load(shards)
    assert len(manifest.split("test")) == 40
    assert {image.split("/")[0] for image in manifest.table["image"]} == set(SPLITS)
    assert sorted(path.name for path in (cache / "data").iterdir() if path.is_dir()) == [manifest.folder.name]


# --- recognition ---


def test_several_data_sets_are_told_apart(colour: list[Picture], folder: Path) -> None:
    path = write_csv(folder, colour, ROCKS)
    (folder / "other.csv").write_bytes(path.read_bytes())
    assert refusal(folder) == (
        f"{folder} contains several data sets: name one of {path} (annotation table), "
        f"{folder / 'other.csv'} (annotation table)."
    )
    assert load(path).spec.classes.names == ROCKS
    (folder / "other.csv").unlink()
    write_data(folder, valid_lines())
    assert "folder in the official layout), " in refusal(folder)


def test_other_tables_are_no_data_sets(colour: list[Picture], folder: Path) -> None:
    write_csv(folder, colour, ROCKS)
    (folder / "notes.csv").write_text("file,comment\na,b\n")
    (folder / "broken.parquet").write_text("no")
    (folder / "._labels.csv").write_text("file,label,split\n")
    assert len(load(folder.parent).table) == 120  # one level above


def test_a_hidden_folder_may_have_the_official_layout(tmp_path: Path) -> None:
    write_data(tmp_path / ".data", valid_lines())
    assert load(tmp_path).spec is HIRISE


def test_nothing_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert "name a folder in the official layout or in one of the others that docs/data.md" in refusal(tmp_path)
    assert "does not exist" in refusal(tmp_path / "labels.csv")


def test_a_data_card_belongs_to_the_official_layout(colour: list[Picture], folder: Path) -> None:
    from builders import MINERALS

    path = write_csv(folder, colour, ROCKS)
    with pytest.raises(
        UserError, match=r"an annotation table, which brings its own classes, but the data set minerals"
    ):
        load_data(str(path), MINERALS)


# --- zips ---


def test_a_hostile_zip_is_refused(colour: list[Picture], folder: Path, cache: Path) -> None:
    write_csv(folder, colour, ROCKS)
    packed = zipped(folder)
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("../evil.jpg", b"x")
    assert "leads outside the archive" in refusal(packed)
    assert not [path for place in (cache, folder.parent) for path in place.rglob("evil.jpg")]


def test_a_zip_without_data(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", b"x")
    assert "contains neither images nor tables" in refusal(tmp_path / "a.zip")
    (tmp_path / "b.zip").write_bytes(b"x")
    assert "is damaged or not a zip file" in refusal(tmp_path / "b.zip")


def test_a_zip_is_unpacked_without_other_files(colour: list[Picture], folder: Path) -> None:
    write_csv(folder, colour, ROCKS)
    (folder / "setup.py").touch()
    (folder / "images" / "._train-000.jpg").touch()
    manifest = load(zipped(folder))
    inside = {path.name for path in manifest.folder.rglob("*") if path.is_file()}
    assert inside == {"labels.csv", *(picture.name for picture in colour)}
    assert set(manifest.table["split"]) == set(SPLITS)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_that_can_not_be_used_can_be_unpacked_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "twice.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for _ in range(2):
            archive.writestr("table.csv", "file,label,split")
    assert refusal(path).endswith("(its entry 'table.csv' occurs twice): unpack it and name the folder.")
