"""What INPUT arguments stand for, and how images are divided into shards and read."""

from __future__ import annotations

import io
import os
import pickle
import sys
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import IMAGE_FOLDER, image, quick
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.images import UnusableImage, decode_content
from hirise_imb.prediction import image_tables
from hirise_imb.prediction.inputs import ALL, ImageFile, ImageTable, LandmarkListing, list_inputs, parse_source
from hirise_imb.prediction.reading import BATCH, DecodedImage, EncodedImage, ShardReader, decode_batches
from hirise_imb.prediction.shards import RowRange, Shard, plan_shards, survey_shards
from hirise_imb.utils.errors import UserError

SHAPE = (6, 6, 1)


def encode(value: int = 0, mode: str = "L", size: int = 6, suffix: str = "png") -> bytes:
    """The content of an image file with one value in all pixels."""
    content = io.BytesIO()
    Image.new(mode, (size, size), (value,) * len(mode) if mode != "L" else value).save(content, suffix)
    return content.getvalue()


def fill(folder: Path, names: Sequence[str]) -> Path:
    """Writes an image for each name below a folder."""
    for value, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(value))
    return folder


def write_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_table(path: Path, columns: dict[str, Any], group: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


def shards(*inputs: object, rows: int = 1024) -> list[Shard]:
    return list(plan_shards(list_inputs([str(entry) for entry in inputs], None, HIRISE), rows))


def read(planned: Sequence[Shard]) -> list[DecodedImage]:
    """Reads and decodes the images of shards, in the order of the shards."""
    with ShardReader() as reader, ThreadPoolExecutor(2) as pool:
        return [
            image for shard in planned for batch in decode_batches(reader.read(shard), SHAPE, pool) for image in batch
        ]


def ids(*inputs: object) -> list[str]:
    return [image.id for image in read(shards(*inputs))]


def values(images: Sequence[DecodedImage]) -> list[int | None]:
    return [None if image.pixels is None else int(image.pixels[0, 0, 0]) for image in images]


def refuse(*inputs: object) -> str:
    with pytest.raises(UserError) as error:
        shards(*inputs)
    message = str(error.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


def test_a_folder_stands_for_its_images_and_those_of_the_folders_inside(tmp_path: Path) -> None:
    names = ["b.png", "a/z.JPG", "a/y.jpeg", "c/d/e.png"]
    hidden = [".hidden.png", "._a.jpg", ".cache/x.png", "__MACOSX/x.png", "notes.txt"]
    folder = fill(tmp_path / "crops", [*names, *hidden])
    (folder / "a" / "back").symlink_to(folder)
    found = ["a/y.jpeg", "a/z.JPG", "b.png", "c/d/e.png"]
    assert ids(folder) == [f"{folder}/{name}" for name in found]
    assert values(read(shards(folder))) == [2, 1, 0, 3]


def test_paths_are_given_back_as_they_were_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, ["crops/a.png", "b.png"])
    monkeypatch.chdir(tmp_path)
    assert ids("b.png", "crops") == ["b.png", "crops/a.png"]
    assert ids("./b.png") == ["./b.png"]
    assert ids("../" + tmp_path.name + "/*.png") == [f"../{tmp_path.name}/b.png"]


def test_a_pattern_stands_for_what_it_matches(tmp_path: Path) -> None:
    fill(tmp_path, ["x/1.png", "x/2.png", "y/3.png", "y/[4].png"])
    (tmp_path / "x" / "notes.txt").write_text("")
    write_table(tmp_path / "x" / "features.parquet", {"image": ["a"], "vector": [[1.0]]})
    assert ids(tmp_path / "x" / "*") == [f"{tmp_path}/x/1.png", f"{tmp_path}/x/2.png"]
    assert ids(tmp_path / "**" / "[13].png") == [f"{tmp_path}/x/1.png", f"{tmp_path}/y/3.png"]
    assert len(ids(tmp_path / "*")) == 4  # folders
    assert len(ids(tmp_path / "**" / "**")) == 4
    assert ids(tmp_path / "y" / "[4].png") == [f"{tmp_path}/y/[4].png"]  # a name, since there is such a file


def test_an_image_that_several_inputs_name_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, ["x/1.png", "x/y/2.png", "x/.3.png", "4.png"])
    write_zip(tmp_path / "x" / "5.zip", {"6.png": encode(6)})
    monkeypatch.chdir(tmp_path)
    assert ids("4.png", "x", "./4.png", "x/1.png", "x/y", "x/y/*.png") == ["4.png", "x/1.png", "x/y/2.png"]
    assert ids("x", "x") == ["x/1.png", "x/y/2.png"]
    assert ids("x/1.png", "x") == ["x/1.png", "x/y/2.png"]
    assert ids("x", "x/../x") == ["x/1.png", "x/y/2.png"]
    # A folder lists neither hidden files nor the content of zips.
    assert ids("x", "x/.3.png", "x/5.zip") == ["x/1.png", "x/y/2.png", "x/.3.png", "x/5.zip/6.png"]


def test_a_zip_stands_for_its_images_and_nothing_is_unpacked(tmp_path: Path) -> None:
    folder = tmp_path / "zips"
    folder.mkdir()
    names = ["a/b.png", "../../escape.png", "/absolute.png", "c:\\d.png", "a/ESP_000001_1000_RED-0003.jpg"]
    contents = {name: encode(value) for value, name in enumerate(names)}
    path = write_zip(folder / "crops.zip", {**contents, "a/notes.txt": b"", "__MACOSX/a/._b.png": b"", ".h.png": b""})
    images = read(shards(path))
    assert [image.id for image in images] == [f"{path}/{name}" for name in names]
    assert [image.source for image in images] == [None, None, None, None, "ESP_000001_1000"]
    assert values(images) == [0, 1, 2, 3, 4]
    assert sorted(tmp_path.rglob("*")) == [folder, path]


def test_members_that_cannot_be_read_are_rows_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(
        tmp_path / "a.zip", {"1.png": encode(1), "2.png": encode(2), "3.png": encode(3)}, zipfile.ZIP_STORED
    )
    content = bytearray(path.read_bytes())
    content[content.index(encode(2)) + 20] ^= 1
    path.write_bytes(content)
    images = read(shards(path))
    assert values(images) == [1, None, 3]
    assert images[1].error == "The image can't be read from its zip (Bad CRC-32 for file '2.png')."

    packed = write_zip(tmp_path / "b.zip", {"1.png": encode(1)}, zipfile.ZIP_LZMA)
    assert read(shards(packed))[0].error == "The image is neither stored nor deflated in its zip."
    monkeypatch.setattr("hirise_imb.prediction.reading.MAX_MEMBER", 50)
    large = write_zip(tmp_path / "c.zip", {"1.png": bytes(1000)})
    assert read(shards(large))[0].error == "The image has 1,000 bytes, over the limit of 50."
    single = fill(tmp_path / "d", ["1.png"]) / "1.png"
    assert str(read(shards(single))[0].error).endswith("over the limit of 50.")


def test_of_members_with_one_name_the_last_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.png", encode(1))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("1.png", encode(2))
    assert values(read(shards(path))) == [2]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_a_table_of_images(kind: pa.DataType, tmp_path: Path) -> None:
    images = pa.array([encode(n) for n in range(5)], kind)
    names = ["a", "ESP_000001_1000_RED-0001.jpg", "x/ESP_000002_1000_RED-0001.jpg", "d", None]
    source = pa.array(["s", None, "", "t", "u"])
    path = write_table(tmp_path / "a.parquet", {"id": names, "more": [1] * 5, "image": images, "source": source})
    found = read(shards(path))
    assert [image.id for image in found] == [*names[:4], f"{path}#4"]
    assert [image.source for image in found] == ["s", "ESP_000001_1000", "ESP_000002_1000", "t", "u"]
    assert values(found) == [0, 1, 2, 3, 4]


def test_a_table_of_hugging_face(tmp_path: Path) -> None:
    rows = [{"bytes": encode(1), "path": "x/ESP_000001_1000_RED-0001.jpg"}, {"bytes": encode(2), "path": None}, None]
    path = write_table(tmp_path / "train-00000-of-00001.parquet", {"image": rows, "label": [0, 1, 2]})
    found = read(shards(path))
    assert [(image.id, image.source) for image in found] == [
        ("x/ESP_000001_1000_RED-0001.jpg", "ESP_000001_1000"),
        (f"{path}#1", None),
        (f"{path}#2", None),
    ]
    assert values(found) == [1, 2, None]
    assert found[2].error == "The image is empty in its table."


def test_numbers_can_be_ids(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.parquet", {"id": [7, 0], "image": [encode(1), encode(2)], "source": [1, 2]})
    assert [(image.id, image.source) for image in read(shards(path))] == [("7", "1"), ("0", "2")]


def test_a_folder_of_tables_is_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for n in (1, 0):
        write_table(tmp_path / f"part-{n}.parquet", {"id": [f"{n}a", f"{n}b"], "image": [encode(n)] * 2})
    write_table(tmp_path / "predictions.parquet", {"image": ["a.jpg"], "p_other": [0.5]})
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    fill(tmp_path, ["part-0b.png"])
    assert ids(tmp_path) == ["0a", "0b", f"{tmp_path}/part-0b.png", "1a", "1b"]


@quick
@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 7))
def test_shards_divide_a_listing(sizes: list[int], rows: int) -> None:
    """Zero stands for an image file, any other number for a table with as many rows."""
    listing = [
        ImageTable(f"{n}.parquet", size, 1, 1) if size else ImageFile(f"{n}", None, f"{n}", "", 1, 1)
        for n, size in enumerate(sizes)
    ]
    planned = list(plan_shards(listing, rows))
    assert [shard.number for shard in planned] == list(range(len(planned)))
    assert all(0 < len(shard) <= rows for shard in planned)
    joined: list[tuple[str, int]] = []
    for shard in planned:
        if isinstance(shard.images, RowRange):
            joined += [(shard.images.table.path, row) for row in range(shard.images.start, shard.images.stop)]
        else:
            joined += [(one.path, 0) for one in shard.images]
    assert joined == [
        (entry.path, row) for entry in listing for row in range(entry.rows if isinstance(entry, ImageTable) else 1)
    ]
    survey = survey_shards(planned)
    assert (survey.images, survey.shards) == (len(joined), len(planned))
    assert pickle.loads(pickle.dumps(planned)) == planned


@quick
@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 9), st.randoms(use_true_random=False))
def test_any_shard_of_a_table_can_be_read_by_itself(
    tmp_path_factory: pytest.TempPathFactory, rows: int, group: int, most: int, random: Random
) -> None:
    images = [encode(value) for value in range(rows)]
    path = write_table(tmp_path_factory.mktemp("table") / "a.parquet", {"image": images}, group)
    planned = shards(path, rows=most)
    expected = [list(range(shard.images.start, shard.images.stop)) for shard in planned]  # type: ignore[union-attr]
    order = list(range(len(planned)))
    random.shuffle(order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_tables, "_BATCH", 4)
        for place in order:
            assert values(read([planned[place]])) == expected[place]
        shuffled = read([planned[place] for place in order])
    assert values(shuffled) == [value for place in order for value in expected[place]]


def test_the_fingerprint_tells_names_sizes_and_times(tmp_path: Path) -> None:
    folder = fill(tmp_path / "crops", ["a.png", "b.png"])

    def fingerprint() -> str:
        return survey_shards(shards(folder)).fingerprint

    before = fingerprint()
    assert fingerprint() == before
    os.utime(folder / "b.png", ns=(1, 1))
    touched = fingerprint()
    (folder / "b.png").rename(folder / "c.png")
    renamed = fingerprint()
    (folder / "c.png").unlink()
    assert len({before, touched, renamed, fingerprint()}) == 4
    zips = write_zip(tmp_path / "a.zip", {"1.png": encode(1)})
    first = survey_shards(shards(zips))
    write_zip(zips, {"1.png": encode(2)})
    assert survey_shards(shards(zips)) != first


def test_every_batch_is_decoded_in_order(tmp_path: Path) -> None:
    n = 2 * BATCH + 3
    images = [EncodedImage(str(k), None, lambda k=k: encode(k % 256)) for k in range(n)]  # type: ignore[misc]
    with ThreadPoolExecutor(3) as pool:
        batches = list(decode_batches(images, SHAPE, pool))
    assert [len(batch) for batch in batches] == [BATCH, BATCH, 3]
    assert values([image for batch in batches for image in batch]) == [k % 256 for k in range(n)]


def test_at_most_two_batches_are_read_ahead() -> None:
    taken = 0

    def images() -> Iterator[EncodedImage]:
        nonlocal taken
        for k in range(10 * BATCH):
            taken += 1
            yield EncodedImage(str(k), None, encode)

    with ThreadPoolExecutor(2) as pool:
        batches = decode_batches(images(), SHAPE, pool)
        next(batches)
        assert taken <= 2 * BATCH
        batches.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encode(mode="RGB"), "is a 6 x 6 image of mode RGB, but landmark images are 6 x 6 with one grey channel"),
        (encode(size=7), "is a 7 x 7 image of mode L, but landmark images are 6 x 6 with one grey channel"),
        (encode(suffix="jpeg")[:300], "is not a complete JPEG or PNG image (Truncated File Read)"),
        (encode(suffix="bmp"), "is not a complete JPEG or PNG image (cannot identify image file)"),
        (b"hello", "is not a complete JPEG or PNG image (cannot identify image file)"),
    ],
    ids=["colour", "size", "truncated", "format", "text"],
)
def test_an_image_that_cannot_be_used(content: bytes, message: str) -> None:
    with pytest.raises(UnusableImage) as error:
        decode_content(content, SHAPE)
    assert str(error.value).startswith(message)


def test_a_header_that_claims_an_absurd_size_is_not_decoded() -> None:
    content = bytearray(encode())
    content[16:24] = (40_000).to_bytes(4) * 2  # width and height in the header
    with pytest.raises(UnusableImage):
        decode_content(bytes(content), SHAPE)


@quick
@given(st.data(), st.sampled_from(["png", "jpeg"]))
def test_damage_of_any_kind_makes_an_image_unusable_or_changes_pixels(data: st.DataObject, suffix: str) -> None:
    content = bytearray(encode(7, suffix=suffix))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    try:
        pixels: NDArray[np.uint8] = decode_content(bytes(content[: data.draw(st.integers(0, len(content)))]), SHAPE)
    except UnusableImage:
        return
    assert pixels.shape == SHAPE


def test_a_data_set_stands_for_the_canonical_images_of_a_split(small_data: Path) -> None:
    listing = list_inputs([str(small_data)], "test", HIRISE)
    assert isinstance(listing, LandmarkListing)
    expected = listing.manifest.canonical_images("test")
    found = list(listing)
    assert [image.id for image in found] == list(expected["image"])
    assert [image.source for image in found] == list(expected["source"])
    assert [image.path for image in found] == [str(listing.manifest.path(name)) for name in expected["image"]]
    landmarks = listing.manifest.table["landmark"].nunique()
    assert len(list(list_inputs([str(small_data)], ALL, HIRISE))) == landmarks
    assert len(ids(small_data)) == len(list((small_data / IMAGE_FOLDER).iterdir()))  # all images without --split


def test_the_names_of_data_sets_stand_for_all_of_their_landmarks() -> None:
    listing = list_inputs(["synthetic"], None, HIRISE)
    assert isinstance(listing, LandmarkListing)
    assert len(list(listing)) == listing.manifest.table["landmark"].nunique()


def test_data_without_sources_has_none(tmp_path: Path) -> None:
    fill(tmp_path, [f"{split}-{label}.png" for split in ("train", "val", "test") for label in "ab"])
    rows = [f"{split}-{label}.png,{label},{split}" for split in ("train", "val", "test") for label in "ab"]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["file,label,split", *rows]))
    for split in ("test", None):  # a table of annotations is a data set in any case
        found = list(list_inputs([str(table)], split, HIRISE))
        assert [one.source for one in found if isinstance(one, ImageFile)] == [None] * (2 if split else 6)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        (image("ESP_000001_1000", 1), "ESP_000001_1000"),
        (f"x/y/{image('ESP_000001_1000', 1, 'r90')}", "ESP_000001_1000"),
        ("ESP_011289_1950_RED-0012.png", "ESP_011289_1950"),
        ("x.zip/ESP_011289_1950_RED-0012-r90.JPEG", "ESP_011289_1950"),
        ("ESP_000001_1000.jpg", None),
        ("", None),
    ],
)
def test_the_source_comes_from_the_name(name: str, source: str | None) -> None:
    assert parse_source(name) == source


def test_inputs_without_images_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("")
    assert refuse(empty).startswith(f"{empty} contains no images: name images (.jpg, .jpeg, .png), zips")
    assert refuse(tmp_path / "none.png").startswith(f"{tmp_path}/none.png does not exist: name ")
    assert refuse(empty / "*.png").startswith(f"{empty}/*.png matches no images")
    assert refuse(empty / "*").startswith(f"{empty}/* matches no images")
    assert refuse(tmp_path / "*").startswith(f"{tmp_path}/* contains no images")  # it matches a folder
    assert "name a file that ends in .jpg, .jpeg, .png, .zip or .parquet." in refuse(empty / "notes.txt")
    assert "contains no images" in refuse(write_zip(tmp_path / "a.zip", {"notes.txt": b""}))
    images = pa.array([], pa.binary())
    assert "contains no images" in refuse(write_table(tmp_path / "a.parquet", {"image": images}))
    fill(tmp_path, ["x/1.png"])
    assert refuse(tmp_path / "x", empty).startswith(f"{empty} contains no images")


@pytest.mark.parametrize("content", [b"", b"PK", b"PAR1 and so on, but not really PAR1"])
@pytest.mark.parametrize(("suffix", "kind"), [(".zip", "a zip file"), (".parquet", "a Parquet file")])
def test_damaged_containers_are_refused(content: bytes, suffix: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    assert refuse(path).startswith(f"{path} is damaged or not {kind} (")


def test_tables_without_images_are_refused(tmp_path: Path) -> None:
    tables: list[dict[str, Any]] = [
        {"id": [1]},
        {"image": ["a.png"]},
        {"image": [{"path": "a.png"}]},
        {"image": [1.0]},
    ]
    for n, columns in enumerate(tables):
        path = write_table(tmp_path / f"{n}.parquet", columns)
        assert refuse(path).startswith(f"{path} is not a table of images: it needs one column image with")


def test_a_table_with_two_columns_of_one_name_is_none(tmp_path: Path) -> None:
    """In a folder it is left out, like any other table; it must not stop the prediction of the rest."""
    twice = pa.Table.from_arrays([pa.array([b"x"]), pa.array([b"y"])], names=["image", "image"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    assert "it needs one column image" in refuse(tmp_path / "twice.parquet")
    write_table(tmp_path / "once.parquet", {"image": [b"x"]})
    assert [Path(one.path).name for one in list_inputs([str(tmp_path)], None, HIRISE)] == ["once.parquet"]


def test_a_table_that_is_damaged_inside_is_refused_when_it_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = write_table(tmp_path / "a.parquet", {"image": [rng.bytes(5000) for _ in range(20)]})
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(56)
    path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged or not a Parquet file"):
        read(shards(path))


def test_containers_that_vanish_or_shrink_are_refused_when_they_are_read(tmp_path: Path) -> None:
    table = write_table(tmp_path / "a.parquet", {"image": [encode()] * 5})
    planned = shards(table, rows=2)
    write_table(table, {"image": [encode()] * 3})
    with pytest.raises(UserError, match="has fewer rows than at the start of this prediction"):
        read(planned)
    table.unlink()
    with pytest.raises(UserError, match="is damaged or not a Parquet file"):
        read(planned)
    archive = write_zip(tmp_path / "a.zip", {"1.png": encode()})
    planned = shards(archive)
    archive.unlink()
    with pytest.raises(UserError, match="is damaged or not a zip file"):
        read(planned)


def test_a_file_that_vanishes_is_a_row_with_an_error(tmp_path: Path) -> None:
    planned = shards(fill(tmp_path, ["a.png", "b.png"]))
    (tmp_path / "a.png").unlink()
    images = read(planned)
    assert [image.error for image in images] == ["The image can't be read (No such file or directory).", None]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes there")
def test_names_that_are_not_text_and_files_that_are_none(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.png")).write_bytes(encode(1))
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nothing.png")
    (tmp_path / "link.png").symlink_to(os.fsdecode(b"a\xff.png"))
    images = read(shards(tmp_path))
    assert [image.id for image in images] == [f"{tmp_path}/a\\xff.png", f"{tmp_path}/link.png"]
    assert values(images) == [1, 1]


@pytest.mark.parametrize("inputs", [["a.png"], ["x", "y"], ["x/*"]])
def test_a_split_needs_one_data_set(inputs: list[str]) -> None:
    with pytest.raises(UserError, match=r"not one data set, which alone has splits and labels"):
        list_inputs(inputs, "test", HIRISE)


def test_a_folder_of_images_needs_a_split(small_data: Path) -> None:
    with pytest.raises(UserError, match="add --split"):
        list_inputs([str(small_data)], None, HIRISE, images="folder")


def test_a_row_group_is_not_read_as_a_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    content = [rng.bytes(2000) for _ in range(20_000)]  # pyarrow writes pages of 1024 rows
    path = write_table(tmp_path / "a.parquet", {"image": content})
    assert pq.read_metadata(path).num_row_groups == 1
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    with ShardReader() as reader:
        allocated = [pool.bytes_allocated() for shard in shards(path) for _ in reader.read(shard)]
    assert len(allocated) == 20_000
    assert max(allocated) - before < path.stat().st_size / 4
